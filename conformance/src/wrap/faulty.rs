//! A wrapper that injects faults.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_core::ErrorKind;

use super::tap::{Call, Fate, Tap, Watch};

#[derive(Debug, Default)]
struct State {
    down: bool,
    planned: HashMap<Call, (Fate, u32)>,
}

/// The faults of a [`Faulty`] backend. Clones share the faults.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// A number of times that lasts until [`heal`](Self::heal).
    pub const UNTIL_HEALED: u32 = u32::MAX;

    /// Changes the faults; calls that have begun are not affected.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A later plan for a method replaces the earlier one.
    fn plan(&self, call: Call, fate: Fate, times: u32) {
        self.change(|state| {
            state.planned.insert(call, (fate, times));
        });
    }

    /// Makes the next `times` calls of this method fail as `kind` without reaching the backend.
    pub fn refuse(&self, call: Call, kind: ErrorKind, times: u32) {
        self.plan(call, Fate::Refuse(kind), times);
    }

    /// Makes the next `times` calls of this method fail as [`Indeterminate`](ErrorKind::Indeterminate) after they
    /// succeeded.
    ///
    /// For `next`, use [`refuse`](Self::refuse): lost answers would lose steps, against C6.
    pub fn lose_answers(&self, call: Call, times: u32) {
        self.plan(call, Fate::LoseAnswer, times);
    }

    /// Makes every call fail as [`Unavailable`](ErrorKind::Unavailable) without effect, or ends that. The wrapped
    /// backend is unaware of it: its sessions stay alive.
    pub fn set_down(&self, down: bool) {
        self.change(|state| state.down = down);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.change(|state| *state = State::default());
    }
}

impl Watch for Faults {
    fn before(&self, call: Call) -> Fate {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.down {
            return Fate::Refuse(ErrorKind::Unavailable);
        }
        match state.planned.get_mut(&call) {
            Some((fate, times)) if *times > 0 => {
                if *times != Self::UNTIL_HEALED {
                    *times -= 1;
                }
                *fate
            }
            _ => Fate::Pass,
        }
    }

    fn after(&self, _: Call, _: &dyn Debug, _: &dyn Debug) {}
}

/// A backend with injected faults. Without any, it behaves like the wrapped backend.
///
/// ```
/// use tidings_conformance::wrap::{Call, Faulty};
/// use tidings_core::{ErrorKind, Transport};
/// use tidings_memory::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = Faulty::new(MemoryTransport::new());
/// let admin = transport.admin().await?;
/// transport.faults().refuse(Call::Operate, ErrorKind::Denied, 1);
/// assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Denied);
/// assert!(admin.list_topics().await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Faulty<T> {
    pub(super) inner: T,
    pub(super) tap: Tap,
    faults: Faults,
}

impl<T> Faulty<T> {
    /// Wraps `inner` without faults.
    pub fn new(inner: T) -> Self {
        let faults = Faults::default();
        Self { inner, tap: Tap(Arc::new(faults.clone())), faults }
    }

    /// Returns the wrapped backend.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns the fault injection.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
