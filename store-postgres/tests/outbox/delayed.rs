//! Delayed events: when they are published, in which order, and how they are cancelled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidings_core::{ErrorKind, PublishOptions, Timestamp};
use tidings_postgres::{PostgresStore, Relay, RelayConfig, RelayState};
use tidings_testbed::BoxError;
use uuid::Uuid;

use super::broker::{Broker, until};
use super::{DEADLINE, LONG, OrderPlaced, commit, config, is_empty, outbox, record, relay, sleepers, store};

const SOON: Duration = Duration::from_millis(700);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Writes an event for the key `id` that is due after `delay`.
async fn later(store: &PostgresStore, id: u32, amount: i64, delay: Duration) -> Uuid {
    let mut transaction = store.pool().begin().await.unwrap();
    let event = OrderPlaced { id, amount };
    let event_id = outbox(store).publish_after(&mut transaction, &event, delay).await.unwrap();
    transaction.commit().await.unwrap();
    event_id
}

async fn cancel(store: &PostgresStore, id: Uuid) -> bool {
    let mut transaction = store.pool().begin().await.unwrap();
    let was_waiting = outbox(store).cancel(&mut transaction, id).await.unwrap();
    transaction.commit().await.unwrap();
    was_waiting
}

/// The numbers of the published events, in their order.
fn amounts(broker: &Broker) -> Vec<i64> {
    let amount =
        |value: String| value.split("\"amount\":").nth(1).and_then(|rest| rest.split(['}', ',']).next()?.parse().ok());
    broker.values().into_iter().filter_map(amount).collect()
}

pub(crate) async fn not_before_they_are_due() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    // Neither polling nor measuring helps: the timer finds them.
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, config().with_poll_interval(LONG))?;
    let began = Instant::now();
    later(&store, 1, 2, SOON).await;
    later(&store, 2, 3, DAY).await;
    let mut transaction = store.pool().begin().await?;
    outbox(&store).publish(&mut transaction, &OrderPlaced { id: 3, amount: 1 }).await?;
    let past = Timestamp::from_millis(-1);
    outbox(&store).publish_at(&mut transaction, &OrderPlaced { id: 4, amount: 1 }, past).await?;
    transaction.commit().await?;
    broker.holds(2).await;
    let lag = outbox(&store).lag().await?;
    // Without the two that the relay may not have deleted yet.
    assert!(lag.waiting <= 2 && lag.delayed >= 1 && lag.oldest < Some(DAY), "{lag:?}");
    broker.holds(3).await;
    assert!(began.elapsed() >= SOON, "published before it was due");
    is_empty(&store).await;
    assert_eq!(amounts(&broker), [1, 1, 2]);
    let lag = outbox(&store).lag().await?;
    assert_eq!((lag.waiting, lag.delayed, lag.oldest), (0, 1, None), "what waits is no lag");
    assert!(relay.status().is_healthy());
    Ok(())
}

pub(crate) async fn due_without_a_relay() -> Result<(), BoxError> {
    let store = store().await?;
    later(&store, 1, 1, Duration::ZERO).await;
    let lag = outbox(&store).lag().await?;
    assert_eq!((lag.waiting, lag.delayed), (1, 0), "what is due is lag");
    assert!(lag.oldest.is_some());
    Ok(())
}

pub(crate) async fn in_the_order_of_their_times() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    for (amount, delay) in [(3, 300), (1, 100), (2, 200)] {
        later(&store, 7, amount, Duration::from_millis(delay)).await;
    }
    let mut transaction = store.pool().begin().await?;
    outbox(&store).publish(&mut transaction, &OrderPlaced { id: 7, amount: 0 }).await?;
    transaction.commit().await?;
    until("all due", async || outbox(&store).lag().await.unwrap().delayed == 0).await;
    let _relays = [relay(&store, &broker), relay(&store, &broker)];
    broker.holds(4).await;
    let published = amounts(&broker);
    // The plain one was written before any was moved.
    assert_eq!(published, [0, 1, 2, 3]);
    assert!(!broker.crossed.load(Ordering::SeqCst));
    Ok(())
}

pub(crate) async fn cancelled() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let _relay = relay(&store, &broker);
    let gone = later(&store, 1, 1, SOON).await;
    let kept = later(&store, 2, 2, SOON).await;
    assert!(cancel(&store, gone).await);
    assert!(!cancel(&store, gone).await && !cancel(&store, Uuid::now_v7()).await);
    let mut transaction = store.pool().begin().await?;
    assert!(outbox(&store).cancel(&mut transaction, kept).await?);
    until("it is due", async || outbox(&store).lag().await.unwrap().waiting == 1).await;
    // A transaction that may cancel it keeps it from being published, and nothing else.
    later(&store, 3, 3, Duration::ZERO).await;
    broker.holds(1).await;
    assert_eq!(amounts(&broker), [3]);
    transaction.rollback().await?;
    broker.holds(2).await;
    is_empty(&store).await;
    assert_eq!(amounts(&broker), [3, 2]);
    assert!(!cancel(&store, kept).await, "it was published");
    Ok(())
}

pub(crate) async fn behind_an_open_transaction() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let relay = relay(&store, &broker);
    let mut open = store.pool().begin().await?;
    outbox(&store).publish(&mut open, &OrderPlaced { id: 1, amount: 1 }).await?;
    later(&store, 1, 2, Duration::ZERO).await;
    later(&store, 2, 3, Duration::ZERO).await;
    broker.holds(1).await;
    commit(&store, vec![record("b", "plain")]).await;
    broker.holds(2).await;
    assert_eq!(amounts(&broker), [3], "the key of the open transaction waits for it");
    open.commit().await?;
    broker.holds(4).await;
    assert_eq!(amounts(&broker), [3, 1, 2]);
    relay.shutdown(DEADLINE).await?;
    Ok(())
}

pub(crate) async fn woken() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let config: RelayConfig = config().with_poll_interval(LONG).with_lag_interval(LONG);
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, config)?;
    later(&store, 1, 1, DAY).await;
    until("a sleeper", async || relay.status().state == RelayState::Idle && sleepers(&store).await == 1).await;
    later(&store, 2, 2, Duration::from_millis(50)).await;
    broker.holds(1).await;
    assert_eq!(amounts(&broker), [2]);
    Ok(())
}

pub(crate) async fn refused() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let _relay = relay(&store, &broker);
    let mut transaction = store.pool().begin().await?;
    let event = OrderPlaced { id: 1, amount: 1 };
    let never = outbox(&store).publish_after(&mut transaction, &event, Duration::MAX).await.unwrap_err();
    assert_eq!(never.kind(), ErrorKind::Invalid);
    // Nothing was sent to the server: the transaction goes on, and is all or nothing.
    let options = PublishOptions::default().with_id(Uuid::from_u128(5)).with_correlation_id("c");
    let id = outbox(&store).publish_later(&mut transaction, &event, Duration::ZERO, &options).await?;
    assert_eq!(id, Uuid::from_u128(5));
    transaction.rollback().await?;
    later(&store, 2, 2, Duration::ZERO).await;
    broker.holds(1).await;
    is_empty(&store).await;
    assert_eq!(amounts(&broker), [2]);
    Ok(())
}
