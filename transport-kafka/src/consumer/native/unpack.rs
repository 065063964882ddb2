//! Unpacking of fetched batches by a reader.

use tidings_core::TopicPartition;

use super::super::assigned::Chunk;
use super::reader::NativeReader;
use crate::client::fetcher::{FetchedRecords, UnreadableBatch};
use crate::wire::reader::{UnpackLimits, Unreadable};

/// Bytes that one step unpacks, unless a batch is larger.
const STEP_BYTES: usize = 1 << 20;

impl NativeReader {
    /// Unpacks a part of the waiting batches.
    pub(super) fn unpack(&mut self) {
        let Some(waiting) = self.waiting.front_mut() else { return };
        let (partition, ticket) = (waiting.partition.clone(), waiting.ticket);
        let limits = UnpackLimits {
            max_records: self.readers.max_records,
            max_bytes: STEP_BYTES,
            max_unpacked: self.readers.cluster.config().fetch_max_unpacked_bytes,
        };
        let mut chunks = Vec::new();
        let (mut bytes, mut end) = (0, None);
        while bytes < STEP_BYTES {
            match waiting.batches.step(&limits) {
                Some(Ok(unpacked)) => {
                    bytes += unpacked.bytes;
                    chunks.push(Chunk {
                        records: FetchedRecords::from(unpacked.records),
                        next: unpacked.next,
                        size: unpacked.bytes,
                        leader_epoch: unpacked.leader_epoch,
                    });
                }
                Some(Err(unreadable)) => {
                    end = Some(Some(unreadable));
                    break;
                }
                None => {
                    end = Some(None);
                    break;
                }
            }
        }
        self.accept(&partition, ticket, chunks);
        if let Some(unreadable) = end {
            self.waiting.pop_front();
            if let Some(unreadable) = unreadable {
                self.stop(partition, ticket, unreadable);
            }
        }
    }

    /// Passes records to the consumer.
    fn accept(&self, partition: &TopicPartition, ticket: u64, chunks: Vec<Chunk>) {
        if chunks.is_empty() {
            return;
        }
        {
            let mut state = self.shared.lock();
            for chunk in chunks {
                state.accept(partition, ticket, chunk);
            }
        }
        self.shared.steps.notify_waiters();
    }

    /// Stops reading a partition at an unreadable batch. Batches fetched behind it are dropped.
    fn stop(&mut self, partition: TopicPartition, ticket: u64, unreadable: Unreadable) {
        self.waiting.retain(|waiting| waiting.partition != partition);
        let Some(reading) = self.readings.get_mut(&partition).filter(|r| r.target.ticket == ticket) else { return };
        reading.stopped = true;
        let target = reading.target.clone();
        let bad = UnreadableBatch { offset: unreadable.offset, error: unreadable.into_error(&partition), partition };
        self.hold(target, bad);
    }
}
