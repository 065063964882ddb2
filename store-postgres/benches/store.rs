//! The inbox by batches and one by one, next to the same SQL without it, and how fast events are claimed and completed.
//!
//! It needs a server, as the tests do: `TIDINGS_POSTGRES`, or the one that is installed.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{config, database, delivery, effects, handle, number};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sqlx::AssertSqlSafe;
use tidings_core::{BoxError, Delivery, EventRef, IdempotencyStore, Lease, Name, Outcome};
use tidings_postgres::{PostgresStore, Tx};
use tidings_service::FromDelivery;
use tokio::runtime::Runtime;
use uuid::Uuid;

const BATCH: usize = 100;

/// A store whose handlers have one connection, with a lease and a table.
struct Rig {
    store: PostgresStore,
    lease: Lease,
    table: String,
}

impl Rig {
    async fn new() -> Self {
        let config = config(database().await.unwrap()).with_max_connections(1);
        let store = PostgresStore::connect_with(config).await.unwrap();
        let lease = store.acquire_lease(&Name::from("bench"), Duration::from_secs(3_600)).await.unwrap();
        let table = effects(store.pool()).await.unwrap();
        Self { store, lease, table }
    }

    /// Claims this number of new events.
    async fn claimed(&self, count: usize) -> Vec<(Uuid, i64)> {
        let events: Vec<_> = (0..count).map(|_| (Uuid::now_v7(), 1)).collect();
        self.store.claim(&self.lease, &refs(&events)).await.unwrap();
        events
    }

    /// Handles the events in deliveries of `size`.
    async fn inbox(&self, events: &[(Uuid, i64)], size: usize) {
        for events in events.chunks(size) {
            let table = self.table.clone();
            let work = move |delivery| write(table.clone(), delivery);
            handle(&self.store, delivery(&self.lease, events), work).await.unwrap();
        }
    }

    /// The same SQL, by hand.
    async fn bare(&self, events: &[(Uuid, i64)]) {
        let ids: Vec<_> = events.iter().map(|(id, _)| *id).collect();
        let numbers: Vec<_> = events.iter().map(|(_, n)| *n).collect();
        let mut transaction = self.store.pool().begin().await.unwrap();
        insert(&self.table, &numbers, &mut transaction).await.unwrap();
        let done =
            format!("INSERT INTO done_{} SELECT 'bench', id, 'order.placed', now() FROM unnest($1) id", self.table);
        sqlx::query(AssertSqlSafe(done)).bind(&ids).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

fn refs(events: &[(Uuid, i64)]) -> Vec<EventRef> {
    events.iter().map(|(id, _)| EventRef::new(*id, "order.placed")).collect()
}

async fn insert(table: &str, numbers: &[i64], connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    let insert = format!("INSERT INTO {table} SELECT unnest($1::bigint[])");
    sqlx::query(AssertSqlSafe(insert)).bind(numbers).execute(connection).await.map(drop)
}

async fn write(table: String, delivery: Delivery) -> Result<Outcome, BoxError> {
    let mut tx = Tx::from_delivery(&delivery, &()).await?;
    let numbers: Vec<_> = delivery.records().map(number).collect();
    insert(&table, &numbers, &mut tx).await?;
    Ok(Outcome::handled())
}

/// The inbox on one connection, per event. Claiming is not measured: the engine does it for thousands at once.
fn inbox(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::new());
    let done = format!("CREATE TABLE done_{} (LIKE {}.done INCLUDING ALL)", rig.table, schema(&rig.store));
    runtime.block_on(sqlx::query(AssertSqlSafe(done)).execute(rig.store.pool())).unwrap();
    let mut group = c.benchmark_group("inbox");
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in [BATCH, 1] {
        group.bench_function(BenchmarkId::new("inbox", size), |b| {
            b.iter_custom(|times| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let events = rig.claimed(BATCH).await;
                        let begun = Instant::now();
                        rig.inbox(&events, size).await;
                        took += begun.elapsed();
                    }
                    took
                })
            });
        });
        group.bench_function(BenchmarkId::new("baseline", size), |b| {
            b.iter_custom(|times| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        let events: Vec<_> = (0..BATCH).map(|_| (Uuid::now_v7(), 1)).collect();
                        let begun = Instant::now();
                        for events in events.chunks(size) {
                            rig.bare(events).await;
                        }
                        took += begun.elapsed();
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

/// Claims and completes, in calls of this number of events.
fn claims(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::new());
    let mut group = c.benchmark_group("claims");
    for size in [100, 1_000] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("claim_and_complete", size), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let events = rig.claimed(size).await;
                    rig.store.complete(&rig.lease, &refs(&events)).await.unwrap()
                })
            });
        });
    }
    group.finish();
}

/// The schema is nothing that a store tells.
fn schema(store: &PostgresStore) -> String {
    let text = format!("{store:?}");
    let (_, rest) = text.split_once("schema: \"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    targets = inbox, claims
}
criterion_main!(benches);
