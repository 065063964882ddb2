//! Fault injection for stores.
//!
//! Every method of a store asks its faults first ([`State::reach`]) and passes its answer through
//! them ([`State::answer`]), so a fault strikes either before any effect or after all of it, never
//! between.

use std::sync::{Arc, Mutex};

use tidings_core::{ErrorKind, Result};

use crate::error::{injected, lock};
use crate::faults::Failure;

#[derive(Debug, Default)]
pub(super) struct State {
    wanted: Mutex<Wanted>,
}

/// Faults that were asked for; `down` comes before the counted ones and does not use them up.
#[derive(Debug, Default)]
struct Wanted {
    down: bool,
    /// Failures of any call, before it has an effect.
    calls: Option<Failure>,
    /// Failures of `complete` only, before those of any call are counted.
    completes: Option<Failure>,
    /// Answers to lose, after the effect.
    answers: Option<Failure>,
}

impl State {
    /// # Errors
    /// The error injected for any call.
    pub(super) fn reach(&self, verb: &str) -> Result<()> {
        let mut wanted = lock(&self.wanted);
        let kind = if wanted.down { Some(ErrorKind::Unavailable) } else { Failure::take(&mut wanted.calls) };
        kind.map_or(Ok(()), |kind| Err(injected(verb, kind)))
    }

    /// Returns the answer of a call that was carried out.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate) if the answer is injected to be lost.
    pub(super) fn answer<T>(&self, verb: &str, answer: T) -> Result<T> {
        match Failure::take(&mut lock(&self.wanted).answers) {
            Some(kind) => Err(injected(verb, kind)),
            None => Ok(answer),
        }
    }

    /// # Errors
    /// The error injected for completions only.
    pub(super) fn complete(&self) -> Result<()> {
        let kind = Failure::take(&mut lock(&self.wanted).completes);
        kind.map_or(Ok(()), |kind| Err(injected("complete", kind)))
    }
}

/// Injects faults into a store, to test how a service reacts. A failed call has no effect, unless [only its answer is
/// lost](Self::lose_answers).
///
/// ```
/// # use std::time::Duration;
/// # use tidings_core::{ErrorKind, IdempotencyStore};
/// # use tidings_memory::MemoryStore;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let store = MemoryStore::new();
/// store.faults().fail_calls(1, ErrorKind::Unavailable);
/// let ttl = Duration::from_secs(15);
/// assert!(store.acquire_lease(&"billing".into(), ttl).await.is_err());
/// assert!(store.acquire_lease(&"billing".into(), ttl).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StoreFaults {
    state: Arc<State>,
}

impl StoreFaults {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Makes every call fail as `Unavailable` until [`up`](Self::up). Leases continue to expire.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::{ErrorKind, IdempotencyStore};
    /// # use tidings_memory::MemoryStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let store = MemoryStore::new();
    /// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
    /// store.faults().down();
    /// assert_eq!(store.renew(&lease).await.unwrap_err().kind(), ErrorKind::Unavailable);
    /// store.faults().up();
    /// store.renew(&lease).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn down(&self) {
        lock(&self.state.wanted).down = true;
    }

    /// Brings the store back.
    pub fn up(&self) {
        lock(&self.state.wanted).down = false;
    }

    /// Makes the next `times` calls, of any method, fail as `kind`;
    /// [`Faults::UNTIL_HEALED`](crate::Faults::UNTIL_HEALED) has no end.
    pub fn fail_calls(&self, times: u32, kind: ErrorKind) {
        lock(&self.state.wanted).calls = Failure::new(times, kind);
    }

    /// Makes the next `times` calls of `complete` fail as `kind`. (A dead-letter store has none.)
    pub fn fail_completes(&self, times: u32, kind: ErrorKind) {
        lock(&self.state.wanted).completes = Failure::new(times, kind);
    }

    /// Makes the next `times` calls to an idempotency store, of any method, fail as
    /// [`Indeterminate`](ErrorKind::Indeterminate) after they were carried out, as if the connection broke before the
    /// answer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_core::{Claim, ErrorKind, EventRef, IdempotencyStore};
    /// # use tidings_memory::MemoryStore;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let store = MemoryStore::new();
    /// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
    /// let event = [EventRef::new(uuid::Uuid::now_v7(), "order.placed")];
    /// store.claim(&lease, &event).await?;
    /// store.faults().lose_answers(1);
    /// let lost = store.complete(&lease, &event).await.unwrap_err();
    /// assert_eq!(lost.kind(), ErrorKind::Indeterminate);
    /// assert_eq!(store.claim(&lease, &event).await?, [Claim::Done]); // yet it was completed
    /// # Ok(())
    /// # }
    /// ```
    pub fn lose_answers(&self, times: u32) {
        lock(&self.state.wanted).answers = Failure::new(times, ErrorKind::Indeterminate);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        *lock(&self.state.wanted) = Wanted::default();
    }
}
