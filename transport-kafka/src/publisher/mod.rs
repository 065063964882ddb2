//! The publisher: places records, keeps what is unanswered within its bound, and gives each record its own outcome.

mod bound;
mod places;
mod queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use self::queue::{Job, Queue, Sent, Shared};
use crate::config::KafkaConfig;
use crate::seam::connection::{Connection, Role};
use crate::seam::producer::{Producer, Refusal};

/// How often a record is sent by itself after its batch was refused for another record's sake.
const ALONE_TRIES: usize = 3;

/// Publishes to Kafka: idempotent, and acknowledged by all replicas in sync.
///
/// A header's name must be UTF-8. Where the broker confirms a record as a repeat without telling where it lies, the
/// position's offset is `u64::MAX`.
#[derive(Debug)]
pub struct KafkaPublisher {
    // In the order of first polls, whoever is polled again or not.
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
    /// New calls are refused.
    closed: AtomicBool,
}

impl KafkaPublisher {
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let connection = Connection::open(config, Role::Steady).await?;
        let shared = Arc::new(Shared::new(Producer::open(&connection, config).await?, config));
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(Queue::new(Arc::clone(&shared), config.batch_bytes).run(queue));
        Ok(Self { jobs, shared, closed: AtomicBool::new(false) })
    }

    async fn settle(&self, sent: Sent) -> Result<Position> {
        let Sent { unanswered, spare, partition } = sent;
        let mut answer = unanswered.answer().await;
        for _ in 0..ALONE_TRIES {
            match &answer {
                Err(refusal) if refusal.batch => answer = self.alone(spare.clone(), partition).await,
                _ => break,
            }
        }
        answer.map_err(|refusal| refusal.error)
    }

    /// Sends a record whose batch was refused for one of its records in a batch of its own (P1).
    async fn alone(&self, record: Record, partition: u32) -> Result<Position, Refusal> {
        let (reply, answer) = oneshot::channel();
        let gone = || Refusal { error: closed(), batch: false };
        self.jobs.send(Job::Alone { record, partition, reply }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "publish: the publisher is closed")
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        let refused = || (0..count).map(|_| Err(closed())).collect();
        if self.closed.load(Ordering::Acquire) {
            return refused();
        }
        let (reply, queued) = oneshot::channel();
        // Given back when this future is dropped before its turn: what waits at the bound is held by its callers alone.
        let call = queue::Call::new(records);
        if self.jobs.send(Job::Publish { call: call.share(), since: Instant::now(), reply }).is_err() {
            return refused();
        }
        let Ok(sent) = queued.await else { return refused() };
        // One after the other: all are under way, and a batch's answers come together.
        let mut outcomes = Vec::with_capacity(count);
        for sent in sent {
            outcomes.push(match sent {
                Ok(sent) => self.settle(sent).await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let ends = Instant::now() + deadline;
        let (reply, all_queued) = oneshot::channel();
        if self.jobs.send(Job::Barrier(reply)).is_ok() {
            let _in_time = timeout_at(ends, all_queued).await;
        }
        self.shared.abandon();
        self.shared.producer.close(ends.saturating_duration_since(Instant::now())).await
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
