//! Fetched records, by partition.

use std::sync::Arc;

use bytes::Bytes;
use krafka::ConsumerRecord;
use tidings_core::{Header, Headers, StoredRecord, Timestamp, TopicPartition};

/// Result of a poll for one partition.
#[derive(Debug)]
pub(crate) struct FetchedPartition {
    pub(crate) partition: TopicPartition,
    pub(crate) records: FetchedRecords,
}

/// Records of one partition, in order. Those of the client keep its form, and are converted when they are handed out: the
/// fetcher's task, which is the bottleneck, does not convert them.
pub(crate) struct FetchedRecords(Form);

/// Form of the records.
enum Form {
    Client(Vec<ConsumerRecord>),
    /// Records of the native reader.
    Stored(Vec<StoredRecord>),
}

impl Default for FetchedRecords {
    fn default() -> Self {
        Self(Form::Stored(Vec::new()))
    }
}

impl From<Vec<StoredRecord>> for FetchedRecords {
    fn from(records: Vec<StoredRecord>) -> Self {
        Self(Form::Stored(records))
    }
}

impl From<Vec<ConsumerRecord>> for FetchedRecords {
    fn from(records: Vec<ConsumerRecord>) -> Self {
        Self(Form::Client(records))
    }
}

impl FetchedRecords {
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Form::Client(records) => records.len(),
            Form::Stored(records) => records.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes that it retains.
    ///
    /// It counts towards the prefetch limit, so it includes the records' own structures.
    pub(crate) fn size(&self) -> usize {
        match &self.0 {
            Form::Client(records) => {
                records.len() * size_of::<ConsumerRecord>() + records.iter().map(content_size).sum::<usize>()
            }
            Form::Stored(records) => {
                records.len() * size_of::<StoredRecord>() + records.iter().map(StoredRecord::size).sum::<usize>()
            }
        }
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        let (client, stored) = match &self.0 {
            Form::Client(records) => (records.as_slice(), &[][..]),
            Form::Stored(records) => (&[][..], records.as_slice()),
        };
        client.iter().map(offset).chain(stored.iter().map(|record| record.offset))
    }

    /// Returns the offset after the last record.
    pub(crate) fn next(&self) -> Option<u64> {
        let last = match &self.0 {
            Form::Client(records) => records.last().map(offset),
            Form::Stored(records) => records.last().map(|record| record.offset),
        };
        last.map(|last| last + 1)
    }

    /// Splits off the records after the first `len`.
    pub(crate) fn split_off(&mut self, len: usize) -> Self {
        fn split<T>(records: &mut Vec<T>, len: usize) -> Vec<T> {
            let rest = records.split_off(len);
            records.shrink_to_fit();
            rest
        }
        match &mut self.0 {
            Form::Client(records) => split(records, len).into(),
            Form::Stored(records) => split(records, len).into(),
        }
    }

    /// Converts the records in place. Releases unused capacity, which would stay allocated, without being counted, until
    /// the last of them is settled.
    pub(crate) fn into_records(self) -> Vec<StoredRecord> {
        match self.0 {
            Form::Client(records) => {
                let mut records: Vec<StoredRecord> = records.into_iter().map(stored).collect();
                records.shrink_to_fit();
                records
            }
            Form::Stored(records) => records,
        }
    }
}

/// Returns the bytes of a record's key, value and headers.
fn content_size(record: &ConsumerRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers = record.headers.iter().map(|(name, value)| name.len() + length(value)).sum::<usize>();
    length(&record.key) + length(&record.value) + headers
}

impl std::fmt::Debug for FetchedRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FetchedRecords({} records)", self.len())
    }
}

/// Splits a poll's records by partition: the client returns them in that order, and those of one fetch share their
/// topic's name.
pub(super) fn by_partition(mut records: Vec<ConsumerRecord>) -> Vec<FetchedPartition> {
    let mut reads: Vec<(TopicPartition, Vec<ConsumerRecord>)> = Vec::new();
    // From the end, so that the first split, which is usually the only one, stays in place.
    while let Some(last) = records.last() {
        let other = |r: &ConsumerRecord| r.partition != last.partition || !Arc::ptr_eq(&r.topic, &last.topic);
        let partition = TopicPartition::new(Arc::clone(&last.topic), u32::try_from(last.partition).unwrap_or(0));
        let mut split = match records.iter().rposition(other) {
            Some(before) => records.split_off(before + 1),
            None => {
                // The records of a poll of several partitions would retain the memory of all.
                records.shrink_to_fit();
                std::mem::take(&mut records)
            }
        };
        match reads.last_mut() {
            Some((last, records)) if *last == partition => {
                split.append(records);
                *records = split;
            }
            _ => reads.push((partition, split)),
        }
    }
    reads.into_iter().map(|(partition, records)| FetchedPartition { partition, records: records.into() }).collect()
}

fn offset(record: &ConsumerRecord) -> u64 {
    u64::try_from(record.offset).unwrap_or(0)
}

/// Converts a record without copying its bytes.
fn stored(record: ConsumerRecord) -> StoredRecord {
    let mut made = StoredRecord::new(offset(&record), Timestamp::from_millis(record.timestamp));
    made.key = record.key;
    made.value = record.value;
    if !record.headers.is_empty() {
        let header = |(name, value): (String, Option<Bytes>)| match value {
            Some(value) => Header::new(name, value),
            None => Header::null(name),
        };
        made.headers = record.headers.into_iter().map(header).collect::<Headers>();
    }
    made
}
