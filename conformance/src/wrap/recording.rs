//! A wrapper that records calls.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use super::tap::{Call, Fate, Tap, Watch};

/// Maximum number of calls that a [`Recording`] keeps, the latest ones.
pub const HISTORY_LIMIT: usize = 100_000;

/// A completed call; dropped calls are not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The method.
    pub call: Call,
    /// Its arguments as formatted by `Debug`: lengths of keys and values, never contents.
    pub asked: String,
    /// Its answer, in the same format.
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

/// Records every call to a backend and to the objects that it opened, in the order of completion.
///
/// ```
/// use tidings_conformance::wrap::{Call, Recording};
/// use tidings_core::{PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = Recording::new(MemoryTransport::new());
/// transport.publisher().await?.publish_one(Record::new("orders", "secret")).await?;
/// let published = transport.history().into_iter().find(|recorded| recorded.call == Call::Publish).unwrap();
/// assert!(published.asked.contains("orders") && !published.asked.contains("secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recording<T> {
    pub(super) inner: T,
    pub(super) tap: Tap,
    recorder: Arc<Recorder>,
}

impl<T> Recording<T> {
    /// Creates a wrapper that records the calls to `inner`.
    pub fn new(inner: T) -> Self {
        let recorder = Arc::new(Recorder::default());
        Self { inner, tap: Tap(Arc::clone(&recorder) as Arc<dyn Watch>), recorder }
    }

    /// Returns the wrapped backend.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns the recorded calls, at most [`HISTORY_LIMIT`].
    pub fn history(&self) -> Vec<Recorded> {
        self.recorder.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
