//! Errors on the wire, and the status codes of their kinds.

use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind};

/// The body of an answer that is an error.
///
/// ```
/// use tidings_core::{Error, ErrorKind};
/// use tidings_ops_api::Failed;
///
/// let failed = Failed::from(&Error::new(ErrorKind::NotFound, "describe orders: no such topic"));
/// assert_eq!(Error::from(failed).kind(), ErrorKind::NotFound);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failed {
    /// The error.
    pub error: ErrorBody,
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorBody {
    /// The name of the [`ErrorKind`].
    pub kind: String,
    /// The error with its causes, in one line.
    pub message: String,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind().as_str().to_owned(), message: error.report() }
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        Self::new(ErrorKind::from_name(&body.kind), body.message)
    }
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self { error: error.into() }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error.into()
    }
}

/// Returns the status code of an error's kind.
///
/// ```
/// use tidings_core::ErrorKind;
/// use tidings_ops_api::status_of;
///
/// assert_eq!(status_of(ErrorKind::NotFound), 404);
/// ```
pub const fn status_of(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::Invalid => 400,
        ErrorKind::Denied => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::Fenced => 409,
        ErrorKind::Closed => 410,
        ErrorKind::TooLarge => 413,
        ErrorKind::Undecodable => 422,
        ErrorKind::Unsupported => 501,
        ErrorKind::Unavailable => 503,
        ErrorKind::Indeterminate => 504,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        let kinds = [
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::AlreadyExists,
            ErrorKind::Denied,
            ErrorKind::TooLarge,
            ErrorKind::Undecodable,
            ErrorKind::Unavailable,
            ErrorKind::Indeterminate,
            ErrorKind::Fenced,
            ErrorKind::Conflict,
            ErrorKind::Closed,
            ErrorKind::Corrupt,
            ErrorKind::Unsupported,
            ErrorKind::Failed,
        ];
        for kind in kinds {
            let cause = Error::new(ErrorKind::Failed, "the cause");
            let text = serde_json::to_string(&Failed::from(&Error::caused_by(kind, "do it", cause))).unwrap();
            let back = Error::from(serde_json::from_str::<Failed>(&text).unwrap());
            assert_eq!((back.kind(), back.to_string().as_str()), (kind, "do it: the cause"));
            assert!((400..600).contains(&status_of(kind)));
        }
    }
}
