//! Stores in memory: handled events and dead letters.
//!
//! A lease is live until its time to live has passed without a renewal; nothing runs when it does.
//! An expired lease is simply not found live any more: the next claim of one of its events takes
//! the event over and counts a crash. A call reads the clock once, so that all its events see the
//! same leases.

mod dead_letters;
mod faults;
mod scope;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_core::{
    Claim, Error, ErrorKind, EventRef, Guarantees, IdempotencyStore, Lease, Name, ReleasedClaim, Result, Timestamp,
    async_trait,
};
use tokio::time::Instant;
use uuid::Uuid;

pub use self::dead_letters::MemoryDeadLetters;
pub use self::faults::StoreFaults;
use self::scope::Scope;
use crate::clock::Clock;
use crate::error::lock;

/// An idempotency store in this process's memory. Clones share the store.
///
/// It keeps every clause except [`Clause::Restart`](tidings_core::Clause::Restart), for the services of one process,
/// on tokio's clock. It grows with each done event until that is purged, or up to
/// [`with_max_done`](Self::with_max_done).
///
/// It keeps no dead letters: those are kept by [`MemoryDeadLetters`].
///
/// ```
/// # use std::time::Duration;
/// # use tidings_core::{Claim, EventRef, History, IdempotencyStore};
/// # use tidings_memory::MemoryStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let store = MemoryStore::new();
/// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
/// let event = EventRef::new(uuid::Uuid::now_v7(), "order.placed");
/// let claims = store.claim(&lease, std::slice::from_ref(&event)).await?;
/// assert_eq!(claims, [Claim::Granted(History::new(0, 0))]);
/// store.complete(&lease, std::slice::from_ref(&event)).await?.remove(0)?;
/// assert_eq!(store.claim(&lease, &[event]).await?, [Claim::Done]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
    max_done: Option<usize>,
}

/// State shared by the clones of a store.
struct Inner {
    clock: Clock,
    state: Mutex<State>,
    faults: Arc<faults::State>,
}

/// Leases and scopes under one lock, since a claim reads both.
#[derive(Default)]
struct State {
    /// Leases that are live, or whose expiry was not noticed yet. A lease that is missing has expired.
    leases: HashMap<Uuid, Living>,
    scopes: HashMap<Name, Scope>,
}

/// A registered lease: its time to live, and when it expires unless renewed; `None` if beyond the
/// clock's range.
struct Living {
    ttl: Duration,
    until: Option<Instant>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("max_done", &self.max_done).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Creates an empty store.
    ///
    /// A lease that is not renewed loses its claims, as when a process dies:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::{Claim, EventRef, History, IdempotencyStore};
    /// # use tidings_memory::MemoryStore;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let (store, ttl) = (MemoryStore::new(), Duration::from_secs(15));
    /// let event = [EventRef::new(uuid::Uuid::now_v7(), "order.placed")];
    /// let crashed = store.acquire_lease(&"billing".into(), ttl).await?;
    /// store.claim(&crashed, &event).await?;
    /// tokio::time::advance(ttl).await;
    /// let next = store.acquire_lease(&"billing".into(), ttl).await?;
    /// assert_eq!(store.claim(&next, &event).await?, [Claim::Granted(History::new(1, 0))]); // one crash
    /// # Ok(())
    /// # }
    /// ```
    pub fn new() -> Self {
        let (clock, state, faults) = (Clock::new(None), Mutex::default(), Arc::default());
        Self { inner: Arc::new(Inner { clock, state, faults }), max_done: None }
    }

    /// Limits the number of done events per scope. Beyond it the oldest are forgotten as if purged, and a late repeat
    /// of one is handled again. Without a limit (the default), only `purge` forgets events.
    ///
    /// Clones made before keep their own limit, or none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::{Claim, EventRef, IdempotencyStore};
    /// # use tidings_memory::MemoryStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let store = MemoryStore::new().with_max_done(1);
    /// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
    /// let events = [1, 2].map(|id| EventRef::new(uuid::Uuid::from_u128(id), "order.placed"));
    /// store.claim(&lease, &events).await?;
    /// store.complete(&lease, &events).await?;
    /// let claims = store.claim(&lease, &events).await?;
    /// assert!(matches!(claims[..], [Claim::Granted(_), Claim::Done])); // the first is forgotten
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_max_done(mut self, events: usize) -> Self {
        self.max_done = Some(events);
        self
    }

    /// Returns the store's fault injection, for tests.
    ///
    /// They act on all clones. See [`StoreFaults`].
    pub fn faults(&self) -> StoreFaults {
        StoreFaults::new(Arc::clone(&self.inner.faults))
    }

    /// Locks the state, unless a fault is injected for the call.
    ///
    /// # Errors
    /// The injected error.
    fn state(&self, verb: &str) -> Result<MutexGuard<'_, State>> {
        self.inner.faults.reach(verb)?;
        Ok(lock(&self.inner.state))
    }
}

impl State {
    /// Returns the remaining ttl of the lease `id`; `None` if it has expired.
    fn lives(leases: &HashMap<Uuid, Living>, id: Uuid, now: Instant) -> Option<Duration> {
        match leases.get(&id)?.until {
            // A ttl beyond the clock's range never expires.
            None => Some(Duration::MAX),
            Some(until) if until > now => Some(until - now),
            Some(_) => None,
        }
    }

    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if the lease is expired.
    fn living(&self, verb: &str, lease: &Lease, now: Instant) -> Result<()> {
        let dead = || Error::new(ErrorKind::Fenced, format!("{verb}: the lease of {:?} has ended", lease.scope));
        Self::lives(&self.leases, lease.id, now).map(drop).ok_or_else(dead)
    }
}

#[async_trait]
impl IdempotencyStore for MemoryStore {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let lease = Lease::checked(scope.clone(), ttl)?;
        let now = Instant::now();
        let mut state = self.state("acquire a lease")?;
        // Claims of expired leases stay, without a live lease: that counts as a crash.
        state.leases.retain(|_, lease| lease.until.is_none_or(|until| until > now));
        state.leases.insert(lease.id, Living { ttl, until: now.checked_add(ttl) });
        self.inner.faults.answer("acquire a lease", lease)
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let now = Instant::now();
        let mut state = self.state("claim")?;
        state.living("claim", lease, now)?;
        let State { leases, scopes } = &mut *state;
        let scope = scopes.entry(lease.scope.clone()).or_default();
        let lives = |id| State::lives(leases, id, now);
        let at = self.inner.clock.at(now);
        let claims = events.iter().map(|event| scope.claim(event.id, lease.id, at, &lives)).collect();
        self.inner.faults.answer("claim", claims)
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let now = Instant::now();
        let mut state = self.state("renew the lease")?;
        state.living("renew the lease", lease, now)?;
        if let Some(living) = state.leases.get_mut(&lease.id) {
            living.until = now.checked_add(living.ttl);
        }
        self.inner.faults.answer("renew the lease", ())
    }

    /// An expired lease may still complete its events while no other has claimed them: the work is
    /// done, and repeating it gains nothing.
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        self.inner.faults.complete()?;
        let mut state = self.state("complete")?;
        let scope = state.scopes.entry(lease.scope.clone()).or_default();
        let now = self.inner.clock.now();
        let answers = events.iter().map(|event| scope.complete(event.id, lease.id, now)).collect();
        if let Some(max) = self.max_done {
            scope.forget_beyond(max);
        }
        self.inner.faults.answer("complete", answers)
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        let mut state = self.state("release")?;
        let now = self.inner.clock.now();
        if let Some(scope) = state.scopes.get_mut(&lease.scope) {
            events.iter().for_each(|event| scope.release(*event, lease.id, now));
        }
        self.inner.faults.answer("release", ())
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        let now = Instant::now();
        let mut state = self.state("retire the lease")?;
        // A lease that has already expired counts as crashed.
        let lived = state.living("retire the lease", lease, now).is_ok();
        state.leases.remove(&lease.id);
        if let Some(scope) = state.scopes.get_mut(&lease.scope).filter(|_| lived) {
            scope.release_all(lease.id, self.inner.clock.at(now));
        }
        self.inner.faults.answer("retire the lease", ())
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        let now = Instant::now();
        let mut state = self.state("purge")?;
        let State { leases, scopes } = &mut *state;
        let Some(found) = scopes.get_mut(scope) else { return Ok(0) };
        let purged = found.purge(completed_before, |id| State::lives(leases, id, now).is_some());
        if found.is_empty() {
            scopes.remove(scope);
        }
        self.inner.faults.answer("purge", purged)
    }

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        let state = self.state("query done events")?;
        let scope = state.scopes.get(scope);
        let done = events.iter().map(|event| scope.is_some_and(|scope| scope.is_done(event.id))).collect();
        self.inner.faults.answer("query done events", done)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
