//! Bound on in-flight records and bytes.
//!
//! Capacity is counted, not allocated: a permit is a number of records and bytes that returns when
//! it is dropped. So capacity is returned in every case, also when a task is aborted or panics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Limit on in-flight records and bytes. Only the current enqueuer takes from it, one waiter at a time, so that
/// waiters are served in the order of their first polls.
#[derive(Debug)]
pub(super) struct BufferLimit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Mutex<Free>,
    /// Notified when capacity was returned and a caller waits for it, or when the limit was closed.
    more: Notify,
    max_records: usize,
    max_bytes: usize,
}

/// The remaining capacity.
#[derive(Debug)]
struct Free {
    records: usize,
    bytes: usize,
    closed: bool,
    /// Whether a caller waits for more.
    waited_for: bool,
}

/// Permit for in-flight records and bytes, returned when dropped.
///
/// Permits can be split and merged within one limit; the sum never changes by that.
#[derive(Debug)]
pub(super) struct BufferPermit {
    of: Arc<Inner>,
    records: usize,
    bytes: usize,
}

impl Inner {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferPermit {
    /// Returns the bytes that it holds; a record larger than the limit holds all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many records and bytes of a partition may be released together, so that the limit has room for
    /// others meanwhile.
    pub(super) fn max_together(&self) -> (usize, usize) {
        ((self.of.max_records / 8).max(1), self.of.max_bytes / 8)
    }

    /// Returns an empty permit of the same limit.
    pub(super) fn empty(&self) -> Self {
        Self { of: Arc::clone(&self.of), records: 0, bytes: 0 }
    }

    /// Moves the capacity of one record of this size to another permit of the same limit.
    pub(super) fn transfer(&mut self, other: &mut Self, bytes: usize) {
        let (records, bytes) = (self.records.min(1), self.bytes.min(bytes));
        self.records -= records;
        self.bytes -= bytes;
        other.records += records;
        other.bytes += bytes;
    }

    /// Splits off a permit for one record of this size.
    pub(super) fn split(&mut self, bytes: usize) -> Self {
        let mut split = self.empty();
        self.transfer(&mut split, bytes);
        split
    }
}

impl Drop for BufferPermit {
    fn drop(&mut self) {
        if (self.records, self.bytes) == (0, 0) {
            return;
        }
        let mut free = self.of.free();
        free.records += self.records;
        free.bytes += self.bytes;
        let waited_for = std::mem::take(&mut free.waited_for);
        drop(free);
        if waited_for {
            self.of.more.notify_one();
        }
    }
}

/// Why nothing can be taken.
enum Full {
    /// Capacity will return.
    ForNow,
    /// The publisher was closed or dropped.
    Closed,
}

impl BufferLimit {
    /// Creates a limit with its whole capacity free.
    pub(super) fn new(max_records: usize, max_bytes: usize) -> Self {
        let free = Mutex::new(Free { records: max_records, bytes: max_bytes, closed: false, waited_for: false });
        let inner = Inner { free, more: Notify::new(), max_records, max_bytes };
        Self { inner: Arc::new(inner) }
    }

    /// Takes capacity if there is enough; otherwise remembers whether the caller `waits`.
    fn try_reserve(&self, records: usize, bytes: usize, waits: bool) -> Result<BufferPermit, Full> {
        let mut free = self.inner.free();
        if free.closed {
            return Err(Full::Closed);
        }
        if free.records < records || free.bytes < bytes {
            free.waited_for |= waits;
            return Err(Full::ForNow);
        }
        free.records -= records;
        free.bytes -= bytes;
        Ok(BufferPermit { of: Arc::clone(&self.inner), records, bytes })
    }

    /// Waits until a record of `size` bytes fits; a record larger than the limit fits alone. `None` once closed.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken before the future completes.
    pub(super) async fn take(&self, size: usize) -> Option<BufferPermit> {
        let bytes = size.min(self.inner.max_bytes);
        loop {
            match self.try_reserve(1, bytes, true) {
                Ok(permit) => return Some(permit),
                Err(Full::Closed) => return None,
                // A release in between leaves a permit.
                Err(Full::ForNow) => self.inner.more.notified().await,
            }
        }
    }

    /// Like [`take`](Self::take), if there is no need to wait.
    pub(super) fn try_take(&self, size: usize) -> Option<BufferPermit> {
        self.try_reserve(1, size.min(self.inner.max_bytes), false).ok()
    }

    /// Takes a permit for several records of this total size, if there is room for all of them now.
    pub(super) fn try_take_all(&self, records: usize, bytes: usize) -> Option<BufferPermit> {
        self.try_reserve(records, bytes, false).ok()
    }

    /// Ends all waits, current and future.
    pub(super) fn close(&self) {
        self.inner.free().closed = true;
        self.inner.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_record_larger_than_the_bound_goes_alone() {
        let limit = BufferLimit::new(10, 100);
        let small = limit.take(10).now_or_never().flatten().unwrap();
        assert!(limit.take(1_000).now_or_never().is_none());
        drop(small);
        let large = limit.take(1_000).now_or_never().flatten().unwrap();
        assert!(limit.take(1).now_or_never().is_none());
        drop(large);
        assert!(limit.take(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn several_are_taken_together_and_given_back_one_by_one() {
        let limit = BufferLimit::new(3, 100);
        assert!(limit.try_take_all(4, 10).is_none() && limit.try_take_all(2, 101).is_none());
        let mut both = limit.try_take_all(2, 100).unwrap();
        assert!(limit.try_take(1).is_none());
        drop(both.split(60));
        assert_eq!((both.bytes(), limit.try_take(61).is_none(), limit.try_take_all(2, 60).is_some()), (40, true, true));
        let mut last = both.empty();
        both.transfer(&mut last, 40);
        drop(both);
        assert!(limit.try_take_all(3, 60).is_none());
        drop(last);
        assert!(limit.try_take_all(3, 100).is_some());
    }

    #[tokio::test]
    async fn closing_ends_the_wait() {
        let limit = BufferLimit::new(1, 100);
        let _held = limit.take(1).await;
        let waiting = limit.take(1);
        limit.close();
        assert!(waiting.await.is_none());
    }
}
