//! The client's idempotent producer.
//!
//! The producer is idempotent (KIP-98) and waits for all in-sync replicas. It batches by partition;
//! a batch is refused as a whole, and the client reports one answer for each record of it.
//!
//! An answer is one of three: stored, not stored, or open. A record whose batch was sent and whose
//! answer was lost is open ([`Indeterminate`](ErrorKind::Indeterminate)): it must not be reported
//! as failed (P2).

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
use tokio::time::timeout;

use super::admin::ClusterClient;
use super::connection::Connection;
use super::fetcher::close_quietly;
use crate::config::{Compression, KafkaConfig};
use crate::error::{ends_a_producer, failed, kind_of, leaves_open};

/// Offset of a record that the broker holds, but whose offset it no longer knows.
pub(crate) const UNKNOWN_OFFSET: u64 = u64::MAX;

/// Margin over our own limit: the client's limit must never be the one that waits.
const CLIENT_SLACK: usize = 64 << 20;

/// How long the client may look for a topic: it takes a moment until all brokers know a new one.
const MAX_BLOCK: Duration = Duration::from_secs(1);

/// Maximum number of headers per record. It is the client's own limit, and cannot be raised.
const MAX_HEADERS: usize = 10_000;

/// Maximum size of the lengths of a header.
const HEADER_BYTES: usize = 10;

/// The setting that limits a topic's batches, as the broker stores it.
const MAX_BATCH_SETTING: &str = "max.message.bytes";

/// Client message for a partition that it does not know.
const NOT_IN_RANGE: &str = "which is not in the range";

/// Counts of the client since the producer was opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProducerCounts {
    /// The batches that were sent again.
    pub(crate) retries: u64,
    /// How long requests were held back because the brokers throttle the client.
    pub(crate) throttled: Duration,
}

/// A client's producer, with the means to ask about topics.
#[derive(Debug)]
pub(crate) struct Producer {
    client: Client,
    refresher: MetadataRefresher,
    /// For settings of topics, on the same connection.
    cluster: ClusterClient,
    /// A record of this size or more fills a batch alone.
    batch_bytes: usize,
}

/// Refreshes topics. The client's producer does not refresh a known topic, but it shares its metadata with the
/// consumers of its connection.
struct MetadataRefresher(Arc<Consumer>);

impl std::fmt::Debug for MetadataRefresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetadataRefresher(..)")
    }
}

impl Drop for MetadataRefresher {
    fn drop(&mut self) {
        close_quietly(&self.0);
    }
}

/// The parts of a record that are sent, accepted by the client. The topic's name is left out: if one thread creates
/// and another drops the record, every allocation takes much longer.
#[derive(Debug)]
pub(crate) struct RecordContent {
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
    timestamp: Option<Timestamp>,
    size: usize,
}

/// Topic and partition of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) topic: Name,
    pub(crate) partition: u32,
}

/// An in-flight record.
#[derive(Debug)]
pub(crate) struct InFlightRecord {
    handle: DeliveryHandle,
    /// Whether it fills a batch alone.
    alone: bool,
    /// The client's retry count before the record was passed to it.
    retries: u64,
}

/// Why the client did not accept a record: it is not stored.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) error: Error,
    /// Whether the client's producer accepts no more records.
    pub(crate) ended: bool,
}

/// Why an in-flight record was not stored.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// The broker refused the batch because of one of its records, which need not be this one.
    pub(crate) batch: bool,
}

impl Producer {
    /// Opens a producer and obtains its identity from a broker.
    ///
    /// The client's own memory limit is twice ours and some more, so that only our limit makes
    /// callers wait.
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
        let refresher = connection.0.consumer_without_group().metrics_push(false).build().await;
        let refresher = refresher.map_err(|e| failed("open a publisher", e))?;
        let cluster = ClusterClient::new(connection, config).within(MAX_BLOCK);
        Ok(Self { client, refresher: MetadataRefresher(Arc::new(refresher)), cluster, batch_bytes: config.batch_bytes })
    }

    /// Returns the largest batch that a topic accepts, in bytes; `None` if no broker reports it within a second, or
    /// the right to ask is missing.
    pub(crate) async fn largest_batch(&self, topic: &Name) -> Option<usize> {
        let settings = timeout(MAX_BLOCK, self.cluster.settings(topic)).await.ok()?.ok()?;
        settings.get(MAX_BATCH_SETTING)?.parse().ok()
    }

    /// Returns how many batches the client has resent. The call takes a moment, so do not make it for each record.
    pub(crate) fn retries(&self) -> u64 {
        self.counts().retries
    }

    /// Returns the client's counts. The call takes a moment, so do not make it for each record.
    pub(crate) fn counts(&self) -> ProducerCounts {
        let metrics = self.client.metrics();
        let throttled = Duration::from_millis(metrics.connections.throttle_delay_ms);
        ProducerCounts { retries: metrics.producer.retries, throttled }
    }

    /// Asks the brokers again about topics, all at once and for at most a second, and returns the partition count of
    /// each existing topic.
    pub(crate) async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let asked = join_all(topics.iter().map(|topic| self.refresher.0.fetch_metadata(Some(topic.as_str()))));
        let late = |_| Error::new(ErrorKind::Unavailable, format!("refresh topics: no answer within {MAX_BLOCK:?}"));
        let mut counts = Vec::with_capacity(topics.len());
        for (topic, found) in topics.iter().zip(timeout(MAX_BLOCK, asked).await.map_err(late)?) {
            let found = found.map_err(|e| failed(format!("look up topic {topic:?}"), e))?;
            let partitions = found.topics.iter().find(|t| t.name == topic.as_str()).map_or(0, |t| t.partition_count());
            if partitions > 0 {
                counts.push((topic.clone(), u32::try_from(partitions).unwrap_or(u32::MAX)));
            }
        }
        Ok(counts)
    }

    /// Returns a topic's partition count as last reported; without one, asks the brokers for at most a second.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<u32> {
        let found = self.client.partitions_for(topic).await;
        let partitions = found.map_err(|e| failed(format!("look up topic {topic:?}"), e))?;
        Ok(u32::try_from(partitions.len()).unwrap_or(u32::MAX))
    }

    /// Puts a record into the queue of its partition. Records of a partition are sent in the order of these calls.
    /// `retries` is the earlier result of [`retries`](Self::retries).
    ///
    /// # Errors
    /// [`Rejected`]: the record is not in the queue and will not be stored.
    pub(crate) async fn enqueue(
        &self,
        target: &Target,
        content: RecordContent,
        retries: u64,
    ) -> std::result::Result<InFlightRecord, Rejected> {
        let Target { topic, partition } = target;
        let index = i32::try_from(*partition);
        let index = index.map_err(|_| Rejected { error: no_partition(topic, *partition), ended: false })?;
        let alone = content.size >= self.batch_bytes;
        let handle = self.client.enqueue(client_record(topic, index, content)).await;
        let handle = handle.map_err(|e| Rejected {
            ended: ends_a_producer(&e),
            error: match e {
                // The client has no other error for this; the topic was created anew, with fewer partitions.
                KrafkaError::Config { .. } if e.to_string().contains(NOT_IN_RANGE) => no_partition(topic, *partition),
                e => failed(format!("publish to {topic}[{partition}]"), e),
            },
        })?;
        Ok(InFlightRecord { handle, alone, retries })
    }

    /// Like [`enqueue`](Self::enqueue), in a batch of its own if nothing else is queued meanwhile.
    pub(crate) async fn enqueue_alone(
        &self,
        target: &Target,
        content: RecordContent,
        retries: u64,
    ) -> std::result::Result<InFlightRecord, Rejected> {
        self.close_batches();
        let in_flight = self.enqueue(target, content, retries).await?;
        self.close_batches();
        Ok(InFlightRecord { alone: true, ..in_flight })
    }

    /// Closes the open batches. Nothing joins a closed batch.
    pub(crate) fn close_batches(&self) {
        // A single poll closes them.
        drop(self.client.flush().now_or_never());
    }

    /// Refuses new records and waits for the answers to those in flight.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate) if records are unanswered at the deadline.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<()> {
        let closed = self.client.close_with(CloseOptions::new().timeout(deadline)).await;
        closed.map_err(|e| {
            Error::caused_by(
                ErrorKind::Indeterminate,
                "close the publisher: records in flight were not answered before the deadline",
                e,
            )
        })
    }
}

impl RecordContent {
    /// Converts a record.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for more headers than the client sends, and for header names that are not
    /// UTF-8, which Kafka requires.
    pub(crate) fn of(record: &Record) -> Result<Self> {
        check_headers(record)?;
        Ok(Self {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            timestamp: record.timestamp,
            size: record.size(),
        })
    }

    /// Returns its maximum size in a batch.
    ///
    /// An upper bound: it is compared with the topic's limit before the batch is encoded.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.size + self.headers.len() * HEADER_BYTES
    }
}

impl InFlightRecord {
    /// Marks it as the only record of its batch.
    pub(crate) fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Polls the broker's answer from the producer that accepted the record.
    pub(crate) fn poll_answer(
        &mut self,
        producer: &Producer,
        Target { topic, partition }: &Target,
        context: &mut Context<'_>,
    ) -> Poll<Result<Position, Refusal>> {
        Poll::Ready(match ready!(self.handle.poll_unpin(context)) {
            Ok(stored) => Ok(Position::new(*partition, u64::try_from(stored.offset).unwrap_or(UNKNOWN_OFFSET))),
            Err(error) => {
                let kind = self.kind_of(producer, &error);
                // The client halves a batch that is too large, but only twice.
                let batch = !self.alone && matches!(kind, ErrorKind::Invalid | ErrorKind::TooLarge);
                let error = Error::caused_by(kind, format!("publish to {topic}[{partition}]"), error);
                Err(Refusal { error, batch })
            }
        })
    }

    /// Decides between not stored and open, for which the client's error alone is not enough.
    fn kind_of(&self, producer: &Producer, error: &KrafkaError) -> ErrorKind {
        match kind_of(error) {
            _ if leaves_open(error) => ErrorKind::Indeterminate,
            // The right may have been revoked after the batch was first sent and its answer lost. The client does not
            // report whether it sent this batch twice, but how many batches it did.
            ErrorKind::Denied if producer.retries() != self.retries => ErrorKind::Indeterminate,
            // The error concerns the record to be sent.
            ErrorKind::Undecodable => ErrorKind::Invalid,
            kind => kind,
        }
    }
}

/// Checks the headers of a record.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for more headers than the client sends, and for header names that are not UTF-8,
/// which Kafka requires.
pub(crate) fn check_headers(record: &Record) -> Result<()> {
    if record.headers.len() > MAX_HEADERS {
        let (topic, count) = (&record.topic, record.headers.len());
        let what =
            format!("publish to {topic:?}: a record with {count} headers exceeds the client's limit of {MAX_HEADERS}");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    for header in &record.headers {
        std::str::from_utf8(&header.name).map_err(|e| {
            let what = format!("publish to {:?}: a header name is not UTF-8, which Kafka requires", record.topic);
            Error::caused_by(ErrorKind::Invalid, what, e)
        })?;
    }
    Ok(())
}

/// The error of a partition that the topic does not have.
pub(crate) fn no_partition(topic: &str, partition: u32) -> Error {
    Error::new(ErrorKind::NotFound, format!("publish to {topic}[{partition}]: there is no such partition"))
}

/// Converts a record without copying its bytes. A missing value is a tombstone, not an empty one.
fn client_record(topic: &str, partition: i32, content: RecordContent) -> ClientRecord {
    let RecordContent { key, value, headers, timestamp, .. } = content;
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
        // Valid UTF-8, as checked above.
        let name = String::from_utf8_lossy(&name);
        made = match value {
            Some(value) => made.header(name, value),
            None => made.null_header(name),
        };
    }
    made.partition(partition)
}
