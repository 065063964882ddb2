//! Leases of dead letters: only one redrive at a time publishes a letter.

use std::time::Duration;

use uuid::Uuid;

/// The ttl of the leases that [`redrive`](super::redrive) takes: longer than a publisher takes to answer. A redrive
/// that crashed blocks its letters for others for at most this time.
pub const REDRIVE_LEASE: Duration = Duration::from_secs(300);

/// A redrive's lease of letters, taken before they are published so that no other redrive publishes them meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterLease {
    /// The lease's id, unique among all leases.
    pub id: Uuid,
    /// The time after which the lease of a letter expires, on the store's clock.
    pub ttl: Duration,
}

impl LetterLease {
    /// The limit of the ttl: one hour. Stores apply it to longer ttls, so that no lease blocks its letters for good.
    pub const MAX_TTL: Duration = Duration::from_secs(3_600);

    /// Creates a new lease, whose letters are free again after `ttl`, at most [`MAX_TTL`](Self::MAX_TTL).
    pub fn new(ttl: Duration) -> Self {
        Self { id: Uuid::now_v7(), ttl: ttl.min(Self::MAX_TTL) }
    }
}

/// A store's answer to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leased {
    /// The letter is open, and this lease may publish it.
    Granted,
    /// Another lease has the letter.
    Held {
        /// The longest time to wait before asking again.
        at_most: Duration,
    },
    /// The letter was redriven or discarded already, or was never buried.
    Closed,
}
