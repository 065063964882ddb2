//! A manual fetch: a broker's answer for partitions at offsets, and where the batches there end. The client decodes
//! what it fetches, and reports neither the end of a batch that it cannot decode nor that a read is denied.
//!
//! The header of a record batch (format version 2, KIP-98) has fixed offsets, so it is read without
//! decoding the batch. Everything in it is untrusted: a damaged length must neither panic nor lead
//! beyond the answer.

use std::collections::HashMap;

use krafka::__private::protocol::{
    ApiKey, FetchPartitionRequest, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicRequest,
    VersionedDecode, VersionedEncode,
};
use krafka::__private::{kafka_metadata, kafka_pool};
use krafka::KrafkaError;
use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};
use tokio::time::timeout;

use super::admin::ClusterClient;
use super::fetcher::index;
use crate::error::failed;

/// The last version of a fetch that names topics, and the first one that current brokers still support.
pub(super) const VERSIONS: (i16, i16) = (12, 4);
/// Fetch size that returns one batch: brokers return a whole batch in any case.
pub(crate) const ONE_BATCH: usize = 1;
/// Size of a batch header in bytes.
pub(crate) const HEADER_BYTES: usize = 61;
/// Positions of header fields: the length of the rest, the format, and the offset of the last record relative to the
/// first.
const LENGTH: usize = 8;
const MAGIC: usize = 16;
const LAST: usize = 23;
/// Position of the attributes, some bits of which are the codec.
const ATTRIBUTES: usize = 22;
/// The same in the formats before version 2, which have no batches.
const OLD_ATTRIBUTES: usize = 17;
/// The bits of the codec, in every format; zero means uncompressed.
const CODEC: u8 = 7;
/// Attribute bits: transactional batch and control batch.
const UNREAD: u8 = 0x30;
/// Position of the record count.
const COUNT: usize = 57;

/// A broker's answer for a partition at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peeked {
    /// End of the readable log.
    pub(crate) end: u64,
    /// End of the log, open transactions included.
    pub(crate) high: u64,
    /// The batch at the offset, if the broker returned one.
    pub(crate) batch: Option<BatchHeader>,
    /// Offset of the next batch, if that was returned, too.
    pub(crate) behind: Option<u64>,
}

/// Contents of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Offset of its first record, also if compaction has removed that.
    pub(crate) first: u64,
    /// Offset after its last record; `None` for an unknown format.
    pub(crate) next: Option<u64>,
    /// Its size with the header, by its length field.
    pub(crate) bytes: usize,
    /// Whether it is compressed.
    pub(crate) packed: bool,
    /// Number of records; `None` where a reader may drop them: transactional and control batches.
    pub(crate) records: Option<u64>,
}

impl BatchHeader {
    /// Returns the number of records from this offset on, if it is known.
    pub(crate) fn records_from(&self, offset: u64) -> Option<u64> {
        let (records, next) = (self.records?, self.next?);
        if offset <= self.first {
            return Some(records);
        }
        // It is unknown which records of a compacted batch are left.
        (records == next - self.first).then_some(next.saturating_sub(offset))
    }
}

type Answers = HashMap<TopicPartition, Result<Peeked>>;

impl ClusterClient {
    /// Asks `broker` for partitions that it leads, at these offsets, without waiting for records. It returns `bytes`
    /// of batches, or at least one batch, for all of them.
    ///
    /// # Errors
    /// Those of the connection. The answer for a partition has an error of its own, such as
    /// [`Denied`](ErrorKind::Denied).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub(crate) async fn peek(&self, broker: i32, targets: &[(TopicPartition, u64)], bytes: usize) -> Result<Answers> {
        let what = || format!("fetch from broker {broker}");
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{}: no answer within {:?}", what(), self.limit()));
        let asked = timeout(self.limit(), self.fetch_once(broker, targets, bytes)).await.map_err(late)?;
        asked.map_err(|e| failed(what(), e))
    }

    /// Sends one fetch on the connection to `broker` and decodes the answer.
    async fn fetch_once(
        &self,
        broker: i32,
        targets: &[(TopicPartition, u64)],
        bytes: usize,
    ) -> krafka::Result<Answers> {
        let client = &self.connection().0;
        let unknown = || KrafkaError::illegal_state(format!("there is no broker {broker}"));
        let found = kafka_metadata(client).broker(broker).ok_or_else(unknown)?;
        let connection = kafka_pool(client).get_connection_by_id(broker, found.address()).await?;
        let (newest, oldest) = VERSIONS;
        let version = connection.negotiate_api_version(ApiKey::Fetch, newest, oldest).unwrap_or(oldest);
        let request = request(targets, bytes, self.committed_only());
        let mut answer =
            connection.send_request(ApiKey::Fetch, version, |buf| request.encode_versioned(version, buf)).await?;
        let answer = FetchResponse::decode_versioned(version, &mut answer)?;
        let topics = answer.responses.into_iter().map(|topic| (Name::from(topic.topic), topic.partitions));
        let each = topics.flat_map(|(topic, partitions)| partitions.into_iter().map(move |p| (topic.clone(), p)));
        Ok(each.map(|(topic, answer)| peeked(topic, &answer, targets, self.committed_only())).collect())
    }
}

/// Builds a fetch without a session and without a wait, for whole partitions by name.
pub(super) fn request(targets: &[(TopicPartition, u64)], bytes: usize, committed_only: bool) -> FetchRequest {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let mut topics: HashMap<&Name, FetchTopicRequest> = HashMap::new();
    for (at, offset) in targets {
        let mut partition = FetchPartitionRequest::default();
        partition.partition = index(at);
        partition.fetch_offset = i64::try_from(*offset).unwrap_or(i64::MAX);
        partition.partition_max_bytes = bytes;
        let topic = topics.entry(&at.topic).or_insert_with(|| {
            let mut topic = FetchTopicRequest::default();
            topic.topic = at.topic.to_string();
            topic
        });
        topic.partitions.push(partition);
    }
    let mut request = FetchRequest::default();
    request.max_bytes = bytes;
    request.isolation_level = i8::from(committed_only);
    request.topics = topics.into_values().collect();
    request
}

/// Interprets the answer for one partition.
fn peeked(
    topic: Name,
    answer: &FetchPartitionResponse,
    targets: &[(TopicPartition, u64)],
    committed_only: bool,
) -> (TopicPartition, Result<Peeked>) {
    let at = TopicPartition::new(topic, u32::try_from(answer.partition).unwrap_or(0));
    if !answer.error_code.is_ok() {
        let refused = KrafkaError::broker(answer.error_code, "the broker refused the fetch");
        let error = failed(format!("fetch {at}"), refused);
        return (at, Err(error));
    }
    let offset = targets.iter().find(|(target, _)| *target == at).map_or(0, |(_, offset)| *offset);
    let high = u64::try_from(answer.high_watermark).unwrap_or(0);
    let stable = u64::try_from(answer.last_stable_offset).ok().filter(|_| committed_only);
    let (batch, behind) = answer.records.as_deref().and_then(|records| batch_headers(records, offset)).unzip();
    (at, Ok(Peeked { end: stable.unwrap_or(high), high, batch, behind: behind.flatten() }))
}

/// Returns the first batch that reaches `offset`, and the offset of the next one, by the headers alone.
fn batch_headers(mut records: &[u8], offset: u64) -> Option<(BatchHeader, Option<u64>)> {
    loop {
        let batch = header(records)?;
        let rest = records.get(batch.bytes..).unwrap_or_default();
        if batch.next.is_none_or(|next| next > offset) {
            // If the length is damaged, the bytes there are hardly ever the header of a later batch.
            let behind = header(rest).filter(|behind| behind.next.is_some() && behind.first > offset);
            return Some((batch, behind.map(|behind| behind.first)));
        }
        records = rest;
    }
}

/// Reads a header; `None` if the bytes end before it does.
fn header(records: &[u8]) -> Option<BatchHeader> {
    let first = u64::try_from(i64::from_be_bytes(*records.first_chunk()?)).ok()?;
    let length = usize::try_from(i32::from_be_bytes(*records.get(LENGTH..)?.first_chunk()?)).ok()?;
    let last = match *records.get(MAGIC)? {
        // A message in an old format, alone or wrapping others: its offset is that of the last one.
        0 | 1 => Some(0),
        2 => u64::try_from(i32::from_be_bytes(*records.get(LAST..)?.first_chunk()?)).ok(),
        _ => None,
    };
    let next = last.and_then(|last| first.checked_add(last)?.checked_add(1));
    let attributes = if last == Some(0) && records[MAGIC] < 2 { OLD_ATTRIBUTES } else { ATTRIBUTES };
    let packed = records.get(attributes).is_some_and(|attributes| attributes & CODEC != 0);
    let plain = last.is_some() && records[MAGIC] == 2 && records.get(ATTRIBUTES).is_some_and(|a| a & UNREAD == 0);
    let count = || u64::try_from(i32::from_be_bytes(*records.get(COUNT..)?.first_chunk()?)).ok();
    Some(BatchHeader {
        first,
        next,
        packed,
        records: plain.then(count).flatten(),
        bytes: length.checked_add(LENGTH + size_of::<i32>())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(first: i64, last: i32, magic: u8) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..8].copy_from_slice(&first.to_be_bytes());
        header[LENGTH..12].copy_from_slice(&49_i32.to_be_bytes());
        header[MAGIC] = magic;
        header[LAST..27].copy_from_slice(&last.to_be_bytes());
        header
    }

    fn batch_header(first: u64, next: impl Into<Option<u64>>) -> BatchHeader {
        let next = next.into();
        BatchHeader { first, next, bytes: HEADER_BYTES, packed: false, records: next.map(|_| 0) }
    }

    #[test]
    fn a_batch_is_found_by_its_header() {
        let batches = [made(10, 4, 2), made(20, 9, 2)].concat();
        assert_eq!(batch_headers(&batches, 12), Some((batch_header(10, 15), Some(20))));
        assert_eq!(batch_headers(&batches, 15), Some((batch_header(20, 30), None)));
        assert_eq!(batch_headers(&batches, 30), None);
        assert_eq!(batch_headers(&made(7, 0, 1), 3), Some((BatchHeader { records: None, ..batch_header(7, 8) }, None)));
        let mut packed = made(10, 4, 2);
        packed[ATTRIBUTES] = 1;
        assert_eq!(batch_headers(&packed, 10), Some((BatchHeader { packed: true, ..batch_header(10, 15) }, None)));
        let unknown = [made(10, 4, 9), made(15, 0, 2)].concat();
        assert_eq!(batch_headers(&unknown, 10), Some((batch_header(10, None), Some(15))));
    }

    #[test]
    fn the_records_of_a_batch_are_counted_from_an_offset() {
        let mut batch = made(10, 4, 2);
        let count = |batch: &[u8], from| header(batch).and_then(|batch_header| batch_header.records_from(from));
        batch[COUNT + 3] = 5;
        assert_eq!([9, 10, 12, 15].map(|from| count(&batch, from)), [5, 5, 3, 0].map(Some));
        batch[COUNT + 3] = 4;
        assert_eq!([10, 12].map(|from| count(&batch, from)), [Some(4), None], "it was compacted");
        batch[ATTRIBUTES] = 0x10;
        assert_eq!(count(&batch, 10), None, "its transaction may have been aborted");
    }

    #[test]
    fn a_damaged_header_is_no_batch() {
        for length in 0..27 {
            assert_eq!(batch_headers(&made(10, 4, 2)[..length], 10), None, "{length}");
        }
        assert_eq!(batch_headers(&made(-1, 4, 2), 10), None);
        assert_eq!(batch_headers(&made(10, -4, 2), 10), Some((batch_header(10, None), None)));
        assert_eq!(batch_headers(&made(i64::MAX, i32::MAX, 2), 10).map(|(s, _)| s.first), Some(i64::MAX as u64));
    }

    #[test]
    fn what_lies_behind_a_batch_that_lies_about_its_end_is_found() {
        let batches = [made(10, 90, 2), made(11, 0, 2)].concat();
        assert_eq!(batch_headers(&batches, 10), Some((batch_header(10, 101), Some(11))));
    }
}
