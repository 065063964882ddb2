//! A batch on its way to a broker.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::buffer::{ClosedBatch, PartitionBuffer};
use super::call::{Outcome, Unended};
use crate::config::{Compression, KafkaConfig};
use crate::wire::producer::Payload;
use crate::wire::records::{BatchBuilder, Codec, NewRecord, Packing, ProducerState, SealedBatch, scan};

/// Error codes of a broker that refuses a batch because of its size, or because of one of its records.
const TOO_LARGE: [i16; 2] = [10, 18];
const INVALID: [i16; 2] = [32, 87];

/// Returns how batches are compressed.
pub(super) fn packing(config: &KafkaConfig) -> Packing {
    let codec = match config.compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    };
    Packing { codec, level: config.compression_level }
}

/// A batch and its calls.
#[derive(Debug)]
pub(super) struct Delivery {
    buffer: Arc<PartitionBuffer>,
    batch: SealedBatch,
    packing: Packing,
    /// Size of the batch before compression, in bytes.
    unpacked: usize,
    /// When its batch was opened.
    opened_at: Instant,
    unended: Unended,
}

impl Delivery {
    /// Compresses a batch; `None` if it cannot be compressed, and then its records end.
    pub(super) fn new(buffer: &Arc<PartitionBuffer>, batch: ClosedBatch, packing: Packing) -> Option<Self> {
        let ClosedBatch { builder, opened_at, unended } = batch;
        let unpacked = builder.size();
        match builder.pack(packing, false) {
            Ok(batch) => Some(Self { buffer: Arc::clone(buffer), batch, packing, unpacked, opened_at, unended }),
            Err(error) => {
                let text = format!("cannot compress a batch: {error}");
                unended.end(Outcome::Failed(tidings_core::ErrorKind::Unsupported, text.into()));
                None
            }
        }
    }

    /// Returns when the batch was opened.
    pub(super) fn opened_at(&self) -> Instant {
        self.opened_at
    }

    /// Returns the bytes to be sent by `producer`.
    pub(super) fn stamped(&mut self, producer: ProducerState) -> Bytes {
        if self.batch.producer() != producer {
            self.batch.restamp(producer);
        }
        self.batch.bytes().clone()
    }

    /// Ends the records.
    pub(super) fn end(self, outcome: Outcome) {
        if matches!(outcome, Outcome::Stored(_)) {
            self.buffer.note_stored();
        }
        self.unended.end(outcome);
    }

    /// Builds two batches of the halves of this one.
    fn halves(&self) -> Option<[(SealedBatch, usize); 2]> {
        let half = self.unended.count() / 2;
        let batch = scan(self.batch.bytes()).next()?.ok()?;
        let mut builders = [BatchBuilder::new(self.unpacked / 2), BatchBuilder::new(self.unpacked / 2)];
        for (position, record) in (0..).zip(batch.records(0, self.unpacked).ok()?) {
            let record = NewRecord {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
                timestamp: record.timestamp.millis(),
            };
            builders[usize::from(position >= half)].append(&record).ok()?;
        }
        let [first, second] = builders.map(|builder| {
            let unpacked = builder.size();
            Some((builder.pack(self.packing, false).ok()?, unpacked))
        });
        Some([first?, second?])
    }
}

impl Payload for Delivery {
    fn count(&self) -> u32 {
        self.unended.count()
    }

    fn size(&self) -> usize {
        self.batch.bytes().len()
    }

    fn split(mut self, code: i16) -> Result<(Self, Self), Self> {
        let is_too_large = TOO_LARGE.contains(&code);
        if self.count() < 2 || !(is_too_large || INVALID.contains(&code)) {
            return Err(self);
        }
        let Some([first, second]) = self.halves() else { return Err(self) };
        if is_too_large {
            self.buffer.lower_batch_bytes(self.unpacked);
        }
        let unended = self.unended.split_off(first.0.count());
        let (buffer, packing, opened_at) = (Arc::clone(&self.buffer), self.packing, self.opened_at);
        let second = Self { buffer, batch: second.0, packing, unpacked: second.1, opened_at, unended };
        (self.batch, self.unpacked) = first;
        Ok((self, second))
    }
}
