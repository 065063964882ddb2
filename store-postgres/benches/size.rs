//! How many bytes a row takes, with its indexes, and how large tables grow under claims, completions and purges: with the
//! settings for autovacuum that the tables are made with, and with the server's own.
//!
//! It takes minutes, and starts a server of its own: the one that is installed.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{config, record};
use sqlx::AssertSqlSafe;
use tidings_core::{
    DeadLetter, DeadLetterSink, ErrorKind, EventRef, IdempotencyStore, Lease, Name, Record, StoredRecord, Timestamp,
    TopicPartition, headers,
};
use tidings_postgres::{PostgresConfig, PostgresStore};
use tidings_testbed::{Postgres, PostgresOptions};
use tokio::runtime::Runtime;
use uuid::Uuid;

const CALL: usize = 100;
/// How many times the rows are replaced.
const ROUNDS: usize = 10;
/// Of a round, how many steps add a part and purge a part.
const STEPS: usize = 20;

struct Rig {
    store: PostgresStore,
    schema: String,
    lease: Lease,
}

impl Rig {
    async fn new(config: PostgresConfig) -> Self {
        let (store, schema) = (PostgresStore::connect_with(config.clone()).await.unwrap(), config.schema);
        let lease = store.acquire_lease(&Name::from("order-service"), Duration::from_secs(36_000)).await.unwrap();
        Self { store, schema, lease }
    }

    async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.replace("tidings.", &format!("{}.", self.schema)));
        sqlx::raw_sql(sql).execute(self.store.pool()).await.unwrap();
    }

    async fn claim(&self, events: &[EventRef]) {
        for events in events.chunks(CALL) {
            self.store.claim(&self.lease, events).await.unwrap();
        }
    }

    async fn handle(&self, events: &[EventRef]) {
        for events in events.chunks(CALL) {
            self.store.claim(&self.lease, events).await.unwrap();
            self.store.complete(&self.lease, events).await.unwrap();
        }
    }

    async fn size(&self, table: &str) -> (i64, i64) {
        let query = format!("SELECT pg_table_size('{0}.{table}'), pg_indexes_size('{0}.{table}')", self.schema);
        sqlx::query_as(AssertSqlSafe(query)).fetch_one(self.store.pool()).await.unwrap()
    }

    async fn print(&self, what: &str, table: &str, rows: usize) {
        let (heap, indexes) = self.size(table).await;
        let per_row = |bytes: i64| bytes as f64 / rows as f64;
        println!(
            "{what}: {:.0} bytes each, {:.0} in the table and {:.0} in indexes",
            per_row(heap + indexes),
            per_row(heap),
            per_row(indexes)
        );
    }
}

fn events(count: usize, id: impl Fn() -> Uuid) -> Vec<EventRef> {
    (0..count).map(|_| EventRef::new(id(), "order.placed")).collect()
}

/// Measures rows of which none was ever deleted.
async fn at_rest(url: &str, rows: usize) {
    for (kind, id) in [("v7", Uuid::now_v7 as fn() -> Uuid), ("v4", Uuid::new_v4)] {
        let rig = Rig::new(config(url)).await;
        rig.claim(&events(rows, id)).await;
        rig.print(&format!("claim, UUID {kind}"), "claims", rows).await;
        rig.handle(&events(rows, id)).await;
        rig.print(&format!("done event, UUID {kind}"), "done", rows).await;
    }
    let rig = Rig::new(config(url)).await;
    let mut transaction = rig.store.pool().begin().await.unwrap();
    let bare = record(Uuid::now_v7(), 1).value.unwrap_or_default().len();
    let value = |n: usize| {
        let mut record = record(Uuid::now_v7(), n as i64);
        record.value = record.value.map(|value| [&value[..], &vec![b' '; 256 - bare.min(256)]].concat().into());
        record.with_header(headers::CORRELATION_ID, Uuid::new_v4().to_string())
    };
    let records: Vec<Record> = (0..rows).map(value).collect();
    println!("records of a 256 B value, with {} bytes each in all:", records[0].size());
    for records in records.chunks(1_000) {
        rig.store.outbox("orders").put(&mut transaction, records.to_vec()).await.unwrap();
    }
    transaction.commit().await.unwrap();
    rig.print("record of the outbox", "outbox", rows).await;
    for (n, records) in records.chunks(1_000).enumerate() {
        let letter = |(record, at): (&Record, u64)| {
            let record = StoredRecord::from_record(record.clone(), n as u64 * 1_000 + at, Timestamp::now());
            DeadLetter::new("order-service", TopicPartition::new("orders", 0), record, ErrorKind::Failed)
                .with_error("the account 4711 of the customer does not exist (yet)")
        };
        let letters = records.iter().zip(0..).map(letter).collect();
        assert!(rig.store.bury(letters).await.iter().all(Result::is_ok));
    }
    rig.print("letter", "letters", rows).await;
}

/// Replaces all done events again and again, a part at a time, and publishes as many.
async fn churn(url: &str, rows: usize, settings: &str, reset: &str) {
    let rig = Rig::new(config(url)).await;
    rig.run(reset).await;
    rig.handle(&events(rows, Uuid::now_v7)).await;
    let (mut done, mut claims, mut outbox) = (0, 0, 0);
    for _ in 0..ROUNDS * STEPS {
        rig.handle(&events(rows / STEPS, Uuid::now_v7)).await;
        // Rows older than the newest `rows`.
        let oldest = format!(
            "SELECT (extract(epoch FROM done_at) * 1000)::bigint FROM {}.done ORDER BY done_at DESC OFFSET {rows} LIMIT 1",
            rig.schema
        );
        let before: Option<i64> =
            sqlx::query_scalar(AssertSqlSafe(oldest)).fetch_optional(rig.store.pool()).await.unwrap();
        if let Some(before) = before {
            rig.store.purge(&rig.lease.scope, Timestamp::from_millis(before)).await.unwrap();
        }
        let mut transaction = rig.store.pool().begin().await.unwrap();
        let records = (0..rows / STEPS).map(|n| record(Uuid::now_v7(), n as i64)).collect();
        rig.store.outbox("orders").put(&mut transaction, records).await.unwrap();
        transaction.commit().await.unwrap();
        rig.run("DELETE FROM tidings.outbox").await;
        let total = async |table| {
            let (heap, indexes) = rig.size(table).await;
            heap + indexes
        };
        done = done.max(total("done").await);
        claims = claims.max(total("claims").await);
        outbox = outbox.max(total("outbox").await);
    }
    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{settings}: done events at most {:.0} bytes each, claims at most {:.1} MiB, the outbox at most {:.1} MiB",
        done as f64 / rows as f64,
        mib(claims),
        mib(outbox)
    );
}

const RESET: &str = "
    ALTER TABLE tidings.claims RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
    ALTER TABLE tidings.done RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor);
    ALTER TABLE tidings.outbox RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
        autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold,
        toast.autovacuum_vacuum_scale_factor, toast.autovacuum_vacuum_threshold)";
const OFF: &str = "
    ALTER TABLE tidings.claims SET (autovacuum_enabled = off);
    ALTER TABLE tidings.done SET (autovacuum_enabled = off);
    ALTER TABLE tidings.outbox SET (autovacuum_enabled = off)";

fn main() {
    // As a test it only has to run.
    let rows = if std::env::args().any(|arg| arg == "--bench") { 200_000 } else { 2_000 };
    Runtime::new().unwrap().block_on(async {
        // A minute of a server's time, in a second.
        let options = PostgresOptions::new().with_setting("autovacuum_naptime", "1s");
        let server = Postgres::start(options).await.unwrap();
        at_rest(&server.url(), rows).await;
        println!("{rows} done events, each replaced {ROUNDS} times:");
        for (settings, reset) in
            [("the tables' settings", ""), ("the server's settings", RESET), ("no autovacuum", OFF)]
        {
            churn(&server.url(), rows, settings, reset).await;
        }
    });
}
