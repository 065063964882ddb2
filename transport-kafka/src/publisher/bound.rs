//! The bound on unanswered records and bytes.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many records and bytes may be unanswered. Only whoever has the publisher's turn takes of it, so that the order of
/// those who wait is that of their first polls.
#[derive(Debug)]
pub(super) struct Bound {
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
}

/// A record's share, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _record: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Bound {
    pub(super) fn new(records: usize, bytes: usize) -> Self {
        let max_bytes = bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let records = records.min(Semaphore::MAX_PERMITS);
        Self { records: Arc::new(Semaphore::new(records)), bytes: Arc::new(Semaphore::new(max_bytes)), max_bytes }
    }

    /// Waits until a record of `size` bytes fits; one that is larger than the bound fits alone. `None` once closed.
    pub(super) async fn take(&self, size: usize) -> Option<Share> {
        let record = Arc::clone(&self.records).acquire_owned().await.ok()?;
        let size = u32::try_from(size.min(self.max_bytes)).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(size).await.ok()?;
        Some(Share { _record: record, _bytes: bytes })
    }

    /// As [`take`](Self::take), if nothing has to be waited for.
    pub(super) fn try_take(&self, size: usize) -> Option<Share> {
        self.take(size).now_or_never().flatten()
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        self.records.close();
        self.bytes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_larger_than_the_bound_goes_alone() {
        let bound = Bound::new(10, 100);
        let small = bound.take(10).now_or_never().flatten().unwrap();
        assert!(bound.take(1_000).now_or_never().is_none());
        drop(small);
        let large = bound.take(1_000).now_or_never().flatten().unwrap();
        assert!(bound.take(1).now_or_never().is_none());
        drop(large);
        assert!(bound.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn closing_ends_the_wait() {
        let bound = Bound::new(1, 100);
        let _held = bound.take(1).await;
        let waiting = bound.take(1);
        bound.close();
        assert!(waiting.await.is_none());
    }
}
