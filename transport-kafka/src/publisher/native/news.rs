//! Partitions with batches, on their way to the sending task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_core::ErrorKind;
use tokio::sync::Notify;

use super::buffer::PartitionBuffer;
use super::call::Outcome;

/// Partitions that have batches, and that the task has yet to look at.
#[derive(Debug)]
pub(super) struct News {
    /// `None` once the task has ended.
    listed: Mutex<Option<Vec<Arc<PartitionBuffer>>>>,
    any: Notify,
}

impl Default for News {
    fn default() -> Self {
        Self { listed: Mutex::new(Some(Vec::new())), any: Notify::new() }
    }
}

impl News {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<PartitionBuffer>>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds partitions, and wakes the task.
    pub(super) fn add(&self, listed: &mut Vec<Arc<PartitionBuffer>>) {
        if !listed.is_empty() {
            match &mut *self.lock() {
                Some(news) => news.append(listed),
                None => return listed.drain(..).for_each(|buffer| refuse(&buffer)),
            }
        }
        self.any.notify_one();
    }

    /// Waits until the task is woken.
    pub(super) async fn any(&self) {
        self.any.notified().await;
    }

    /// Returns the partitions that were added since.
    pub(super) fn take(&self) -> Vec<Arc<PartitionBuffer>> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Ends the batches of the partitions that the task has not seen, and of those that are added later.
    pub(super) fn end(&self) {
        let unseen = self.lock().take().unwrap_or_default();
        unseen.iter().for_each(|buffer| refuse(buffer));
    }
}

/// Ends the batches of a partition, because the task has ended.
fn refuse(buffer: &PartitionBuffer) {
    for batch in buffer.take_all() {
        batch.unended.end(Outcome::Failed(ErrorKind::Closed, "the publisher is closed".into()));
    }
}
