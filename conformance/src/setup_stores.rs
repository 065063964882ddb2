//! Configuration of a suite of stores: those with limits of their own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::Result;

use crate::setup::Setup;

impl<T: Send + Sync + 'static> Setup<T> {
    /// Sets how to open a store of dead letters that keeps at most this many open and parked ones, 3 or more, for the
    /// cases of a store that is full.
    #[must_use]
    pub fn with_max_letters<Fut>(mut self, letters: usize, open: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.pace.max_letters = letters;
        self.small = Some(Arc::new(move || Box::pin(open())));
        self
    }

    /// Sets how to open a store that forgets done events and closed letters by itself once they are older than this, for
    /// the cases of its retention. [`with_passing_time`](Self::with_passing_time) saves the wait.
    #[must_use]
    pub fn with_retention<Fut>(mut self, retention: Duration, open: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.pace.retention = retention;
        self.forgetful = Some(Arc::new(move || Box::pin(open())));
        self
    }
}
