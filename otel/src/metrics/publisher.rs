//! The publisher that is measured, and the transport that opens it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use tidings_core::{
    Acls, Admin, Begun, Cluster, Consumer, ConsumerOptions, DeadLetterSink, DelayedRecord, Error, Guarantees,
    LogReader, Name, Position, Publisher, Record, Result, TransactionOffsets, Transactor, TransactorOptions, Transport,
};
use uuid::Uuid;

use super::Instruments;
use crate::conventions::{DESTINATION, ERROR_TYPE, OPERATION_NAME, OPERATION_TYPE, PUBLISH, SYSTEM};
use crate::errors::unfinished;

/// A transport whose publishers and transactors are measured. Created by
/// [`Metrics::transport`](crate::Metrics::transport).
///
/// A record of a transaction counts as sent when it is stored, even if the transaction is aborted later.
#[derive(Debug, Clone)]
pub struct MeteredTransport<T> {
    inner: T,
    instruments: Arc<Instruments>,
}

impl<T> MeteredTransport<T> {
    pub(super) fn new(inner: T, instruments: Arc<Instruments>) -> Self {
        Self { inner, instruments }
    }

    /// Returns the wrapped transport.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: Transport> Transport for MeteredTransport<T> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let inner = self.inner.publisher().await?;
        Ok(Arc::new(MeteredPublisher::new(inner, self.instruments.clone(), self.system())))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
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
        Ok(Arc::new(MeteredTransactor { inner, instruments: self.instruments.clone(), system: self.system() }))
    }

    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// A publisher whose calls are measured: `messaging.client.operation.duration` once per call, and
/// `messaging.client.sent.messages` once per call, topic and kind of error.
///
/// Created by [`Metrics::publisher`](crate::Metrics::publisher), and by a [`MeteredTransport`].
#[derive(Clone)]
pub struct MeteredPublisher {
    inner: Arc<dyn Publisher>,
    instruments: Arc<Instruments>,
    system: &'static str,
}

impl fmt::Debug for MeteredPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeteredPublisher").field(&self.inner).finish()
    }
}

impl MeteredPublisher {
    pub(super) fn new(inner: Arc<dyn Publisher>, instruments: Arc<Instruments>, system: &'static str) -> Self {
        Self { inner, instruments, system }
    }

    fn start(&self, records: &[Record]) -> Call {
        Call::start(&self.instruments, self.system, records)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Publisher for MeteredPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let call = self.start(&records);
        let answers = self.inner.publish(records).await;
        call.end(&answers);
        answers
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        let call = self.start(std::slice::from_ref(&record));
        match self.inner.begin_one(record) {
            Begun::Answered(answer) => {
                call.end(std::slice::from_ref(&answer));
                Begun::Answered(answer)
            }
            Begun::Pending(pending) => Begun::Pending(Box::pin(async move {
                let answer = pending.await;
                call.end(std::slice::from_ref(&answer));
                answer
            })),
        }
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

/// A transactor whose publishing is measured as a publisher's. Its ends are not.
struct MeteredTransactor {
    inner: Arc<dyn Transactor>,
    instruments: Arc<Instruments>,
    system: &'static str,
}

impl fmt::Debug for MeteredTransactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MeteredTransactor").field(&self.inner).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Transactor for MeteredTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let call = Call::start(&self.instruments, self.system, &records);
        let answers = self.inner.publish(records).await;
        call.end(&answers);
        answers
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        self.inner.commit(offsets).await
    }

    async fn abort(&self) -> Result<()> {
        self.inner.abort().await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// A call in progress. Dropped, its records count as cancelled: they may be stored.
struct Call {
    instruments: Arc<Instruments>,
    system: &'static str,
    /// The topics of the records, in runs of equal ones.
    topics: Vec<(Name, usize)>,
    /// `None` if it has ended.
    started: Option<Instant>,
}

/// Records of one topic with one kind of error.
type Counted = (Name, Option<&'static str>, u64);

impl Call {
    fn start(instruments: &Arc<Instruments>, system: &'static str, records: &[Record]) -> Self {
        let mut topics: Vec<(Name, usize)> = Vec::new();
        for record in records {
            match topics.last_mut() {
                Some((topic, count)) if *topic == record.topic => *count += 1,
                _ => topics.push((record.topic.clone(), 1)),
            }
        }
        Self { instruments: Arc::clone(instruments), system, topics, started: Some(Instant::now()) }
    }

    fn end(mut self, answers: &[Result<Position>]) {
        let mut errors = answers.iter().map(|answer| answer.as_ref().err().map(|error: &Error| error.kind().as_str()));
        let mut counted: Vec<Counted> = Vec::new();
        for (topic, count) in std::mem::take(&mut self.topics) {
            errors.by_ref().take(count).for_each(|error| add(&mut counted, &topic, error, 1));
        }
        self.record(&counted);
    }

    fn record(&mut self, counted: &[Counted]) {
        let Some(started) = self.started.take() else { return };
        let topic = counted.first().map(|(topic, ..)| topic);
        let topic = topic.filter(|topic| counted.iter().all(|(other, ..)| other == *topic));
        let error = counted.iter().find_map(|(_, error, _)| *error);
        let mut attributes = self.attributes(topic, error);
        attributes.push(KeyValue::new(OPERATION_TYPE, PUBLISH.kind));
        self.instruments.operations.record(started.elapsed().as_secs_f64(), &attributes);
        for (topic, error, count) in counted {
            self.instruments.sent.add(*count, &self.attributes(Some(topic), *error));
        }
    }

    fn attributes(&self, topic: Option<&Name>, error: Option<&'static str>) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new(SYSTEM, self.system), KeyValue::new(OPERATION_NAME, PUBLISH.name)];
        attributes.extend(topic.map(|topic| KeyValue::new(DESTINATION, topic.to_string())));
        attributes.extend(error.map(|error| KeyValue::new(ERROR_TYPE, error)));
        attributes
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.started.is_some() {
            let mut counted = Vec::new();
            for (topic, count) in std::mem::take(&mut self.topics) {
                add(&mut counted, &topic, Some(unfinished()), count as u64);
            }
            self.record(&counted);
        }
    }
}

fn add(counted: &mut Vec<Counted>, topic: &Name, error: Option<&'static str>, count: u64) {
    match counted.iter_mut().find(|(known, kind, _)| known == topic && *kind == error) {
        Some((.., known)) => *known += count,
        None => counted.push((topic.clone(), error, count)),
    }
}
