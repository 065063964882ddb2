//! Values of `error.type`, the same for spans and metrics.

use std::error::Error as StdError;

use tidings_core::{Error, Failure, find_error};

/// Returns the type of a handler's error: never its text, which may repeat a payload and has no bound.
pub(crate) fn error_type(error: &(dyn StdError + 'static)) -> &'static str {
    match (find_error(error).map(Error::kind), Failure::of(error)) {
        (Some(kind), _) => kind.as_str(),
        (None, Failure::Reject) => "rejected",
        (None, Failure::Unavailable) => "unavailable",
        (None, _) => "failed",
    }
}

/// Returns the type of the error of an operation that is dropped before it has ended, or that panics.
pub(crate) fn unfinished() -> &'static str {
    if std::thread::panicking() { "panicked" } else { "cancelled" }
}
