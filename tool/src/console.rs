//! Standard output and standard error of a run, and what the user wants of them.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::exit::Failure;

/// The name of the command, which messages contain.
const PROGRAM: &str = "tidings";

/// The two outputs of a run. Data goes to [`print`](Self::print), everything else to [`note`](Self::note).
pub(crate) struct Console {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// Whether standard error is a terminal: progress is shown there only.
    is_terminal: bool,
    quiet: bool,
    color: bool,
    /// How the user calls the program, for hints.
    program: String,
}

impl Console {
    /// Creates the console of the process.
    pub(crate) fn of_process() -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { is_terminal, ..Self::new(Box::new(io::stdout()), Box::new(io::stderr())) }
    }

    /// Creates a console that is not a terminal.
    pub(crate) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let program = PROGRAM.to_owned();
        Self { out: Mutex::new(out), err: Mutex::new(err), is_terminal: false, quiet: false, color: false, program }
    }

    /// Sets how the user calls the program.
    pub(crate) fn name(&mut self, program: String) {
        self.program = program;
    }

    /// Returns how the user calls the program.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// Applies the user's wishes.
    pub(crate) fn configure(&mut self, quiet: bool, no_color: bool) {
        self.quiet = quiet;
        self.color = self.is_terminal && !no_color;
    }

    /// Writes data to standard output. A reader that has left, as `head` does, is an error of kind `BrokenPipe`.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        let mut out = lock(&self.out);
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Writes a line about the run to standard error, unless the run is quiet. A failure to do so is not reported: there
    /// is no place for it.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            drop(writeln!(lock(&self.err), "{}", visible(&self.named(line))));
        }
    }

    /// Writes an audit record to standard error, also if the run is quiet.
    pub(crate) fn audit(&self, record: &str) {
        drop(writeln!(lock(&self.err), "audit: {record}"));
    }

    /// Writes the line about a failure to standard error.
    pub(crate) fn fail(&self, failure: &Failure) {
        let (red, reset) = if self.color { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
        let (program, line) = (&self.program, failure.to_string());
        drop(writeln!(lock(&self.err), "{red}{program}:{reset} {}", visible(&self.named(&line))));
    }

    /// Puts the program's name into the commands of a line.
    fn named<'a>(&self, line: &'a str) -> Cow<'a, str> {
        match self.program == PROGRAM {
            true => Cow::Borrowed(line),
            false => Cow::Owned(line.replace("`tidings ", &format!("`{} ", self.program))),
        }
    }

    /// Returns whether progress should be shown.
    pub(crate) fn shows_progress(&self) -> bool {
        self.is_terminal && !self.quiet
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("quiet", &self.quiet).field("color", &self.color).finish_non_exhaustive()
    }
}

/// Returns a text without control characters other than line feeds and tabs: those of foreign data are escaped, as they
/// could command the user's terminal.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if is_hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// A writer is usable after a panic of another thread: lines are written whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a bar for `length` steps; hidden unless standard error is a terminal.
pub(crate) fn progress(console: &Console, length: u64) -> indicatif::ProgressBar {
    let target = match console.shows_progress() {
        true => indicatif::ProgressDrawTarget::stderr(),
        false => indicatif::ProgressDrawTarget::hidden(),
    };
    indicatif::ProgressBar::with_draw_target(Some(length), target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("a\u{1b}]0;x\u{7}\u{9b}\r\n\tb"), "a\\u{1b}]0;x\\u{7}\\u{9b}\\r\n\tb");
        assert!(matches!(visible("é\n"), Cow::Borrowed(_)));
    }
}
