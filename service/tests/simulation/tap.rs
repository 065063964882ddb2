//! The transport, store and observer of a simulated service: the memory backend's, with their calls recorded.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Claim, Commit, Consumer, ConsumerOptions, DeadLetter, DeadLetterSink, ErrorKind, EventRef, Guarantees,
    IdempotencyStore, Lease, Name, Position, Progress, Publisher, Record, ReleasedClaim, Result, RetryRecord, SeekTo,
    Step, StoredRecord, Timestamp, TopicPartition, Transport, async_trait, codec, headers,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{Observer, RecordEvent};

use super::history::{Happened, Log, Place, Process};

#[derive(Debug, Clone)]
pub(crate) struct Tap<T> {
    pub(crate) inner: T,
    pub(crate) process: Process,
    pub(crate) log: Arc<Log>,
}

impl<T> Tap<T> {
    fn of<U>(&self, inner: U) -> Arc<Tap<U>> {
        Arc::new(Tap { inner, process: self.process, log: self.log.clone() })
    }
}

#[async_trait]
impl Transport for Tap<MemoryTransport> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        Ok(self.of(self.inner.publisher().await?))
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(self.of(self.inner.consumer(options).await?))
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Ok(self.of(self.inner.dead_letters().await?))
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }
    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl Publisher for Tap<Arc<dyn Publisher>> {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        for record in &records {
            let stored = StoredRecord::from_record(record.clone(), 0, Timestamp::default());
            if let Ok(retry) = RetryRecord::from_record(&stored) {
                let place = Place { origin: retry.origin, offset: retry.record.offset };
                let (topic, due) = (record.topic.clone(), self.log.time_of(retry.due));
                self.log.add(Happened::Forwarding { topic, place, due });
            }
        }
        let answers = self.inner.publish(records.clone()).await;
        for (record, answer) in records.into_iter().zip(&answers) {
            let cause = record.headers.get_str(headers::CAUSATION_ID).and_then(|id| id.parse().ok());
            if let (Ok(_), Some(cause), None) = (answer, cause, record.headers.get(headers::RETRY_DUE)) {
                let stored = StoredRecord::from_record(record, 0, Timestamp::default());
                let id = codec::peek(&stored).map(|head| head.id).unwrap_or_default();
                self.log.add(Happened::Published { process: self.process, cause, id });
            }
        }
        answers
    }
    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl DeadLetterSink for Tap<Arc<dyn DeadLetterSink>> {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let answers = self.inner.bury(letters.clone()).await;
        for (letter, answer) in letters.iter().zip(&answers) {
            let place = Place { origin: letter.origin.clone(), offset: letter.record.offset };
            self.log.add(Happened::Buried { process: self.process, place, ok: answer.is_ok() });
        }
        answers
    }
    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl Consumer for Tap<Arc<dyn Consumer>> {
    async fn next(&self) -> Result<Step> {
        let step = self.inner.next().await?;
        let process = self.process;
        match &step {
            Step::Assigned(assignments) => assignments.iter().for_each(|a| {
                let (origin, epoch, start) = (a.partition.clone(), a.epoch, a.start_offset);
                self.log.add(Happened::Assigned { process, origin, epoch, start });
            }),
            Step::Records(fetched) => {
                let origin = fetched.batch.origin().as_ref().clone();
                let offsets = fetched.batch.records().iter().map(|record| record.offset).collect();
                self.log.add(Happened::Given { process, origin, epoch: fetched.epoch, offsets });
            }
            Step::Revoking(revocation) => revocation.partitions.iter().for_each(|origin| {
                self.log.add(Happened::Revoking { process, origin: origin.clone() });
            }),
            Step::Lost(partitions) => partitions.iter().for_each(|origin| {
                self.log.add(Happened::Lost { process, origin: origin.clone() });
            }),
            _ => {}
        }
        Ok(step)
    }
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        let process = self.process;
        for commit in &commits {
            let (origin, epoch, next) = (commit.partition.clone(), commit.epoch, commit.next_offset);
            self.log.add(Happened::Committing { process, origin, epoch, next });
        }
        let answers = self.inner.commit(commits.clone()).await;
        for (commit, answer) in commits.into_iter().zip(&answers) {
            let (origin, next) = (commit.partition, commit.next_offset);
            self.log.add(Happened::Committed { process, origin, next, ok: answer.is_ok() });
        }
        answers
    }
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        for origin in partitions {
            self.log.add(Happened::Released { process: self.process, origin: origin.clone() });
        }
        self.inner.release(partitions).await
    }
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.pause(partitions).await
    }
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.resume(partitions).await
    }
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        let (process, origin) = (self.process, partition.clone());
        self.log.add(Happened::Seeking { process, origin: origin.clone() });
        let start = self.inner.seek(partition, to).await?;
        self.log.add(Happened::Sought { process, origin, start });
        Ok(start)
    }
    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }
    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
    }
    async fn close(&self) -> Result<()> {
        self.log.add(Happened::Closed { process: self.process });
        self.inner.close().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl IdempotencyStore for Tap<MemoryStore> {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        self.inner.acquire_lease(scope, ttl).await
    }
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        self.inner.claim(lease, events).await
    }
    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.inner.renew(lease).await
    }
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let answer = self.inner.complete(lease, events).await;
        // An answer may be lost only to the service: the history must know it.
        let mut told = answer.as_ref().map_or_else(|error| Err(error.kind()), |answers| Ok(oks(answers)));
        while told == Err(ErrorKind::Indeterminate) {
            told = self.inner.complete(lease, events).await.map_or_else(|error| Err(error.kind()), |a| Ok(oks(&a)));
        }
        for (event, _) in events.iter().zip(told.unwrap_or_default()).filter(|(_, ok)| *ok) {
            self.log.add(Happened::Completed { process: self.process, id: event.id });
        }
        answer
    }
    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        self.inner.release(lease, events).await
    }
    async fn retire(&self, lease: &Lease) -> Result<()> {
        self.inner.retire(lease).await
    }
    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        self.inner.purge(scope, completed_before).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn oks(answers: &[Result<()>]) -> Vec<bool> {
    answers.iter().map(|answer| answer.is_ok()).collect()
}

impl Observer for Tap<()> {
    fn observe(&self, event: &RecordEvent<'_>) {
        let place = Place { origin: event.origin.clone(), offset: event.record.offset };
        self.log.add(Happened::Observed { process: self.process, what: event.outcome, place, epoch: event.epoch });
    }
}
