//! The outbox while its server is restarted and sessions are killed under load, checked by a ledger outside of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{Record, headers};
use tidings_postgres::{PostgresConfig, PostgresStore, Relay, RelayConfig};
use tidings_testbed::{BoxError, Postgres, PostgresOptions, Shutdown};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::broker::{Broker, text, until};

const KEYS: usize = 12;
const WRITERS: usize = 4;

/// For CI.
pub(crate) async fn some() -> Result<(), BoxError> {
    run(2, 12).await
}

/// The full numbers.
pub(crate) async fn many() -> Result<(), BoxError> {
    run(20, 500).await
}

/// The transactions as the writers know them: by value, the event's id.
#[derive(Debug, Default)]
struct Ledger {
    committed: Mutex<BTreeMap<String, Uuid>>,
    /// The answer to the commit was lost: the effect tells.
    open: Mutex<BTreeMap<String, Uuid>>,
}

async fn run(restarts: usize, kills: usize) -> Result<(), BoxError> {
    let server = Postgres::start(PostgresOptions::new()).await?;
    let config = PostgresConfig::new(server.url()).with_answer_within(Duration::from_secs(5));
    let store = PostgresStore::connect_with(config).await?;
    let setup = "CREATE TABLE counts (key int PRIMARY KEY, n int NOT NULL);
        INSERT INTO counts SELECT k, 0 FROM generate_series(0, 11) k;
        CREATE TABLE effects (value text PRIMARY KEY);";
    sqlx::raw_sql(setup).execute(store.pool()).await?;
    let (broker, ledger, over) = (Broker::new(), Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
    let retries = RelayConfig::default().with_retry(Duration::from_millis(10), Duration::from_millis(200));
    let relays: Vec<Relay> =
        (0..2).map(|_| Relay::start_with(&store, Arc::clone(&broker) as _, retries.clone()).unwrap()).collect();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(writer, store.clone(), Arc::clone(&ledger), Arc::clone(&over)));
    }
    for turn in 0..restarts.max(1) {
        kill_sessions(&server, &broker, kills / restarts.max(1)).await?;
        progress(&broker).await;
        if turn < restarts {
            server.restart(Shutdown::Immediate).await?;
            progress(&broker).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    writers.join_all().await;
    until("an empty outbox", async || store.outbox("w").lag().await.is_ok_and(|lag| lag.waiting == 0)).await;
    for relay in relays {
        relay.shutdown(Duration::from_secs(30)).await?;
    }
    check(&store, &broker, &ledger).await
}

/// Waits until more has come through.
async fn progress(broker: &Broker) {
    let before = broker.records().len();
    until("progress", async || broker.records().len() > before + 100).await;
}

async fn kill_sessions(server: &Postgres, broker: &Broker, count: usize) -> Result<(), BoxError> {
    for n in 0..count {
        let sessions = server.backends()?;
        // One that has just ended by itself is no failure.
        let victim = sessions.get((n * 7) % sessions.len().max(1)).map(|session| server.terminate_backend(session.pid));
        if victim.is_some_and(|killed| killed.is_ok()) && n % 4 == 3 {
            progress(broker).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn write(writer: usize, store: PostgresStore, ledger: Arc<Ledger>, over: Arc<AtomicBool>) {
    let outbox = store.outbox("w");
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        round += 1;
        let (id, key) = (Uuid::now_v7(), (writer * 5 + round) % KEYS);
        let Ok(mut transaction) = store.pool().begin().await else { continue };
        let counted = sqlx::query_scalar::<_, i32>("UPDATE counts SET n = n + 1 WHERE key = $1 RETURNING n")
            .bind(i32::try_from(key).unwrap())
            .fetch_one(&mut *transaction);
        let Ok(n) = counted.await else { continue };
        let value = format!("{key:02}:{n:06}");
        let effect = sqlx::query("INSERT INTO effects VALUES ($1)").bind(&value).execute(&mut *transaction);
        if effect.await.is_err() {
            continue;
        }
        let record = Record::new("t", value.clone()).with_key(format!("{key}"));
        let record = record.with_header(headers::EVENT_ID, id.to_string());
        if outbox.put(&mut transaction, vec![record]).await.is_err() {
            continue;
        }
        let answer = transaction.commit().await;
        let book = if answer.is_ok() { &ledger.committed } else { &ledger.open };
        book.lock().unwrap().entry(value).or_insert(id);
    }
}

async fn check(store: &PostgresStore, broker: &Broker, ledger: &Ledger) -> Result<(), BoxError> {
    let effects: Vec<String> = sqlx::query_scalar("SELECT value FROM effects").fetch_all(store.pool()).await?;
    let effects: BTreeSet<String> = effects.into_iter().collect();
    let records = broker.records();
    let published: BTreeSet<String> = records.iter().map(text).collect();
    let committed = ledger.committed.lock().unwrap().clone();
    assert!(committed.keys().all(|value| effects.contains(value)), "the server forgot a commit");
    let lost: Vec<_> = effects.difference(&published).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let invented: Vec<_> = published.difference(&effects).collect();
    assert!(invented.is_empty(), "published and not committed: {invented:?}");
    // Repeats are the same events, so their readers settle them as duplicates.
    let ids: HashSet<_> =
        records.iter().map(|r| (text(r), r.headers.get_str(headers::EVENT_ID).unwrap().to_owned())).collect();
    assert_eq!(ids.len(), published.len(), "a repeat came with another id");
    for (key, values) in broker.by_key() {
        assert!(values.is_sorted(), "key {key} is out of order");
    }
    let open = ledger.open.lock().unwrap().len();
    let (events, repeats) = (published.len(), records.len() - published.len());
    println!("{events} events, {repeats} repeats, {open} commits without an answer");
    Ok(())
}
