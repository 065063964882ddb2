//! A wrapper that fails.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_core::ErrorKind;

use super::tap::{Call, Fate, Tap, Watch};

/// For so many times: until [`Faults::heal`].
pub const UNTIL_HEALED: u32 = u32::MAX;

#[derive(Debug, Default)]
struct State {
    down: bool,
    planned: HashMap<Call, (Fate, u32)>,
}

/// The faults of a [`Faulty`] backend; all of its clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn plan(&self, call: Call, fate: Fate, times: u32) {
        self.change(|state| {
            state.planned.insert(call, (fate, times));
        });
    }

    /// The next `times` calls of this kind are not made, and fail as `kind`.
    pub fn refuse(&self, call: Call, kind: ErrorKind, times: u32) {
        self.plan(call, Fate::Refuse(kind), times);
    }

    /// The next `times` calls of this kind are made, and end as [`Indeterminate`](ErrorKind::Indeterminate) where they succeeded.
    ///
    /// Steps of `next` would be lost by that, against C6: for it, refuse.
    pub fn lose_answers(&self, call: Call, times: u32) {
        self.plan(call, Fate::LoseAnswer, times);
    }

    /// Whether nothing answers: every call fails as [`Unavailable`](ErrorKind::Unavailable), and nothing is done. The
    /// wrapped backend knows nothing of it: its sessions live on.
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
                if *times != UNTIL_HEALED {
                    *times -= 1;
                }
                *fate
            }
            _ => Fate::Pass,
        }
    }

    fn after(&self, _: Call, _: &dyn Debug, _: &dyn Debug) {}
}

/// A backend whose calls can be made to fail. With no fault it is the wrapped one.
#[derive(Debug)]
pub struct Faulty<T> {
    pub(super) inner: T,
    pub(super) tap: Tap,
    faults: Faults,
}

impl<T> Faulty<T> {
    /// `inner`, with no fault yet.
    pub fn new(inner: T) -> Self {
        let faults = Faults::default();
        Self { inner, tap: Tap(Arc::new(faults.clone())), faults }
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What fails.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
