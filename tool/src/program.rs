//! How the process was called: as the tool itself, or as a program with the subcommand `tool`.

use std::ffi::OsString;
use std::path::Path;

/// Subcommand by which a user's program calls the tool.
pub(crate) const WORD: &str = "tool";

/// The arguments of the process.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The name of the program's file.
    name: String,
    has_word: bool,
    arguments: Vec<OsString>,
}

impl Program {
    pub(crate) fn of_process() -> Self {
        Self::new(std::env::args_os().collect())
    }

    fn new(arguments: Vec<OsString>) -> Self {
        let file = arguments.first().and_then(|path| Path::new(path).file_name());
        let name = file.map_or("tidings".to_owned(), |name| name.to_string_lossy().into_owned());
        let has_word = arguments.get(1).is_some_and(|word| word == WORD);
        Self { name, has_word, arguments }
    }

    /// Returns whether the word is the first argument.
    pub(crate) fn has_word(&self) -> bool {
        self.has_word
    }

    /// Returns the name of the program's file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how the user calls the tool: `tidings`, or `my-service tool`.
    pub(crate) fn title(&self) -> String {
        if self.has_word { format!("{} {WORD}", self.name) } else { "tidings".to_owned() }
    }

    /// Returns the tool's arguments, of which the first is its name.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        match self.has_word {
            // The parser shows the file's name of the first argument in its usage.
            true => std::iter::once(self.title().into()).chain(self.arguments.iter().skip(2).cloned()).collect(),
            false => self.arguments.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subcommand_is_not_passed_to_the_tool() {
        let program = |words: &[&str]| Program::new(words.iter().map(OsString::from).collect());
        let own = program(&["/usr/bin/my-service", "tool", "topic", "list"]);
        assert_eq!(
            (own.title(), own.arguments()),
            ("my-service tool".into(), ["my-service tool", "topic", "list"].map(OsString::from).into())
        );
        let plain = program(&["target/debug/tidings", "topic", "list"]);
        assert_eq!((plain.title().as_str(), plain.arguments().len(), plain.has_word()), ("tidings", 3, false));
        // Only the first argument counts.
        assert!(!program(&["tidings", "topic", "describe", "tool"]).has_word());
    }
}
