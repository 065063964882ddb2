//! A publisher over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{Begun, Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait};
use tokio::sync::Mutex;

use super::admin::miscounted;
use super::call::Client;
use crate::wire::{Answers, Each, Publish};
use crate::{MAX_BODY_BYTES, MAX_NAMES, Route, wire};

/// The size of a request's records, encoded.
const REQUEST_BYTES: usize = 2 << 20;
/// What surrounds the records of a request.
const ROOM: usize = 64;

/// A [`Publisher`] that asks an endpoint.
#[derive(Debug)]
pub(super) struct RemotePublisher {
    client: Arc<Client>,
    guarantees: Guarantees,
    closed: AtomicBool,
    /// One request at a time: two at once could arrive in another order, and those of a key must not (P3). Calls wait
    /// here with their records, in their order.
    turn: Mutex<()>,
}

impl RemotePublisher {
    pub(super) fn new(client: Arc<Client>, guarantees: Guarantees) -> Self {
        Self { client, guarantees, closed: AtomicBool::new(false), turn: Mutex::default() }
    }

    fn refusal(&self) -> Option<Error> {
        let closed = self.closed.load(Ordering::Acquire);
        closed.then(|| Error::new(ErrorKind::Closed, "publish: the publisher is closed"))
    }

    /// Publishes the records of one request.
    async fn request(&self, records: Vec<wire::Record>) -> Vec<Result<Position>> {
        let count = records.len();
        let all = |error: Error| (0..count).map(|_| Err(Error::new(error.kind(), error.report()))).collect();
        match self.client.post::<Answers<wire::Position>>(Route::RecordsPublish, &Publish { records }).await {
            Err(error) => all(error),
            Ok(Answers { answers }) if answers.len() != count => {
                all(miscounted(Route::RecordsPublish, count, answers.len()))
            }
            Ok(Answers { answers }) => {
                answers.into_iter().map(Each::into_result).map(|answer| answer.map(Position::from)).collect()
            }
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for RemotePublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let _turn = self.turn.lock().await;
        let mut answers = Vec::with_capacity(records.len());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for record in &records {
            if let Some(error) = self.refusal() {
                answers.push(Err(error));
                continue;
            }
            let record = wire::Record::from(record);
            let size = serde_json::to_vec(&record).map_or(usize::MAX, |json| json.len() + 1);
            if size > MAX_BODY_BYTES - ROOM {
                answers.extend(self.request(std::mem::take(&mut batch)).await);
                bytes = 0;
                let text = format!("publish a record: {size} bytes of JSON, at most {}", MAX_BODY_BYTES - ROOM);
                answers.push(Err(Error::new(ErrorKind::TooLarge, text)));
                continue;
            }
            if !batch.is_empty() && (bytes + size > REQUEST_BYTES || batch.len() == MAX_NAMES) {
                answers.extend(self.request(std::mem::take(&mut batch)).await);
                bytes = 0;
            }
            bytes += size;
            batch.push(record);
        }
        if !batch.is_empty() {
            answers.extend(self.request(batch).await);
        }
        answers
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            let lost = || Err(Error::new(ErrorKind::Indeterminate, "publish: the endpoint gave no answer"));
            self.publish(vec![record]).await.pop().unwrap_or_else(lost)
        }))
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let late = |_| Error::new(ErrorKind::Indeterminate, "close the publisher: records are still unanswered");
        tokio::time::timeout(deadline, self.turn.lock()).await.map(drop).map_err(late)
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}
