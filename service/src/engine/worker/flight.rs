//! The futures a worker waits for: handlers, and calls to stores, sinks and publishers.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tidings_core::{BoxError, ErrorKind, Failure, Outcome, Position, ReleasedClaim, Result, find_error, report};
use tokio::time::Instant;
use tracing::Span;

use super::{Burying, Publishing};
use crate::engine::claims::{Answered, Hold};
use crate::engine::record::PendingRecord;
use crate::route::BoxFuture;

/// The items of one delivery. Usually one, which needs no list.
#[derive(Debug)]
pub(super) enum Items {
    One(PendingRecord),
    Many(Vec<PendingRecord>),
}

impl Items {
    pub(super) fn as_slice(&self) -> &[PendingRecord] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [PendingRecord] {
        match self {
            Self::One(item) => std::slice::from_mut(item),
            Self::Many(items) => items,
        }
    }

    pub(super) fn into_vec(self) -> Vec<PendingRecord> {
        match self {
            Self::One(item) => vec![item],
            Self::Many(items) => items,
        }
    }
}

/// A delivery that was started.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) items: Items,
    /// The delivery is a probe of the circuit breaker: its result decides whether the gate opens.
    pub(super) probe: bool,
}

/// A delivery whose handler is pending.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) work: Work,
    pub(super) serial: u64,
}

/// The deadline of a handler. All handlers have the same timeout, so deadlines are in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) ticket: usize,
    pub(super) serial: u64,
}

pub(super) type Call = Pin<Box<dyn Future<Output = Landed> + Send>>;

pub(super) enum Flight {
    Handler { ticket: usize, serial: u64, future: BoxFuture, span: Span },
    Call(Call),
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler { ticket, .. } => write!(f, "Handler({ticket})"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// The origin of a claim call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All records of a chunk.
    Chunk,
    /// Items at the heads of their lanes.
    Heads,
    /// The one item that runs alone.
    Alone,
}

/// The result of a flight.
pub(super) enum Landed {
    Handler { ticket: usize, serial: u64, result: std::result::Result<Outcome, BoxError> },
    Published { work: Vec<Publishing>, answers: Vec<Result<Position>> },
    Completed { items: Vec<PendingRecord>, answer: Result<Vec<Result<()>>> },
    Buried { letters: Vec<Burying>, answers: Vec<Result<()>> },
    Claimed { items: Vec<PendingRecord>, answered: Answered, asked: Asked },
    Released { releases: Vec<(Hold, ReleasedClaim)>, answer: Result<()> },
}

impl Future for Flight {
    type Output = Landed;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landed> {
        match self.get_mut() {
            Self::Handler { ticket, serial, future, span } => {
                let polled = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))));
                let result = match polled {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(result)) => result,
                    Err(panic) => Err(panicked(panic)),
                };
                Poll::Ready(Landed::Handler { ticket: *ticket, serial: *serial, result })
            }
            Self::Call(call) => call.as_mut().poll(cx),
        }
    }
}

/// Converts a handler's panic to an error.
#[derive(Debug)]
pub(super) struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler panicked: {}", self.0)
    }
}

impl StdError for Panicked {}

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

/// Reads a handler's error: its kind, its handling, and its text. This runs the error's own code, whose panic must not
/// end the worker: the error is then replaced by one without text.
pub(super) fn read_error(error: &(dyn StdError + 'static)) -> (ErrorKind, Failure, String) {
    let read = || {
        let kind = find_error(error).map_or(ErrorKind::Failed, tidings_core::Error::kind);
        (kind, Failure::of(error), report(error))
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = format!("the handler's error can't be shown: its Display panicked: {}", text_of(panic));
        (ErrorKind::Failed, Failure::Retry, text)
    })
}

/// Returns the error of a handler that timed out.
#[derive(Debug)]
pub(super) struct TimedOut(pub(super) std::time::Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the handler was not done after {:?}", self.0)
    }
}

impl StdError for TimedOut {}
