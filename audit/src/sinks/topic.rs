//! A sink in a topic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{
    Admin, Cleanup, Error, ErrorKind, Guarantees, LogReader, Name, Publisher, PublisherExt, ReadLimits, Result, SeekTo,
    StoredRecord, Topic, TopicPartition, Transport, async_trait,
};

/// Stores audit records in a topic of a transport, in one partition per chain.
///
/// The topic is created by [`topic`](Self::topic) with one partition, which keeps all records in one order. It can be
/// read by any consumer: the value is CloudEvents JSON, the links are in the headers `audit-chain`, `audit-seq`,
/// `audit-prev` and `audit-hash`. Give the right to write to it to audited programs only, and the right to delete it to
/// no one.
///
/// Records are published one after the other, since one that fails must not be followed by another of its chain: an
/// audit record costs a round trip to the broker.
///
/// ```
/// use tidings_audit::{Auditor, TopicAudit};
/// use tidings_core::Transport;
/// use tidings_memory::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let topic = TopicAudit::topic(TopicAudit::DEFAULT_TOPIC);
/// transport.admin().await?.create_topics(&[topic]).await?.remove(0)?;
/// let auditor = Auditor::new(TopicAudit::open(&transport, TopicAudit::DEFAULT_TOPIC).await?);
/// # let _ = auditor;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TopicAudit {
    topic: Name,
    publisher: Arc<dyn Publisher>,
    reader: Arc<dyn LogReader>,
    admin: Arc<dyn Admin>,
}

impl TopicAudit {
    /// The usual name of the topic.
    pub const DEFAULT_TOPIC: &str = "tidings-audit";
    /// How long [`topic`](Self::topic) keeps records.
    pub const DEFAULT_RETENTION: Duration = Duration::from_secs(400 * 24 * 3_600);

    /// Returns the configuration of a topic for audit records: one partition, records that are deleted after
    /// [`DEFAULT_RETENTION`](Self::DEFAULT_RETENTION), the broker's default replication.
    pub fn topic(name: impl Into<Name>) -> Topic {
        Topic::new(name).with_cleanup(Cleanup::Delete).with_retention(Self::DEFAULT_RETENTION)
    }

    /// Opens the sink in an existing topic.
    ///
    /// # Errors
    /// Those of opening a publisher, an admin and a log reader; [`NotFound`](ErrorKind::NotFound) if the topic is
    /// missing; [`Unsupported`](ErrorKind::Unsupported) if the transport cannot read by position.
    pub async fn open(transport: &dyn Transport, topic: impl Into<Name>) -> Result<Self> {
        let topic = topic.into();
        let opening = async {
            let admin = transport.admin().await?;
            admin.describe_topics(std::slice::from_ref(&topic)).await?.into_iter().next().transpose()?;
            Ok((admin, transport.publisher().await?, transport.log_reader().await?))
        };
        let context = format!("open the audit topic {topic}");
        let explained = |error: Error| Error::explained(error.kind(), context, &error);
        let (admin, publisher, reader) = opening.await.map_err(explained)?;
        Ok(Self { topic, publisher, reader, admin })
    }

    /// Returns the number of partitions.
    async fn partitions(&self) -> Result<u32> {
        let described = self.admin.describe_topics(std::slice::from_ref(&self.topic)).await?;
        let described = described.into_iter().next().transpose()?;
        Ok(described.map_or(0, |topic| u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)))
    }

    /// Reads records of one partition from an offset on, and returns them with the next offset.
    async fn read_partition(&self, partition: u32, from: Option<u64>, limit: usize) -> Result<(Vec<StoredAudit>, u64)> {
        let at = TopicPartition::new(self.topic.clone(), partition);
        let earliest = || async {
            let offsets = self.reader.offsets(std::slice::from_ref(&at), SeekTo::Earliest).await?;
            offsets.into_iter().next().unwrap_or(Ok(0))
        };
        let mut next = if let Some(from) = from { from } else { earliest().await? };
        let mut records = Vec::new();
        while records.len() < limit {
            let limits = ReadLimits::default().with_max_records(limit - records.len());
            let read = self.reader.read(&at, next, limits).await?;
            records.extend(read.batch.records().iter().map(|record| self.decoded(partition, record)));
            if let Some(unreadable) = &read.unreadable {
                let text = format!("{at}: the bytes at offset {} cannot be read", unreadable.offset);
                tracing::warn!(target: "tidings::audit", "{text}; they are skipped, and missing from their chain");
                next = unreadable.next_offset.unwrap_or(unreadable.offset + 1);
                continue;
            }
            let went_on = read.next_offset > next;
            next = read.next_offset;
            if !went_on || read.is_at_end() {
                break;
            }
        }
        Ok((records, next))
    }

    /// A record that is no audit record is shown as one of a chain of its own, which no verification accepts: it was put
    /// into the topic by someone else.
    fn decoded(&self, partition: u32, record: &StoredRecord) -> StoredAudit {
        StoredAudit::from_record(record).unwrap_or_else(|_| {
            let chain = format!("foreign:{}/{partition}@{}", self.topic, record.offset);
            let bytes = record.value.clone().unwrap_or_default();
            StoredAudit::new(chain, 0, AuditHash::ZERO, AuditHash::ZERO, bytes)
        })
    }
}

impl fmt::Debug for TopicAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicAudit").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[async_trait]
impl AuditSink for TopicAudit {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let (mut answers, mut failed) = (Vec::with_capacity(records.len()), Vec::new());
        for record in records {
            if failed.contains(&record.chain) {
                let text = "append: an earlier audit record of the chain is not stored";
                answers.push(Err(Error::new(ErrorKind::Unavailable, text)));
                continue;
            }
            let answer = self.publisher.publish_one(record.to_record(self.topic.clone())).await;
            if answer.is_err() {
                failed.push(record.chain);
            }
            answers.push(answer.map(drop));
        }
        answers
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let mut offsets = after.map_or(Ok(BTreeMap::new()), parse)?;
        let mut records = Vec::new();
        for partition in 0..self.partitions().await? {
            if records.len() >= limit {
                break;
            }
            let from = offsets.get(&partition).copied();
            let (read, next) = self.read_partition(partition, from, limit - records.len()).await?;
            records.extend(read);
            offsets.insert(partition, next);
        }
        let position: Vec<_> = offsets.iter().map(|(partition, next)| format!("{partition}@{next}")).collect();
        Ok(AuditPage::new(records, AuditPosition::new(position.join(","))))
    }

    fn guarantees(&self) -> Guarantees {
        self.publisher.guarantees()
    }
}

/// Parses a position: the next offset of each partition.
fn parse(position: &AuditPosition) -> Result<BTreeMap<u32, u64>> {
    let one = |part: &str| {
        let (partition, offset) = part.split_once('@')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    let parts = position.as_str().split(',').filter(|part| !part.is_empty());
    let unknown = || Error::new(ErrorKind::Undecodable, "read audit records: the position is of another sink");
    parts.map(one).collect::<Option<_>>().ok_or_else(unknown)
}
