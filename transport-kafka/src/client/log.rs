//! Reads of a partition's log by position: one fetch from its leader, decoded here.
//!
//! The client's own consumer keeps positions and buffers for the partitions that it is assigned; a read by position has
//! neither. So a fetch is sent as in [`peek`](super::peek), and its batches are decoded one by one, until a limit is
//! reached. Batches of aborted transactions are skipped as the client's consumer does: the broker returns them, with a
//! list of the transactions (KIP-98).

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use krafka::__private::kafka_metadata;
use krafka::__private::protocol::{
    AbortedTransaction, ApiKey, FetchPartitionResponse, FetchResponse, Record, RecordBatch, RecordBatchHeader,
    TimestampType, VersionedDecode, VersionedEncode,
};
use krafka::KrafkaError;
use krafka::error::ErrorCode;
use tidings_core::{Error, ErrorKind, Header, ReadLimits, Result, StoredRecord, Timestamp, TopicPartition};
use tokio::time::timeout;

use super::admin::ClusterClient;
use super::fetcher::index;
use super::peek::{self, VERSIONS};
use crate::error::{failed, is_refused_fetch};

/// The bounds of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// The caller's limits of the answer.
    pub(crate) read: ReadLimits,
    /// Bytes to fetch, before decompression; the broker returns at least one batch.
    pub(crate) fetch_bytes: usize,
    /// Bytes of one batch after decompression.
    pub(crate) max_unpacked: usize,
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) enum LogRead {
    /// The part of the log from the offset on.
    Part(LogPart),
    /// The offset is not in the log.
    OutOfRange,
    /// The broker refuses to return what is there; a retry is unlikely to help.
    Refused(Error),
}

/// A part of a log, from the offset of the read on.
#[derive(Debug)]
pub(crate) struct LogPart {
    pub(crate) records: Vec<StoredRecord>,
    /// Offset where reading continues.
    pub(crate) next: u64,
    /// Oldest offset in the log.
    pub(crate) start: u64,
    /// End of the readable log.
    pub(crate) end: u64,
    /// Why the batch at `next` cannot be decoded.
    pub(crate) bad: Option<Error>,
}

impl ClusterClient {
    /// Returns the broker that leads a partition, as far as this connection knows.
    pub(crate) fn leader(&self, at: &TopicPartition) -> Option<i32> {
        kafka_metadata(&self.connection().0).leader(&at.topic, index(at))
    }

    /// Reads the log of a partition from `offset` on, within `limits`; the broker waits up to `wait` for records.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Denied`](ErrorKind::Denied), and [`Unavailable`](ErrorKind::Unavailable):
    /// the leader is then looked up again by the next read.
    pub(crate) async fn read_log(
        &self,
        at: &TopicPartition,
        offset: u64,
        limits: LogLimits,
        wait: Duration,
    ) -> Result<LogRead> {
        let what = || format!("read {at} from offset {offset}");
        let late = |_| Error::new(ErrorKind::Unavailable, format!("{}: no answer within {:?}", what(), self.limit()));
        let asked = timeout(self.limit() + wait, self.fetch_log(at, offset, limits.fetch_bytes, wait)).await;
        let answer = match asked.map_err(late)? {
            Ok(answer) => answer,
            Err(error) => return Err(self.not_led(at, failed(what(), error)).await),
        };
        if answer.error_code.is_ok() {
            return Ok(LogRead::Part(part(at, answer, offset, limits, self.committed_only())));
        }
        let code = answer.error_code;
        if code == ErrorCode::OffsetOutOfRange {
            return Ok(LogRead::OutOfRange);
        }
        let error = failed(what(), KrafkaError::broker(code, "the broker refused the fetch"));
        if is_refused_fetch(&error) {
            return Ok(LogRead::Refused(error));
        }
        Err(self.not_led(at, error).await)
    }

    /// Sends a fetch to the leader.
    async fn fetch_log(
        &self,
        at: &TopicPartition,
        offset: u64,
        bytes: usize,
        wait: Duration,
    ) -> krafka::Result<FetchPartitionResponse> {
        let metadata = kafka_metadata(&self.connection().0);
        let connection = metadata.get_leader_connection(&at.topic, index(at)).await?;
        let (newest, oldest) = VERSIONS;
        let version = connection.negotiate_api_version(ApiKey::Fetch, newest, oldest).unwrap_or(oldest);
        let mut request = peek::request(&[(at.clone(), offset)], bytes, self.committed_only());
        request.min_bytes = 1;
        request.max_wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let mut answer =
            connection.send_request(ApiKey::Fetch, version, |buf| request.encode_versioned(version, buf)).await?;
        let answer = FetchResponse::decode_versioned(version, &mut answer)?;
        if !answer.error_code.is_ok() {
            return Err(KrafkaError::broker(answer.error_code, "the broker refused the fetch"));
        }
        let mut partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        let missing = || KrafkaError::broker(ErrorCode::UnknownServerError, "the answer leaves the partition out");
        partitions.find(|partition| partition.partition == index(at)).ok_or_else(missing)
    }

    /// Returns the error of a failed read, after looking the leader up again where it may have moved.
    async fn not_led(&self, at: &TopicPartition, error: Error) -> Error {
        if !error.is_retryable() {
            return error;
        }
        let metadata = kafka_metadata(&self.connection().0);
        if timeout(self.limit(), metadata.force_refresh(Some(&[at.topic.as_str()]))).await.is_err() {
            return error;
        }
        match metadata.partition_count(&at.topic) {
            Some(count) if count > 0 && at.partition as usize >= count => {
                Error::new(ErrorKind::NotFound, format!("read {at}: there is no such partition"))
            }
            _ => error,
        }
    }
}

/// Interprets an answer without an error.
fn part(
    at: &TopicPartition,
    answer: FetchPartitionResponse,
    offset: u64,
    limits: LogLimits,
    committed_only: bool,
) -> LogPart {
    let unsigned = |offset: i64| u64::try_from(offset).ok();
    let high = unsigned(answer.high_watermark).unwrap_or(0);
    let end = unsigned(answer.last_stable_offset).filter(|_| committed_only).unwrap_or(high);
    let mut walk = Walk::new(offset, limits, answer.aborted_transactions);
    let bad = walk.through(answer.records.unwrap_or_default()).err();
    let bad = bad.map(|why| {
        let kind = if why.contains("exceeds") { ErrorKind::TooLarge } else { ErrorKind::Undecodable };
        Error::new(kind, format!("cannot read the batch of {at} at offset {}: {why}", walk.next))
    });
    // What was read before the batch is returned first.
    let bad = bad.filter(|_| walk.records.is_empty());
    let start = unsigned(answer.log_start_offset).unwrap_or(0);
    LogPart { end: end.max(walk.next), records: walk.records, next: walk.next, start, bad }
}

/// A walk through the batches of a fetch.
struct Walk {
    records: Vec<StoredRecord>,
    next: u64,
    bytes: usize,
    limits: LogLimits,
    /// Aborted transactions whose first record is still ahead, the next one last.
    ahead: Vec<AbortedTransaction>,
    /// Producers in an aborted transaction at this place of the log.
    aborting: HashSet<i64>,
}

impl Walk {
    fn new(offset: u64, limits: LogLimits, mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { records: Vec::new(), next: offset, bytes: 0, limits, ahead: aborted, aborting: HashSet::new() }
    }

    /// Takes records until a limit is reached, and returns why a batch cannot be decoded; `next` is then in or before
    /// it.
    fn through(&mut self, mut buffer: Bytes) -> std::result::Result<(), String> {
        let whole = buffer.len();
        while !buffer.is_empty() {
            // The last batch may be cut; the first one is always whole.
            let is_first = buffer.len() == whole;
            if buffer.len() < RecordBatchHeader::SIZE && !is_first {
                break;
            }
            let header = RecordBatchHeader::peek(&buffer).map_err(|e| e.to_string())?;
            if buffer.len() < header.total_size() {
                return if is_first { Err("its length is damaged".into()) } else { Ok(()) };
            }
            if !self.take(header, &mut buffer)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the records of one batch; returns `false` once a limit is reached.
    fn take(&mut self, header: RecordBatchHeader, buffer: &mut Bytes) -> std::result::Result<bool, String> {
        while let Some(next) = self.ahead.pop_if(|next| next.first_offset <= header.last_offset()) {
            self.aborting.insert(next.producer_id);
        }
        let end = u64::try_from(header.last_offset().saturating_add(1)).map_err(|_| "its offsets are negative")?;
        let (transactional, control) = (header.attributes.is_transactional, header.attributes.is_control_batch);
        let aborted = transactional && !control && self.aborting.contains(&header.producer_id);
        if aborted || (end <= self.next && !control) {
            drop(buffer.split_to(header.total_size()));
            self.next = self.next.max(end);
            return Ok(true);
        }
        let batch = RecordBatch::decode_with_limit(buffer, self.limits.max_unpacked).map_err(|e| e.to_string())?;
        if control {
            if is_abort(&batch) {
                self.aborting.remove(&batch.producer_id);
            }
            self.next = self.next.max(end);
            return Ok(true);
        }
        self.take_records(batch, end)
    }

    fn take_records(&mut self, batch: RecordBatch, end: u64) -> std::result::Result<bool, String> {
        let (base, append_time) = (batch.base_offset, append_time(&batch));
        let mut taken = Vec::with_capacity(batch.records.len().min(self.limits.read.max_records));
        let (mut bytes, mut next) = (self.bytes, self.next);
        let mut is_whole = true;
        for record in batch.records {
            let offset = base.checked_add(i64::from(record.offset_delta)).and_then(|offset| u64::try_from(offset).ok());
            let offset = offset.filter(|offset| *offset < end).ok_or("an offset is not one of the batch")?;
            if offset < next {
                continue;
            }
            let record = stored(record, offset, batch.base_timestamp, append_time);
            let count = self.records.len() + taken.len();
            let is_full = count > 0 && bytes.saturating_add(record.size()) > self.limits.read.max_bytes;
            if is_full || count >= self.limits.read.max_records {
                is_whole = false;
                break;
            }
            bytes += record.size();
            next = offset + 1;
            taken.push(record);
        }
        self.records.append(&mut taken);
        (self.bytes, self.next) = (bytes, if is_whole { self.next.max(end) } else { next });
        Ok(is_whole)
    }
}

/// Returns whether a control batch ends an aborted transaction; its key has a version and a type.
fn is_abort(batch: &RecordBatch) -> bool {
    let key = batch.records.first().and_then(|record| record.key.as_ref());
    key.and_then(|key| key.get(2..4)).is_some_and(|kind| kind == [0, 0])
}

/// Returns the broker's time of a batch, if its topic's records have that.
fn append_time(batch: &RecordBatch) -> Option<i64> {
    (batch.attributes.timestamp_type == TimestampType::LogAppendTime).then_some(batch.max_timestamp)
}

/// Converts a record without copying its bytes.
fn stored(record: Record, offset: u64, base: i64, append_time: Option<i64>) -> StoredRecord {
    let time = append_time.unwrap_or_else(|| base.saturating_add(record.timestamp_delta));
    let mut made = StoredRecord::new(offset, Timestamp::from_millis(time));
    made.key = record.key;
    made.value = record.value;
    if !record.headers.is_empty() {
        made.headers = record.headers.into_iter().map(|h| Header { name: h.key, value: h.value }).collect();
    }
    made
}
