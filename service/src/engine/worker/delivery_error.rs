//! The error of a delivery, as read from the handler's result.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tidings_core::{BoxError, Error, ErrorKind, Failure, find_error, report};

use crate::undecodable::Undecodable;

/// The error of a delivery: its kind and text, and what it says about the records.
#[derive(Debug)]
pub(super) struct DeliveryError {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
    pub(super) cause: FailureCause,
}

/// The cause of a failed delivery.
#[derive(Debug)]
pub(super) enum FailureCause {
    Handler(Failure),
    /// These records cannot be decoded, by their indexes in the delivery.
    Undecodable(Vec<(usize, String)>),
}

impl DeliveryError {
    /// Reads a handler's error. This runs the error's own code, whose panic must not end the worker: the error is then
    /// replaced by one without text.
    pub(super) fn read(error: &(dyn StdError + 'static)) -> Self {
        if let Some(errors) = Undecodable::find(error) {
            let records = errors.as_slice().iter().map(|(index, error)| (*index, error.report())).collect();
            let (kind, text) = (ErrorKind::Undecodable, String::new());
            return Self { kind, text, cause: FailureCause::Undecodable(records) };
        }
        let read = || {
            let kind = find_error(error).map_or(ErrorKind::Failed, Error::kind);
            Self { kind, text: report(error), cause: FailureCause::Handler(Failure::of(error)) }
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
            let text = format!("the handler's error can't be shown: its Display panicked: {}", text_of(panic));
            Self { kind: ErrorKind::Failed, text, cause: FailureCause::Handler(Failure::Retry) }
        })
    }

    /// Returns the error of a delivery whose events were refused for good.
    pub(super) fn refused(error: &Error) -> Self {
        let text = format!("publish what the handler returned: {}", error.report());
        // The record that caused the event is unknown here: each record of a batch is passed to the handler alone.
        Self { kind: error.kind(), text, cause: FailureCause::Handler(Failure::Retry) }
    }
}

/// The error of a handler that panicked.
#[derive(Debug)]
struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.0)
    }
}

impl StdError for Panicked {}

/// Converts a handler's panic to an error.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> BoxError {
    Box::new(Panicked(text_of(panic)))
}

fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // Dropping a value of the handler's may panic again, and so may dropping that panic's payload.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    text.unwrap_or_else(|| "with a value that is no text".to_owned())
}

/// The error of a handler that timed out.
#[derive(Debug)]
pub(super) struct TimedOut(pub(super) Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler was not done after {:?}", self.0)
    }
}

impl StdError for TimedOut {}
