//! Leases of letters: one redrive at a time publishes a letter.

use std::time::Duration;

use uuid::Uuid;

/// How long [`redrive`](super::redrive) leases letters: longer than a publisher takes to answer. A redrive that crashed
/// keeps its letters from others for this time at most.
pub const REDRIVE_LEASE: Duration = Duration::from_secs(300);

/// A redrive's lease of letters: taken before they are published, so that no other redrive publishes them meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterLease {
    /// Unique among all leases.
    pub id: Uuid,
    /// A letter's lease ends by itself after this time, on the store's clock.
    pub ttl: Duration,
}

impl LetterLease {
    /// A new lease, whose letters are free again after `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { id: Uuid::now_v7(), ttl }
    }
}

/// A store's answer to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leased {
    /// The letter is open, and the lease's to publish.
    Granted,
    /// Another lease has it.
    Held {
        /// How long to wait at most before asking again.
        at_most: Duration,
    },
    /// It is redriven or discarded already, or was never buried.
    Closed,
}
