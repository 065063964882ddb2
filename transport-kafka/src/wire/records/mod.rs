//! Record batches of format version 2 (KIP-98), read and written.
//!
//! Reading has two steps, so that the next fetch can go out before any record is decoded:
//!
//! - [`scan`] iterates over the batches of a fetch by their headers, which contain the next offset.
//! - [`Batch::records`] checks and decompresses one batch; its records are slices of the fetch, or of
//!   the decompressed bytes.
//!
//! Fetched bytes are untrusted: each length is checked before use, decompression stops at a bound,
//! and no memory is allocated by a declared size alone. A batch is checked as a whole before its
//! first record is returned.
//!
//! Writing appends records to one buffer ([`BatchBuilder`]), which becomes the batch.
//!
//! This module depends on nothing else of this crate: `tests/records.rs` compiles it by itself, to
//! compare it with Java's client.

mod batch;
mod builder;
mod cursor;
mod error;
mod header;
mod pack;
mod unpack;

#[cfg(test)]
mod tests;

pub(crate) use self::batch::{Batch, Marker, Records};
pub(crate) use self::builder::{BatchBuilder, NewRecord, ProducerState, RecordTooLarge, SealedBatch};
pub(crate) use self::error::{BatchError, UndecodableBatch};
pub(crate) use self::header::{BatchHeader, Scan, scan};
pub(crate) use self::pack::Packing;

/// The codecs of the format, by their numbers in the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// All codecs, by their numbers.
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}

/// Positions of the fields of a batch.
mod at {
    pub(super) const BASE_OFFSET: usize = 0;
    pub(super) const LENGTH: usize = 8;
    pub(super) const LEADER_EPOCH: usize = 12;
    pub(super) const MAGIC: usize = 16;
    pub(super) const CRC: usize = 17;
    /// The checksum covers the bytes from here on.
    pub(super) const ATTRIBUTES: usize = 21;
    pub(super) const LAST_DELTA: usize = 23;
    pub(super) const BASE_TIMESTAMP: usize = 27;
    pub(super) const MAX_TIMESTAMP: usize = 35;
    pub(super) const PRODUCER_ID: usize = 43;
    pub(super) const PRODUCER_EPOCH: usize = 51;
    pub(super) const BASE_SEQUENCE: usize = 53;
    pub(super) const COUNT: usize = 57;
    pub(super) const RECORDS: usize = 61;
}

/// Length of the fields before the bytes that a batch's length counts: its offset, and the length itself.
const PREFIX: usize = at::LEADER_EPOCH;
/// The only format version whose records are read and written.
const MAGIC: i8 = 2;
/// Bits of the attributes.
const CODEC_BITS: i16 = 0x07;
const APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
