//! Records: published, and read by position; and what idempotency stores know of their events.

use std::collections::BTreeSet;
use std::time::Duration;

use tidings_core::{EventRef, ReadLimits, Result, TopicPartition};
use tidings_ops_api::wire::{Answers, AreDone, Done, OffsetsAt, Position, Publish, ReadAt, ReadRecords};
use tidings_ops_api::{MAX_NAMES, MAX_RECORD_BYTES, MAX_WAIT, Route};

use super::Api;
use super::audit::intent;
use super::call::{Call, bounded, encode};

impl Api {
    pub(super) async fn publish(&self, call: &Call) -> Result<String> {
        let records = call.body::<Publish>()?.records;
        bounded(records.len(), "records")?;
        let mut intent = intent(Route::RecordsPublish, &call.caller);
        let topics: BTreeSet<&String> = records.iter().map(|record| &record.topic).collect();
        intent.resources = topics.into_iter().map(|topic| format!("topic:{topic}")).collect();
        intent.after.insert("records".to_owned(), records.len().to_string());
        let records = records.into_iter().map(Into::into).collect();
        let publisher = self.backends.publisher(&call.caller).await?;
        let published = self.recorded_each(intent, publisher.publish(records)).await?;
        encode(&Answers::of(published, Position::from))
    }

    pub(super) async fn offsets(&self, call: &Call) -> Result<String> {
        let OffsetsAt { partitions, at } = call.body()?;
        bounded(partitions.len(), "partitions")?;
        let partitions: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let offsets = self.backends.log_reader(&call.caller).await?.offsets(&partitions, at.try_into()?).await?;
        encode(&Answers::of(offsets, |offset: u64| offset))
    }

    pub(super) async fn read(&self, call: &Call) -> Result<String> {
        let ReadAt { topic, partition, offset, max_records, max_bytes, wait_ms } = call.body()?;
        let limits = ReadLimits::default()
            .with_max_records(max_records.min(MAX_NAMES))
            .with_max_bytes(max_bytes.min(MAX_RECORD_BYTES))
            .with_wait(Duration::from_millis(wait_ms).min(MAX_WAIT));
        let partition = TopicPartition::new(topic, partition);
        let read = self.backends.log_reader(&call.caller).await?.read(&partition, offset, limits).await?;
        encode(&ReadRecords::from(read))
    }

    pub(super) async fn done(&self, call: &Call) -> Result<String> {
        let Done { store, scope, events } = call.body()?;
        bounded(events.len(), "events")?;
        let events: Vec<EventRef> = events.into_iter().map(EventRef::from).collect();
        encode(&AreDone { done: self.backends.store(&store)?.done(&scope.into(), &events).await? })
    }
}
