//! Batch headers, by which the batches of a fetch are found without decoding a record.

use bytes::Bytes;

use super::{
    APPEND_TIME_BIT, Batch, BatchError, CODEC_BITS, CONTROL_BIT, Codec, MAGIC, PREFIX, TRANSACTIONAL_BIT,
    UndecodableBatch, at,
};

/// Shortest batch of any format version, without its offset and length: a message of version 0.
const MIN_LENGTH: usize = 14;
/// Shortest batch of version 2, without its offset and length.
const MIN_LENGTH_V2: usize = at::RECORDS - PREFIX;

/// The header of a batch of version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// Offset of the first record, also if compaction has removed that.
    pub(crate) base_offset: u64,
    /// Offset of the last record, also if compaction has removed that.
    pub(crate) last_offset: u64,
    /// Size in bytes, with the header.
    pub(crate) size: usize,
    /// Epoch of the leader that appended it; -1 where it is unknown.
    pub(crate) leader_epoch: i32,
    /// Checksum of the bytes from the attributes on.
    pub(crate) crc: u32,
    /// The attributes.
    pub(crate) attributes: i16,
    /// Timestamp from which those of the records are counted, in milliseconds.
    pub(crate) base_timestamp: i64,
    /// Latest timestamp, in milliseconds; with append time, that of all records.
    pub(crate) max_timestamp: i64,
    /// Producer, or -1.
    pub(crate) producer_id: i64,
    /// Epoch of the producer, or -1.
    pub(crate) producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub(crate) base_sequence: i32,
    /// Number of records.
    pub(crate) count: u32,
}

impl BatchHeader {
    /// Returns the offset after the last record.
    pub(crate) fn next_offset(&self) -> u64 {
        self.last_offset + 1
    }

    /// Returns the codec.
    ///
    /// # Errors
    /// [`BatchError::Codec`] for a number without a codec.
    pub(crate) fn codec(&self) -> Result<Codec, BatchError> {
        let number = self.attributes & CODEC_BITS;
        Codec::ALL.into_iter().find(|codec| *codec as i16 == number).ok_or(BatchError::Codec(number))
    }

    /// Returns whether the records have the time at which the broker appended them.
    pub(crate) fn has_append_time(&self) -> bool {
        self.attributes & APPEND_TIME_BIT != 0
    }

    /// Returns whether it belongs to a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Returns whether it contains the end of a transaction instead of records.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Reads the header of `bytes`, a whole batch of version 2.
    fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let header: &[u8; at::RECORDS] = bytes.first_chunk().ok_or(BatchError::Damaged("its header is cut off"))?;
        let base_offset = u64::try_from(i64::from_be_bytes(field(header, at::BASE_OFFSET)));
        let base_offset = base_offset.map_err(|_| BatchError::Damaged("its offset is negative"))?;
        let last_delta = u32::try_from(i32::from_be_bytes(field(header, at::LAST_DELTA)));
        let last_delta = last_delta.map_err(|_| BatchError::Damaged("its last offset is before its first"))?;
        let last_offset = base_offset + u64::from(last_delta);
        if last_offset >= i64::MAX.unsigned_abs() {
            return Err(BatchError::Damaged("its last offset is beyond all offsets"));
        }
        let count = u32::try_from(i32::from_be_bytes(field(header, at::COUNT)));
        Ok(Self {
            base_offset,
            last_offset,
            size: bytes.len(),
            leader_epoch: i32::from_be_bytes(field(header, at::LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(header, at::CRC)),
            attributes: i16::from_be_bytes(field(header, at::ATTRIBUTES)),
            base_timestamp: i64::from_be_bytes(field(header, at::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(header, at::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(header, at::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(header, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(header, at::BASE_SEQUENCE)),
            count: count.map_err(|_| BatchError::Damaged("its number of records is negative"))?,
        })
    }
}

/// Returns a field of a header.
fn field<const N: usize>(header: &[u8; at::RECORDS], start: usize) -> [u8; N] {
    // Constants of this module bound `start`, so a field is never beyond the header.
    header.get(start..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

/// Iterates over the batches of a partition's fetch by their headers, without decoding or copying.
///
/// An unreadable batch is an error; iteration continues behind it if its length is plausible. A
/// truncated batch at the end is skipped, because brokers fill a fetch to its size. If it is the
/// only one, it is an error, because brokers return at least one whole batch.
pub(crate) fn scan(fetched: &Bytes) -> Scan {
    Scan { fetched: fetched.clone(), at: 0 }
}

/// Iterator of [`scan`].
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    fetched: Bytes,
    at: usize,
}

impl Scan {
    /// Ends the iteration with an error about the bytes at the current position.
    fn end(&mut self, first: Option<u64>, reason: &'static str) -> Option<<Self as Iterator>::Item> {
        self.at = self.fetched.len();
        Some(Err(UndecodableBatch { first, next: None, cause: BatchError::Damaged(reason) }))
    }

    /// Ends the iteration at a batch that is cut off.
    fn cut_off(&mut self, first: Option<u64>) -> Option<<Self as Iterator>::Item> {
        let alone = self.at == 0 && !self.fetched.is_empty();
        self.at = self.fetched.len();
        if alone { self.end(first, "it is cut off, and the only one of its fetch") } else { None }
    }
}

impl Iterator for Scan {
    type Item = Result<Batch, UndecodableBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.fetched.get(self.at..).unwrap_or_default();
        let Some((prefix, behind)) = rest.split_first_chunk::<PREFIX>() else { return self.cut_off(None) };
        let (offset, length) = prefix.split_at(at::LENGTH);
        let first = offset.first_chunk().and_then(|offset| u64::try_from(i64::from_be_bytes(*offset)).ok());
        let length = length.first_chunk().map_or(-1, |length| i32::from_be_bytes(*length));
        let length = match usize::try_from(length) {
            Ok(length) if length >= MIN_LENGTH => length,
            _ => return self.end(first, "its length is less than that of any batch"),
        };
        if behind.len() < length {
            return self.cut_off(first);
        }
        let magic = rest.get(at::MAGIC).map_or(-1, |magic| *magic as i8);
        let bytes = self.fetched.slice(self.at..self.at + PREFIX + length);
        self.at += bytes.len();
        Some(batch(bytes, first, magic))
    }
}

/// Reads the header of a batch whose length is plausible.
fn batch(bytes: Bytes, first: Option<u64>, magic: i8) -> Result<Batch, UndecodableBatch> {
    let undecodable = |next, cause| UndecodableBatch { first, next, cause };
    match magic {
        MAGIC if bytes.len() < PREFIX + MIN_LENGTH_V2 => {
            Err(undecodable(None, BatchError::Damaged("its length is less than that of its header")))
        }
        MAGIC => match BatchHeader::read(&bytes) {
            Ok(header) => Ok(Batch::new(header, bytes)),
            Err(cause) => Err(undecodable(None, cause)),
        },
        // A message in an old format, alone or wrapping others: its offset is that of the last one.
        0 | 1 => Err(undecodable(first.and_then(|first| first.checked_add(1)), BatchError::Format(magic))),
        _ => Err(undecodable(None, BatchError::Format(magic))),
    }
}
