//! The file of contexts: named targets, so that `--context prod` stands for a URL, a user and the files of its secrets.
//!
//! It holds no secret, only the names of files and variables that do. It is written with mode 0600 all the same, as it
//! tells where the secrets are.

mod file;

pub(crate) use self::file::parse;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidings_core::settings::ConnectionUrl;

use crate::exit::Failure;

/// All contexts of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The context that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) contexts: BTreeMap<String, NamedContext>,
}

/// A context: a target, and where its secrets are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedContext {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_env: Option<String>,
    /// Command for the shell; the first line of its output is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_env: Option<String>,
    /// Command for the shell; the first line of its output is the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) letters: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<String>,
}

impl NamedContext {
    /// Checks that the context holds no secret. `at` names its place for the error.
    fn check(&self, at: &str) -> Result<(), Failure> {
        let urls = [
            ("url", Some(&self.url)),
            ("store", self.store.as_ref()),
            ("letters", self.letters.as_ref()),
            ("audit", self.audit.as_ref()),
        ];
        for (key, url) in urls {
            if url.is_some_and(|url| has_password(url)) {
                let text = format!("{at}: {key}: a password does not belong into this file");
                return Err(
                    Failure::usage(text).with_hint("name its place by password_file, password_env or password_command")
                );
            }
        }
        let password = [
            ("password_file", self.password_file.is_some()),
            ("password_env", self.password_env.is_some()),
            ("password_command", self.password_command.is_some()),
        ];
        let token = [
            ("token_file", self.token_file.is_some()),
            ("token_env", self.token_env.is_some()),
            ("token_command", self.token_command.is_some()),
        ];
        for keys in [password, token] {
            let given: Vec<&str> = keys.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key).collect();
            if let [first, second, ..] = given[..] {
                return Err(Failure::usage(format!("{at}: {first} and {second}: only one of them")));
            }
        }
        Ok(())
    }

    /// Returns whether a secret comes from a command, which may prompt the user.
    pub(crate) fn has_command(&self) -> bool {
        self.password_command.is_some() || self.token_command.is_some()
    }
}

/// Returns whether a URL contains a password, or may: an unreadable one with an `@` counts.
pub(crate) fn has_password(url: &str) -> bool {
    match ConnectionUrl::parse(url) {
        // A user without a password may be a token. Postgres takes both as parameters, too.
        Ok(parts) => {
            let given = ["user", "password"].into_iter().any(|name| parts.has_parameter(name));
            parts.password().is_some() || parts.username().is_some() || given
        }
        Err(_) => url.contains('@'),
    }
}

impl Contexts {
    /// Reads the file; a missing one is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let contexts: Self = file::read(path)?;
        for (name, context) in &contexts.contexts {
            context.check(&format!("contexts file {}: context {name}", path.display()))?;
        }
        match &contexts.current {
            Some(current) if !contexts.contexts.contains_key(current) => {
                let text = format!("contexts file {}: current: there is no context {current:?}", path.display());
                Err(Failure::usage(text).with_hint("choose another by `tidings context use`"))
            }
            _ => Ok(contexts),
        }
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        for (name, context) in &self.contexts {
            context.check(&format!("context {name}"))?;
        }
        file::write(path, self)
    }

    /// Returns the context of a name.
    pub(crate) fn named(&self, name: &str) -> Result<&NamedContext, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match closest(name, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None if known.is_empty() => "there are none: add one by `tidings context add`".to_owned(),
                None => format!("there are {}", known.join(", ")),
            };
            Failure::usage(format!("context {name:?} is not known")).with_hint(hint)
        })
    }
}

/// Returns the known name that is most similar to `name`, if any is.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|other| (strsim::jaro_winkler(name, other), other)).filter(|(score, _)| *score > 0.8);
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Contexts, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contexts.toml");
        std::fs::write(&path, text).unwrap();
        let read = Contexts::read(&path).map_err(|failure| {
            assert_eq!(failure.exit(), crate::Exit::Usage);
            failure.to_string().replace(&path.display().to_string(), "FILE")
        });
        if let Err(text) = &read {
            assert!(text.lines().count() == 1 && !text.contains("s3cr3t"), "{text}");
        }
        read
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("contexts.toml");
        assert_eq!(Contexts::read(&path), Ok(Contexts::default()), "a missing file is empty");
        let prod =
            NamedContext { url: "kafka://a:9092".into(), username: Some("ops".into()), ..NamedContext::default() };
        let all = Contexts { current: Some("prod".into()), contexts: [("prod".to_owned(), prod)].into() };
        all.write(&path).unwrap();
        assert_eq!(Contexts::read(&path), Ok(all));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_typo_is_a_line_that_names_the_key() {
        for (text, expected) in [
            ("[contexts.a]\nulr = \"kafka://a\"\n", "line 2: unknown field `ulr`"),
            ("[contexts.a]\nurl = 5\n", "line 2: url: expected a string"),
            ("[contexts.a]\nusername = \"u\"\n", "missing field `url`"),
            ("current = \"b\"\n[contexts.a]\nurl = \"kafka://a\"\n", "current: there is no context \"b\""),
            ("[contexts.a]\nurl = \"kafka://a\n", "line 2"),
            ("[context.a]\nurl = \"kafka://a\"\n", "unknown field `context`"),
            ("[contexts.a]\nurl = \"kafka://u:s3cr3t@a\"\n", "context a: url: a password does not belong"),
            ("[contexts.a]\nurl = \"kafka://a\"\npassword = \"s3cr3t\"\n", "line 3: unknown field `password`"),
            ("[contexts.a]\nurl = \"kafka://a\"\nusername = [\"s3cr3t\"]\n", "line 3: username: expected"),
            ("[contexts.a]\nurl = \"kafka://a\"\ntoken_file = \"f\"\ntoken_env = \"T\"\n", "token_file and token_env"),
            (
                "[contexts.a]\nurl = \"kafka://a\"\npassword_env = \"P\"\npassword_command = \"x\"\n",
                "password_env and password_command",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && error.contains("FILE"), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_by_the_closest() {
        let all = read("[contexts.prod]\nurl = \"kafka://a\"\n").unwrap();
        assert!(all.named("prdo").unwrap_err().to_string().contains("did you mean \"prod\"?"));
        assert!(all.named("x").unwrap_err().to_string().contains("there are prod"));
    }
}
