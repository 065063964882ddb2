//! The order of a key's records.

use std::sync::atomic::{AtomicBool, Ordering};

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
    // Beside the constant ones, relays come and go.
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
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'
        AND datname = current_database()";
    until("the second waits", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(store.pool()).await.unwrap() == 1
    })
    .await;
    first.commit().await?;
    second.await?;
    let _relay = relay(&store, &broker);
    broker.holds(3).await;
    assert_eq!(broker.by_key()["a"], ["1", "2"]);
    Ok(())
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
