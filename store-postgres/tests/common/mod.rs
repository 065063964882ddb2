//! Shared by the tests of the Postgres store.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgPool};
use tidings_core::{
    BoxError, Delivery, Outcome, Publisher, Record, RecordBatch, StoredRecord, Timestamp, Topic, TopicPartition,
    Transport, dead_letter_topic,
};
use tidings_memory::MemoryTransport;
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_service::{Retry, Service, ServiceHandle};
use tidings_testbed::Postgres;
use tokio::sync::OnceCell;
use tower_layer::Layer;
use uuid::Uuid;

pub(crate) type TestResult<T = ()> = Result<T, BoxError>;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const TOPIC: &str = "orders";

static DATABASE: OnceCell<String> = OnceCell::const_new();

/// The database that the tests of this process share.
pub(crate) async fn database() -> TestResult<&'static str> {
    let fresh = || async { Postgres::shared().await?.fresh_database().await };
    Ok(DATABASE.get_or_try_init(fresh).await?)
}

/// Settings for a schema of its own.
pub(crate) fn config(url: &str) -> PostgresConfig {
    PostgresConfig::new(url).with_schema(format!("test_{}", Uuid::now_v7().simple()))
}

pub(crate) async fn store() -> TestResult<PostgresStore> {
    Ok(PostgresStore::connect_with(config(database().await?)).await?)
}

/// Settings under which the server and the store wait for far longer than a busy machine holds up a test.
pub(crate) fn patient(config: PostgresConfig) -> PostgresConfig {
    let long = Duration::from_secs(60);
    config
        .with_lock_timeout(long)
        .with_statement_timeout(long)
        .with_idle_in_transaction_timeout(long)
        .with_answer_within(long)
}

/// A table for what handlers write, with nothing that keeps an effect from being written twice.
pub(crate) async fn effects(pool: &PgPool) -> TestResult<String> {
    let table = format!("effects_{}", Uuid::now_v7().simple());
    sqlx::query(AssertSqlSafe(format!("CREATE TABLE {table} (n bigint NOT NULL)"))).execute(pool).await?;
    Ok(table)
}

/// The written records, in order.
pub(crate) async fn written(pool: &PgPool, table: &str) -> TestResult<Vec<i64>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT n FROM {table} ORDER BY n"))).fetch_all(pool).await?)
}

/// A record whose event has this id and number.
pub(crate) fn record(id: Uuid, n: i64) -> Record {
    let value = format!(
        r#"{{"eventId":"{id}","eventType":"order.placed","timestamp":1,"source":"test","version":"1.0","payload":{{"n":{n}}}}}"#
    );
    Record::new(TOPIC, Bytes::from(value)).with_key(Bytes::from((n % 16).to_string()))
}

/// The number in a record of [`record`].
pub(crate) fn number(record: &StoredRecord) -> i64 {
    let value: serde_json::Value =
        serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("a record of ours");
    value["payload"]["n"].as_i64().expect("a record of ours")
}

/// A memory transport with a topic of this number of partitions.
pub(crate) async fn transport(partitions: u32) -> TestResult<MemoryTransport> {
    let transport = MemoryTransport::new();
    let topics = [Topic::new(TOPIC).with_partitions(partitions), Topic::new(dead_letter_topic(TOPIC))];
    for answer in transport.admin().await?.create_topics(&topics).await? {
        answer?;
    }
    Ok(transport)
}

pub(crate) async fn publish(transport: &MemoryTransport, records: Vec<Record>) -> TestResult {
    let publisher: Arc<dyn Publisher> = transport.publisher().await?;
    for answer in publisher.publish(records).await {
        answer?;
    }
    Ok(())
}

pub(crate) async fn start(service: Service, transport: &MemoryTransport) -> TestResult<ServiceHandle> {
    let retry = Retry::exponential(Duration::from_millis(20)).without_jitter();
    Ok(service.with_retry(retry).start(transport).await?)
}

pub(crate) async fn caught_up(service: &ServiceHandle) -> TestResult {
    match tokio::time::timeout(LIMIT, service.caught_up()).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(format!("it did not catch up: {:#?}", service.status().await).into()),
    }
}

/// How many dead letters there are.
pub(crate) async fn letters(transport: &MemoryTransport) -> TestResult<u64> {
    let found = transport.admin().await?.describe_topics(&[dead_letter_topic(TOPIC)]).await?.remove(0)?;
    Ok(found.partitions.iter().map(|partition| partition.end).sum())
}

/// A delivery of these events, as the engine makes one.
pub(crate) fn delivery(lease: &tidings_core::Lease, events: &[(Uuid, i64)]) -> Delivery {
    let records = events
        .iter()
        .zip(0..)
        .map(|((id, n), offset)| StoredRecord::from_record(record(*id, *n), offset, Timestamp::now()));
    let batch = RecordBatch::new(TopicPartition::new(TOPIC, 0), records.collect::<Vec<_>>());
    let context = tidings_core::DeliveryContext::new(lease.scope.clone(), "handler");
    Delivery::new(batch, context).with_lease(Arc::new(lease.clone()))
}

/// Handles a delivery behind the inbox, as the engine does.
pub(crate) async fn handle<F, Fut>(store: &PostgresStore, delivery: Delivery, handler: F) -> Result<Outcome, BoxError>
where
    F: Fn(Delivery) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    let mut inbox = store.inbox().layer(Bare(handler));
    tower_service::Service::call(&mut inbox, delivery).await
}

#[derive(Clone)]
struct Bare<F>(F);

impl<F, Fut> tower_service::Service<Delivery> for Bare<F>
where
    F: Fn(Delivery) -> Fut,
    Fut: Future<Output = Result<Outcome, BoxError>>,
{
    type Response = Outcome;
    type Error = BoxError;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Fut {
        (self.0)(delivery)
    }
}
