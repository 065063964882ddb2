//! Idempotency: the [`IdempotencyStore`] trait, which records the events that were handled.
//!
//! A claim precedes each delivery and decides about it: granted, the handler runs; done, the record is settled as a
//! duplicate; held, the service waits, because another lease may complete the event or expire. `complete` follows the
//! handler and precedes the commit of the offset. So an instance that crashes between the two leaves an event that the
//! next one finds done, and one that crashes earlier leaves a claim that ends with its lease.
//!
//! Claims refer to a [`Lease`], not to a time of their own: one renewal keeps any number of claims alive.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::{Error, ErrorKind, Guarantees, Name, Result, Timestamp};

/// Records, per scope, which events were handled and which lease is handling which.
///
/// A running service acquires a [`Lease`] and claims events under it; its claims live as long as the lease. The scope
/// is the service's name by default: to handle a range of events again, use a new scope.
///
/// # Contract
/// - **I1** One lease per scope and event id; twins within one call too: the second is `Held`. Scopes and ids are
///   compared in full: `shop`, `shop-eu` and `Shop` are three scopes.
/// - **I2** [`Claim::Done`] until purged, whatever is claimed or released later; a purge never touches live claims nor
///   another scope.
/// - **I3** Claims live as long as their lease, for [`MIN_LEASE_TTL`] or longer: renewed in time, on the store's own
///   clock; no two clocks are compared. A claim of an expired lease can be taken; then the old lease's `complete` is
///   [`Fenced`](crate::ErrorKind::Fenced). A store that is opened exclusively ends all earlier leases at once.
/// - **I4** What a call did is durable before it returns.
/// - **I5** A store that can't answer returns a retryable error, never `Done`, never `Granted`.
/// - **I6** [`Claim::Granted`] counts the leases that expired with this event claimed, each once, and the attempts that
///   were released. Counts saturate, at `i32::MAX` or above.
/// - **I7** `Done` is written only by `complete` or within a handler's transaction. Claims live apart from it, so that
///   a table of done events can be shared with services that know nothing of claims.
/// - **I8** [`done`](Self::done) tells which events are done, and changes nothing: no claim, no lease, no scope.
///
/// ```
/// use tidings_core::{Claim, EventRef, IdempotencyStore, Lease, ReleasedClaim, Result};
///
/// /// Handles an event at most once among all holders of leases in the scope.
/// async fn once(store: &dyn IdempotencyStore, lease: &Lease, event: EventRef, handle: fn() -> bool) -> Result<()> {
///     let Claim::Granted(_) = store.claim(lease, &[event.clone()]).await?[0] else { return Ok(()) };
///     if handle() {
///         store.complete(lease, &[event]).await?.into_iter().collect()
///     } else {
///         store.release(lease, &[ReleasedClaim::new(event.id, 1)]).await
///     }
/// }
/// ```
#[async_trait]
pub trait IdempotencyStore: Debug + Send + Sync + 'static {
    /// Acquires a lease for a running service in `scope`; its claims live until it has not been renewed for `ttl`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): `ttl` is below [`MIN_LEASE_TTL`], or the store cannot keep a scope of
    /// this length, which it never cuts.
    /// [`Unavailable`](crate::ErrorKind::Unavailable) and similar kinds, as for every method here.
    ///
    /// # Cancel safety
    /// A lease that a dropped future acquired claims nothing, and expires after its ttl.
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease>;

    /// Claims `events`; answer `i` is event `i`'s, whatever the order of their ids. Cancel-safe in that the claims of a
    /// dropped call end with their lease.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if the lease has expired, was retired or is unknown: nothing is claimed.
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>>;

    /// Renews the lease for a ttl from now on, whatever is left of the current one.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if it has expired, was retired or is unknown: it stays so.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the lease was renewed. Renew it again.
    async fn renew(&self, lease: &Lease) -> Result<()>;

    /// Marks events claimed by the lease as done; answer `i` is event `i`'s. Events that are done already stay done,
    /// and are `Ok`.
    ///
    /// # Errors
    /// Of the call, or per event [`Fenced`](crate::ErrorKind::Fenced) if another lease has the claim now, or none has.
    /// An event of an expired lease that no other has claimed since is done and `Ok`, or `Fenced`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which events are done. Complete them again: those that are done stay done.
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>>;

    /// Releases claims, so that any lease may take them at once. Events that the lease has not claimed, or that are
    /// done, are not affected; of an event that is given twice the first counts.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): the claims then end with their lease.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which claims were released. Release them again: a claim that was released is not
    /// affected.
    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()>;

    /// Ends a lease: its claims are released at once, and no crash is counted. A lease that has expired before counts
    /// as crashed.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): the lease then expires after its ttl.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the lease has ended. It ends after its ttl in any case.
    async fn retire(&self, lease: &Lease) -> Result<()>;

    /// Deletes the events of `scope` that were completed before `completed_before`, by the store's clock, and returns
    /// their number. Any time is accepted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): call again.
    ///
    /// # Cancel safety
    /// Dropping the future may have deleted some of the events. Call it again.
    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64>;

    /// Returns which events of `scope` are done; answer `i` is event `i`'s. Default:
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// A query for operators, without a lease (I8). An event that is claimed is not done; neither is one that was purged.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) and similar kinds, never `false` instead (I5).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        let _ = events;
        let what = format!("query the done events of scope {scope:?}: this store does not offer the query");
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Returns the clauses that this store keeps, and whether several processes share it.
    fn guarantees(&self) -> Guarantees;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: IdempotencyStore + ?Sized> IdempotencyStore for Arc<S> {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        (**self).acquire_lease(scope, ttl).await
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        (**self).claim(lease, events).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        (**self).renew(lease).await
    }

    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        (**self).complete(lease, events).await
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        (**self).release(lease, events).await
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        (**self).retire(lease).await
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        (**self).purge(scope, completed_before).await
    }

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        (**self).done(scope, events).await
    }

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}

/// The shortest ttl of a lease: below it, a lease expires before its first renewal.
pub const MIN_LEASE_TTL: Duration = Duration::from_millis(10);

/// The lease of a running service, under which it claims events.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::{ErrorKind, Lease, MIN_LEASE_TTL};
///
/// let lease = Lease::checked("billing", Duration::from_secs(15))?;
/// assert_eq!((lease.scope.as_str(), lease.ttl.as_secs()), ("billing", 15));
///
/// let short = Lease::checked("billing", MIN_LEASE_TTL / 2);
/// assert_eq!(short.map_err(|error| error.kind()), Err(ErrorKind::Invalid));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The lease's id, unique among all leases.
    pub id: Uuid,
    /// The scope of its claims.
    pub scope: Name,
    /// The time without a renewal after which the lease expires.
    pub ttl: Duration,
}

impl Lease {
    /// Creates a new lease, for stores.
    pub fn new(scope: impl Into<Name>, ttl: Duration) -> Self {
        Self { id: Uuid::now_v7(), scope: scope.into(), ttl }
    }

    /// Creates a lease as [`new`](Self::new) does, after checking a user's ttl.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the ttl is below [`MIN_LEASE_TTL`].
    pub fn checked(scope: impl Into<Name>, ttl: Duration) -> Result<Self> {
        if ttl < MIN_LEASE_TTL {
            let what = format!("acquire a lease: lease_ttl is {ttl:?}, expected {MIN_LEASE_TTL:?} or more");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self::new(scope, ttl))
    }
}

/// A reference to an event, by which stores identify it: by its id, within a lease's scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct EventRef {
    /// The event's id.
    pub id: Uuid,
    /// The event's type, for people who look into the store.
    pub event_type: Name,
}

impl EventRef {
    /// Creates a reference to the event `id` of a type.
    pub fn new(id: Uuid, event_type: impl Into<Name>) -> Self {
        Self { id, event_type: event_type.into() }
    }
}

/// A claim to be released.
///
/// ```
/// use tidings_core::ReleasedClaim;
///
/// let event = uuid::Uuid::now_v7();
/// let released = ReleasedClaim::new(event, 2);
/// assert_eq!((released.id, released.attempts), (event, 2), "the next lease makes its first attempt as the third");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReleasedClaim {
    /// The event's id.
    pub id: Uuid,
    /// The number of attempts made under this claim; added to those released before.
    pub attempts: u32,
}

impl ReleasedClaim {
    /// Creates a released claim of the event `id` after `attempts`.
    pub const fn new(id: Uuid, attempts: u32) -> Self {
        Self { id, attempts }
    }
}

/// A store's answer to a claim.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::{Claim, History};
///
/// fn describe(claim: Claim) -> String {
///     match claim {
///         Claim::Granted(history) if history.crashes > 0 => "handle it alone: it may have crashed a process".into(),
///         Claim::Granted(_) => "handle it".into(),
///         Claim::Held { at_most } => format!("ask again within {at_most:?}"),
///         Claim::Done => "skip it".into(),
///         _ => "unknown".into(),
///     }
/// }
///
/// assert_eq!(describe(Claim::Granted(History::new(0, 2))), "handle it");
/// assert_eq!(describe(Claim::Held { at_most: Duration::from_secs(15) }), "ask again within 15s");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The event is claimed by this lease.
    Granted(History),
    /// The event is claimed by another lease (or by this one, in an earlier claim).
    Held {
        /// The longest time until the claim ends, unless its lease is renewed.
        at_most: Duration,
    },
    /// The event was handled already.
    Done,
}

/// The history of an event before its claim was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct History {
    /// The number of leases that expired while they had claimed it: crashes, as far as the store can tell.
    pub crashes: u32,
    /// The number of attempts released with its claims.
    pub attempts: u32,
}

impl History {
    /// Creates a history of `crashes` and `attempts`.
    pub const fn new(crashes: u32, attempts: u32) -> Self {
        Self { crashes, attempts }
    }
}
