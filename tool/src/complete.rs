//! Completion by the shell: words of the command line, and live names of topics, groups and contexts.
//!
//! The shell runs the program with `COMPLETE` set for each completion. An argument whose id is `topic`, `topics`,
//! `group`, `groups` or `context` is completed with live names; a broker that is away or slow yields none, in silence.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory, Parser};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use tokio::runtime::Handle;

use crate::arguments::{Arguments, Globals};
use crate::connect::Connect;
use crate::program::{Program, WORD};
use crate::target::{Target, Variables, contexts};

/// How long a completion may take: the user waits for it.
const LIMIT: Duration = Duration::from_millis(900);
/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";

/// Returns whether a shell requests completions: the variable names a known shell. Other programs may use a variable of
/// this name for their own purposes.
pub(crate) fn is_asked(variables: &Variables) -> bool {
    let shell = variables.get(VARIABLE).and_then(|shell| Path::new(shell).file_stem()?.to_str());
    shell.is_some_and(|shell| Shells::builtins().completer(shell).is_some())
}

/// Answers a shell that asks for words, and returns whether one did.
pub(crate) fn answered(connect: &Arc<dyn Connect>, variables: &Variables, runtime: &Handle, program: &Program) -> bool {
    if !is_asked(variables) {
        return false;
    }
    let words: Vec<String> = std::env::args().collect();
    let behind = is_behind_word(program.name(), &words);
    let source = Source { connect: Arc::clone(connect), variables: variables.clone(), words, runtime: runtime.clone() };
    let source = Arc::new(source);
    let command = || {
        let own = with_live_names(Arguments::command(), &source);
        match behind {
            true => Command::new("program").bin_name(program.name()).subcommand(own.name(WORD)),
            false => own,
        }
    };
    // An error has no place to go: the shell would show it in the middle of the user's line.
    let answered = clap_complete::CompleteEnv::with_factory(command).try_complete(std::env::args_os(), None);
    answered.unwrap_or(true)
}

/// Returns whether a shell's line, whose words follow `--`, calls the tool of another program by its word, or may
/// become such a call.
fn is_behind_word(program: &str, words: &[String]) -> bool {
    let mut line = words.iter().skip_while(|word| *word != "--").skip(2);
    program != "tidings" && line.next().is_none_or(|first| WORD.starts_with(first.as_str()))
}

/// Where live names come from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) variables: Variables,
    /// The command line up to the cursor, for its `--url` and `--context`.
    pub(crate) words: Vec<String>,
    pub(crate) runtime: Handle,
}

/// The kind of a live name.
#[derive(Debug, Clone, Copy)]
enum Names {
    Topics,
    Groups,
    Contexts,
}

/// Adds live names to the arguments of a command and of its subcommands.
pub(crate) fn with_live_names(command: Command, source: &Arc<Source>) -> Command {
    let completed = |argument: Arg| {
        let names = match argument.get_id().as_str() {
            "topic" | "topics" => Names::Topics,
            "group" | "groups" => Names::Groups,
            "context" | "name" => Names::Contexts,
            _ => return argument,
        };
        let source = Arc::clone(source);
        argument.add(ArgValueCompleter::new(move |current: &OsStr| source.candidates(names, current)))
    };
    command.mut_args(completed).mut_subcommands(|subcommand| with_live_names(subcommand, source))
}

impl Source {
    fn candidates(&self, names: Names, current: &OsStr) -> Vec<CompletionCandidate> {
        let found = self.names(names).unwrap_or_default();
        let current = current.to_string_lossy();
        let fitting = found.into_iter().filter(|name| name.starts_with(&*current));
        fitting.map(CompletionCandidate::new).collect()
    }

    fn names(&self, names: Names) -> Option<Vec<String>> {
        if let Names::Contexts = names {
            return Some(contexts(&self.variables).ok()?.contexts.into_keys().collect());
        }
        // A command that reads a secret may prompt, in the middle of the user's line.
        let target = Target::without_programs(&self.globals()?, &self.variables)?;
        let list = async {
            let admin = self.connect.transport(target.url().expose()).await.ok()?.admin().await.ok()?;
            let found = if let Names::Groups = names { admin.list_groups().await } else { admin.list_topics().await };
            Some(found.ok()?.iter().map(|name| name.as_str().to_owned()).collect())
        };
        // The completer is called on the main thread, outside of the runtime.
        self.runtime.block_on(async { tokio::time::timeout(LIMIT, list).await.ok()? })
    }

    /// Reads the options of the target from an unfinished command line.
    fn globals(&self) -> Option<Globals> {
        let mut arguments = vec!["tidings".to_owned()];
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            if ["--url=", "--context="].iter().any(|option| word.starts_with(option)) {
                arguments.push(word.clone());
            } else if let ("--url" | "--context", Some(value)) = (word.as_str(), words.as_slice().first()) {
                arguments.push(format!("{word}={value}"));
            }
        }
        arguments.push("version".to_owned());
        Arguments::try_parse_from(arguments).ok().map(|arguments| arguments.globals)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use tidings_core::{Result, Topic, Transport, async_trait};
    use tidings_memory::MemoryTransport;

    use super::*;

    /// A broker that answers, or one that never does.
    #[derive(Debug)]
    struct Broker(Option<Arc<MemoryTransport>>);

    #[async_trait]
    impl Connect for Broker {
        async fn transport(&self, _: &str) -> Result<Arc<dyn Transport>> {
            match &self.0 {
                Some(transport) => Ok(transport.clone()),
                None => std::future::pending().await,
            }
        }
    }

    fn complete(broker: Broker, line: &str, runtime: &tokio::runtime::Runtime) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        let connect: Arc<dyn Connect> = Arc::new(broker);
        let variables = Variables::new([("TIDINGS_CONTEXTS".to_owned(), "/nowhere".to_owned())]);
        let source = Arc::new(Source { connect, variables, words, runtime: runtime.handle().clone() });
        let mut command = with_live_names(Arguments::command(), &source);
        let last = arguments.len() - 1;
        let found = clap_complete::engine::complete(&mut command, arguments, last, None).unwrap();
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    /// A handle of a current-thread runtime would drive no timer.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn topics_are_completed_by_their_live_names() {
        let runtime = runtime();
        let transport = Arc::new(MemoryTransport::new());
        let topics = ["orders", "other", "users"].map(Topic::new);
        runtime.block_on(async { transport.admin().await.unwrap().create_topics(&topics).await.unwrap() });
        let found = complete(Broker(Some(transport)), "tidings --url kafka://a topic describe o", &runtime);
        assert_eq!(found, ["orders", "other"]);
    }

    #[test]
    fn only_the_name_of_a_shell_requests_completions() {
        let is_asked = |value: &str| is_asked(&Variables::new([(VARIABLE.to_owned(), value.to_owned())]));
        assert!(["bash", "elvish", "fish", "powershell", "zsh", "/usr/bin/zsh"].into_iter().all(is_asked));
        assert!(!["", "0", "1", "true", "orders"].into_iter().any(is_asked));
    }

    #[test]
    fn a_users_program_has_the_tool_as_a_subcommand() {
        let behind = |program: &str, line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            is_behind_word(program, &words)
        };
        assert!(
            behind("shop", "shop -- shop tool topic li") && behind("shop", "shop -- shop t") && behind("shop", "shop")
        );
        assert!(!behind("shop", "shop -- shop topic li") && !behind("tidings", "tidings -- tidings t"));
    }

    #[test]
    fn a_broker_that_does_not_answer_completes_nothing_in_time() {
        let runtime = runtime();
        assert_eq!(complete(Broker(None), "tidings --url kafka://a group lag x", &runtime), [""; 0]);
        assert!(LIMIT < Duration::from_secs(1), "the user waits");
        assert_eq!(complete(Broker(None), "tidings topic describe x", &runtime), [""; 0], "without a target");
        assert_eq!(complete(Broker(None), "tidings topic desc", &runtime), ["describe"]);
    }
}
