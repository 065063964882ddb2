//! The client's idempotent producer.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use krafka::consumer::Consumer;
use krafka::producer::{Acks, DeliveryHandle, Producer as Client};
use krafka::{CloseOptions, Compression as Codec, Record as ClientRecord};
use tidings_core::{Error, ErrorKind, Header, Headers, Name, Position, Record, Result, Timestamp};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection::Connection;
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
    client: Client,
    looker: Looker,
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
        Ok(Self { client, looker: Looker(Arc::new(looker)), batch_bytes: config.batch_bytes })
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

    /// Puts a record into the queue of its partition. Records of a partition leave in the order of these calls.
    pub(crate) async fn enqueue(&self, topic: &Name, partition: u32, content: Content) -> Result<Underway> {
        let index = i32::try_from(partition).map_err(|_| no_partition(topic, partition))?;
        let alone = content.size >= self.batch_bytes;
        let handle = self.client.enqueue(client_record(topic, index, content)).await;
        let handle = handle.map_err(|e| failed(format!("publish to {topic}[{partition}]"), e))?;
        Ok(Underway { handle, alone })
    }

    /// As [`enqueue`](Self::enqueue), in a batch of its own if nothing else is put into the queue meanwhile.
    pub(crate) async fn enqueue_alone(&self, topic: &Name, partition: u32, content: Content) -> Result<Underway> {
        // Polled once, it closes the batches that are open: those of before, and then this one. Nothing joins a closed one.
        let close_batches = || drop(self.client.flush().now_or_never());
        close_batches();
        let underway = self.enqueue(topic, partition, content).await?;
        close_batches();
        Ok(Underway { alone: true, ..underway })
    }

    /// Refuses new records and waits for the answers to those under way.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<()> {
        let closed = self.client.close_with(CloseOptions::new().timeout(deadline)).await;
        closed.map_err(|e| Error::caused_by(ErrorKind::Unknown, "close the publisher: records are unanswered", e))
    }
}

impl Content {
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for headers whose names are no UTF-8, as Kafka wants them.
    pub(crate) fn of(record: &Record) -> Result<Self> {
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
}

impl Underway {
    /// The broker's answer.
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
