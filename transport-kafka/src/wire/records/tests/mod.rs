//! Tests of the record codec: round trips, foreign encodings, bounds, and damaged bytes.

mod damage;
mod fuzz;
mod reading;
mod writing;

use std::io::Write;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any};
use tidings_core::{Header, Headers, StoredRecord};

use super::pack::Packing;
use super::{BatchBuilder, BatchError, Codec, NewRecord, PREFIX, ProducerState, at, scan};

/// A bound that no test reaches unless it means to.
const LIMIT: usize = 64 << 20;

/// A record as a test gives it.
#[derive(Debug, Clone, Default)]
struct Given {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    timestamp: i64,
}

impl Given {
    fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    fn view(&self) -> NewRecord<'_> {
        NewRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp,
        }
    }

    /// Checks that `read` is this record, at `offset`.
    fn check(&self, read: &StoredRecord, offset: u64) {
        assert_eq!((read.offset, read.timestamp.millis()), (offset, self.timestamp));
        assert_eq!((read.key.as_deref(), read.value.as_deref()), (self.key.as_deref(), self.value.as_deref()));
        assert_eq!(read.headers, self.headers);
    }
}

/// Generates records: null, empty and repeated keys, values and headers, and timestamps far apart.
fn given() -> impl Strategy<Value = Given> {
    let bytes = || vec(any::<u8>(), 0..200);
    let header = (vec(0_u8..3, 0..3), option::of(bytes()))
        .prop_map(|(name, value)| Header { name: name.into(), value: value.map(Bytes::from) });
    let timestamp = proptest::prop_oneof![0..10_000_i64, any::<i64>()];
    (option::of(bytes()), option::of(bytes()), vec(header, 0..4), timestamp).prop_map(
        |(key, value, headers, timestamp)| Given { key, value, headers: headers.into_iter().collect(), timestamp },
    )
}

fn built(records: &[Given]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(0);
    for record in records {
        builder.append(&record.view()).expect("it fits");
    }
    builder
}

/// Returns an uncompressed batch.
fn plain(records: &[Given]) -> Vec<u8> {
    let sealed = built(records).seal(Packing::NONE, ProducerState::NONE, false).expect("no codec");
    sealed.bytes().to_vec()
}

/// Returns three records with the values `v-0` to `v-2`.
fn three() -> Vec<u8> {
    plain(&(0..3).map(|n| Given::new(format!("v-{n}"))).collect::<Vec<_>>())
}

/// Compresses with the codecs' own defaults, as foreign clients may; snappy without a framing.
fn packed(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(bytes).expect("memory"),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Codec::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

/// Replaces the records of an uncompressed batch by `body`, compressed with `codec`.
fn with_body(batch: &[u8], codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut made = [&batch[..at::RECORDS], body].concat();
    made[at::ATTRIBUTES + 1] |= codec as u8;
    resized(&mut made);
    made
}

/// Corrects the length and the checksum.
fn resized(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - PREFIX).expect("a batch");
    batch[at::LENGTH..PREFIX].copy_from_slice(&length.to_be_bytes());
    resealed(batch);
}

/// Corrects the checksum.
fn resealed(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[at::ATTRIBUTES..]);
    batch[at::CRC..at::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// Reads the only batch of `bytes`.
fn read(bytes: &[u8], limit: usize) -> Result<Vec<StoredRecord>, BatchError> {
    let batch = scan(&Bytes::copy_from_slice(bytes)).next().expect("a batch").map_err(|bad| bad.cause)?;
    batch.records(0, limit).map(Iterator::collect)
}

fn values(records: &[StoredRecord]) -> Vec<&[u8]> {
    records.iter().map(|record| record.value.as_deref().unwrap_or_default()).collect()
}
