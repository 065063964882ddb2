//! Records that the broker refuses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidings_core::{ErrorKind, Record};
use tidings_postgres::{ActFilter, ActKind, PostgresStore, Refused, Relay, RelayState};
use tidings_testbed::BoxError;

use crate::broker::{Broker, text, until};
use crate::{commit, config, is_empty, outbox, record, relay, store};

/// Three records of each key; of `a` the second is refused.
async fn refusing(store: &PostgresStore) -> Arc<Broker> {
    let broker = Broker::new();
    broker.refuse(|record: &Record| (text(record) == "a2").then_some(ErrorKind::TooLarge));
    let records = ["a1", "a2", "a3", "b1", "b2", "b3"].map(|value| record(&value[..1], value));
    commit(store, records.to_vec()).await;
    broker
}

async fn failed_id(store: &PostgresStore) -> i64 {
    until("a refused record", async || !outbox(store).failed(None, None).await.unwrap().is_empty()).await;
    let failed = outbox(store).failed(None, None).await.unwrap();
    let [failed] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!((failed.record.clone(), failed.kind), (record("a", "a2"), ErrorKind::TooLarge));
    assert!(failed.error.contains("does not want it"), "{}", failed.error);
    failed.id
}

pub(crate) async fn hold_and_retry() -> Result<(), BoxError> {
    let store = store().await?;
    let broker = refusing(&store).await;
    let relay = relay(&store, &broker);
    broker.holds(4).await;
    let id = failed_id(&store).await;
    // Later records of the key wait too, those of others do not.
    commit(&store, vec![record("a", "a4"), record("b", "b4")]).await;
    broker.holds(5).await;
    assert_eq!(
        broker.by_key(),
        [("a".into(), vec!["a1".into()]), ("b".into(), strings(["b1", "b2", "b3", "b4"]))].into()
    );
    // Published records are deleted a moment later.
    until("two that are held back", async || outbox(&store).lag().await.unwrap().waiting == 2).await;
    let lag = outbox(&store).lag().await?;
    assert_eq!((lag.holding, lag.parked), (1, 0));
    broker.refuse(|_| None);
    assert_eq!(outbox(&store).retry(&[id], "ann").await?, 1);
    broker.holds(8).await;
    is_empty(&store).await;
    assert_eq!(broker.by_key()["a"], ["a1", "a2", "a3", "a4"]);
    assert_eq!(relay.status().refused, 1);
    let acts = store.acts(&ActFilter::default().with_kind(ActKind::OutboxRetried)).await?;
    assert_eq!((acts.len(), acts[0].by.as_str(), acts[0].outbox), (1, "ann", Some(id)));
    Ok(())
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Nothing can be told of the records' age, at the start and at the end, when one waits behind another that is refused.
pub(crate) async fn no_lag() -> Result<(), BoxError> {
    let store = store().await?;
    let broker = refusing(&store).await;
    sqlx::query("UPDATE tidings.outbox SET created_at = '-infinity'").execute(store.pool()).await?;
    let relay = relay(&store, &broker);
    broker.holds(4).await;
    assert_eq!(relay.status().lag, None);
    outbox(&store).lag().await.unwrap_err();
    Ok(())
}

pub(crate) async fn discard() -> Result<(), BoxError> {
    let store = store().await?;
    let broker = refusing(&store).await;
    let _relay = relay(&store, &broker);
    let id = failed_id(&store).await;
    assert_eq!(outbox(&store).discard(&[id], "ann", " ").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(outbox(&store).discard(&[id], "ann", "never valid").await?, 1);
    broker.holds(5).await;
    is_empty(&store).await;
    assert_eq!(broker.by_key()["a"], ["a1", "a3"]);
    let acts = store.acts(&ActFilter::default().with_kind(ActKind::OutboxDiscarded)).await?;
    assert_eq!((acts.len(), acts[0].why.as_str()), (1, "never valid"));
    Ok(())
}

pub(crate) async fn park() -> Result<(), BoxError> {
    let store = store().await?;
    let broker = refusing(&store).await;
    let parking = config().with_refused(Refused::Park);
    let _relay = Relay::start_with(&store, Arc::clone(&broker) as _, parking)?;
    broker.holds(5).await;
    is_empty(&store).await;
    assert_eq!(broker.by_key()["a"], ["a1", "a3"]);
    let id = failed_id(&store).await;
    let lag = outbox(&store).lag().await?;
    assert_eq!((lag.holding, lag.parked), (0, 1));
    broker.refuse(|_| None);
    assert_eq!(outbox(&store).retry(&[id], "ann").await?, 1);
    broker.holds(6).await;
    Ok(())
}

pub(crate) async fn outage() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    broker.down.store(true, Ordering::SeqCst);
    let relay = relay(&store, &broker);
    commit(&store, (0..50).map(|n| record(["a", "b", "c"][n % 3], format!("{n:02}"))).collect()).await;
    until("a wait", async || relay.status().state == RelayState::Waiting).await;
    commit(&store, (50..100).map(|n| record(["a", "b", "c"][n % 3], format!("{n:02}"))).collect()).await;
    broker.down.store(false, Ordering::SeqCst);
    broker.holds(100).await;
    is_empty(&store).await;
    assert_eq!(broker.records().len(), 100);
    assert!(broker.by_key().values().all(|values| values.is_sorted()));
    assert_eq!(outbox(&store).failed(None, None).await?, []);
    Ok(())
}
