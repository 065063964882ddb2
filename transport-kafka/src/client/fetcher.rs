//! Fetching with the client, without its groups: one or two fetchers per leading broker, and one that follows leaders.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use krafka::KrafkaError;
use krafka::consumer::{AutoOffsetReset, Consumer as Client, ConsumerBuilder, IsolationLevel};
use tidings_core::{Error, ErrorKind, Result, TopicPartition};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection::Connection;
use super::fetched::by_partition;
pub(crate) use super::fetched::{FetchedPartition, FetchedRecords};
use crate::config::{Isolation, KafkaConfig};
use crate::error::failed;

/// Decoded records that the client keeps beyond a poll; with few, it decodes a fetch, drops the rest and fetches it
/// again (K3). Their size is that of the fetches, decompressed.
const MAX_BUFFERED_RECORDS: i32 = 100_000;
/// How long the client may work on one answer, in addition to the fetch's wait for records. Its requests have limits
/// of their own, but a request that reaches its connection at the moment it ends may get neither an answer nor an
/// error.
const LIMIT: Duration = Duration::from_secs(30);
/// Parts of the client's message for a batch that it cannot decode, around the partition and the offset, and before the
/// cause.
const UNDECODABLE: &str = "undecodable record batch at ";
const OFFSET: &str = " offset ";
const CAUSE: &str = "Underlying error: ";

/// Fetch sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchSizes {
    /// Bytes of one fetch, over all of its partitions.
    pub(crate) max_bytes: usize,
    /// Bytes of one partition in a fetch.
    pub(crate) max_partition_bytes: usize,
    /// Records that one poll returns; the rest stays in the client's buffer.
    pub(crate) max_records: usize,
}

impl FetchSizes {
    /// Limits fetches to one batch, which brokers return in any case.
    pub(crate) fn single(self) -> Self {
        Self { max_bytes: 1, max_partition_bytes: 1, ..self }
    }
}

/// A consumer without a group, for the partitions that it is assigned. It never commits.
pub(crate) struct Fetcher(Arc<Client>);

impl Drop for Fetcher {
    fn drop(&mut self) {
        close_quietly(&self.0);
    }
}

/// Closes a consumer without a group, which only tells the client that it was not forgotten: the client would log a
/// warning for one that is dropped.
pub(super) fn close_quietly(client: &Arc<Client>) {
    if let Ok(runtime) = Handle::try_current() {
        let client = Arc::clone(client);
        runtime.spawn(async move { client.close().await });
    }
}

/// How far a partition was handed out.
#[derive(Debug)]
pub(crate) struct FetchPosition {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: u64,
    /// End of its log, if it is known.
    pub(crate) end: Option<u64>,
}

/// Why a poll returned no records.
///
/// None of them is fatal: the caller acts on it and polls again.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The next offsets of these partitions are no longer in their logs.
    OutOfRange(Vec<TopicPartition>),
    /// A batch cannot be decoded; records fetched of other partitions come with the next poll.
    Unreadable(UnreadableBatch),
    /// Any other error.
    Other(Error),
}

/// A batch that cannot be decoded.
#[derive(Debug)]
pub(crate) struct UnreadableBatch {
    pub(crate) partition: TopicPartition,
    /// The offset at which it was to be read.
    pub(crate) offset: u64,
    pub(crate) error: Error,
}

/// Converts the isolation level.
pub(crate) fn isolation(config: &KafkaConfig) -> IsolationLevel {
    match config.isolation {
        Isolation::ReadCommitted => IsolationLevel::ReadCommitted,
        Isolation::ReadUncommitted => IsolationLevel::ReadUncommitted,
    }
}

/// Builds a consumer that never resets an offset by itself: a position out of the log is ours to
/// judge.
fn builder(connection: &Connection, config: &KafkaConfig) -> ConsumerBuilder {
    let builder = connection
        .0
        .consumer_without_group()
        .isolation_level(isolation(config))
        .auto_offset_reset(AutoOffsetReset::None)
        .metrics_push(false);
    match &config.rack {
        Some(rack) => builder.client_rack(rack),
        None => builder,
    }
}

impl Fetcher {
    /// Opens a fetcher, which reads nothing until it is assigned partitions.
    pub(crate) async fn open(connection: &Connection, config: &KafkaConfig, sizes: FetchSizes) -> Result<Self> {
        let int = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let built = builder(connection, config)
            .max_poll_records(int(sizes.max_records))
            .max_buffered_records(MAX_BUFFERED_RECORDS)
            .fetch_max_bytes(int(sizes.max_bytes))
            .max_partition_fetch_bytes(int(sizes.max_partition_bytes))
            .fetch_max_wait(config.fetch_max_wait)
            .max_decompressed_size(config.fetch_max_unpacked_bytes)
            .build()
            .await;
        built.map(|client| Self(Arc::new(client))).map_err(|e| failed("open a fetcher", e))
    }

    /// Sets which partitions of a topic are read; those that stay keep their position.
    pub(crate) async fn assign(&self, topic: &str, partitions: &[u32]) -> Result<()> {
        let partitions = partitions.iter().map(|p| i32::try_from(*p).unwrap_or(i32::MAX)).collect();
        let late = |_| {
            Error::new(ErrorKind::Unavailable, format!("assign partitions of {topic:?}: no answer within {LIMIT:?}"))
        };
        let assigned = timeout(LIMIT, self.0.assign(topic, partitions)).await.map_err(late)?;
        assigned.map_err(|e| failed(format!("assign partitions of {topic:?}"), e))
    }

    /// Sets the next offset to fetch.
    pub(crate) async fn seek(&self, at: &TopicPartition, offset: u64) -> Result<()> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        self.0
            .seek(&at.topic, index(at), offset)
            .await
            .map_err(|e| failed(format!("fetch {at} from offset {offset}"), e))
    }

    /// Stops or resumes fetching a partition; its position stays.
    pub(crate) async fn hold(&self, at: &TopicPartition, held: bool) {
        if held {
            self.0.pause(&at.topic, &[index(at)]).await;
        } else {
            self.0.resume(&at.topic, &[index(at)]).await;
        }
    }

    /// Returns records as soon as there are any. Cancel-safe.
    ///
    /// At most `wait` for records, and [`LIMIT`] more for the client itself.
    ///
    /// # Errors
    /// See [`FetchError`]. Transient broker errors are none: the client retries them.
    pub(crate) async fn poll(&self, wait: Duration) -> Result<Vec<FetchedPartition>, FetchError> {
        let late =
            |_| FetchError::Other(Error::new(ErrorKind::Unavailable, format!("fetch: no answer within {LIMIT:?}")));
        match timeout(LIMIT + wait, self.0.poll(wait)).await.map_err(late)? {
            Ok(records) => Ok(by_partition(records)),
            Err(KrafkaError::NoOffset { partitions }) => {
                let named = |(topic, p): (String, i32)| TopicPartition::new(topic, u32::try_from(p).unwrap_or(0));
                Err(FetchError::OutOfRange(partitions.into_iter().map(named).collect()))
            }
            Err(KrafkaError::Protocol { message, .. }) => Err(undecodable(&message)),
            Err(error) => Err(FetchError::Other(failed("fetch", error))),
        }
    }

    /// Returns how far each partition was handed out, gaps included.
    ///
    /// Compacted records and transaction markers leave gaps, so the position may lie beyond the
    /// last record.
    pub(crate) async fn positions(&self) -> Vec<FetchPosition> {
        let lag = self.0.lag().await;
        let position = |(at, lag): (krafka::consumer::TopicPartition, krafka::consumer::PartitionLag)| {
            let partition = TopicPartition::new(at.topic(), u32::try_from(at.partition()).unwrap_or(0));
            let end = lag.high_watermark.and_then(|end| u64::try_from(end).ok());
            Some(FetchPosition { partition, offset: u64::try_from(lag.position?).ok()?, end })
        };
        lag.into_iter().filter_map(position).collect()
    }

    /// Requests the leaders of a topic's partitions; `None` for a partition that currently has none.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the broker that is asked does not know the topic, which
    /// may be new.
    pub(crate) async fn leaders(&self, topic: &str) -> Result<HashMap<u32, Option<i32>>> {
        let what = || format!("find the leaders of topic {topic:?}");
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{}: no answer within {LIMIT:?}", what()));
        let asked = timeout(LIMIT, self.0.fetch_metadata(Some(topic))).await.map_err(late)?;
        let found = asked.map_err(|e| failed(what(), e))?;
        let Some(info) = found.topics.iter().find(|info| info.name == topic) else {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: there is no such topic", what())));
        };
        let leader =
            |p: &krafka::PartitionInfo| (u32::try_from(p.partition).unwrap_or(0), p.is_routable().then_some(p.leader));
        Ok(info.partitions_iter().map(leader).collect())
    }
}

/// Parses the client's message about a batch that it cannot decode. It reports the partition and the offset nowhere
/// else.
///
/// A text that does not parse is a transient error of no partition.
fn undecodable(message: &str) -> FetchError {
    let named = || {
        let (place, rest) = message.strip_prefix(UNDECODABLE)?.split_once(OFFSET)?;
        let (topic, partition) = place.rsplit_once('-')?;
        let offset = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some((TopicPartition::new(topic, partition.parse().ok()?), offset))
    };
    let cause = message.split_once(CAUSE).map_or(message, |(_, cause)| cause);
    let Some((partition, offset)) = named() else {
        // Reported as transient: an unknown partition cannot be held, and the others must be read.
        return FetchError::Other(Error::new(ErrorKind::Unavailable, format!("cannot read a batch: {cause}")));
    };
    let kind = if cause.contains("exceeds") { ErrorKind::TooLarge } else { ErrorKind::Undecodable };
    let error = Error::new(kind, format!("cannot read the batch of {partition} at offset {offset}: {cause}"));
    FetchError::Unreadable(UnreadableBatch { partition, offset, error })
}

/// Converts a partition number to the protocol's signed form.
pub(super) fn index(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition).unwrap_or(i32::MAX)
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetcher")
    }
}
