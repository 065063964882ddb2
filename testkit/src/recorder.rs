//! The service's transport: wraps the test's own, and records what is published and dead-lettered.
//!
//! Only the service gets the wrapped transport. The test publishes through the plain one, so that
//! its own records are not taken for the service's. Answers are passed on unchanged.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Acls, Admin, Begun, Cluster, Consumer, ConsumerOptions, DeadLetter, DeadLetterSink, DelayedRecord, Guarantees,
    LogReader, Name, Position, Publisher, PublisherExt, Record, Result, Transactor, TransactorOptions, Transport,
    async_trait, headers,
};
use uuid::Uuid;

use crate::journal::Journal;
use crate::transactor::RecordingTransactor;

/// Wrapper of the transport on which the service runs.
#[derive(Debug, Clone)]
pub(crate) struct Recorder<T> {
    pub(crate) inner: T,
    /// Name of the service, shown in the trace as the publisher.
    pub(crate) service: Name,
    pub(crate) journal: Arc<Journal>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Recorder<T> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let inner = self.inner.publisher().await?;
        Ok(Arc::new(RecordingPublisher { inner, service: self.service.clone(), journal: self.journal.clone() }))
    }

    /// Not wrapped: the observer and the layer see each delivery, with more detail.
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        let inner = self.inner.dead_letters().await?;
        Ok(Arc::new(RecordingSink { inner, journal: self.journal.clone() }))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.inner.log_reader().await
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        self.inner.acls().await
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        self.inner.cluster().await
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        let inner = self.inner.transactor(options).await?;
        Ok(Arc::new(RecordingTransactor::new(inner, self)))
    }

    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Records each answer of the publisher, in the order of the records.
#[derive(Debug)]
struct RecordingPublisher {
    inner: Arc<dyn Publisher>,
    service: Name,
    journal: Arc<Journal>,
}

impl RecordingPublisher {
    /// Records one answer.
    fn note(&self, record: &Record, answer: &Result<Position>) {
        match answer {
            Ok(position) if record.headers.contains(headers::RETRY_DUE) => self.journal.forwarded(record, position),
            Ok(position) => self.journal.published(&self.service, record, position),
            Err(error) => self.journal.not_published(record, error.report()),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for RecordingPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let answers = self.inner.publish(records.clone()).await;
        records.iter().zip(&answers).for_each(|(record, answer)| self.note(record, answer));
        answers
    }

    /// Always pending: the answer has to be recorded before the service acts on it.
    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            let answer = self.inner.publish_one(record.clone()).await;
            self.note(&record, &answer);
            answer
        }))
    }

    async fn publish_delayed(&self, delayed: DelayedRecord) -> Result<()> {
        self.inner.publish_delayed(delayed).await
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        self.inner.cancel_delayed(id).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Records dead letters, whether the sink is the transport's or a store of the service.
#[derive(Debug)]
pub(crate) struct RecordingSink {
    pub(crate) inner: Arc<dyn DeadLetterSink>,
    pub(crate) journal: Arc<Journal>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DeadLetterSink for RecordingSink {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let answers = self.inner.bury(letters.clone()).await;
        for (letter, answer) in letters.iter().zip(&answers) {
            match answer {
                Ok(()) => self.journal.buried(letter),
                Err(error) => self.journal.not_buried(letter, error.report()),
            }
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
