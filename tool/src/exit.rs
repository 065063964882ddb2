//! How a run of the tool ended: its exit code, and the one line about a failure.

use std::fmt;
use std::process::ExitCode;

use tidings_core::{Error, ErrorKind};

/// The result of a run of the tool, by its exit code.
///
/// ```
/// use tidings_tool::Exit;
///
/// assert_eq!([Exit::Ok, Exit::Failed, Exit::Usage, Exit::Partial, Exit::CheckFailed].map(Exit::code), [0, 1, 2, 3, 4]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Code 0: the verb did what was asked.
    Ok,
    /// Code 1: the verb failed, and changed nothing.
    Failed,
    /// Code 2: the arguments, a variable or a context are wrong; no broker was called.
    Usage,
    /// Code 3: a part of the changes was applied, or it is unknown which; the output says which.
    Partial,
    /// Code 4: a check did not pass.
    CheckFailed,
    /// Code 130: the user interrupted the run.
    Interrupted,
    /// Code 1 of a check with `-o nagios`: a warning, by the rules of Nagios.
    NagiosWarning,
    /// Code 2 of a check with `-o nagios`: critical.
    NagiosCritical,
    /// Code 3 of a check with `-o nagios`: it could not be measured.
    NagiosUnknown,
}

impl Exit {
    /// Returns the exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed | Self::NagiosWarning => 1,
            Self::Usage | Self::NagiosCritical => 2,
            Self::Partial | Self::NagiosUnknown => 3,
            Self::CheckFailed => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Why a verb ended without its output: one line, which names the subject and the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// Creates a failure of the verb itself.
    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: one_line(&text.to_string()), hint: None }
    }

    /// Creates a failure of the arguments, the environment or a file that the user wrote.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(text) }
    }

    /// Creates the failure of a run that the user interrupted.
    pub(crate) fn interrupted() -> Self {
        Self { exit: Exit::Interrupted, ..Self::failed("interrupted: nothing further was done") }
    }

    /// Creates the end of a run whose reader has left: no failure, and nothing is printed.
    pub(crate) fn reader_left() -> Self {
        Self { exit: Exit::Ok, ..Self::failed("the reader has left") }
    }

    /// Sets the next step.
    pub(crate) fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(one_line(&hint.to_string()));
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::failed(error.report());
        match hint(error.kind()) {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

/// Returns the next step after an error of this kind.
pub(crate) fn hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Unavailable => Some("check the address (--url, TIDINGS_URL or --context) and that the broker is up"),
        ErrorKind::Denied => Some("check the user, its password or token, and what it is allowed to do"),
        ErrorKind::Unsupported => Some("this target cannot do it"),
        ErrorKind::Indeterminate => Some("look at the present state before you repeat it"),
        _ => None,
    }
}

/// Joins the lines of a text.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_the_next_step() {
        let refused = Error::caused_by(ErrorKind::Unavailable, "connect to a:1", std::io::Error::other("re\nfused"));
        let failure = Failure::from(refused);
        assert_eq!(failure.exit(), Exit::Failed);
        assert!(failure.to_string().starts_with("connect to a:1: re fused; check the address"), "{failure}");
    }
}
