//! A publisher over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{
    Begun, DelayedRecord, Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::unconstrained;
use uuid::Uuid;

use super::admin::miscounted;
use super::call::Client;
use crate::wire::{Answers, Each, Publish};
use crate::{MAX_BODY_BYTES, MAX_NAMES, Route, wire};

/// The size of a request's records, encoded.
const REQUEST_BYTES: usize = 2 << 20;
/// The bytes of a request around its records.
const ROOM: usize = 64;

/// The calls that wait for their turn in the task; the next ones wait with their callers.
const WAITING: usize = 64;

/// A [`Publisher`] that asks an endpoint.
///
/// A task sends one request at a time: two at once could arrive in another order, and those of a key must not (P3). It
/// goes on whether or not the callers are polled, so that `close` waits for what is under way, and for nothing else.
#[derive(Debug)]
pub(super) struct RemotePublisher {
    calls: mpsc::Sender<Call>,
    /// Is held by the call that sends next.
    turn: Mutex<()>,
    guarantees: Guarantees,
    closed: AtomicBool,
}

/// A call that waits for its turn.
#[derive(Debug)]
enum Call {
    Publish(Vec<Record>, oneshot::Sender<Vec<Result<Position>>>),
    /// Answers once all calls before are answered.
    Close(oneshot::Sender<()>),
}

/// Sends the requests of a publisher.
struct Task {
    client: Arc<Client>,
}

impl RemotePublisher {
    /// Creates a publisher, and starts its task, which ends with it.
    pub(super) fn new(client: Arc<Client>, guarantees: Guarantees) -> Self {
        let (calls, mut waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let task = Task { client };
            while let Some(call) = waiting.recv().await {
                // The caller may have stopped waiting.
                match call {
                    Call::Publish(records, reply) => drop(reply.send(task.publish(&records).await)),
                    Call::Close(reply) => drop(reply.send(())),
                }
            }
        });
        Self { calls, turn: Mutex::default(), guarantees, closed: AtomicBool::new(false) }
    }
}

/// Returns the same error for each record.
fn all(count: usize, kind: ErrorKind, text: &str) -> Vec<Result<Position>> {
    (0..count).map(|_| Err(Error::new(kind, text.to_owned()))).collect()
}

impl Task {
    /// Publishes the records of one request.
    async fn request(&self, records: Vec<wire::Record>) -> Vec<Result<Position>> {
        let count = records.len();
        match self.client.post::<Answers<wire::Position>>(Route::RecordsPublish, &Publish { records }).await {
            Err(error) => all(count, error.kind(), &error.report()),
            Ok(Answers { answers }) if answers.len() != count => {
                let error = miscounted(Route::RecordsPublish, count, answers.len());
                all(count, error.kind(), &error.report())
            }
            Ok(Answers { answers }) => {
                answers.into_iter().map(Each::into_result).map(|answer| answer.map(Position::from)).collect()
            }
        }
    }

    /// Publishes the records of a call, in as many requests as they need.
    async fn publish(&self, records: &[Record]) -> Vec<Result<Position>> {
        let mut answers = Vec::with_capacity(records.len());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for record in records {
            let record = wire::Record::from(record);
            let size = serde_json::to_vec(&record).map_or(usize::MAX, |json| json.len() + 1);
            let too_large = size > MAX_BODY_BYTES - ROOM;
            if !batch.is_empty() && (too_large || bytes + size > REQUEST_BYTES || batch.len() == MAX_NAMES) {
                answers.extend(self.request(std::mem::take(&mut batch)).await);
                bytes = 0;
            }
            if too_large {
                let text = format!("publish a record: {size} bytes of JSON, at most {}", MAX_BODY_BYTES - ROOM);
                answers.push(Err(Error::new(ErrorKind::TooLarge, text)));
                continue;
            }
            bytes += size;
            batch.push(record);
        }
        if !batch.is_empty() {
            answers.extend(self.request(batch).await);
        }
        answers
    }
}

/// Returns the error of a route that the endpoint does not have.
fn not_delayed() -> Error {
    let what = "publish a delayed event: the admin API does not hold events back, and nothing is published";
    Error::new(ErrorKind::Unsupported, what)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for RemotePublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        let (reply, answers) = oneshot::channel();
        // The first poll must take the call's place (P3): with its budget spent, a task would not. And a call that may
        // send, but is not polled yet, must not be overtaken: a channel alone grants room to several at once.
        let turn = unconstrained(self.turn.lock()).await;
        if self.closed.load(Ordering::Acquire) {
            return all(count, ErrorKind::Closed, "publish: the publisher is closed");
        }
        if unconstrained(self.calls.send(Call::Publish(records, reply))).await.is_err() {
            return all(count, ErrorKind::Closed, "publish: the publisher's runtime has ended");
        }
        drop(turn);
        let lost = |_| all(count, ErrorKind::Indeterminate, "publish: the publisher's runtime has ended");
        answers.await.unwrap_or_else(lost)
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            let lost = || Err(Error::new(ErrorKind::Indeterminate, "publish: the endpoint gave no answer"));
            self.publish(vec![record]).await.pop().unwrap_or_else(lost)
        }))
    }

    async fn publish_delayed(&self, _: DelayedRecord) -> Result<()> {
        Err(not_delayed())
    }

    async fn cancel_delayed(&self, _: Uuid) -> Result<bool> {
        let what = "cancel a delayed event: the admin API does not hold events back, and nothing is cancelled";
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let (reply, done) = oneshot::channel();
        let ended = async {
            // A task that is gone has nothing under way.
            if self.calls.send(Call::Close(reply)).await.is_ok() {
                let _ended = done.await;
            }
        };
        let late = |_| Error::new(ErrorKind::Indeterminate, "close the publisher: records are still unanswered");
        tokio::time::timeout(deadline, ended).await.map_err(late)
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}
