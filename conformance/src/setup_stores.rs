//! Configuration of a suite of stores: stores with limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::Result;

use crate::setup::Setup;

impl<T: Send + Sync + 'static> Setup<T> {
    /// Sets how to open a dead-letter store with a limit of open and parked letters, at least 3, for the cases of a
    /// full store.
    #[must_use]
    pub fn with_max_letters<Fut>(mut self, letters: usize, open: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.pace.max_letters = letters;
        self.small = Some(Arc::new(move || Box::pin(open())));
        self
    }

    /// Sets how to open a store that deletes done events and closed letters older than this, for the cases of
    /// retention. [`with_passing_time`](Self::with_passing_time) saves the wait.
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
