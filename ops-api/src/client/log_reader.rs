//! The log of a remote broker.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Guarantees, LogReader, Read, ReadLimits, Result, SeekTo, TopicPartition, async_trait};

use super::admin::each;
use super::call::Client;
use crate::wire::{At, OffsetsAt, Place, ReadAt, ReadRecords};
use crate::{MAX_RECORD_BYTES, MAX_WAIT, Route};

/// A [`LogReader`] that asks an endpoint.
#[derive(Debug)]
pub(super) struct RemoteLog {
    client: Arc<Client>,
    guarantees: Guarantees,
}

impl RemoteLog {
    pub(super) fn new(client: Arc<Client>, guarantees: Guarantees) -> Self {
        Self { client, guarantees }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LogReader for RemoteLog {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        let at = Place::try_from(at)?;
        let body = |partitions: &[TopicPartition]| {
            let partitions = partitions.iter().map(At::from).collect();
            serde_json::to_value(OffsetsAt { partitions, at }).unwrap_or_default()
        };
        each(&self.client, Route::RecordsOffsets, partitions, body, Ok).await
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        let max_bytes = limits.max_bytes.min(MAX_RECORD_BYTES);
        // An endpoint waits for a bounded time: ask again until the time is over.
        let mut left = limits.wait;
        loop {
            let wait = left.min(MAX_WAIT);
            left -= wait;
            let At { topic, partition: number } = partition.into();
            let asked = ReadAt {
                topic,
                partition: number,
                offset,
                max_records: limits.max_records,
                max_bytes,
                wait_ms: millis(wait),
            };
            let read = self.client.post::<ReadRecords>(Route::RecordsRead, &asked).await?.into_read(partition);
            let is_empty = read.batch.is_empty() && read.unreadable.is_none() && read.next_offset == offset;
            if left.is_zero() || !is_empty {
                return Ok(read);
            }
        }
    }

    fn guarantees(&self) -> Guarantees {
        self.guarantees.clone()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
