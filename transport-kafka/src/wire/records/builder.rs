//! Batches to be sent: records appended to one buffer.

use bytes::{Bytes, BytesMut};
use tidings_core::{Headers, Record};

use super::cursor::{encoded_len, put};
use super::{Codec, MAGIC, PREFIX, Packing, TRANSACTIONAL_BIT, at};

/// Length of a null key or value.
const NULL: i64 = -1;
/// The epoch of the leader, which the broker sets.
const NO_LEADER_EPOCH: i32 = -1;
/// Maximum size of a batch, and of a record: that of its length field.
const MAX_SIZE: usize = i32::MAX as usize;
/// Maximum size of what precedes a record's body: its length.
const MAX_LENGTH_SIZE: usize = 5;

/// A record to be appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    /// The key; `None` is null.
    pub(crate) key: Option<&'a [u8]>,
    /// The value; `None` is null.
    pub(crate) value: Option<&'a [u8]>,
    /// The headers.
    pub(crate) headers: &'a Headers,
    /// The timestamp, in milliseconds.
    pub(crate) timestamp: i64,
}

impl<'a> NewRecord<'a> {
    /// Returns a view of `record`; `now` is the timestamp of a record without one.
    pub(crate) fn of(record: &'a Record, now: i64) -> Self {
        Self {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp: record.timestamp.map_or(now, tidings_core::Timestamp::millis),
        }
    }

    /// Returns the length of the encoding without its own length.
    fn body_len(&self, timestamp_delta: i64, offset_delta: u32) -> usize {
        let headers = || {
            let header = |header: &tidings_core::Header| {
                nullable_len(Some(&header.name)).saturating_add(nullable_len(header.value.as_deref()))
            };
            self.headers.iter().map(header).fold(0, usize::saturating_add)
        };
        let fixed = 1 + encoded_len(timestamp_delta) + encoded_len(offset_delta.into());
        let parts = nullable_len(self.key).saturating_add(nullable_len(self.value));
        let count = encoded_len(self.headers.len() as i64);
        fixed.saturating_add(parts).saturating_add(count).saturating_add(headers())
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| encoded_len(bytes.len() as i64).saturating_add(bytes.len()))
}

#[inline]
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put(out, NULL),
    }
}

/// The producer that a broker deduplicates and orders batches by (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerState {
    /// The producer's id.
    pub(crate) id: i64,
    /// The producer's epoch.
    pub(crate) epoch: i16,
    /// The sequence of the first record of a batch.
    pub(crate) sequence: i32,
}

impl ProducerState {
    /// No producer: the broker neither deduplicates nor orders the batch.
    pub(crate) const NONE: Self = Self { id: -1, epoch: -1, sequence: -1 };
}

/// A record that fits into no batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordTooLarge;

/// A batch under construction. Appending allocates only when its buffer grows.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    /// Space for the header, and the records.
    buffer: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Creates an empty batch with memory for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(capacity.max(at::RECORDS));
        buffer.resize(at::RECORDS, 0);
        Self { buffer, count: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Returns the number of records.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns whether there are no records.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size in bytes, uncompressed, with the header.
    pub(crate) fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the memory that it has allocated, in bytes.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests use it"))]
    pub(crate) fn allocated(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns the exact size that it would have with `record`.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests use it"))]
    pub(crate) fn size_with(&self, record: &NewRecord<'_>) -> usize {
        let body = record.body_len(self.timestamp_delta(record), self.count);
        self.size().saturating_add(encoded_len(body as i64)).saturating_add(body)
    }

    fn timestamp_delta(&self, record: &NewRecord<'_>) -> i64 {
        if self.count == 0 { 0 } else { record.timestamp.wrapping_sub(self.base_timestamp) }
    }

    /// Appends `record` and returns its position in the batch.
    ///
    /// # Errors
    /// If the batch would exceed the largest size of the format, 2 GiB; nothing is appended then.
    #[inline]
    pub(crate) fn append(&mut self, record: &NewRecord<'_>) -> Result<u32, RecordTooLarge> {
        let (timestamp_delta, offset_delta) = (self.timestamp_delta(record), self.count);
        let body = record.body_len(timestamp_delta, offset_delta);
        if body > MAX_SIZE - MAX_LENGTH_SIZE - self.size().min(MAX_SIZE - MAX_LENGTH_SIZE) {
            return Err(RecordTooLarge);
        }
        self.buffer.reserve(body + MAX_LENGTH_SIZE);
        put(&mut self.buffer, body as i64);
        // No attributes of a record are in use.
        self.buffer.push(0);
        put(&mut self.buffer, timestamp_delta);
        put(&mut self.buffer, offset_delta.into());
        put_nullable(&mut self.buffer, record.key);
        put_nullable(&mut self.buffer, record.value);
        put(&mut self.buffer, record.headers.len() as i64);
        for header in record.headers {
            put_nullable(&mut self.buffer, Some(&header.name));
            put_nullable(&mut self.buffer, header.value.as_deref());
        }
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (record.timestamp, record.timestamp);
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.count += 1;
        Ok(offset_delta)
    }

    /// Completes the batch: compressed by `packing` if that makes it smaller, and sent by `producer`.
    ///
    /// # Errors
    /// If the codec is not supported.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests use it"))]
    pub(crate) fn seal(
        self,
        packing: Packing,
        producer: ProducerState,
        transactional: bool,
    ) -> std::io::Result<SealedBatch> {
        let mut sealed = self.pack(packing, transactional)?;
        sealed.restamp(producer);
        Ok(sealed)
    }

    /// Compresses the batch by `packing` if that makes it smaller. It must be [stamped](SealedBatch::restamp) before it
    /// is sent, which computes its checksum.
    ///
    /// # Errors
    /// If the codec is not supported.
    pub(crate) fn pack(mut self, packing: Packing, transactional: bool) -> std::io::Result<SealedBatch> {
        let (mut buffer, codec) = self.packed(packing)?;
        let length = i32::try_from(buffer.len() - PREFIX).unwrap_or(i32::MAX);
        let attributes = codec as i16 | if transactional { TRANSACTIONAL_BIT } else { 0 };
        // The deltas count from zero; an empty batch is never sent.
        let last_delta = self.count.saturating_sub(1);
        set(&mut buffer, at::LENGTH, length.to_be_bytes());
        set(&mut buffer, at::LEADER_EPOCH, NO_LEADER_EPOCH.to_be_bytes());
        set(&mut buffer, at::MAGIC, MAGIC.to_be_bytes());
        set(&mut buffer, at::ATTRIBUTES, attributes.to_be_bytes());
        set(&mut buffer, at::LAST_DELTA, last_delta.to_be_bytes());
        set(&mut buffer, at::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        set(&mut buffer, at::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        set(&mut buffer, at::COUNT, self.count.to_be_bytes());
        Ok(SealedBatch { bytes: buffer.into(), count: self.count, producer: ProducerState::NONE })
    }

    /// Takes the buffer, with its records compressed if that makes it smaller.
    fn packed(&mut self, packing: Packing) -> std::io::Result<(Vec<u8>, Codec)> {
        let buffer = std::mem::take(&mut self.buffer);
        if packing.codec == Codec::None {
            return Ok((buffer, Codec::None));
        }
        let mut out = Vec::with_capacity(buffer.len() / 2 + at::RECORDS);
        out.resize(at::RECORDS, 0);
        let packed = packing.pack(buffer.get(at::RECORDS..).unwrap_or_default(), out)?;
        if packed.len() < buffer.len() { Ok((packed, packing.codec)) } else { Ok((buffer, Codec::None)) }
    }
}

/// Writes a field of a header.
fn set<const N: usize>(batch: &mut [u8], start: usize, field: [u8; N]) {
    if let Some(place) = batch.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *place = field;
    }
}

/// Writes the producer's fields and the checksum.
fn stamp(batch: &mut [u8], producer: ProducerState) {
    set(batch, at::PRODUCER_ID, producer.id.to_be_bytes());
    set(batch, at::PRODUCER_EPOCH, producer.epoch.to_be_bytes());
    set(batch, at::BASE_SEQUENCE, producer.sequence.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(at::ATTRIBUTES..).unwrap_or_default());
    set(batch, at::CRC, crc.to_be_bytes());
}

/// A batch to be sent.
#[derive(Debug, Clone)]
pub(crate) struct SealedBatch {
    bytes: Bytes,
    count: u32,
    producer: ProducerState,
}

impl SealedBatch {
    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the number of records.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the producer that sends it.
    pub(crate) fn producer(&self) -> ProducerState {
        self.producer
    }

    /// Changes the producer state, so that a batch that was certainly not stored can be sent under a new epoch or
    /// sequence. Copies the bytes if they are shared, such as with a connection that has yet to write them.
    pub(crate) fn restamp(&mut self, producer: ProducerState) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        stamp(&mut bytes, producer);
        (self.bytes, self.producer) = (bytes.freeze(), producer);
    }
}
