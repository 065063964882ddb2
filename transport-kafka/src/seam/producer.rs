//! The client's idempotent producer.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use krafka::consumer::Consumer;
use krafka::producer::{Acks, DeliveryHandle, Producer as Client};
use krafka::{CloseOptions, Compression as Codec, KrafkaError, Record as ClientRecord};
use tidings_core::{Error, ErrorKind, Header, Headers, Name, Position, Record, Result, Timestamp};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::admin::Asks;
use super::connection::Connection;
use crate::config::{Compression, KafkaConfig};
use crate::error::{ends_a_producer, failed, kind_of, leaves_open};

/// A record's offset where the broker said that it holds the record but no longer knows at which offset.
pub(crate) const UNTOLD_OFFSET: u64 = u64::MAX;

/// What is sent ahead of the bound of ours: the client's own must never be the one that waits.
const CLIENT_SLACK: usize = 64 << 20;

/// How long the client may look for a topic: one that was just made takes a moment until all brokers know it.
const MAX_BLOCK: Duration = Duration::from_secs(1);

/// How many headers the client sends with a record. It is its own limit, and can't be raised.
const MAX_HEADERS: usize = 10_000;

/// What a header's lengths take, at most.
const HEADER_BYTES: usize = 10;

/// The setting that bounds a batch of a topic, as the broker stores it.
const MAX_BATCH_SETTING: &str = "max.message.bytes";

/// Said by the client of a partition that it does not know of.
const NOT_IN_RANGE: &str = "which is not in the range";

#[derive(Debug)]
pub(crate) struct Producer {
    client: Client,
    looker: Looker,
    asks: Asks,
    batch_bytes: usize,
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

/// What is sent of a record, and that the client takes it. Its topic's name is left out: where one thread makes it and
/// another uses it up, all that is allocated takes much longer.
#[derive(Debug)]
pub(crate) struct Content {
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
    timestamp: Option<Timestamp>,
    size: usize,
}

/// Where a record goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) topic: Name,
    pub(crate) partition: u32,
}

/// A record on its way.
#[derive(Debug)]
pub(crate) struct Underway {
    handle: DeliveryHandle,
    /// It fills a batch by itself.
    alone: bool,
    /// How often the client had sent a batch once more, when the record was not yet given to it.
    retries: u64,
}

/// Why the client did not take a record: it is not stored.
#[derive(Debug)]
pub(crate) struct Untaken {
    pub(crate) error: Error,
    /// The client's producer takes nothing any more.
    pub(crate) over: bool,
}

/// Why a record on its way came to nothing.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// The broker refused the batch for one record in it, which need not be this one.
    pub(crate) batch: bool,
}

impl Producer {
    pub(crate) async fn open(connection: &Connection, config: &KafkaConfig) -> Result<Self> {
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
        let asks = Asks::new(connection, config).within(MAX_BLOCK);
        Ok(Self { client, looker: Looker(Arc::new(looker)), asks, batch_bytes: config.batch_bytes })
    }

    /// The largest batch that a topic takes, in bytes; `None` where no broker tells within a second, or may not.
    pub(crate) async fn largest_batch(&self, topic: &Name) -> Option<usize> {
        let settings = timeout(MAX_BLOCK, self.asks.settings(topic)).await.ok()?.ok()?;
        settings.get(MAX_BATCH_SETTING)?.parse().ok()
    }

    /// How often the client has sent a batch once more. It takes a moment: not to be asked for each record.
    pub(crate) fn retries(&self) -> u64 {
        self.client.metrics().producer.retries
    }

    /// Asks the brokers anew about topics, all at once and for a second at most: how many partitions each has, of those
    /// that there are.
    pub(crate) async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let asked = join_all(topics.iter().map(|topic| self.looker.0.fetch_metadata(Some(topic.as_str()))));
        let late = |_| Error::new(ErrorKind::Unavailable, format!("look for topics: no answer within {MAX_BLOCK:?}"));
        let mut counts = Vec::with_capacity(topics.len());
        for (topic, found) in topics.iter().zip(timeout(MAX_BLOCK, asked).await.map_err(late)?) {
            let found = found.map_err(|e| failed(format!("look for the topic {topic}"), e))?;
            let partitions = found.topics.iter().find(|t| t.name == topic.as_str()).map_or(0, |t| t.partition_count());
            if partitions > 0 {
                counts.push((topic.clone(), u32::try_from(partitions).unwrap_or(u32::MAX)));
            }
        }
        Ok(counts)
    }

    /// How many partitions a topic has, by what was last told; asks the brokers for a second at most if nothing was.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<u32> {
        let found = self.client.partitions_for(topic).await;
        let partitions = found.map_err(|e| failed(format!("look for the topic {topic}"), e))?;
        Ok(u32::try_from(partitions.len()).unwrap_or(u32::MAX))
    }

    /// Puts a record into the queue of its partition. Records of a partition leave in the order of these calls. `retries` is
    /// what [`retries`](Self::retries) was before.
    pub(crate) async fn enqueue(
        &self,
        target: &Target,
        content: Content,
        retries: u64,
    ) -> std::result::Result<Underway, Untaken> {
        let Target { topic, partition } = target;
        let index = i32::try_from(*partition);
        let index = index.map_err(|_| Untaken { error: no_partition(topic, *partition), over: false })?;
        let alone = content.size >= self.batch_bytes;
        let handle = self.client.enqueue(client_record(topic, index, content)).await;
        let handle = handle.map_err(|e| Untaken {
            over: ends_a_producer(&e),
            error: match e {
                // It has no other word for it; the topic was made anew, with fewer.
                KrafkaError::Config { .. } if e.to_string().contains(NOT_IN_RANGE) => no_partition(topic, *partition),
                e => failed(format!("publish to {topic}[{partition}]"), e),
            },
        })?;
        Ok(Underway { handle, alone, retries })
    }

    /// As [`enqueue`](Self::enqueue), in a batch of its own if nothing else is put into the queue meanwhile.
    pub(crate) async fn enqueue_alone(
        &self,
        target: &Target,
        content: Content,
        retries: u64,
    ) -> std::result::Result<Underway, Untaken> {
        self.close_batches();
        let underway = self.enqueue(target, content, retries).await?;
        self.close_batches();
        Ok(Underway { alone: true, ..underway })
    }

    /// Closes the batches that are open. Nothing joins a closed one.
    pub(crate) fn close_batches(&self) {
        // Polled once, it does so.
        drop(self.client.flush().now_or_never());
    }

    /// Refuses new records and waits for the answers to those under way.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<()> {
        let closed = self.client.close_with(CloseOptions::new().timeout(deadline)).await;
        closed.map_err(|e| Error::caused_by(ErrorKind::Indeterminate, "close the publisher: records are unanswered", e))
    }
}

impl Content {
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for more headers than the client sends, and for headers whose names are no UTF-8, as
    /// Kafka wants them.
    pub(crate) fn of(record: &Record) -> Result<Self> {
        if record.headers.len() > MAX_HEADERS {
            let (topic, count) = (&record.topic, record.headers.len());
            let what = format!("publish to {topic}: a record of {count} headers, where the client sends {MAX_HEADERS}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        for header in &record.headers {
            std::str::from_utf8(&header.name).map_err(|e| {
                let what = format!("publish to {}: a header's name is no UTF-8, as Kafka wants it", record.topic);
                Error::caused_by(ErrorKind::Invalid, what, e)
            })?;
        }
        Ok(Self {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            timestamp: record.timestamp,
            size: record.size(),
        })
    }

    /// The most that it takes in a batch.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.size + self.headers.len() * HEADER_BYTES
    }
}

impl Underway {
    /// Nothing else is in its batch.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// The broker's answer, from the producer that took it.
    pub(crate) fn poll_answer(
        &mut self,
        producer: &Producer,
        Target { topic, partition }: &Target,
        context: &mut Context<'_>,
    ) -> Poll<Result<Position, Refusal>> {
        Poll::Ready(match ready!(self.handle.poll_unpin(context)) {
            Ok(stored) => Ok(Position::new(*partition, u64::try_from(stored.offset).unwrap_or(UNTOLD_OFFSET))),
            Err(error) => {
                let kind = self.kind_of(producer, &error);
                // The client halves a batch that is too large, but only twice.
                let batch = !self.alone && matches!(kind, ErrorKind::Invalid | ErrorKind::TooLarge);
                let error = Error::caused_by(kind, format!("publish to {topic}[{partition}]"), error);
                Err(Refusal { error, batch })
            }
        })
    }

    fn kind_of(&self, producer: &Producer, error: &KrafkaError) -> ErrorKind {
        match kind_of(error) {
            _ if leaves_open(error) => ErrorKind::Indeterminate,
            // The right may have been taken away after the batch was sent for the first time, and its answer lost. The client
            // doesn't say whether it sent this batch twice, but how many it did.
            ErrorKind::Denied if producer.retries() != self.retries => ErrorKind::Indeterminate,
            // It is about what was to be sent.
            ErrorKind::Undecodable => ErrorKind::Invalid,
            kind => kind,
        }
    }
}

pub(crate) fn no_partition(topic: &str, partition: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("publish to {topic}[{partition}]: the topic has no such partition"))
}

fn client_record(topic: &str, partition: i32, content: Content) -> ClientRecord {
    let Content { key, value, headers, timestamp, .. } = content;
    let mut made = match value {
        Some(value) => ClientRecord::new(topic, value),
        None => ClientRecord::new(topic, Bytes::new()).without_value(),
    };
    if let Some(key) = key {
        made = made.key(key);
    }
    if let Some(time) = timestamp {
        made = made.timestamp(time.millis());
    }
    for Header { name, value, .. } in headers {
        // It is UTF-8, as was seen.
        let name = String::from_utf8_lossy(&name);
        made = match value {
            Some(value) => made.header(name, value),
            None => made.null_header(name),
        };
    }
    made.partition(partition)
}
