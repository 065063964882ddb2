//! Dedicated threads, each with its own runtime: one per membership, and two per publisher.

use std::future::Future;
use std::sync::Arc;

use tidings_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, unconstrained};

/// A thread that runs one task at a time until all of its handles are dropped.
///
/// A member needs one task at a time because the client's heartbeat runs concurrently with the poll that joins. The
/// heartbeat reports what the member owns; if it runs before the poll has recorded the new assignment, it reports
/// nothing. The broker then considers these partitions free, and another member gets partitions that this one is
/// about to read. The poll does not yield between the two, so on a single thread, without the scheduler's budget, the
/// heartbeat runs after it. On its own thread it is also independent of handlers that block theirs; its connection
/// may not be, as that runs where it was opened.
#[derive(Debug, Clone)]
pub(crate) struct DedicatedRuntime {
    handle: Handle,
    /// Dropped with the last handle, which ends the thread.
    _keep_alive: Arc<oneshot::Sender<()>>,
}

impl DedicatedRuntime {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), if the system has no thread left.
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::caused_by(ErrorKind::Unavailable, format!("start the thread {name:?}"), e);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, (keep_alive, stopped)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let thread = std::thread::Builder::new().name(name.into());
        // The thread ends when `keep_alive` is dropped.
        let _thread = thread.spawn(move || runtime.block_on(stopped).is_ok()).map_err(failed)?;
        Ok(Self { handle, _keep_alive: Arc::new(keep_alive) })
    }

    /// Returns a handle that spawns tasks which may wait for other tasks.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Spawns a task without the scheduler's budget, so that it yields only where it really waits.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(unconstrained(future))
    }

    /// Runs `future` on this thread and waits for it; dropping the wait ends it.
    ///
    /// # Errors
    /// Those of `future`; [`Indeterminate`](ErrorKind::Indeterminate) if it panicked or the thread
    /// has ended.
    ///
    /// # Cancel safety
    /// Dropping the wait aborts the task at its next wait.
    pub(crate) async fn run<T, F>(&self, future: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut task = AbortOnDrop(self.spawn(future));
        let done = (&mut task.0).await;
        done.unwrap_or_else(|e| {
            Err(Error::caused_by(ErrorKind::Indeterminate, "the transport's thread ended before it answered", e))
        })
    }
}

/// Aborts its task when dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    /// Models the client's poll and its heartbeat.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_another_one_starts_waits_until_that_one_waits() {
        let runtime = DedicatedRuntime::new("test").unwrap();
        for _ in 0..200 {
            let poll = runtime.spawn(async {
                let (noted, lock) = (Arc::new(AtomicBool::new(false)), tokio::sync::Mutex::new(()));
                let heartbeat = tokio::spawn({
                    let noted = Arc::clone(&noted);
                    async move { noted.load(SeqCst) }
                });
                // More steps than a task's budget, and none of them waits.
                for _ in 0..1_000 {
                    drop(lock.lock().await);
                }
                noted.store(true, SeqCst);
                heartbeat.await.unwrap()
            });
            assert!(poll.await.unwrap(), "the heartbeat came first");
        }
    }
}
