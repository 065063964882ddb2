//! Faults of a database: typed errors that name the object, and services that wait until the fault is over.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::{
    TOPIC, TestResult, caught_up, config, database, effects, letters, number, publish, record, start, store, transport,
    written,
};
use sqlx::{AssertSqlSafe, PgPool};
use tidings_core::{
    BoxError, DeadLetter, DeadLetterSink, Delivery, Error, ErrorKind, IdempotencyStore, Name, StoredRecord,
    TopicPartition,
};
use tidings_postgres::{PostgresConfig, PostgresStore, Tx};
use tidings_service::{PauseReason, Router, Service, State};
use tidings_testbed::{Certificate, Postgres, PostgresOptions, Suite};
use uuid::Uuid;

fn main() -> ExitCode {
    Suite::new()
        .with_case("tls_is_verified_with_the_given_authority", tls)
        .with_case("many_may_open_a_new_store_at_once", many_at_once)
        .with_case("migrations_that_may_not_be_run_are_named", not_migrated)
        .with_case("tables_of_a_newer_program_are_refused", newer)
        .with_case("a_user_who_may_not_create_a_schema_is_denied", denied)
        .with_case("a_shared_table_that_is_not_as_expected_is_named", odd_tables)
        .with_case("names_that_a_shared_table_has_no_room_for_are_refused", long_names)
        .with_case("the_databases_fault_is_waited_for_and_buries_nothing", waited_for)
        .with_case("what_is_wrong_with_a_record_is_buried", buried)
        .with_case("a_missing_table_is_waited_for", missing_table)
        .with_case("a_statement_that_takes_too_long_is_waited_for", statement_timeout)
        .with_case("an_exhausted_pool_is_waited_for", exhausted_pool)
        .with_case("busy_handlers_leave_the_store_its_connections", own_connections)
        .with_case("a_purge_goes_in_steps", purges)
        .with_case("a_full_disk_is_named_and_waited_for_and_buries_nothing", full_disk)
        .run()
}

async fn refusal(config: PostgresConfig) -> Error {
    PostgresStore::connect_with(config).await.map(drop).unwrap_err()
}

async fn tls() -> TestResult {
    let postgres = Postgres::start(PostgresOptions::new().with_tls(Certificate::Good).with_tls_only()).await?;
    let store = PostgresStore::connect_with(config(&postgres.url()).with_root_certificates(postgres.ca_pem())).await?;
    let query = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let encrypted: bool = query.fetch_one(store.pool()).await?;
    assert!(encrypted);
    PostgresStore::connect_with(config(&postgres.tls_url())).await?;
    let error = refusal(config(&postgres.url()).with_root_certificates(postgres.wrong_ca_pem())).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    let error = refusal(config(&format!("{}?sslmode=disable", postgres.url()))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    Ok(())
}

async fn many_at_once() -> TestResult {
    let config = config(database().await?);
    let open = || tokio::spawn(PostgresStore::connect_with(config.clone()));
    let opening: Vec<_> = (0..12).map(|_| open()).collect();
    for opened in opening {
        opened.await??;
    }
    Ok(())
}

async fn not_migrated() -> TestResult {
    let config = config(database().await?);
    let error = refusal(config.clone().with_migrate(false)).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("0001_idempotency") && error.to_string().contains(&config.schema), "{error}");
    PostgresStore::connect_with(config.clone()).await?;
    PostgresStore::connect_with(config.with_migrate(false)).await?;
    Ok(())
}

async fn newer() -> TestResult {
    let config = config(database().await?);
    let store = PostgresStore::connect_with(config.clone()).await?;
    let insert = format!("INSERT INTO {}.migrations VALUES (9999, 'later')", config.schema);
    sqlx::query(AssertSqlSafe(insert)).execute(store.pool()).await?;
    let error = refusal(config).await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("9999"), "{error}");
    Ok(())
}

async fn denied() -> TestResult {
    let url = database().await?;
    let pool = PgPool::connect(url).await?;
    let role = format!("role_{}", Uuid::now_v7().simple());
    sqlx::query(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'"))).execute(&pool).await?;
    let (_, place) = url.split_once('@').unwrap();
    let error = refusal(config(&format!("postgres://{role}:pw@{place}"))).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let text = error.to_string();
    assert!(text.contains("create the schema") && text.contains("permission denied") && text.contains(':'), "{text}");
    Ok(())
}

const COLUMNS: &str = "event_id UUID, event_type VARCHAR(100), service_name VARCHAR(50), processed_at TIMESTAMP";

async fn odd_tables() -> TestResult {
    let pool = PgPool::connect(database().await?).await?;
    let error = refusal(config(database().await?).with_shared_done_table("nobodys_table")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nobodys_table"), "{error}");
    let unique = ", UNIQUE (event_id, service_name)";
    for (columns, told) in [
        (COLUMNS.to_owned(), "unique index"),
        (format!("{COLUMNS}, UNIQUE (event_id)"), "unique index"),
        (COLUMNS.replace("event_type VARCHAR(100), ", "") + unique, "event_type"),
        (COLUMNS.replace("event_id UUID", "event_id TEXT") + unique, "event_id"),
        (COLUMNS.replace("TIMESTAMP", "BIGINT") + unique, "processed_at"),
        (format!("{COLUMNS}, region TEXT NOT NULL{unique}"), "region"),
    ] {
        let table = format!("odd_{}", Uuid::now_v7().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE TABLE {table} ({columns})"))).execute(&pool).await?;
        let error = refusal(config(database().await?).with_shared_done_table(table.clone())).await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(told) && error.to_string().contains(&table), "{error}");
    }
    Ok(())
}

async fn long_names() -> TestResult {
    let pool = PgPool::connect(database().await?).await?;
    let table = format!("short_{}", Uuid::now_v7().simple());
    let create = format!("CREATE TABLE {table} ({COLUMNS}, UNIQUE (service_name, event_id))");
    sqlx::query(AssertSqlSafe(create)).execute(&pool).await?;
    let store = PostgresStore::connect_with(config(database().await?).with_shared_done_table(table.clone())).await?;
    let error = store.acquire_lease(&Name::from("s".repeat(51)), Duration::from_secs(9)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("service_name") && error.to_string().contains(&table), "{error}");
    store.acquire_lease(&Name::from("s".repeat(50)), Duration::from_secs(9)).await?;
    Ok(())
}

#[derive(Debug, Clone)]
struct Failing {
    table: Arc<str>,
    /// Fails the first calls.
    sql: Arc<str>,
    calls: Arc<AtomicUsize>,
    times: usize,
}

async fn handler(delivery: Delivery, State(failing): State<Failing>, mut tx: Tx) -> Result<(), BoxError> {
    let insert = AssertSqlSafe(format!("INSERT INTO {} VALUES ($1)", failing.table));
    sqlx::query(insert).bind(number(delivery.record())).execute(&mut **tx).await?;
    if failing.calls.fetch_add(1, SeqCst) < failing.times {
        sqlx::raw_sql(AssertSqlSafe(failing.sql.to_string())).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Handles an event while `sql` fails the first calls; returns what was written and how many letters there are.
async fn run(sql: &str, times: usize) -> TestResult<(Vec<i64>, u64)> {
    let (store, transport) = (store().await?, transport(1).await?);
    let table = effects(store.pool()).await?;
    let failing = Failing { table: table.as_str().into(), sql: sql.into(), calls: Arc::default(), times };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(failing);
    let running = start(Service::new("orders", router).with_idempotency(store.clone()), &transport).await?;
    publish(&transport, vec![record(Uuid::now_v7(), 1)]).await?;
    caught_up(&running).await?;
    Ok((written(store.pool(), &table).await?, letters(&transport).await?))
}

fn raise(state: &str) -> String {
    format!("DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END $$")
}

async fn waited_for() -> TestResult {
    // Serialization failure, deadlock, disk full, out of memory, too many connections, I/O error, a standby, a right.
    for state in ["40001", "40P01", "53100", "53200", "53300", "58030", "25006", "42501"] {
        // More often than a record's own failures would be forgiven.
        let (written, letters) = run(&raise(state), 5).await?;
        assert_eq!((written, letters), (vec![1], 0), "{state}");
    }
    Ok(())
}

async fn buried() -> TestResult {
    for state in ["22003", "23505", "P0001"] {
        let (written, letters) = run(&raise(state), usize::MAX).await?;
        assert_eq!((written, letters), (vec![], 1), "{state}");
    }
    Ok(())
}

async fn missing_table() -> TestResult {
    let (store, transport) = (store().await?, transport(1).await?);
    let table = format!("late_{}", Uuid::now_v7().simple());
    let failing = Failing { table: table.as_str().into(), sql: "".into(), calls: Arc::default(), times: 0 };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(failing);
    let running = start(Service::new("orders", router).with_idempotency(store.clone()), &transport).await?;
    publish(&transport, vec![record(Uuid::now_v7(), 1)]).await?;
    let told = async {
        loop {
            let status = format!("{:?}", running.status().await);
            if status.contains(&table) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::LIMIT, told).await.map_err(|_| "the status never named the table")?;
    let create = format!("CREATE TABLE {table} (n bigint)");
    sqlx::query(AssertSqlSafe(create)).execute(store.pool()).await?;
    caught_up(&running).await?;
    assert_eq!((written(store.pool(), &table).await?, letters(&transport).await?), (vec![1], 0));
    Ok(())
}

async fn statement_timeout() -> TestResult {
    let (written, letters) = run("SET LOCAL statement_timeout = 30; SELECT pg_sleep(60)", 5).await?;
    assert_eq!((written, letters), (vec![1], 0));
    Ok(())
}

async fn exhausted_pool() -> TestResult {
    let config = config(database().await?).with_max_connections(1);
    let (store, transport) = (PostgresStore::connect_with(config).await?, transport(1).await?);
    let table = effects(store.pool()).await?;
    let failing = Failing { table: table.as_str().into(), sql: "".into(), calls: Arc::default(), times: 0 };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(failing.clone());
    let hog = store.pool().acquire().await?;
    let running = start(Service::new("orders", router).with_idempotency(store.clone()), &transport).await?;
    publish(&transport, vec![record(Uuid::now_v7(), 1)]).await?;
    let told = async {
        while !format!("{:?}", running.status().await).contains("pool timed out") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::LIMIT, told).await.map_err(|_| "the status never said why")?;
    drop(hog);
    caught_up(&running).await?;
    assert_eq!((written(store.pool(), &table).await?, letters(&transport).await?), (vec![1], 0));
    Ok(())
}

async fn own_connections() -> TestResult {
    let store = PostgresStore::connect_with(config(database().await?).with_max_connections(1)).await?;
    let _hog = store.pool().acquire().await?;
    let lease = store.acquire_lease(&Name::from("orders"), Duration::from_secs(9)).await?;
    store.renew(&lease).await?;
    Ok(())
}

async fn purges() -> TestResult {
    let config = config(database().await?).with_purge_batch(10);
    let store = PostgresStore::connect_with(config.clone()).await?;
    let fill = format!(
        "INSERT INTO {0}.done SELECT 'orders', gen_random_uuid(), 't', now() - n * interval '1 hour'
         FROM generate_series(1, 100) n",
        config.schema
    );
    sqlx::query(AssertSqlSafe(fill)).execute(store.pool()).await?;
    let before = tidings_core::Timestamp::now().saturating_sub(Duration::from_secs(3_600 * 60 + 1_800));
    assert_eq!(store.purge(&Name::from("orders"), before).await?, 40);
    assert_eq!(store.purge(&Name::from("orders"), before).await?, 0);
    Ok(())
}

/// In MiB; a fresh database takes a part of it.
const SMALL_DISK: u32 = 48;

async fn full_disk() -> TestResult {
    let server = Postgres::start(PostgresOptions::new().with_small_disk(SMALL_DISK)).await?;
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", server.small_disk().display())).await?;
    server.sql("CREATE DATABASE small TABLESPACE small").await?;
    let url = server.url();
    let (place, _) = url.rsplit_once('/').unwrap();
    let url = format!("{place}/small");
    let (store, transport) = (PostgresStore::connect_with(config(&url)).await?, transport(2).await?);
    let table = effects(store.pool()).await?;
    // An effect fills a page.
    let widen = format!(
        "ALTER TABLE {table} ADD filler text NOT NULL DEFAULT repeat('x', 5000);
        ALTER TABLE {table} ALTER filler SET STORAGE PLAIN; ALTER TABLE {table} SET (autovacuum_enabled = off);
        CREATE TABLE ballast (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE) WITH (autovacuum_enabled = off)"
    );
    sqlx::raw_sql(AssertSqlSafe(widen)).execute(store.pool()).await?;
    let failing = Failing { table: table.as_str().into(), sql: "".into(), calls: Arc::default(), times: 0 };
    let router = Router::new().on_topic(TOPIC, handler).layer(store.inbox()).with_state(failing);
    let running = start(Service::new("orders", router).with_idempotency(store.clone()), &transport).await?;
    let events = |from: i64, to| (from..to).map(|n| record(Uuid::now_v7(), n)).collect();
    publish(&transport, events(0, 20)).await?;
    caught_up(&running).await?;

    // To the last page, and to the last of those that Postgres has kept ready for the effects: it may extend a table by
    // many pages where several wait for one.
    for (into, rows) in [("ballast", 1_000), ("ballast", 100), ("ballast", 1), (&table, 1)] {
        let fill = format!("INSERT INTO {into} SELECT -1 FROM generate_series(1, {rows})");
        let full = loop {
            if let Err(error) = sqlx::query(AssertSqlSafe(fill.as_str())).execute(store.pool()).await {
                break error;
            }
        };
        assert_eq!(full.as_database_error().and_then(|e| e.code()).as_deref(), Some("53100"), "{full}");
    }
    // For a few claims there is room in the pages that there are, for as many effects there is none.
    publish(&transport, events(20, 24)).await?;
    let told = async {
        loop {
            let status = running.status().await;
            let paused = status.partitions.iter().any(|partition| partition.paused.contains(&PauseReason::Handler));
            if paused && format!("{status:?}").contains("No space left on device") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(common::LIMIT, told).await.map_err(|_| "the status never told of the full disk")?;
    publish(&transport, events(24, 200)).await?;
    let error = bury_much(&store).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.report().contains("No space left on device"), "{}", error.report());
    assert!(!written(store.pool(), &table).await?.contains(&20));

    let room = format!("DROP TABLE ballast; DELETE FROM {table} WHERE n = -1");
    sqlx::raw_sql(AssertSqlSafe(room)).execute(store.pool()).await?;
    caught_up(&running).await?;
    assert_eq!(written(store.pool(), &table).await?, (0..200).collect::<Vec<_>>());
    assert_eq!(letters(&transport).await?, 0);
    Ok(())
}

/// Buries a letter that no page has room for.
async fn bury_much(store: &PostgresStore) -> Result<(), Error> {
    let value: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    let record = StoredRecord::new(0, tidings_core::Timestamp::now()).with_value(value);
    let letter = DeadLetter::new("orders", TopicPartition::new(TOPIC, 0), record, ErrorKind::Failed);
    store.bury(vec![letter]).await.remove(0)
}
