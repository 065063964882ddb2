//! The order of a key's records.

use std::sync::atomic::{AtomicBool, Ordering};

use tidings_postgres::PostgresStore;
use tidings_testbed::BoxError;

use crate::broker::{Broker, until};
use crate::{commit, is_empty, outbox, record, relay, store};

const KEYS: usize = 7;
const WRITERS: usize = 6;
const ROUNDS: usize = 40;

/// Each transaction counts up a key's row and publishes the count: the row's lock says in which order they commit.
pub(crate) async fn of_commits() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    sqlx::query("CREATE TABLE counts (key int PRIMARY KEY, n int NOT NULL)").execute(store.pool()).await?;
    sqlx::query("INSERT INTO counts SELECT k, 0 FROM generate_series(0, 6) k").execute(store.pool()).await?;
    let over = AtomicBool::new(false);
    // In addition to the constant ones, relays come and go.
    let relays = async {
        let _constant = [relay(&store, &broker), relay(&store, &broker)];
        while !over.load(Ordering::SeqCst) {
            let passing = relay(&store, &broker);
            until("a share", async || passing.status().shards > 0 || over.load(Ordering::SeqCst)).await;
            drop(passing);
        }
        is_empty(&store).await;
    };
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for round in 0..ROUNDS {
                let key = (writer * 3 + round) % KEYS;
                let mut transaction = store.pool().begin().await.unwrap();
                let n: i32 = sqlx::query_scalar("UPDATE counts SET n = n + 1 WHERE key = $1 RETURNING n")
                    .bind(i32::try_from(key).unwrap())
                    .fetch_one(&mut *transaction)
                    .await
                    .unwrap();
                let value = record(&key.to_string(), format!("{key}:{n:04}"));
                outbox(&store).put(&mut transaction, vec![value]).await.unwrap();
                if round.is_multiple_of(3) {
                    tokio::task::yield_now().await;
                }
                transaction.commit().await.unwrap();
            }
        });
    }
    let writing = async {
        writers.join_all().await;
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(relays, writing);
    let by_key = broker.by_key();
    assert_eq!(by_key.values().map(Vec::len).sum::<usize>(), WRITERS * ROUNDS, "none is lost");
    for (key, values) in by_key {
        let expected: Vec<String> = (1..=values.len()).map(|n| format!("{key}:{n:04}")).collect();
        assert_eq!(values, expected);
    }
    Ok(())
}

pub(crate) async fn waits() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let mut first = store.pool().begin().await?;
    outbox(&store).put(&mut first, vec![record("a", 1)]).await?;
    let second = {
        let store = store.clone();
        tokio::spawn(async move { commit(&store, vec![record("a", 2)]).await })
    };
    // Another key's does not wait.
    commit(&store, vec![record("b", 3)]).await;
    until("the second waits", async || waiting(&store).await == 1).await;
    first.commit().await?;
    second.await?;
    let _relay = relay(&store, &broker);
    broker.holds(3).await;
    assert_eq!(broker.by_key()["a"], ["1", "2"]);
    Ok(())
}

/// Each of two calls begins with a key that the other one ends with, and has more records than one statement takes.
pub(crate) async fn crossing() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let mut keys = Vec::new();
    for key in ["a", "b", "c"] {
        keys.push((lock(&store, key).await?, key));
    }
    keys.sort_unstable();
    // Its lock is the lowest, so that both calls wait at it with what they have taken before.
    let [gate, one, other] = keys[..] else { panic!("{keys:?}") };
    let mut closed = store.pool().begin().await?;
    outbox(&store).put(&mut closed, vec![record(gate.1, "gate")]).await?;
    let put = |first: &'static str, last: &'static str| {
        let mut records: Vec<_> = (0..1_000).map(|n| record(first, format!("{first}{n:04}"))).collect();
        records.extend([record(gate.1, format!("gate of {first}")), record(last, format!("{last} of {first}"))]);
        let store = store.clone();
        tokio::spawn(async move {
            let mut transaction = store.pool().begin().await?;
            outbox(&store).put(&mut transaction, records).await?;
            Ok::<_, BoxError>(transaction.commit().await?)
        })
    };
    let (first, second) = (put(one.1, other.1), put(other.1, one.1));
    until("both wait", async || waiting(&store).await == 2).await;
    closed.commit().await?;
    first.await??;
    second.await??;
    let _relay = relay(&store, &broker);
    broker.holds(2 * 1_002 + 1).await;
    Ok(())
}

/// The lock of a key's lane.
async fn lock(store: &PostgresStore, key: &str) -> Result<i64, BoxError> {
    let mut transaction = store.pool().begin().await?;
    outbox(store).put(&mut transaction, vec![record(key, 0)]).await?;
    let query = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    Ok(sqlx::query_scalar(query).fetch_one(&mut *transaction).await?)
}

/// How many transactions wait for a lane.
async fn waiting(store: &PostgresStore) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'
        AND datname = current_database()";
    sqlx::query_scalar(query).fetch_one(store.pool()).await.unwrap()
}

pub(crate) async fn late() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let _relay = relay(&store, &broker);
    let mut slow = store.pool().begin().await?;
    outbox(&store).put(&mut slow, vec![record("a", "early id, late commit")]).await?;
    for n in 0..20 {
        commit(&store, vec![record(&format!("b{n}"), n)]).await;
    }
    broker.holds(20).await;
    slow.commit().await?;
    broker.holds(21).await;
    is_empty(&store).await;
    Ok(())
}

pub(crate) async fn one_unanswered() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    commit(&store, (0..200).map(|n| record(["a", "b"][n % 2], format!("{n:03}"))).collect()).await;
    let _relays = [relay(&store, &broker), relay(&store, &broker)];
    broker.holds(200).await;
    assert!(!broker.crossed.load(Ordering::SeqCst));
    assert!(broker.by_key().values().all(|values| values.is_sorted() && values.len() == 100));
    Ok(())
}
