//! Records that are published later: when they are due, and the id by which they are cancelled.

use std::time::Duration;

use uuid::Uuid;

use crate::{Error, ErrorKind, Record, Timestamp};

/// The time at which a delayed event is due. It is not published before.
///
/// The clock of the store or broker that holds the event back decides, so a delay does not depend on the clocks of
/// hosts.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::{Due, Timestamp};
///
/// assert_eq!(Due::from(Duration::from_secs(3_600)), Due::After(Duration::from_secs(3_600)));
/// assert_eq!(Due::from(Timestamp::from_millis(5)), Due::At(Timestamp::from_millis(5)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Due {
    /// Once this time has passed since the event was accepted.
    After(Duration),
    /// At this time; immediately if it has passed.
    At(Timestamp),
}

impl From<Duration> for Due {
    fn from(delay: Duration) -> Self {
        Self::After(delay)
    }
}

impl From<Timestamp> for Due {
    fn from(time: Timestamp) -> Self {
        Self::At(time)
    }
}

/// A record that a [`Publisher`](crate::Publisher) holds back until it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelayedRecord {
    /// The id by which the record is cancelled: that of its event.
    pub id: Uuid,
    /// The record.
    pub record: Record,
    /// The time at which it is due.
    pub due: Due,
}

impl DelayedRecord {
    /// Creates a delayed record.
    pub fn new(id: Uuid, record: Record, due: impl Into<Due>) -> Self {
        Self { id, record, due: due.into() }
    }
}

/// Returns the error of a publisher that cannot hold records back.
pub(crate) fn not_delayed() -> Error {
    let what = "publish a delayed event: this transport does not hold events back, and nothing is published; write the \
                event to a Postgres outbox instead (`Outbox::publish_after`)";
    Error::new(ErrorKind::Unsupported, what)
}

/// Returns the error of such a publisher for a cancellation.
pub(crate) fn not_cancelled() -> Error {
    let what = "cancel a delayed event: this transport does not hold events back, and nothing is cancelled; \
                `Outbox::cancel` cancels events of a Postgres outbox";
    Error::new(ErrorKind::Unsupported, what)
}
