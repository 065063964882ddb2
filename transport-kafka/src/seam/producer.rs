//! The client's idempotent producer: two of them, for a half of the partitions each.
//!
//! One has a batch of each partition under way, and encodes the next ones only when those are answered: the broker then
//! waits for it, and it for the broker. With two on connections of their own, one encodes while the other waits.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{join_all, try_join_all};
use krafka::consumer::Consumer;
use krafka::producer::{Acks, DeliveryHandle, Producer as Client};
use krafka::{CloseOptions, Compression as Codec, Record as ClientRecord};
use tidings_core::{Error, ErrorKind, Name, Position, Record, Result};
use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::connection::{Connection, Role};
use crate::config::{Compression, KafkaConfig};
use crate::error::{failed, kind_of, leaves_open};

/// A record's offset where the broker said that it holds the record but no longer knows at which offset.
pub(crate) const UNTOLD_OFFSET: u64 = u64::MAX;

/// What is sent ahead of the bound of ours: the client's own must never be the one that waits.
const CLIENT_SLACK: usize = 64 << 20;

/// How long the client may look for a topic: one that was just made takes a moment until all brokers know it.
const MAX_BLOCK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Producer {
    halves: [Half; HALVES],
    batch_bytes: usize,
}

const HALVES: usize = 2;

/// One for the partitions with even numbers, one for the others.
#[derive(Debug)]
struct Half {
    client: Client,
    looker: Looker,
}

/// Asks for topics anew. The client's producer does not, once it knows a topic; but it shares what it knows with the
/// consumers of its connection.
struct Looker(Arc<Consumer>);

impl std::fmt::Debug for Looker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looker(..)")
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        // It is in no group: this only tells the client that it was not forgotten.
        if let Ok(runtime) = Handle::try_current() {
            let consumer = Arc::clone(&self.0);
            runtime.spawn(async move { consumer.close().await });
        }
    }
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Underway {
    handle: DeliveryHandle,
    /// It fills a batch by itself.
    alone: bool,
}

/// Why a record on its way came to nothing.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// The broker refused the batch for one record in it, which need not be this one.
    pub(crate) batch: bool,
}

impl Half {
    async fn open(config: &KafkaConfig) -> Result<Self> {
        let connection = Connection::open(config, Role::Publishing).await?;
        let codec = match config.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        };
        let memory = config.max_unanswered_bytes.saturating_mul(2).saturating_add(CLIENT_SLACK);
        let built = connection
            .0
            .producer()
            .acks(Acks::All)
            .idempotent(true)
            .compression(codec)
            .compression_level(config.compression_level)
            .batch_size(config.batch_bytes)
            .linger(config.linger)
            .delivery_timeout(config.delivery_timeout)
            .max_request_size(config.max_record_bytes.max(config.batch_bytes).saturating_mul(2).max(8 << 20))
            .max_block(MAX_BLOCK)
            .buffer_memory(memory)
            .metrics_push(false)
            .build()
            .await;
        let client = built.map_err(|e| failed("open a publisher", e))?;
        let looker = connection.0.consumer_without_group().metrics_push(false).build().await;
        let looker = looker.map_err(|e| failed("open a publisher", e))?;
        Ok(Self { client, looker: Looker(Arc::new(looker)) })
    }

    /// How many partitions a topic has; none if there is no such topic.
    async fn ask(&self, topic: &Name) -> Result<u32> {
        let found = self.looker.0.fetch_metadata(Some(topic.as_str())).await;
        let found = found.map_err(|e| failed(format!("look for the topic {topic}"), e))?;
        let partitions = found.topics.iter().find(|t| t.name == topic.as_str()).map_or(0, |t| t.partition_count());
        Ok(u32::try_from(partitions).unwrap_or(u32::MAX))
    }

    /// The same by what was last told; asks the brokers for a second at most if nothing was.
    async fn partitions(&self, topic: &str) -> Result<u32> {
        let found = self.client.partitions_for(topic).await;
        let partitions = found.map_err(|e| failed(format!("look for the topic {topic}"), e))?;
        Ok(u32::try_from(partitions.len()).unwrap_or(u32::MAX))
    }
}

impl Producer {
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let (even, odd) = tokio::try_join!(Half::open(config), Half::open(config))?;
        Ok(Self { halves: [even, odd], batch_bytes: config.batch_bytes })
    }

    fn half(&self, partition: u32) -> &Half {
        &self.halves[partition as usize % HALVES]
    }

    /// Asks the brokers anew about topics, all at once and for a second at most: how many partitions each has, of those
    /// that there are.
    pub(crate) async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let asked = try_join_all(topics.iter().map(|topic| self.least(|half| half.ask(topic))));
        let late = |_| Error::new(ErrorKind::Unavailable, format!("look for topics: no answer within {MAX_BLOCK:?}"));
        let counts = timeout(MAX_BLOCK, asked).await.map_err(late)??;
        Ok(topics.iter().cloned().zip(counts).filter(|(_, count)| *count > 0).collect())
    }

    /// How many partitions a topic has, by what was last told; asks the brokers for a second at most if nothing was.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<u32> {
        self.least(|half| half.partitions(topic)).await
    }

    /// The count that both know of: they ask brokers that may hear of new partitions at different times.
    async fn least<'a, F: Future<Output = Result<u32>>>(&'a self, count: impl Fn(&'a Half) -> F) -> Result<u32> {
        let counts = try_join_all(self.halves.iter().map(count)).await?;
        Ok(counts.into_iter().min().unwrap_or(0))
    }

    /// Puts a record into the queue of its partition. Records of a partition leave in the order of these calls.
    pub(crate) async fn enqueue(&self, record: &Record, partition: u32) -> Result<Underway> {
        let (topic, alone) = (&record.topic, record.size() >= self.batch_bytes);
        let index = i32::try_from(partition).map_err(|_| no_partition(topic, partition))?;
        let handle = self.half(partition).client.enqueue(client_record(record, index)?).await;
        let handle = handle.map_err(|e| failed(format!("publish to {topic}[{partition}]"), e))?;
        Ok(Underway { handle, alone })
    }

    /// As [`enqueue`](Self::enqueue), if nothing has to be waited for; else nothing is done. To be called within a runtime.
    pub(crate) fn try_enqueue(&self, record: &Record, partition: u32) -> Option<Result<Underway>> {
        // The task that calls has a budget for what is ready at once, which is less than a call's records.
        unconstrained(self.enqueue(record, partition)).now_or_never()
    }

    /// As [`enqueue`](Self::enqueue), in a batch of its own if nothing else is put into the queue meanwhile.
    pub(crate) async fn enqueue_alone(&self, record: &Record, partition: u32) -> Result<Underway> {
        // Polled once, it closes the batches that are open: those of before, and then this one. Nothing joins a closed one.
        let close_batches = || drop(self.half(partition).client.flush().now_or_never());
        close_batches();
        let underway = self.enqueue(record, partition).await?;
        close_batches();
        Ok(Underway { alone: true, ..underway })
    }

    /// Refuses new records and waits for the answers to those under way.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<()> {
        let options = || CloseOptions::new().timeout(deadline);
        let closed = join_all(self.halves.iter().map(|half| half.client.close_with(options()))).await;
        closed
            .into_iter()
            .collect::<krafka::Result<()>>()
            .map_err(|e| Error::caused_by(ErrorKind::Unknown, "close the publisher: records are unanswered", e))
    }
}

impl Underway {
    /// The broker's answer.
    pub(crate) async fn answer(&mut self, topic: &str, partition: u32) -> Result<Position, Refusal> {
        poll_fn(|context| self.poll_answer(topic, partition, context)).await
    }

    pub(crate) fn poll_answer(
        &mut self,
        topic: &str,
        partition: u32,
        context: &mut Context<'_>,
    ) -> Poll<Result<Position, Refusal>> {
        Poll::Ready(match ready!(self.handle.poll_unpin(context)) {
            Ok(stored) => Ok(Position::new(partition, u64::try_from(stored.offset).unwrap_or(UNTOLD_OFFSET))),
            Err(error) => {
                let kind = if leaves_open(&error) { ErrorKind::Unknown } else { kind_of(&error) };
                // The client halves a batch that is too large, but only twice.
                let batch = !self.alone && matches!(kind, ErrorKind::Invalid | ErrorKind::TooLarge);
                let error = Error::caused_by(kind, format!("publish to {topic}[{partition}]"), error);
                Err(Refusal { error, batch })
            }
        })
    }
}

pub(crate) fn no_partition(topic: &str, partition: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("publish to {topic}[{partition}]: the topic has no such partition"))
}

fn client_record(record: &Record, partition: i32) -> Result<ClientRecord> {
    let mut made = ClientRecord::new(record.topic.as_str(), record.value.clone().unwrap_or_default());
    if record.value.is_none() {
        made = made.without_value();
    }
    if let Some(key) = &record.key {
        made = made.key(key.clone());
    }
    if let Some(time) = record.timestamp {
        made = made.timestamp(time.millis());
    }
    for header in &record.headers {
        let name = std::str::from_utf8(&header.name).map_err(|e| {
            let what = format!("publish to {}: a header's name is no UTF-8, as Kafka wants it", record.topic);
            Error::caused_by(ErrorKind::Invalid, what, e)
        })?;
        made = match &header.value {
            Some(value) => made.header(name, value.clone()),
            None => made.null_header(name),
        };
    }
    Ok(made.partition(partition))
}
