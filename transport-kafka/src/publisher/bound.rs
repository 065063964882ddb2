//! The bound on unanswered records and bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many records and bytes may be unanswered. Only whoever has the publisher's turn takes of it, so that the order of
/// those who wait is that of their first polls: one waits at a time.
#[derive(Debug)]
pub(super) struct Bound {
    inner: Arc<Inner>,
    max_bytes: usize,
}

#[derive(Debug)]
struct Inner {
    free: Mutex<Free>,
    more: Notify,
}

/// What may still be taken.
#[derive(Debug)]
struct Free {
    records: usize,
    bytes: usize,
    closed: bool,
    /// Somebody waits for more.
    waited_for: bool,
}

/// A record's share, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Inner>,
    bytes: usize,
}

impl Inner {
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut free = self.of.free();
        free.records += 1;
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
    ForNow,
    Closed,
}

impl Bound {
    pub(super) fn new(records: usize, max_bytes: usize) -> Self {
        let free = Free { records, bytes: max_bytes, closed: false, waited_for: false };
        Self { inner: Arc::new(Inner { free: Mutex::new(free), more: Notify::new() }), max_bytes }
    }

    fn look(&self, size: usize, waits: bool) -> Result<Share, Full> {
        let bytes = size.min(self.max_bytes);
        let mut free = self.inner.free();
        if free.closed {
            return Err(Full::Closed);
        }
        if free.records == 0 || free.bytes < bytes {
            free.waited_for |= waits;
            return Err(Full::ForNow);
        }
        free.records -= 1;
        free.bytes -= bytes;
        Ok(Share { of: Arc::clone(&self.inner), bytes })
    }

    /// Waits until a record of `size` bytes fits; one that is larger than the bound fits alone. `None` once closed.
    pub(super) async fn take(&self, size: usize) -> Option<Share> {
        loop {
            match self.look(size, true) {
                Ok(share) => return Some(share),
                Err(Full::Closed) => return None,
                // What is given back in between leaves a permit.
                Err(Full::ForNow) => self.inner.more.notified().await,
            }
        }
    }

    /// As [`take`](Self::take), if nothing has to be waited for.
    pub(super) fn try_take(&self, size: usize) -> Option<Share> {
        self.look(size, false).ok()
    }

    /// Ends all waiting, now and later.
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
