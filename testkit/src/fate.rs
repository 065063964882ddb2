//! What became of an event that a test has sent.

use tidings_core::TopicPartition;
use tidings_service::RecordOutcome;
use uuid::Uuid;

/// How a record was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// Its handler was done with it.
    Handled,
    /// It had been handled before.
    Duplicate,
    /// Nobody takes it.
    Skipped,
    /// It is in the dead letters.
    DeadLettered,
}

impl Settled {
    pub(crate) fn of(what: RecordOutcome) -> Option<Self> {
        match what {
            RecordOutcome::Handled => Some(Self::Handled),
            RecordOutcome::Duplicate => Some(Self::Duplicate),
            RecordOutcome::Skipped => Some(Self::Skipped),
            RecordOutcome::DeadLettered => Some(Self::DeadLettered),
            _ => None,
        }
    }
}

/// What became of a record: how it was settled, after how many attempts, and what followed from it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fate {
    /// The event's type; empty where the record tells none.
    pub event_type: String,
    /// The event's id.
    pub event_id: Uuid,
    /// The topic and partition that it lies in.
    pub origin: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// How it was settled.
    pub settled: Settled,
    /// What its failed attempts failed of, in order.
    pub errors: Vec<String>,
    /// Why it was settled so, for anything but handled.
    pub reason: Option<String>,
    /// The fates of the events that its handler published to topics of this service, in order.
    pub following: Vec<Fate>,
    pub(crate) attempts: u32,
}

impl Fate {
    /// Whether its handler was done with it.
    pub fn is_handled(&self) -> bool {
        self.settled == Settled::Handled
    }

    /// Whether it was recognised as handled before.
    pub fn is_duplicate(&self) -> bool {
        self.settled == Settled::Duplicate
    }

    /// Whether nobody takes it: an unknown type, a tombstone, a redrive for another service.
    pub fn is_skipped(&self) -> bool {
        self.settled == Settled::Skipped
    }

    /// Whether it is in the dead letters.
    pub fn is_dead_lettered(&self) -> bool {
        self.settled == Settled::DeadLettered
    }

    /// Whether it and all that followed from it, in this service, were handled.
    pub fn is_wholly_handled(&self) -> bool {
        self.is_handled() && self.following.iter().all(Self::is_wholly_handled)
    }

    /// How often a handler was begun with it, attempts that the harness made fail included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}
