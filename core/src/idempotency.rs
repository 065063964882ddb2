//! The trait of what remembers which events were handled.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{Error, ErrorKind, Guarantees, Name, Result, Timestamp};

/// Remembers, per scope, which events were handled and who is handling which.
///
/// A running service acquires a [`Lease`] and claims events under it; its claims live as long as the lease. A scope is a
/// service's name unless it says otherwise: to handle a range of events again, take a new scope.
///
/// # Contract
/// - **I1** One lease per scope and event id; twins within one call too: the second is `Held`.
/// - **I2** [`Claim::Done`] until purged; a purge never touches live claims nor another scope.
/// - **I3** Claims live as long as their lease, for [`MIN_LEASE_TTL`] or longer: renewed in time, on the store's own clock; no two clocks are compared. A
///   claim of an expired lease can be taken; then the old lease's `complete` is [`Fenced`](crate::ErrorKind::Fenced). A store
///   that is opened exclusively ends all earlier leases at once.
/// - **I4** What a call did is durable before it returns.
/// - **I5** A store that can't answer returns a retryable error, never `Done`, never `Granted`.
/// - **I6** [`Claim::Granted`] counts the leases that expired with this event claimed, and the attempts that were released.
/// - **I7** `Done` is written only by `complete` or within a handler's transaction. Claims live apart from it, so that a
///   table of done events can be shared with services that know nothing of claims.
#[async_trait]
pub trait IdempotencyStore: Debug + Send + Sync + 'static {
    /// Registers a running service in `scope`, whose claims live until it has not renewed for `ttl`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): `ttl` is below [`MIN_LEASE_TTL`].
    /// [`Unavailable`](crate::ErrorKind::Unavailable) and the like, as of every method here.
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease>;

    /// Claims `events`; answer `i` is event `i`'s. Cancel-safe in that a dropped call's claims end with their lease.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if the lease is expired.
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>>;

    /// Keeps the lease alive for another ttl.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if it is dead already.
    async fn renew(&self, lease: &Lease) -> Result<()>;

    /// Marks events that the lease has claimed as done; answer `i` is event `i`'s. What is done already stays so.
    ///
    /// # Errors
    /// Of the call, or per event [`Fenced`](crate::ErrorKind::Fenced) if another lease has the claim now.
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>>;

    /// Gives claims back, so that anybody may take them at once. What the lease has not claimed stays as it is.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): the claims then end with their lease.
    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()>;

    /// Ends a lease: its claims are released at once, and no crash is counted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): it then ends with its ttl.
    async fn retire(&self, lease: &Lease) -> Result<()>;

    /// Forgets what was done before `completed_before` in `scope`; returns how many events.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): call again.
    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64>;

    /// Which clauses it keeps, and whether several processes share it.
    fn guarantees(&self) -> Guarantees;
}

/// The shortest time that a lease may live without a renewal: below it, a lease expires before its first renewal.
pub const MIN_LEASE_TTL: Duration = Duration::from_millis(10);

/// A running service, as a store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// Unique among all leases.
    pub id: Uuid,
    /// Within which its claims are.
    pub scope: Name,
    /// It dies when it was not renewed for so long.
    pub ttl: Duration,
}

impl Lease {
    /// A new lease: for stores, which hand them out.
    pub fn new(scope: impl Into<Name>, ttl: Duration) -> Self {
        Self { id: Uuid::now_v7(), scope: scope.into(), ttl }
    }

    /// As [`new`](Self::new), where the ttl is a user's.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): it is below [`MIN_LEASE_TTL`].
    pub fn checked(scope: impl Into<Name>, ttl: Duration) -> Result<Self> {
        if ttl < MIN_LEASE_TTL {
            let what = format!("register a lease: lease_ttl is {ttl:?}, it must be at least {MIN_LEASE_TTL:?}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self::new(scope, ttl))
    }
}

/// An event, as a store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EventRef {
    /// The event's id.
    pub id: Uuid,
    /// Its type, for people who look into the store.
    pub event_type: Name,
}

impl EventRef {
    /// The event `id` of a type.
    pub fn new(id: Uuid, event_type: impl Into<Name>) -> Self {
        Self { id, event_type: event_type.into() }
    }
}

/// A claim that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleasedClaim {
    /// The event's id.
    pub id: Uuid,
    /// How many attempts were made under this claim; added to those released before.
    pub attempts: u32,
}

impl ReleasedClaim {
    /// The claim of the event `id`, given back after `attempts`.
    pub const fn new(id: Uuid, attempts: u32) -> Self {
        Self { id, attempts }
    }
}

/// A store's answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The event is this lease's to handle.
    Granted(History),
    /// Another lease has it (or this one, by an earlier claim), for at most so long unless it renews.
    Held {
        /// How long to wait at most before asking again.
        at_most: Duration,
    },
    /// It was handled already.
    Done,
}

/// What happened to an event before it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct History {
    /// Leases that expired with it claimed: crashes, as far as the store can tell.
    pub crashes: u32,
    /// Attempts released with it.
    pub attempts: u32,
}

impl History {
    /// So many crashes and attempts.
    pub const fn new(crashes: u32, attempts: u32) -> Self {
        Self { crashes, attempts }
    }
}
