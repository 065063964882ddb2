//! A log reader that records reads.

use std::sync::Arc;

use tidings_core::audit::{AuditOutcome, AuditRecord, AuditedEvent};
use tidings_core::{
    Guarantees, LogReader, Read, ReadLimits, Result, SeekTo, StoredRecord, TopicPartition, async_trait,
};

use super::call::Actor;
use crate::cloud_event::MAX_EVENTS;
use crate::events::id_of;

/// Records the positions and ids of records read from the policy's topics before it returns them. Empty reads are not
/// recorded: a tail would add a record each second.
#[derive(Debug)]
pub(super) struct AuditedLog {
    pub(super) inner: Arc<dyn LogReader>,
    pub(super) actor: Actor,
}

impl AuditedLog {
    async fn record(&self, partition: &TopicPartition, read: &Read) -> Result<()> {
        let records = read.batch.records();
        if records.is_empty() || !self.actor.auditor.events().policy().records_read(&partition.topic) {
            return Ok(());
        }
        let event = |record: &StoredRecord| {
            AuditedEvent::new(partition.partition, record.offset, id_of(&record.headers, record.value.as_ref()))
        };
        let done = |records: &[StoredRecord]| {
            let mut done = self.actor.call("event.read").on(format!("topic:{}", partition.topic)).record;
            done.events = records.iter().map(event).collect();
            done.counts.insert("events".to_owned(), records.len() as u64);
            done
        };
        let done: Vec<AuditRecord> = records.chunks(MAX_EVENTS).map(done).collect();
        self.actor.auditor.record_all(&done, &AuditOutcome::Ok).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LogReader for AuditedLog {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        self.inner.offsets(partitions, at).await
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        let read = self.inner.read(partition, offset, limits).await?;
        self.record(partition, &read).await?;
        Ok(read)
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
