//! The target of a run: a URL with its secrets, from arguments, variables or a context.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tidings_core::Secret;
use tidings_core::settings::ConnectionUrl;

use crate::arguments::Globals;
use crate::contexts::{Contexts, NamedContext, has_password};
use crate::exit::Failure;
use crate::secret_command::{Limit, secret};

/// The longest file of a secret that is read.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// The variables of the environment that a run may read; `Debug` hides their values.
#[derive(Clone, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    pub(crate) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns where the contexts are: `TIDINGS_CONTEXTS`, or `tidings/contexts.toml` in the user's configuration.
    pub(crate) fn contexts_file(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = self.get("TIDINGS_CONTEXTS") {
            return Ok(path.into());
        }
        let home = || self.get("HOME").or_else(|| self.get("USERPROFILE")).map(|home| Path::new(home).join(".config"));
        let base = self.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        base.map(|base| base.join("tidings").join("contexts.toml")).ok_or_else(|| {
            Failure::usage("no place for contexts: neither HOME nor XDG_CONFIG_HOME is set")
                .with_hint("set TIDINGS_CONTEXTS")
        })
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// The address of a target, and its credentials.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    url: Secret,
    name: String,
    token: Option<Secret>,
    store: Option<Secret>,
    letters: Option<Secret>,
    audit: Option<Secret>,
}

impl Target {
    /// Reads the target of a run: `--url`, `--context`, `TIDINGS_URL`, `TIDINGS_CONTEXT`, or the current context.
    pub(crate) fn of(globals: &Globals, variables: &Variables, limit: &Limit) -> Result<Self, Failure> {
        Self::of_context(chosen(globals, variables)?, globals, variables, limit)
    }

    /// Reads the target of a run as [`of`](Self::of) does, unless a secret comes from a command.
    pub(crate) fn without_programs(globals: &Globals, variables: &Variables) -> Option<Self> {
        let context = chosen(globals, variables).ok().filter(|context| !context.has_command())?;
        Self::of_context(context, globals, variables, &Limit::new(Duration::ZERO)).ok()
    }

    /// Returns whether a target is given at all.
    pub(crate) fn is_given(globals: &Globals, variables: &Variables) -> Result<bool, Failure> {
        let named = ["TIDINGS_URL", "TIDINGS_CONTEXT"].iter().any(|name| variables.get(name).is_some());
        if named || globals.url.is_some() || globals.context.is_some() {
            return Ok(true);
        }
        match variables.contexts_file() {
            Ok(path) => Ok(Contexts::read(&path)?.current.is_some()),
            // Without a file of contexts there is no current one.
            Err(_) => Ok(false),
        }
    }

    /// Reads the target of a context, whatever the arguments say.
    pub(crate) fn of_context(
        context: NamedContext,
        globals: &Globals,
        variables: &Variables,
        limit: &Limit,
    ) -> Result<Self, Failure> {
        let password = match &context.password_command {
            Some(command) => Some(secret("password_command", command, limit)?),
            None => named_secret(variables, &context.password_file, &context.password_env, "TIDINGS_PASSWORD")?,
        };
        let token = match &context.token_command {
            Some(command) => Some(secret("token_command", command, limit)?),
            None => named_secret(variables, &context.token_file, &context.token_env, "TIDINGS_TOKEN")?,
        };
        let username = context.username.as_deref().or_else(|| variables.get("TIDINGS_USERNAME"));
        let optional = |given: &Option<String>, named: Option<String>, variable: &str| {
            given.clone().or(named).or_else(|| variables.get(variable).map(str::to_owned)).map(Secret::from)
        };
        Ok(Self {
            name: shown(&context.url)?,
            url: with_user(&context.url, username, password.as_ref(), token.as_ref())?,
            token,
            store: optional(&globals.store, context.store, "TIDINGS_STORE"),
            letters: optional(&globals.letters, context.letters, "TIDINGS_LETTERS"),
            audit: optional(&globals.audit, context.audit, "TIDINGS_AUDIT"),
        })
    }

    /// Returns the URL with user and password.
    pub(crate) fn url(&self) -> &Secret {
        &self.url
    }

    /// Returns the scheme and the hosts, without secrets: it identifies the target in plans and messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the token of an ops endpoint.
    pub(crate) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Returns the URL of the idempotency store.
    pub(crate) fn store(&self) -> Option<&Secret> {
        self.store.as_ref()
    }

    /// Returns where changes are recorded.
    pub(crate) fn audit(&self) -> Option<&Secret> {
        self.audit.as_ref()
    }

    /// Returns where the dead letters are.
    pub(crate) fn letters(&self) -> Option<&Secret> {
        self.letters.as_ref()
    }
}

/// A function that reads a target.
pub(crate) trait ReadTarget:
    FnOnce(&Globals, &Variables, &Limit) -> Result<Target, Failure> + Send + 'static
{
}

impl<R: FnOnce(&Globals, &Variables, &Limit) -> Result<Target, Failure> + Send + 'static> ReadTarget for R {}

/// Reads a target on a thread of its own, as the commands of its secrets may take long. If the future is dropped, they
/// are killed.
pub(crate) async fn read(
    globals: Globals,
    variables: Variables,
    left: Duration,
    read: impl ReadTarget,
) -> Result<Target, Failure> {
    // They end before the run does, so that the failure names them.
    let limit = Limit::new(left - left / 10);
    let _end = limit.end_on_drop();
    let reading = tokio::task::spawn_blocking(move || read(&globals, &variables, &limit));
    reading.await.map_err(|error| Failure::failed(format!("read the target: {error}")))?
}

/// Returns the context of a run.
fn chosen(globals: &Globals, variables: &Variables) -> Result<NamedContext, Failure> {
    refuse_password("--url", globals.url.as_deref())?;
    refuse_password("--store", globals.store.as_deref())?;
    refuse_password("--letters", globals.letters.as_deref())?;
    refuse_password("--audit", globals.audit.as_deref())?;
    let named = globals.context.as_deref();
    match (&globals.url, named, variables.get("TIDINGS_URL"), variables.get("TIDINGS_CONTEXT")) {
        (Some(url), ..) => Ok(of_url(url)),
        (None, Some(name), ..) => contexts(variables)?.named(name).cloned(),
        (None, None, Some(url), _) => Ok(of_url(url)),
        (None, None, None, Some(name)) => contexts(variables)?.named(name).cloned(),
        (None, None, None, None) => current(&contexts(variables)?),
    }
}

fn of_url(url: &str) -> NamedContext {
    NamedContext { url: url.to_owned(), ..NamedContext::default() }
}

pub(crate) fn contexts(variables: &Variables) -> Result<Contexts, Failure> {
    Contexts::read(&variables.contexts_file()?)
}

fn current(contexts: &Contexts) -> Result<NamedContext, Failure> {
    match &contexts.current {
        Some(name) => contexts.named(name).cloned(),
        None => Err(Failure::usage("no target is given")
            .with_hint("use --url, TIDINGS_URL, --context, or add a context by `tidings context add`")),
    }
}

/// Other users of the machine see a process's arguments, and the shell keeps them.
pub(crate) fn refuse_password(option: &str, url: Option<&str>) -> Result<(), Failure> {
    if !url.is_some_and(has_password) {
        return Ok(());
    }
    Err(Failure::usage(format!("{option}: an argument must not contain a user or password, as others can see it"))
        .with_hint("use TIDINGS_USERNAME and TIDINGS_PASSWORD or TIDINGS_PASSWORD_FILE, or a context"))
}

/// Returns scheme, hosts and path of a URL.
fn shown(url: &str) -> Result<String, Failure> {
    let parts = ConnectionUrl::parse(url).map_err(|e| Failure::usage(format!("the target's URL: {}", e.report())))?;
    let hosts: Vec<String> = parts.hosts().iter().map(ToString::to_string).collect();
    let path = parts.path().trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    Ok(format!("{}://{}{slash}{path}", parts.scheme(), hosts.join(",")))
}

/// Inserts the user into a URL that has none. A token alone, for Kafka, is a user without a password; that of an ops
/// endpoint is no part of its URL.
fn with_user(
    url: &str,
    user: Option<&str>,
    password: Option<&Secret>,
    token: Option<&Secret>,
) -> Result<Secret, Failure> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    let user = match (user, password, token) {
        _ if is_http || has_password(url) => return Ok(Secret::new(url)),
        (Some(user), Some(password), _) => format!("{}:{}", encode(user), encode(password.expose())),
        (None, None, Some(token)) => encode(token.expose()),
        (Some(user), None, _) => {
            let text = format!("the user {user:?} has no password");
            return Err(Failure::usage(text)
                .with_hint("set TIDINGS_PASSWORD, TIDINGS_PASSWORD_FILE, or the context's password_file"));
        }
        (None, Some(_), _) => {
            let text = "a password is given without its user";
            return Err(Failure::usage(text).with_hint("set TIDINGS_USERNAME, or the context's username"));
        }
        (None, None, None) => return Ok(Secret::new(url)),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    Ok(Secret::new(format!("{scheme}://{user}@{rest}")))
}

/// Reads a secret from a context's file or variable, or else from the variables that apply to every target.
fn named_secret(
    variables: &Variables,
    file: &Option<PathBuf>,
    named: &Option<String>,
    variable: &str,
) -> Result<Option<Secret>, Failure> {
    match (file, named) {
        (Some(file), _) => read_secret(file).map(Some),
        (None, Some(named)) => match variables.get(named) {
            Some(value) => Ok(Some(Secret::new(value))),
            None => Err(Failure::usage(format!("the context's secret is in the variable {named}, which is not set"))),
        },
        (None, None) => match variables.get(&format!("{variable}_FILE")) {
            Some(file) => read_secret(Path::new(file)).map(Some),
            None => Ok(variables.get(variable).map(Secret::new)),
        },
    }
}

/// Reads a file with a secret; a line feed at its end is not a part of it.
fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let fail = |why: String| Failure::usage(format!("read the secret in {}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > MAX_SECRET_BYTES {
        return Err(fail("larger than 64 KiB".into()));
    }
    // The error of a file that is no text does not repeat it.
    let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() { Err(fail("the file is empty".into())) } else { Ok(Secret::new(text)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    fn target(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Target, String> {
        let arguments = ["tidings"].iter().chain(arguments).chain(&["version"]);
        let arguments = Arguments::try_parse_from(arguments).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Target::of(&arguments.globals, &Variables::new(variables), &Limit::new(Duration::ZERO)).map_err(|failure| {
            assert!(!failure.to_string().contains("s3cr3t"), "{failure}");
            failure.to_string()
        })
    }

    #[test]
    fn an_argument_comes_before_a_variable() {
        let given = target(&["--url", "kafka://a:1"], &[("TIDINGS_URL", "kafka://b:1")]).unwrap();
        assert_eq!(given.name(), "kafka://a:1");
        assert_eq!(target(&[], &[("TIDINGS_URL", "kafka://b:1")]).unwrap().name(), "kafka://b:1");
    }

    #[test]
    fn a_password_comes_from_variables_only() {
        let refused = target(&["--url", "kafka://u:s3cr3t@a"], &[]).unwrap_err();
        assert!(refused.contains("--url") && refused.contains("TIDINGS_PASSWORD"), "{refused}");
        for store in ["postgres://u:s3cr3t@a", "postgres://a/shop?password=s3cr3t"] {
            assert!(target(&["--store", store], &[("TIDINGS_URL", "kafka://a")]).is_err(), "{store}");
        }
        let variables = [("TIDINGS_USERNAME", "u"), ("TIDINGS_PASSWORD", "s3cr3t:/@")];
        let target = target(&["--url", "kafkas://a:9093?sasl=plain"], &variables).unwrap();
        assert_eq!(target.url().expose(), "kafkas://u:s3cr3t%3A%2F%40@a:9093?sasl=plain");
        assert_eq!(target.name(), "kafkas://a:9093");
        assert!(!format!("{target:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_half_given_user_is_an_error_that_names_the_other_half() {
        let url = ("TIDINGS_URL", "kafka://a");
        assert!(target(&[], &[url, ("TIDINGS_USERNAME", "u")]).unwrap_err().contains("TIDINGS_PASSWORD"));
        assert!(target(&[], &[url, ("TIDINGS_PASSWORD", "s3cr3t")]).unwrap_err().contains("TIDINGS_USERNAME"));
        assert!(target(&[], &[url, ("TIDINGS_PASSWORD_FILE", "/nowhere")]).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn without_a_target_the_ways_to_give_one_are_named() {
        let error = target(&[], &[("TIDINGS_CONTEXTS", "/nowhere/contexts.toml")]).unwrap_err();
        assert!(error.contains("--url") && error.contains("context add"), "{error}");
    }
}
