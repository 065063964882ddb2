//! Reading by position.
//!
//! A reader has a connection of its own, since a fetch that waits for records delays the requests behind it (K2). Only
//! one fetch of a reader waits at the broker at a time; other reads that wait ask again after the same time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, Guarantees, LogReader, Name, PartitionDescription, Read, ReadLimits, RecordBatch, Result, SeekTo,
    StoredRecord, TopicPartition, Unreadable, async_trait,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::admin::{KafkaAdmin, LOOKS, NEXT_LOOK};
use crate::client::admin::ClusterClient;
use crate::client::connection::{Connection, Role};
use crate::client::log::{LogLimits, LogPart, LogRead};
use crate::config::KafkaConfig;
use crate::consumer::behind;

/// How long a fetch waits at the broker; requests of other calls wait behind it.
const LONG_POLL: Duration = Duration::from_millis(100);
/// Attempts to find the log's bounds for an offset that is not in it: the log may change meanwhile.
const BOUND_LOOKS: usize = 3;

/// Reader of logs by position.
///
/// Reach it by [`Transport::log_reader`](tidings_core::Transport::log_reader). It reads as its transport's consumers do:
/// committed records only, unless [`isolation`](crate::KafkaConfig::isolation) says otherwise. An answer retains at most
/// [`ReadLimits::max_bytes`] of fetched bytes, or one batch, and [`fetch_max_unpacked_bytes`] of each compressed one. The
/// timestamp of a record is the broker's where the topic is set to `LogAppendTime`.
///
/// [`fetch_max_unpacked_bytes`]: crate::KafkaConfig::fetch_max_unpacked_bytes
#[derive(Debug)]
pub struct KafkaLogReader {
    cluster: ClusterClient,
    admin: KafkaAdmin,
    config: Arc<KafkaConfig>,
    /// Held by the read whose fetch waits at the broker.
    polling: Mutex<()>,
}

impl KafkaLogReader {
    pub(crate) async fn open(config: &Arc<KafkaConfig>) -> Result<Self> {
        let connection = Connection::open(config, Role::Reading).await?;
        let cluster = ClusterClient::new(&connection, config);
        let admin = KafkaAdmin::new(cluster.clone());
        Ok(Self { cluster, admin, config: Arc::clone(config), polling: Mutex::new(()) })
    }

    /// Reads once; a leader that has moved, or a topic that this broker does not know yet, is looked for again.
    async fn fetch(&self, at: &TopicPartition, offset: u64, limits: LogLimits, wait: Duration) -> Result<LogRead> {
        let ends = Instant::now() + self.config.request_timeout;
        let mut looks = 1;
        loop {
            let error = match self.cluster.read_log(at, offset, limits, wait).await {
                Ok(read) => return Ok(read),
                Err(error) => error,
            };
            looks += 1;
            let is_over = match error.kind() {
                ErrorKind::NotFound => looks > LOOKS,
                kind => !kind.is_retryable() || Instant::now() >= ends,
            };
            if is_over {
                return Err(error);
            }
            sleep(NEXT_LOOK * u32::try_from(looks.min(LOOKS)).unwrap_or(1)).await;
        }
    }

    /// Reads, waiting for a record at the broker or here for up to `wait`.
    async fn fetch_or_wait(
        &self,
        at: &TopicPartition,
        offset: u64,
        limits: LogLimits,
        wait: Duration,
    ) -> Result<LogRead> {
        let wait = wait.min(LONG_POLL);
        if wait.is_zero() {
            return self.fetch(at, offset, limits, wait).await;
        }
        if let Ok(_polling) = self.polling.try_lock() {
            return self.fetch(at, offset, limits, wait).await;
        }
        let read = self.fetch(at, offset, limits, Duration::ZERO).await?;
        if matches!(&read, LogRead::Part(part) if is_idle(part, offset)) {
            sleep(wait).await;
        }
        Ok(read)
    }

    /// Returns the first offset from `offset` on that is in the log.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) beyond the end, open transactions included.
    async fn within_log(&self, at: &TopicPartition, offset: u64) -> Result<u64> {
        let (start, end) = self.bounds(at).await?;
        if offset > end {
            let what = format!("read {at} from offset {offset}: it lies beyond the end {end} of the log");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(offset.max(start))
    }

    /// Returns the oldest and the next offset of a log, open transactions included.
    async fn bounds(&self, at: &TopicPartition) -> Result<(u64, u64)> {
        let all = self.cluster.of_all();
        let bound = async |to: SeekTo| {
            let found = all.offsets([(at.clone(), to)]).await?.remove(at).flatten();
            Ok::<_, Error>(found.unwrap_or(0))
        };
        tokio::try_join!(bound(SeekTo::Earliest), bound(SeekTo::Latest))
    }

    /// Returns the answer for bytes at `offset` that cannot be read.
    async fn unreadable(&self, at: &TopicPartition, offset: u64, error: Error, bounds: (u64, u64)) -> Read {
        let next = match self.cluster.leader(at) {
            Some(leader) => behind(&self.cluster, leader, at, offset).await,
            None => None,
        };
        let mut bad = Unreadable::new(at.clone(), 0, offset, error);
        bad.next_offset = next;
        Read::new(RecordBatch::new(at.clone(), Vec::new()), offset, bounds.0, bounds.1.max(offset)).with_unreadable(bad)
    }

    /// Returns which of the partitions have a leader, and why the others have no answer.
    async fn led(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, Result<()>>> {
        let topics: BTreeSet<&Name> = partitions.iter().map(|at| &at.topic).collect();
        let topics: Vec<Name> = topics.into_iter().cloned().collect();
        let looked: HashMap<Name, Result<Vec<PartitionDescription>>> =
            topics.iter().cloned().zip(self.admin.look(&topics).await?).collect();
        let leads = |at: &TopicPartition| (at.clone(), leader_of(at, looked.get(&at.topic)));
        Ok(partitions.iter().map(leads).collect())
    }
}

/// Checks that a partition exists and has a leader.
fn leader_of(at: &TopicPartition, topic: Option<&Result<Vec<PartitionDescription>>>) -> Result<()> {
    let what = |kind, why: &str| Error::new(kind, format!("find an offset of {at}: {why}"));
    match topic {
        Some(Ok(partitions)) => match partitions.iter().find(|p| p.partition == at.partition) {
            Some(partition) if partition.leader.is_some() => Ok(()),
            Some(_) => Err(what(ErrorKind::Unavailable, "it has no leader")),
            None => Err(what(ErrorKind::NotFound, "there is no such partition")),
        },
        Some(Err(error)) => Err(what(error.kind(), &error.report())),
        None => Err(what(ErrorKind::Unavailable, "no broker described its topic")),
    }
}

/// Returns an error with the same kind and text: a partition may be asked for twice.
fn copy(error: &Error) -> Error {
    Error::new(error.kind(), error.report())
}

/// Returns whether there was nothing to read from `offset` on.
fn is_idle(part: &LogPart, offset: u64) -> bool {
    part.records.is_empty() && part.bad.is_none() && part.next <= offset
}

fn answer(at: &TopicPartition, records: Vec<StoredRecord>, next: u64, bounds: (u64, u64)) -> Read {
    Read::new(RecordBatch::new(at.clone(), records), next, bounds.0, bounds.1.max(next))
}

#[async_trait]
impl LogReader for KafkaLogReader {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        let led = self.led(partitions).await?;
        let asked: Vec<TopicPartition> = led.iter().filter(|(_, led)| led.is_ok()).map(|(at, _)| at.clone()).collect();
        let all = |to: SeekTo| asked.iter().map(move |at| (at.clone(), to));
        // Without a record of that time the end is the answer; an offset is moved between the bounds.
        let (found, start, end) = tokio::try_join!(
            self.cluster.offsets_each(all(at)),
            self.cluster.offsets_each(all(SeekTo::Earliest)),
            self.cluster.offsets_each(all(SeekTo::Latest)),
        )?;
        let answers = Answers { found, start, end };
        let answer = |partition: &TopicPartition| {
            if let Some(Err(error)) = led.get(partition) {
                return Err(copy(error));
            }
            answers.offset(partition, at)
        };
        Ok(partitions.iter().map(answer).collect())
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        limits.check()?;
        let bounds = LogLimits {
            read: limits,
            fetch_bytes: limits.max_bytes.min(self.config.fetch_max_bytes),
            max_unpacked: self.config.fetch_max_unpacked_bytes,
        };
        let began = Instant::now();
        let (mut from, mut looks) = (offset, 0);
        loop {
            let wait = limits.wait.saturating_sub(began.elapsed());
            let part = match self.fetch_or_wait(partition, from, bounds, wait).await? {
                LogRead::Part(part) => part,
                LogRead::Refused(error) => {
                    let log = self.bounds(partition).await?;
                    return Ok(self.unreadable(partition, from, error, log).await);
                }
                LogRead::OutOfRange => {
                    from = self.within_log(partition, from).await?;
                    looks += 1;
                    if looks > BOUND_LOOKS {
                        let what = format!("read {partition} from offset {from}: the log changes");
                        return Err(Error::new(ErrorKind::Unavailable, what));
                    }
                    continue;
                }
            };
            let log = (part.start, part.end);
            if let Some(bad) = part.bad {
                return Ok(self.unreadable(partition, part.next, bad, log).await);
            }
            // Behind a gap without records, such as the marker of a transaction, the wait goes on.
            if !part.records.is_empty() || wait.is_zero() {
                return Ok(answer(partition, part.records, part.next, log));
            }
            from = part.next;
        }
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

/// The brokers' answers about offsets.
struct Answers {
    found: HashMap<TopicPartition, Result<Option<u64>>>,
    start: HashMap<TopicPartition, Result<Option<u64>>>,
    end: HashMap<TopicPartition, Result<Option<u64>>>,
}

impl Answers {
    fn offset(&self, at: &TopicPartition, to: SeekTo) -> Result<u64> {
        let missing =
            || Error::new(ErrorKind::Unavailable, format!("find an offset of {at}: its leader did not report it"));
        let reported = |offsets: &HashMap<TopicPartition, Result<Option<u64>>>| match offsets.get(at) {
            Some(Ok(offset)) => Ok(*offset),
            Some(Err(error)) => Err(copy(error)),
            None => Err(missing()),
        };
        let found = reported(&self.found)?;
        let start = reported(&self.start)?.unwrap_or(0);
        let end = reported(&self.end)?.unwrap_or(start).max(start);
        Ok(match to {
            SeekTo::Offset(offset) => offset.clamp(start, end),
            _ => found.unwrap_or(end),
        })
    }
}
