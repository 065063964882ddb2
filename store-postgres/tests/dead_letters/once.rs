//! One letter, one redrive: what takes letters at once waits, passes over, and never publishes one twice.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{DeadLetterStore, Error, Leased, LetterLease, LetterQuery, Resolution, Result, redrive};
use tidings_postgres::{LetterFilter, PostgresConfig, PostgresStore, RedriveOptions};
use tidings_testbed::{BoxError, Postgres};

use async_trait::async_trait;
use tidings_core::{Guarantees, Position, Publisher, Record};

use super::{Broker, bury, id, letter, store};

/// Letters whose numbers run against the order in which they are redriven.
async fn bury_backwards(store: &PostgresStore, letters: u64) {
    bury(store, (0..letters).rev().map(|n| letter(n, ["a", "b", "c"][n as usize % 3]))).await;
}

pub(super) async fn no_circle() -> Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let long = Duration::from_secs(60);
    let config = PostgresConfig::new(url).with_lock_timeout(long).with_statement_timeout(long);
    let store = PostgresStore::connect_with(config).await?;
    let broker = Broker::new();
    for _ in 0..15 {
        bury_backwards(&store, 300).await;
        let mut all = tokio::task::JoinSet::new();
        for by in ["ann", "bob"] {
            let (redriving, broker) = (store.letters(), Arc::clone(&broker));
            all.spawn(async move {
                let options = RedriveOptions::default().with_batch(120);
                let report = redriving.redrive(&*broker, &LetterFilter::default(), by, &options).await?;
                Ok::<u64, Error>(report.redriven)
            });
            let letters = store.letters();
            all.spawn(async move { letters.discard(&LetterFilter::default(), "cid", "test data").await });
        }
        let mut closed = 0;
        while let Some(done) = all.join_next().await {
            closed += done??;
        }
        assert_eq!(closed, 300, "each is closed once");
        assert_eq!(store.letters().purge(Duration::ZERO).await?, 300);
    }
    Ok(())
}

pub(super) async fn leased() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, (0..6).map(|n| letter(n, "k"))).await;
    let lease = LetterLease::new(Duration::from_secs(60));
    assert_eq!(store.lease(&[id(1), id(2)], &lease).await?, [Leased::Granted; 2]);
    assert_eq!(store.letters().discard(&LetterFilter::default().with_ids([id(1), id(3)]), "ann", "old").await?, 1);
    let options = RedriveOptions::default().with_batch(2);
    let report = store.letters().redrive(&*broker, &LetterFilter::default(), "ann", &options).await?;
    assert_eq!((report.redriven, broker.values()), (3, vec![0, 4, 5]));
    store.end_lease(&[id(1), id(2)], &lease).await?;
    assert_eq!(store.letters().redrive(&*broker, &LetterFilter::default(), "ann", &options).await?.redriven, 2);
    Ok(())
}

pub(super) async fn two_processes() -> Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let stores = [PostgresStore::connect(&url).await?, PostgresStore::connect(&url).await?];
    let broker = Broker::new();
    bury_backwards(&stores[0], 60).await;
    let listed = stores[0].list(&LetterQuery::default()).await?;
    assert!(stores[1].resolve(&[id(7)], &Resolution::Discarded { by: "cid".into(), reason: "old".into() }).await?[0]);
    let mut all = tokio::task::JoinSet::new();
    for store in stores {
        let (broker, listed) = (Arc::clone(&broker), listed.clone());
        all.spawn(async move { redrive(&store, &*broker, &listed, "ann").await });
    }
    let answers: Vec<Result<()>> = all.join_all().await.into_iter().flatten().collect();
    let mut values = broker.values();
    values.sort_unstable();
    assert_eq!(
        values,
        (0..60).filter(|n| *n != 7).collect::<Vec<_>>(),
        "each is published once, what is discarded never"
    );
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 59);
    Ok(())
}

pub(super) async fn two_operators() -> Result<(), BoxError> {
    let url = Postgres::shared().await?.fresh_database().await?;
    let long = Duration::from_secs(60);
    let config = PostgresConfig::new(url).with_lock_timeout(long).with_statement_timeout(long);
    let config = config.with_idle_in_transaction_timeout(long);
    let (store, broker) = (PostgresStore::connect_with(config).await?, Broker::new());
    bury(&store, (0..200).map(|n| letter(n, ["a", "b"][n as usize % 2]))).await;
    // None gets on before both are there, one waiting for the letters and one for its turn: the first to come might else be
    // through before the second has its connection.
    let mut gate = store.pool().begin().await?;
    sqlx::query("LOCK TABLE tidings.letters IN EXCLUSIVE MODE").execute(&mut *gate).await?;
    let redrive = |by: &'static str| {
        let (letters, broker) = (store.letters(), Arc::clone(&broker));
        let options = RedriveOptions::default().with_batch(9);
        tokio::spawn(async move { letters.redrive(&*broker, &LetterFilter::default(), by, &options).await })
    };
    let (ann, bob) = (redrive("ann"), redrive("bob"));
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(store.pool()).await? < 2 {
        assert!(!ann.is_finished() && !bob.is_finished(), "one did not wait");
        tokio::task::yield_now().await;
    }
    gate.rollback().await?;
    let done = (ann.await??.redriven, bob.await??.redriven);
    assert_eq!(done.0 + done.1, 200);
    assert!(done.0 > 0 && done.1 > 0, "they took turns: {done:?}");
    let values = broker.values();
    assert_eq!(values.len(), 200, "some were published twice");
    for key in 0..2 {
        assert!(values.iter().filter(|n| *n % 2 == key).is_sorted());
    }
    Ok(())
}

/// A broker in whose third call the session of the redrive ends.
#[derive(Debug)]
struct Ending {
    broker: Arc<Broker>,
    pool: sqlx::PgPool,
}

#[async_trait]
impl Publisher for Ending {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let answers = self.broker.publish(records).await;
        if self.broker.values().len() == 3 {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'idle in transaction'";
            sqlx::query(end).execute(&self.pool).await.unwrap();
        }
        answers
    }

    async fn close(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

pub(super) async fn broken() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    bury(&store, (0..20).map(|n| letter(n, "k"))).await;
    let ending = Ending { broker: Arc::clone(&broker), pool: store.pool().clone() };
    let redriven = store.letters().redrive(&ending, &LetterFilter::default(), "ann", &RedriveOptions::default()).await;
    assert!(redriven.unwrap_err().is_retryable());
    assert_eq!(broker.values(), [0, 1, 2], "nothing is published that cannot be closed");
    Ok(())
}
