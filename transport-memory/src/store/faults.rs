//! Fault injection for stores.

use std::sync::{Arc, Mutex};

use tidings_core::{ErrorKind, Result};

use crate::error::{injected, lock};
use crate::faults::Failure;

#[derive(Debug, Default)]
pub(super) struct State {
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    down: bool,
    calls: Option<Failure>,
    completes: Option<Failure>,
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
#[derive(Debug, Clone)]
pub struct StoreFaults {
    state: Arc<State>,
}

impl StoreFaults {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Makes every call fail as `Unavailable` until [`up`](Self::up). Leases continue to expire.
    pub fn down(&self) {
        lock(&self.state.wanted).down = true;
    }

    /// Brings the store back.
    pub fn up(&self) {
        lock(&self.state.wanted).down = false;
    }

    /// Makes the next `times` calls, of any method, fail as `kind`; [`Faults::UNTIL_HEALED`](crate::Faults::UNTIL_HEALED) has no end.
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
    pub fn lose_answers(&self, times: u32) {
        lock(&self.state.wanted).answers = Failure::new(times, ErrorKind::Indeterminate);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        *lock(&self.state.wanted) = Wanted::default();
    }
}
