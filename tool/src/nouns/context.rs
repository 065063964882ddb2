//! `context`: named targets in a file of the user's. The verbs change that file at once; no broker is changed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::{Context, Query};
use crate::contexts::NamedContext;
use crate::exit::{Exit, Failure};
use crate::output::{Table, View, or_dash};
use crate::target::{Target, contexts, refuse_password};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Add a context, or replace one
    Add(Box<Add>),
    /// List the contexts
    List(List),
    /// Choose the context that is used where none is named
    Use(Use),
    /// Show a context; without a name the current one
    Show(Show),
    /// Connect to the target of a context
    Test(Test),
    /// Remove a context
    Remove(Remove),
}

impl Verb {
    pub(crate) async fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Add(verb) => verb.run(cx),
            Self::List(verb) => cx.show(verb).await,
            Self::Use(verb) => verb.run(cx),
            Self::Show(verb) => cx.show(verb).await,
            Self::Test(verb) => cx.show(verb).await,
            Self::Remove(verb) => verb.run(cx),
        }
    }
}

/// The URL is that of --url; secrets stay in files, variables or a keyring.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name of the context
    new_name: String,
    /// User
    #[arg(long)]
    username: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_env", "password_command"])]
    password_file: Option<PathBuf>,
    /// Variable with the password
    #[arg(long, value_name = "VARIABLE", conflicts_with = "password_command")]
    password_env: Option<String>,
    /// Command that prints the password in its first line, such as: secret-tool lookup service tidings
    #[arg(long, value_name = "COMMAND")]
    password_command: Option<String>,
    /// File with the token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_env", "token_command"])]
    token_file: Option<PathBuf>,
    /// Variable with the token
    #[arg(long, value_name = "VARIABLE", conflicts_with = "token_command")]
    token_env: Option<String>,
    /// Command that prints the token in its first line, such as: pass show tidings/token
    #[arg(long, value_name = "COMMAND")]
    token_command: Option<String>,
}

impl Add {
    fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        refuse_password("--url", cx.globals.url.as_deref())?;
        let url = cx.globals.url.clone().ok_or_else(|| Failure::usage("context add: --url is missing"))?;
        let context = NamedContext {
            url,
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            password_env: self.password_env.clone(),
            password_command: self.password_command.clone(),
            token_file: self.token_file.clone(),
            token_env: self.token_env.clone(),
            token_command: self.token_command.clone(),
            store: cx.globals.store.clone(),
            letters: cx.globals.letters.clone(),
            audit: cx.globals.audit.clone(),
        };
        let mut all = contexts(&cx.variables)?;
        let is_current = all.current.get_or_insert_with(|| self.new_name.clone()) == &self.new_name;
        all.contexts.insert(self.new_name.clone(), context);
        let path = cx.variables.contexts_file()?;
        all.write(&path)?;
        let current = if is_current { " It is the current context." } else { "" };
        cx.console.note(&format!("Saved the context {} in {}.{current}", self.new_name, path.display()));
        Ok(Exit::Ok)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Use {
    /// Name of the context
    name: String,
}

impl Use {
    fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        let mut all = contexts(&cx.variables)?;
        all.named(&self.name)?;
        all.current = Some(self.name.clone());
        all.write(&cx.variables.contexts_file()?)?;
        cx.console.note(&format!("The current context is {}.", self.name));
        Ok(Exit::Ok)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name of the context
    name: String,
}

impl Remove {
    fn run(&self, cx: &Context) -> Result<Exit, Failure> {
        let mut all = contexts(&cx.variables)?;
        all.named(&self.name)?;
        all.contexts.remove(&self.name);
        all.current = all.current.filter(|current| *current != self.name);
        all.write(&cx.variables.contexts_file()?)?;
        cx.console.note(&format!("Removed the context {}.", self.name));
        Ok(Exit::Ok)
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {}

/// All contexts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ContextsView {
    /// The contexts, by name.
    contexts: Vec<ContextView>,
}

/// A context. It contains no secret, only where its secrets are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ContextView {
    /// The name.
    name: String,
    /// Whether it is used where none is named.
    current: bool,
    /// The target.
    url: String,
    /// The user.
    username: Option<String>,
    /// The file, variable or command of the password; of a command only its program.
    password_in: Option<String>,
    /// The file, variable or command of the token.
    token_in: Option<String>,
    /// The idempotency store.
    store: Option<String>,
    /// Where the dead letters are.
    letters: Option<String>,
    /// Where changes are recorded.
    audit: Option<String>,
}

impl ContextView {
    fn new(name: &str, context: &NamedContext, current: Option<&str>) -> Self {
        let place = |file: &Option<PathBuf>, variable: &Option<String>, command: &Option<String>| {
            let file = file.as_ref().map(|file| format!("file {}", file.display()));
            let variable = || variable.as_ref().map(|variable| format!("variable {variable}"));
            let program = |command: &String| match program(command) {
                Some(program) => format!("command {program}"),
                None => "command".to_owned(),
            };
            file.or_else(variable).or_else(|| command.as_ref().map(program))
        };
        Self {
            name: name.to_owned(),
            current: current == Some(name),
            url: context.url.clone(),
            username: context.username.clone(),
            password_in: place(&context.password_file, &context.password_env, &context.password_command),
            token_in: place(&context.token_file, &context.token_env, &context.token_command),
            store: context.store.clone(),
            letters: context.letters.clone(),
            audit: context.audit.clone(),
        }
    }

    fn table<'a>(all: impl Iterator<Item = &'a Self>) -> Table {
        let row = |context: &Self| {
            vec![
                if context.current { "*".to_owned() } else { String::new() },
                context.name.clone(),
                context.url.clone(),
                or_dash(context.username.as_ref()),
                or_dash(context.password_in.as_ref()),
                or_dash(context.token_in.as_ref()),
                or_dash(context.store.as_ref()),
                or_dash(context.letters.as_ref()),
                or_dash(context.audit.as_ref()),
            ]
        };
        Table::new(&["", "NAME", "URL", "USER", "+PASSWORD IN", "+TOKEN IN", "+STORE", "+LETTERS", "+AUDIT"])
            .with_rows(all.map(row))
    }
}

/// Returns the program of a command, without the assignments before it and its arguments, which may be confidential;
/// `None` unless all words up to it are plain.
fn program(command: &str) -> Option<&str> {
    let is_plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "_./-=".contains(c));
    command.split_whitespace().take_while(is_plain).find(|word| !word.contains('='))
}

impl Query for List {
    type View = ContextsView;

    async fn run(&self, cx: &Context) -> Result<ContextsView, Failure> {
        let all = contexts(&cx.variables)?;
        let view = |(name, context): (&String, &NamedContext)| ContextView::new(name, context, all.current.as_deref());
        Ok(ContextsView { contexts: all.contexts.iter().map(view).collect() })
    }
}

impl View for ContextsView {
    const ITEMS: Option<&'static str> = Some("contexts");

    fn tables(&self) -> Vec<Table> {
        vec![ContextView::table(self.contexts.iter())]
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Name of the context
    name: Option<String>,
}

impl Query for Show {
    type View = ContextView;

    async fn run(&self, cx: &Context) -> Result<ContextView, Failure> {
        let all = contexts(&cx.variables)?;
        let name = named(self.name.as_deref(), all.current.as_deref())?;
        Ok(ContextView::new(name, all.named(name)?, all.current.as_deref()))
    }
}

impl View for ContextView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        vec![Self::table(std::iter::once(self))]
    }
}

/// Returns the name that is given, or the current one.
fn named<'a>(name: Option<&'a str>, current: Option<&'a str>) -> Result<&'a str, Failure> {
    name.or(current).ok_or_else(|| {
        Failure::usage("there is no current context").with_hint("name one, or choose one by `tidings context use`")
    })
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Name of the context; without it the current one
    name: Option<String>,
}

/// The answer of a target.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TestView {
    /// The name of the context.
    name: String,
    /// The target, without secrets.
    target: String,
    /// The broker's kind, such as kafka.
    system: String,
    /// The number of brokers that answer.
    brokers: usize,
}

impl Query for Test {
    type View = TestView;

    async fn run(&self, cx: &Context) -> Result<TestView, Failure> {
        let all = contexts(&cx.variables)?;
        let name = named(self.name.as_deref(), all.current.as_deref())?;
        let chosen = all.named(name)?.clone();
        let read = move |globals: &_, variables: &_, limit: &_| Target::of_context(chosen, globals, variables, limit);
        let target = cx.read_target(read).await?;
        let transport = cx.open(&target).await?;
        let health = transport.admin().await?.health().await?;
        Ok(TestView {
            name: name.to_owned(),
            target: target.name().to_owned(),
            system: transport.system().to_owned(),
            brokers: health.brokers.len(),
        })
    }
}

impl View for TestView {
    const ITEMS: Option<&'static str> = None;

    fn tables(&self) -> Vec<Table> {
        let row = vec![self.name.clone(), self.target.clone(), self.system.clone(), self.brokers.to_string()];
        vec![Table::new(&["NAME", "TARGET", "SYSTEM", ">BROKERS"]).with_rows([row])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_of_a_command_is_shown() {
        assert_eq!(program("pass show s3cr3t"), Some("pass"));
        assert_eq!(program("A=s3cr3t /usr/bin/vault read -field=p x"), Some("/usr/bin/vault"));
        let hidden =
            ["A='b s3cr3t' vault", "A=b\\ s3cr3t vault", "cat<<<s3cr3t", "$(s3cr3t x)", "A=s3cr3t", "A=$(x y) z"];
        assert!(hidden.into_iter().all(|command| program(command).is_none()));
    }
}
