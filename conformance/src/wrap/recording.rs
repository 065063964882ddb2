//! A wrapper that records.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use super::tap::{Call, Fate, Tap, Watch};

/// How many calls a [`Recording`] keeps: the latest.
pub const HISTORY_LIMIT: usize = 100_000;

/// A call that came to its end; a dropped one is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// Which.
    pub call: Call,
    /// Its arguments, as `Debug` shows them: lengths of keys and values, never contents.
    pub asked: String,
    /// Its answer, likewise.
    pub answer: String,
}

#[derive(Debug, Default)]
struct Recorder(Mutex<VecDeque<Recorded>>);

impl Watch for Recorder {
    fn before(&self, _: Call) -> Fate {
        Fate::Pass
    }

    fn after(&self, call: Call, asked: &dyn Debug, answer: &dyn Debug) {
        let recorded = Recorded { call, asked: format!("{asked:?}"), answer: format!("{answer:?}") };
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY_LIMIT {
            history.pop_front();
        }
        history.push_back(recorded);
    }
}

/// Records every call to a backend and to what it opened, in the order in which they ended.
#[derive(Debug)]
pub struct Recording<T> {
    pub(super) inner: T,
    pub(super) tap: Tap,
    recorder: Arc<Recorder>,
}

impl<T> Recording<T> {
    /// Records what comes to `inner`.
    pub fn new(inner: T) -> Self {
        let recorder = Arc::new(Recorder::default());
        Self { inner, tap: Tap(Arc::clone(&recorder) as Arc<dyn Watch>), recorder }
    }

    /// The wrapped backend.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What was recorded so far, [`HISTORY_LIMIT`] calls at most.
    pub fn history(&self) -> Vec<Recorded> {
        self.recorder.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
