//! Threads of our own, each with a runtime for nothing else: a membership's, and two of each publisher.

use std::future::Future;
use std::sync::Arc;

use tidings_core::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, unconstrained};

/// A thread that runs tasks, one at a time, until all who hold this have dropped it.
///
/// For a member one at a time, because the client's heartbeat is a task beside the poll that joins: it reports what the
/// member owns, and if it runs before the poll has noted what the join gave, it reports nothing. To the broker that means
/// that all of it is free, and another member has partitions that this one is just beginning with. Between the two the poll
/// does not wait, so that on one thread, without the scheduler's budget, the heartbeat comes after it. And on a thread of its
/// own it does not wait for a handler that blocks one; its connection may, as that lives where it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    handle: Handle,
    _lives: Arc<oneshot::Sender<()>>,
}

impl Home {
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), if the system has no thread left.
    pub(crate) fn new(name: &'static str) -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::caused_by(ErrorKind::Unavailable, format!("start the thread {name}"), e);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, (lives, over)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let thread = std::thread::Builder::new().name(name.into());
        // It ends by itself, when `lives` is dropped.
        let _thread = thread.spawn(move || runtime.block_on(over).is_ok()).map_err(failed)?;
        Ok(Self { handle, _lives: Arc::new(lives) })
    }

    /// Where tasks are spawned that may be told to wait for others.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(unconstrained(future))
    }

    /// Waits for `future`, which runs here; dropped, it ends.
    pub(crate) async fn run<T, F>(&self, future: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut task = Ends(self.spawn(future));
        let done = (&mut task.0).await;
        done.unwrap_or_else(|e| {
            Err(Error::caused_by(ErrorKind::Indeterminate, "wait for a thread of the transport", e))
        })
    }
}

/// Ends a task that nobody waits for.
struct Ends<T>(JoinHandle<T>);

impl<T> Drop for Ends<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    /// What the client's poll and its heartbeat are to each other.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_task_that_another_one_starts_waits_until_that_one_waits() {
        let home = Home::new("test").unwrap();
        for _ in 0..200 {
            let poll = home.spawn(async {
                let (noted, lock) = (Arc::new(AtomicBool::new(false)), tokio::sync::Mutex::new(()));
                let heartbeat = tokio::spawn({
                    let noted = Arc::clone(&noted);
                    async move { noted.load(SeqCst) }
                });
                // More than a task's budget; and none of it waits.
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
