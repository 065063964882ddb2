//! Decisions about dead letters: leases, resolutions and redrives.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Leased, LetterLease, Result};
use uuid::Uuid;

use super::letters::{Id, Query, Resolution};

/// A request to close or park letters, of a lease or of none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// The store's name.
    pub store: String,
    /// The letters.
    pub ids: Vec<Id>,
    /// The lease that has them, for `resolve-leased`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The decision.
    pub resolution: Resolution,
}

/// A lease of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The lease's id.
    pub id: Uuid,
    /// The time after which it expires: at least 1 ms, at most [`LetterLease::MAX_TTL`].
    pub ttl_ms: u64,
}

impl From<&LetterLease> for Lease {
    fn from(lease: &LetterLease) -> Self {
        let millis = lease.ttl.min(LetterLease::MAX_TTL).as_millis();
        Self { id: lease.id, ttl_ms: u64::try_from(millis).unwrap_or(u64::MAX).max(1) }
    }
}

impl TryFrom<Lease> for LetterLease {
    type Error = Error;

    fn try_from(wire: Lease) -> Result<Self> {
        let ttl = Duration::from_millis(wire.ttl_ms);
        if ttl.is_zero() || ttl > Self::MAX_TTL {
            let text = format!("ttl_ms: {} is not between 1 and {}", wire.ttl_ms, Self::MAX_TTL.as_millis());
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let mut lease = Self::new(ttl);
        lease.id = wire.id;
        Ok(lease)
    }
}

/// A request to lease letters, or to give them back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leasing {
    /// The store's name.
    pub store: String,
    /// The letters.
    pub ids: Vec<Id>,
    /// The lease.
    pub lease: Lease,
}

/// The answers to a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Grants {
    /// One for each letter.
    pub letters: Vec<Granted>,
}

/// The answer to the lease of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granted {
    /// The lease has it.
    Granted,
    /// Another lease has it, for at most this time.
    HeldMs(u64),
    /// It was closed already, or never buried.
    Closed,
}

impl Grants {
    /// Creates the answers.
    pub fn of(answers: &[Leased]) -> Self {
        let granted = |leased: &Leased| match leased {
            Leased::Granted => Granted::Granted,
            Leased::Held { at_most } => Granted::HeldMs(u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX)),
            // An answer of a later version grants nothing.
            _ => Granted::Closed,
        };
        Self { letters: answers.iter().map(granted).collect() }
    }

    /// Returns the answers.
    pub fn into_leased(self) -> Vec<Leased> {
        let leased = |granted| match granted {
            Granted::Granted => Leased::Granted,
            Granted::HeldMs(millis) => Leased::Held { at_most: Duration::from_millis(millis) },
            Granted::Closed => Leased::Closed,
        };
        self.letters.into_iter().map(leased).collect()
    }
}

/// A request to note letters that a redrive could not publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The store's name.
    pub store: String,
    /// The letters.
    pub letters: Vec<Refusal>,
    /// Who redrove them.
    pub by: String,
}

/// A letter that a redrive could not publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The letter.
    pub id: Id,
    /// The cause.
    pub error: String,
}

/// A request to redrive letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    /// The store's name.
    pub store: String,
    /// The letters.
    #[serde(default)]
    pub query: Query,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The most letters of this request; at most, and by default, [`MAX_NAMES`](crate::MAX_NAMES), and with a rate
    /// those of 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The most letters per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Leaves letters whose record was redriven at least this often; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_redrives: Option<u32>,
    /// Whether to publish nothing, and only count.
    #[serde(default)]
    pub dry_run: bool,
}

/// The result of a redrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Letters that were published and closed.
    pub redriven: u64,
    /// Letters that another run has, or that were closed meanwhile.
    pub skipped: u64,
    /// Letters that stay because an earlier one of their key stays.
    pub behind: u64,
    /// Letters that were refused, with the error.
    pub refused: Vec<Refusal>,
    /// Whether there may be more.
    pub more: bool,
    /// Letters that stay because their record was redriven too often.
    #[serde(default)]
    pub repeated: u64,
    /// The ranges that cannot be read, each with its cause; only the first ones if there are very many.
    #[serde(default)]
    pub unreadable: Vec<crate::ErrorBody>,
    /// The services that have letters, if the query names one that has none.
    #[serde(default)]
    pub known_services: Vec<String>,
}

/// A request to discard letters, which are not needed any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    /// The store's name.
    pub store: String,
    /// The letters.
    pub query: Query,
    /// Why.
    pub reason: String,
    /// Maximum number of letters: by default, and at most, [`MAX_NAMES`](crate::MAX_NAMES).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Result of a discard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Discarded {
    /// Number of letters that were closed.
    pub count: u64,
    /// Whether more letters may match: repeat the request. An older endpoint does not say so.
    #[serde(default)]
    pub more: bool,
}

impl Discarded {
    /// Creates the answer.
    pub const fn new(count: u64, more: bool) -> Self {
        Self { count, more }
    }
}
