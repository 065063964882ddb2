//! One batch of a fetch, and its records.

use std::ops::Range;

use bytes::Bytes;
use tidings_core::{Header, Headers, StoredRecord, Timestamp};

use super::cursor::Cursor;
use super::unpack::unpack;
use super::{BatchError, BatchHeader, Codec, at};

/// Shortest record: its length, attributes, two deltas, no key, no value and no headers.
const MIN_RECORD: usize = 7;
/// Maximum number of headers of a record. Each takes two bytes in a batch, and 64 in memory.
pub(crate) const MAX_HEADERS: usize = 100_000;
/// Shortest header: the length of an empty name, and that of its value.
const MIN_HEADER: usize = 2;
/// Record types of a control batch.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// A batch of version 2 whose header was read, and nothing else. Its bytes are a slice of the fetch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

/// End of a transaction, the content of a control batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The producer's open transaction was aborted.
    Abort,
    /// The producer's open transaction was committed.
    Commit,
    /// An internal type of the broker, such as those of its metadata log.
    Other(i16),
}

impl Batch {
    pub(super) fn new(header: BatchHeader, bytes: Bytes) -> Self {
        Self { header, bytes }
    }

    /// Returns the header.
    pub(crate) fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Checks the batch as a whole, decompresses it to at most `limit` bytes, and returns its records from `offset`
    /// on. An uncompressed batch is never too large: its size is that of the fetch.
    ///
    /// # Errors
    /// If the checksum is wrong, the decompressed bytes exceed `limit`, or anything in it contradicts the format: no
    /// record is returned then.
    pub(crate) fn records(&self, offset: u64, limit: usize) -> Result<Records, BatchError> {
        let data = self.unpacked(limit)?;
        let mut records = Records {
            data,
            at: 0,
            left: 0,
            headers: 0,
            base_offset: self.header.base_offset,
            base_timestamp: self.header.base_timestamp,
            append_time: self.header.has_append_time().then_some(self.header.max_timestamp),
        };
        records.check(&self.header, offset)?;
        Ok(records)
    }

    /// Returns the end of a transaction that a control batch contains; `None` for a batch without records, which
    /// compaction leaves in place of a producer's last marker.
    ///
    /// # Errors
    /// As [`records`](Self::records); and if its record is no marker.
    pub(crate) fn marker(&self, limit: usize) -> Result<Option<Marker>, BatchError> {
        let Some(record) = self.records(0, limit)?.next() else { return Ok(None) };
        let key = record.key.unwrap_or_default();
        // The first two bytes are the version of the key.
        match key.get(2..4).and_then(<[u8]>::first_chunk).map(|kind| i16::from_be_bytes(*kind)) {
            Some(ABORT) => Ok(Some(Marker::Abort)),
            Some(COMMIT) => Ok(Some(Marker::Commit)),
            Some(other) => Ok(Some(Marker::Other(other))),
            None => Err(BatchError::Damaged("it is a control batch without a marker")),
        }
    }

    /// Checks the checksum, and returns the encoded records.
    fn unpacked(&self, limit: usize) -> Result<Bytes, BatchError> {
        let computed = crc32c::crc32c(self.bytes.get(at::ATTRIBUTES..).unwrap_or_default());
        if computed != self.header.crc {
            return Err(BatchError::Checksum { stored: self.header.crc, computed });
        }
        let records = self.bytes.slice(at::RECORDS..);
        match self.header.codec()? {
            Codec::None => Ok(records),
            codec => unpack(codec, &records, limit).map(Bytes::from),
        }
    }
}

/// The records of a batch that was checked. Keys, values and headers are slices of the batch's bytes, or of the bytes
/// it was decompressed to: a small slice keeps all of them in memory.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    data: Bytes,
    at: usize,
    left: usize,
    /// Number of headers of all records.
    headers: usize,
    base_offset: u64,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl Records {
    /// Returns the decompressed size of the records in bytes, which any one of them keeps in memory.
    pub(crate) fn size(&self) -> usize {
        self.data.len()
    }

    /// Returns the memory of all records of the batch in bytes: their decompressed size, and their headers, which take
    /// more than their encoding.
    pub(crate) fn memory(&self) -> usize {
        self.size() + self.headers * size_of::<Header>()
    }

    /// Checks all records without building them, and moves to the first whose offset is at least `offset`.
    fn check(&mut self, header: &BatchHeader, offset: u64) -> Result<(), BatchError> {
        let count = header.count as usize;
        if count > self.data.len() / MIN_RECORD {
            return Err(BatchError::Damaged("it has fewer records than it declares"));
        }
        let least = offset.saturating_sub(self.base_offset);
        let mut cursor = Cursor::new(&self.data, 0);
        // The least delta of the next record.
        let mut next = 0;
        self.at = self.data.len();
        for done in 0..count {
            let start = cursor.at();
            let fields = Fields::read(&mut cursor).ok_or(BatchError::Damaged("a record is cut off"))?;
            fields.check_headers(&mut cursor)?;
            self.headers += fields.headers;
            if cursor.at() != fields.end {
                return Err(BatchError::Damaged("the length of a record differs from that of its fields"));
            }
            let delta = u64::try_from(fields.offset_delta).unwrap_or(0);
            if fields.offset_delta < 0 || delta < next || self.base_offset + delta > header.last_offset {
                return Err(BatchError::Damaged("the offset of a record is out of order or outside its batch"));
            }
            next = delta + 1;
            if self.left == 0 && delta >= least {
                (self.at, self.left) = (start, count - done);
            }
        }
        if cursor.left() > 0 {
            return Err(BatchError::Damaged("it has more records than it declares"));
        }
        Ok(())
    }

    fn slice(&self, range: Option<Range<usize>>) -> Option<Bytes> {
        range.map(|range| self.data.slice(range))
    }

    fn headers(&self, cursor: &mut Cursor<'_>, count: usize) -> Option<Headers> {
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = header_ranges(cursor)?;
            headers.push(Header { name: self.data.slice(name), value: self.slice(value) });
        }
        Some(headers.into_iter().collect())
    }
}

impl Iterator for Records {
    type Item = StoredRecord;

    #[inline]
    fn next(&mut self) -> Option<StoredRecord> {
        if self.left == 0 {
            return None;
        }
        let mut cursor = Cursor::new(&self.data, self.at);
        let fields = Fields::read(&mut cursor)?;
        let offset = self.base_offset + u64::try_from(fields.offset_delta).unwrap_or(0);
        // As in Java's client, a timestamp beyond all timestamps wraps.
        let timestamp = self.append_time.unwrap_or_else(|| self.base_timestamp.wrapping_add(fields.timestamp_delta));
        let mut record = StoredRecord::new(offset, Timestamp::from_millis(timestamp));
        record.key = self.slice(fields.key.clone());
        record.value = self.slice(fields.value.clone());
        if fields.headers > 0 {
            record.headers = self.headers(&mut cursor, fields.headers)?;
        }
        (self.at, self.left) = (fields.end, self.left - 1);
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records {}

/// The fields of a record; those of variable length as ranges.
struct Fields {
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: usize,
    end: usize,
}

impl Fields {
    /// Reads a record up to its headers; `None` if a field reaches beyond the record or all bytes.
    #[inline]
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let length = usize::try_from(cursor.int()?).ok()?;
        let end = cursor.at().checked_add(length).filter(|_| length <= cursor.left())?;
        let _attributes = cursor.byte()?;
        let timestamp_delta = cursor.long()?;
        let offset_delta = cursor.int()?;
        let key = range(cursor)?;
        let value = range(cursor)?;
        let headers = usize::try_from(cursor.int()?).ok()?;
        (cursor.at() <= end).then_some(Self { offset_delta, timestamp_delta, key, value, headers, end })
    }

    /// Walks the headers.
    fn check_headers(&self, cursor: &mut Cursor<'_>) -> Result<(), BatchError> {
        if self.headers > MAX_HEADERS {
            return Err(BatchError::TooManyHeaders);
        }
        if self.headers > cursor.left() / MIN_HEADER {
            return Err(BatchError::Damaged("a record has fewer headers than it declares"));
        }
        for _ in 0..self.headers {
            header_ranges(cursor).ok_or(BatchError::Damaged("a header is cut off or has no name"))?;
        }
        Ok(())
    }
}

/// Reads a length and that many bytes; a negative length is null.
#[inline]
fn range(cursor: &mut Cursor<'_>) -> Option<Option<Range<usize>>> {
    match usize::try_from(cursor.int()?) {
        Ok(length) => cursor.skip(length).map(|start| Some(start..start + length)),
        Err(_) => Some(None),
    }
}

/// Reads a header; a null name is none.
fn header_ranges(cursor: &mut Cursor<'_>) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let name = range(cursor)??;
    Some((name, range(cursor)?))
}
