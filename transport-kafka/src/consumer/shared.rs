//! State shared by the tasks of a consumer.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tidings_core::ConsumerOptions;
use tokio::sync::Notify;

use super::state::State;
use crate::client::fetcher::FetchSizes;
use crate::config::ReaderKind;

/// State shared by the member, the fetchers and the callers.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notified when there may be a step for `next`.
    pub(super) steps: Notify,
    /// Notified when there may be work for fetchers.
    pub(super) plans: Notify,
    /// Notified when partitions were released.
    pub(super) released: Notify,
    /// Serializes commits; a revocation waits for the commit in flight.
    pub(super) commits: tokio::sync::Mutex<()>,
    /// When the group first started, in milliseconds.
    pub(super) first_start: OnceLock<i64>,
}

impl Shared {
    pub(super) fn new(options: &ConsumerOptions, sizes: FetchSizes, reader: ReaderKind) -> Self {
        let mut state = State::new(options.max_buffered_bytes, options.session_timeout);
        state.large = match reader {
            // An uncompressed fetch is never large.
            ReaderKind::Client => state.large.max(sizes.max_partition_bytes.saturating_mul(4)),
            // It unpacks batch by batch in any case.
            ReaderKind::Native => usize::MAX,
        };
        Self {
            state: Mutex::new(state),
            steps: Notify::new(),
            plans: Notify::new(),
            released: Notify::new(),
            commits: tokio::sync::Mutex::new(()),
            first_start: OnceLock::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics midway; if it did, this state would still be the best available.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all waiting tasks.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.steps.notify_waiters();
        self.plans.notify_waiters();
        self.released.notify_waiters();
        result
    }
}

/// Waits until `ready` returns a value; it is called again after each notification.
pub(super) async fn until<T>(notify: &Notify, mut ready: impl FnMut() -> Option<T>) -> T {
    loop {
        let told = notify.notified();
        tokio::pin!(told);
        // Enabled before the check, so that a notification in between is not missed.
        told.as_mut().enable();
        if let Some(result) = ready() {
            return result;
        }
        told.await;
    }
}
