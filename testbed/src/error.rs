//! Errors of servers, and whether each is a failure or an absence.

use std::{error, fmt, io, path::Path};

/// Result of an operation on a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A server that is not available, or an operation on it that failed.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Forbidden,
    Failed,
}

impl Error {
    /// Creates an error for a server that this machine cannot run at all (no Java, no Postgres): tests report
    /// `ignored`.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self { kind: Kind::Unavailable, what: why.into(), source: None }
    }

    /// Creates an error for an operation that this machine forbids, although it has the server: tests report
    /// `ignored`, even where servers are required.
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self { kind: Kind::Forbidden, what: why.into(), source: None }
    }

    /// Creates an error for a server that is available but failed: tests fail.
    pub fn failed(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), source: None }
    }

    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self { kind: Kind::Failed, what: what.into(), source: Some(source) }
    }

    /// Returns whether the server is absent from this machine, as opposed to broken.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// Returns whether the machine forbids the operation.
    pub fn is_forbidden(&self) -> bool {
        self.kind == Kind::Forbidden
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unavailable => write!(f, "unavailable: {}", self.what),
            Kind::Forbidden | Kind::Failed => f.write_str(&self.what),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Adds the attempted operation to an I/O error.
pub(crate) trait Context<T> {
    fn context(self, what: impl Into<String>) -> Result<T>;
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::io(what, source))
    }

    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::io(format!("use {}", path.display()), source))
    }
}
