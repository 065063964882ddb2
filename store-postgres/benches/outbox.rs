//! How fast a relay moves an outbox into memory, next to a loop of the bare SQL; and how fast it is written.
//!
//! It needs a server, as the tests do: `TIDINGS_POSTGRES`, or the one that is installed.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sqlx::Row;
use tidings_core::{Record, Topic, Transport};
use tidings_memory::{MemoryConfig, MemoryTransport};
use tidings_postgres::{PostgresStore, Relay, RelayConfig};
use tidings_testbed::Postgres;
use tokio::runtime::Runtime;

/// Records that wait when the clock starts.
const RECORDS: usize = 20_000;
const BATCH: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(30);

struct Rig {
    store: PostgresStore,
    transport: MemoryTransport,
}

impl Rig {
    async fn new() -> Self {
        let database = Postgres::shared().await.unwrap().fresh_database().await.unwrap();
        let store = PostgresStore::connect(&database).await.unwrap();
        let config = MemoryConfig::new().with_retention_records(50_000);
        let transport = MemoryTransport::open(config).unwrap();
        let topics = [Topic::new("bench").with_partitions(3)];
        transport.admin().await.unwrap().create_topics(&topics).await.unwrap();
        Self { store, transport }
    }

    async fn fill(&self, keys: usize) {
        let outbox = self.store.outbox("bench");
        let record = |n: usize| Record::new("bench", vec![b'x'; 256]).with_key((n % keys).to_string());
        let mut transaction = self.store.pool().begin().await.unwrap();
        outbox.put(&mut transaction, (0..RECORDS).map(record).collect()).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// From a relay's start to the last record's deletion.
    async fn relay(&self, relays: usize) -> Duration {
        let begun = Instant::now();
        let relays: Vec<Relay> =
            (0..relays).map(|_| Relay::start(&self.store, &self.transport, RelayConfig::default()).unwrap()).collect();
        while relays.iter().map(|relay| relay.status().published).sum::<u64>() < RECORDS as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = begun.elapsed();
        for relay in relays {
            relay.shutdown(DEADLINE).await.unwrap();
        }
        took
    }

    /// The same records in a table whose key is the order that the bare loop reads by.
    async fn fill_bare(&self, keys: usize) {
        let fill = "INSERT INTO bare (topic, key, value)
            SELECT 'bench', convert_to((n % $2)::text, 'UTF8'), convert_to(repeat('x', 256), 'UTF8')
            FROM generate_series(0, $1 - 1) n";
        let create = "CREATE TABLE IF NOT EXISTS bare (
            id bigserial PRIMARY KEY, topic text NOT NULL, key bytea NOT NULL, value bytea NOT NULL)";
        sqlx::query(create).execute(self.store.pool()).await.unwrap();
        let fill = sqlx::query(fill).bind(RECORDS as i64).bind(keys as i64);
        fill.execute(self.store.pool()).await.unwrap();
    }

    /// Reads in order, publishes, deletes; no order per key, no sharing, no other relay.
    async fn bare(&self) -> Duration {
        let publisher = self.transport.publisher().await.unwrap();
        let begun = Instant::now();
        loop {
            let read = "SELECT id, topic, key, value FROM bare ORDER BY id LIMIT 1000";
            let rows = sqlx::query(read).fetch_all(self.store.pool()).await.unwrap();
            if rows.is_empty() {
                return begun.elapsed();
            }
            let record = |row: &sqlx::postgres::PgRow| {
                Record::new(row.get::<&str, _>(1), row.get::<Vec<u8>, _>(3)).with_key(row.get::<Vec<u8>, _>(2))
            };
            for answer in publisher.publish(rows.iter().map(record).collect()).await {
                answer.unwrap();
            }
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let delete = "DELETE FROM bare WHERE id = ANY ($1)";
            sqlx::query(delete).bind(ids).execute(self.store.pool()).await.unwrap();
        }
    }
}

/// Per record, into memory.
fn relay(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::new());
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, relays, keys) in [("relay", 1, 1_024), ("relay", 1, 1), ("two_relays", 2, 1_024)] {
        group.bench_function(BenchmarkId::new(name, keys), |b| {
            b.iter_custom(|times| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        rig.fill(keys).await;
                        took += rig.relay(relays).await;
                    }
                    took
                })
            });
        });
    }
    for keys in [1_024, 1] {
        group.bench_function(BenchmarkId::new("baseline", keys), |b| {
            b.iter_custom(|times| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        rig.fill_bare(keys).await;
                        took += rig.bare().await;
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

/// Transactions that publish one record, or many.
fn write(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(Rig::new());
    let mut group = c.benchmark_group("outbox_write");
    for size in [1, BATCH] {
        group.throughput(Throughput::Elements(size as u64));
        let records: Vec<Record> =
            (0..size).map(|n| Record::new("bench", vec![b'x'; 256]).with_key(n.to_string())).collect();
        group.bench_function(BenchmarkId::new("put_and_commit", size), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let mut transaction = rig.store.pool().begin().await.unwrap();
                    rig.store.outbox("bench").put(&mut transaction, records.clone()).await.unwrap();
                    transaction.commit().await.unwrap();
                });
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(8));
    targets = relay, write
}
criterion_main!(benches);
