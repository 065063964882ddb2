//! Records to be published, and records of a log.

use serde::{Deserialize, Serialize};
use tidings_core::{Error, Name, Read, ReadLimits, RecordBatch, StoredRecord, Timestamp, TopicPartition, Unreadable};

use super::bytes::Text;
use super::{At, Place};

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The name.
    pub name: Text,
    /// The value; may be null.
    pub value: Option<Text>,
}

impl From<&tidings_core::Header> for Header {
    fn from(header: &tidings_core::Header) -> Self {
        Self { name: Text(header.name.clone()), value: header.value.clone().map(Text) }
    }
}

impl From<Header> for tidings_core::Header {
    fn from(wire: Header) -> Self {
        match wire.value {
            Some(value) => Self::new(wire.name.0, value.0),
            None => Self::null(wire.name.0),
        }
    }
}

fn headers(headers: &tidings_core::Headers) -> Vec<Header> {
    headers.iter().map(Header::from).collect()
}

/// A record to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition; by default the one of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The key, if any.
    #[serde(default)]
    pub key: Option<Text>,
    /// The value; null is a tombstone.
    #[serde(default)]
    pub value: Option<Text>,
    /// The headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// The time, in milliseconds since 1970; by default now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
}

impl From<&tidings_core::Record> for Record {
    fn from(record: &tidings_core::Record) -> Self {
        Self {
            topic: record.topic.to_string(),
            partition: record.partition,
            key: record.key.clone().map(Text),
            value: record.value.clone().map(Text),
            headers: headers(&record.headers),
            timestamp_ms: record.timestamp.map(Timestamp::millis),
        }
    }
}

impl From<Record> for tidings_core::Record {
    fn from(wire: Record) -> Self {
        let mut record = Self::tombstone(Name::from(wire.topic));
        record.partition = wire.partition;
        record.key = wire.key.map(|key| key.0);
        record.value = wire.value.map(|value| value.0);
        record.headers = wire.headers.into_iter().map(Into::into).collect();
        record.timestamp = wire.timestamp_ms.map(Timestamp::from_millis);
        record
    }
}

/// A request to publish records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The records.
    pub records: Vec<Record>,
}

/// The position of a published record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl From<tidings_core::Position> for Position {
    fn from(position: tidings_core::Position) -> Self {
        Self { partition: position.partition, offset: position.offset }
    }
}

impl From<Position> for tidings_core::Position {
    fn from(wire: Position) -> Self {
        Self::new(wire.partition, wire.offset)
    }
}

/// A record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The offset.
    pub offset: u64,
    /// The time, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Text>,
    /// The value; null is a tombstone.
    pub value: Option<Text>,
    /// The headers.
    pub headers: Vec<Header>,
}

impl From<&StoredRecord> for Stored {
    fn from(record: &StoredRecord) -> Self {
        Self {
            offset: record.offset,
            timestamp_ms: record.timestamp.millis(),
            key: record.key.clone().map(Text),
            value: record.value.clone().map(Text),
            headers: headers(&record.headers),
        }
    }
}

impl From<Stored> for StoredRecord {
    fn from(wire: Stored) -> Self {
        let mut record = Self::new(wire.offset, Timestamp::from_millis(wire.timestamp_ms));
        record.key = wire.key.map(|key| key.0);
        record.value = wire.value.map(|value| value.0);
        record.headers = wire.headers.into_iter().map(Into::into).collect();
        record
    }
}

/// A request for the offsets of a place on partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffsetsAt {
    /// The partitions.
    pub partitions: Vec<At>,
    /// The place.
    pub at: Place,
}

/// A request to read records of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadAt {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: u32,
    /// The first offset.
    pub offset: u64,
    /// The most records. Default: [`ReadLimits::DEFAULT_MAX_RECORDS`].
    #[serde(default = "max_records")]
    pub max_records: usize,
    /// The bytes after which no further record comes; at most [`MAX_RECORD_BYTES`](crate::MAX_RECORD_BYTES). Default:
    /// [`ReadLimits::DEFAULT_MAX_BYTES`].
    #[serde(default = "max_bytes")]
    pub max_bytes: usize,
    /// How long to wait for a record, at most 30,000. Default: 0.
    #[serde(default)]
    pub wait_ms: u64,
}

const fn max_records() -> usize {
    ReadLimits::DEFAULT_MAX_RECORDS
}

const fn max_bytes() -> usize {
    ReadLimits::DEFAULT_MAX_BYTES
}

/// Records of a partition, and where reading goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReadRecords {
    /// The records.
    pub records: Vec<Stored>,
    /// The offset after them.
    pub next_offset: u64,
    /// The oldest offset in the log.
    pub start_offset: u64,
    /// The end of the log.
    pub end_offset: u64,
    /// The bytes at `next_offset`, if they cannot be read.
    pub unreadable: Option<UnreadableAt>,
}

/// Bytes that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnreadableAt {
    /// Their first offset.
    pub offset: u64,
    /// The offset after them, if known.
    pub next_offset: Option<u64>,
    /// The cause.
    pub error: crate::ErrorBody,
}

impl From<Read> for ReadRecords {
    fn from(read: Read) -> Self {
        let unreadable = |bytes: Unreadable| UnreadableAt {
            offset: bytes.offset,
            next_offset: bytes.next_offset,
            error: (&*bytes.error).into(),
        };
        Self {
            records: read.batch.records().iter().map(Stored::from).collect(),
            next_offset: read.next_offset,
            start_offset: read.start_offset,
            end_offset: read.end_offset,
            unreadable: read.unreadable.map(unreadable),
        }
    }
}

impl ReadRecords {
    /// Returns the records as those of this partition.
    pub fn into_read(self, partition: &TopicPartition) -> Read {
        let records = self.records.into_iter().map(StoredRecord::from).collect();
        let batch = RecordBatch::new(partition.clone(), records);
        let read = Read::new(batch, self.next_offset, self.start_offset, self.end_offset);
        let Some(bytes) = self.unreadable else { return read };
        let mut unreadable = Unreadable::new(partition.clone(), 0, bytes.offset, Error::from(bytes.error));
        unreadable.next_offset = bytes.next_offset;
        read.with_unreadable(unreadable)
    }
}
