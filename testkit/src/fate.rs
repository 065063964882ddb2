//! The fate of an event that a test has sent.

use tidings_core::TopicPartition;
use tidings_service::RecordOutcome;
use uuid::Uuid;

/// How a record was settled.
///
/// Settled means that the record needs no more work and its offset may be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// The handler completed.
    Handled,
    /// The event had been handled before.
    Duplicate,
    /// No handler takes the event.
    ///
    /// It is an unknown type, a tombstone, or a redrive for another service.
    Skipped,
    /// The record was written to the dead-letter topic.
    ///
    /// With a [`DeadLetterStore`](tidings_core::DeadLetterStore), to that.
    DeadLettered,
    /// The record was forwarded to a retry topic, where it waits until its next attempt is due.
    ///
    /// The outcome of that attempt takes the place of this one.
    Waiting,
}

impl Settled {
    /// Returns how an observed event settles its record; `None` for events on the way, such as a
    /// retry.
    pub(crate) fn of(what: RecordOutcome) -> Option<Self> {
        match what {
            RecordOutcome::Handled => Some(Self::Handled),
            RecordOutcome::Duplicate => Some(Self::Duplicate),
            RecordOutcome::Skipped => Some(Self::Skipped),
            RecordOutcome::DeadLettered => Some(Self::DeadLettered),
            RecordOutcome::Forwarded => Some(Self::Waiting),
            _ => None,
        }
    }
}

/// The fate of a record: how it was settled, after how many attempts, and the events that followed from it.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidings_macros::Event;
/// # use tidings_core::{BoxError, reject};
/// # use tidings_service::{Router, Service};
/// # use tidings_testkit::{Harness, Settled};
/// #[derive(Serialize, Deserialize, Event)]
/// #[event(crate = "tidings_core", topic = "orders", type = "order.placed", key = "id")]
/// struct Placed { id: String, cents: u64 }
///
/// async fn bill(order: Placed) -> Result<(), BoxError> {
///     if order.cents == 0 { Err(reject("nothing to bill").into()) } else { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let test = Harness::start(Service::new("billing", Router::new().on(bill))).await?;
/// let fate = test.send(&Placed { id: "o1".into(), cents: 0 }).await;
/// assert_eq!(fate.settled, Settled::DeadLettered);
/// assert_eq!(fate.attempts(), 1); // a rejection is not retried
/// assert!(fate.errors[0].contains("nothing to bill"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fate {
    /// The event's type; empty if the record has none.
    pub event_type: String,
    /// The event's id.
    pub event_id: Uuid,
    /// The record's topic and partition.
    pub origin: TopicPartition,
    /// The record's offset.
    pub offset: u64,
    /// How the record was settled.
    pub settled: Settled,
    /// The errors of its failed attempts, in order.
    pub errors: Vec<String>,
    /// The reason, for every outcome but handled.
    pub reason: Option<String>,
    /// The fates of the events that its handler published to topics of this service, in order.
    pub following: Vec<Fate>,
    pub(crate) attempts: u32,
}

impl Fate {
    /// Returns whether its handler completed.
    pub fn is_handled(&self) -> bool {
        self.settled == Settled::Handled
    }

    /// Returns whether it was recognised as handled before.
    pub fn is_duplicate(&self) -> bool {
        self.settled == Settled::Duplicate
    }

    /// Returns whether no handler takes it: an unknown type, a tombstone, or a redrive for another service.
    pub fn is_skipped(&self) -> bool {
        self.settled == Settled::Skipped
    }

    /// Returns whether it was dead-lettered.
    pub fn is_dead_lettered(&self) -> bool {
        self.settled == Settled::DeadLettered
    }

    /// Returns whether it waits in a retry topic for its next attempt.
    pub fn is_waiting(&self) -> bool {
        self.settled == Settled::Waiting
    }

    /// Returns whether it, and all events that followed from it in this service, were handled.
    pub fn is_wholly_handled(&self) -> bool {
        self.is_handled() && self.following.iter().all(Self::is_wholly_handled)
    }

    /// Returns how often a handler was started with it, including attempts that the harness made fail.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
