//! Requests that wait for their answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{Error, ErrorKind};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::RequestError;

/// Receives the answer to a request.
pub(super) type AnswerSender = oneshot::Sender<Result<Bytes, RequestError>>;

/// An encoded request on its way to the socket.
pub(super) struct Outgoing {
    pub(super) correlation: i32,
    pub(super) frame: Bytes,
    pub(super) answer: AnswerSender,
    /// A share of the connection's limit of requests without an answer; none for authentication.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// A request that was written.
struct Awaited {
    correlation: i32,
    answer: AnswerSender,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Default)]
struct Waiting {
    /// In the order in which they were written, which is that of their answers.
    awaited: VecDeque<Awaited>,
    failure: Option<Arc<Error>>,
}

/// Requests without an answer, and the cause of the connection's end.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Bytes of answers that have arrived.
    arrived: AtomicU64,
    /// Microseconds by which the deadlines of requests were moved on.
    delayed: AtomicU64,
    ended: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that is about to be written, and returns its frame; `None` if its caller no longer waits.
    pub(super) fn add(&self, outgoing: Outgoing) -> Option<Bytes> {
        let Outgoing { correlation, frame, answer, permit } = outgoing;
        if answer.is_closed() {
            return None;
        }
        let mut waiting = self.lock();
        if let Some(failure) = &waiting.failure {
            let _gone = answer.send(Err(RequestError::Unsent(Arc::clone(failure))));
            return None;
        }
        waiting.awaited.push_back(Awaited { correlation, answer, _permit: permit });
        Some(frame)
    }

    /// Passes an answer on to the oldest request.
    ///
    /// # Errors
    /// [`Undecodable`](ErrorKind::Undecodable) if it is the answer to another one.
    pub(super) fn answer(&self, correlation: i32, answer: Bytes) -> Result<(), Error> {
        let oldest = {
            let mut waiting = self.lock();
            waiting.awaited.pop_front()
        };
        match oldest {
            Some(oldest) if oldest.correlation == correlation => {
                // Its caller may no longer wait.
                let _gone = oldest.answer.send(Ok(answer));
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Undecodable, "the broker answered a request that was not sent")),
        }
    }

    /// Counts bytes of an answer that is being read.
    pub(super) fn add_arrived(&self, bytes: usize) {
        self.arrived.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the number of bytes of answers that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Moves the deadlines of pending requests on.
    pub(super) fn delay(&self, by: Duration) {
        self.delayed.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns by how much the deadlines of requests were moved on since the connection was opened.
    pub(super) fn delayed(&self) -> Duration {
        Duration::from_micros(self.delayed.load(Ordering::Relaxed))
    }

    /// Fails all pending requests; the first failure is kept.
    pub(super) fn fail(&self, error: Arc<Error>) {
        let awaited = {
            let mut waiting = self.lock();
            waiting.failure.get_or_insert(error);
            std::mem::take(&mut waiting.awaited)
        };
        if let Some(failure) = self.failure() {
            for request in awaited {
                let _gone = request.answer.send(Err(RequestError::Unanswered(Arc::clone(&failure))));
            }
        }
        self.ended.notify_one();
    }

    /// Returns why the connection ended.
    pub(super) fn failure(&self) -> Option<Arc<Error>> {
        self.lock().failure.clone()
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        while self.failure().is_none() {
            self.ended.notified().await;
        }
    }
}
