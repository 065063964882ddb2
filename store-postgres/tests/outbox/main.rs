//! The outbox and its relays on a real server: all or nothing, order per key, repeats, refusals, waking, bounds, the end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod consume;
mod crash;
mod delayed;
mod order;
mod refusals;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{
    ErrorKind, Event, Header, PublishOptions, Record, StoredRecord, Timestamp, TraceParent, codec, headers,
};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_postgres::{Outbox, PostgresConfig, PostgresStore, Relay, RelayConfig, RelayState};
use tidings_testbed::{BoxError, Postgres, Suite};

use self::broker::{Broker, PATIENCE, until};

const LONG: Duration = Duration::from_secs(24 * 3_600);
const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    Suite::new()
        .with_case("what_is_committed_is_published_and_what_is_rolled_back_is_not", all_or_nothing)
        .with_case("an_event_is_written_as_an_event_publisher_writes_it", written_as_by_a_publisher)
        .with_case("an_event_is_written_in_the_selected_version", in_an_older_version)
        .with_case("a_raw_record_survives_byte_for_byte", byte_for_byte)
        .with_case("a_topic_that_is_none_and_a_huge_record_are_refused_at_once", refused_at_once)
        .with_case("the_order_of_a_key_is_that_of_the_commits_with_several_relays", order::of_commits)
        .with_case("a_transaction_waits_for_another_that_publishes_to_its_key", order::waits)
        .with_case("large_calls_that_cross_do_not_wait_in_a_circle", order::crossing)
        .with_case("what_becomes_visible_late_is_published_nevertheless", order::late)
        .with_case("one_record_of_a_key_is_unanswered_at_a_time", order::one_unanswered)
        .with_case("a_relay_that_dies_before_it_deletes_repeats_the_same_event", repeats)
        .with_case("a_refused_record_holds_its_key_alone_until_it_is_retried", refusals::hold_and_retry)
        .with_case("a_refused_record_that_is_discarded_lets_its_key_go_on", refusals::discard)
        .with_case("parked_records_hold_nothing", refusals::park)
        .with_case("an_outage_of_the_broker_loses_and_reorders_nothing", refusals::outage)
        .with_case("a_relay_that_sleeps_is_woken_by_a_commit", woken)
        .with_case("polling_alone_finds_everything", polling)
        .with_case("relays_share_the_outbox_and_take_over_from_one_that_ends", shared)
        .with_case("memory_is_bounded_in_records_and_bytes", bounded)
        .with_case("a_shutdown_waits_for_answers_up_to_its_deadline", shutdown)
        .with_case("the_lag_is_told_by_number_and_age", lag)
        .with_case("a_lag_that_can_not_be_counted_keeps_nothing_from_being_published", refusals::no_lag)
        .with_case("a_relay_publishes_through_a_transport", through_a_transport)
        .with_case("what_a_handler_returns_is_written_with_its_effects_or_not_at_all", consume::all_or_nothing)
        .with_case(
            "delayed_events_are_published_when_they_are_due_and_are_no_lag_before",
            delayed::not_before_they_are_due,
        )
        .with_case("a_delayed_event_that_is_due_is_lag", delayed::due_without_a_relay)
        .with_case("delayed_events_of_a_key_come_in_the_order_of_their_times", delayed::in_the_order_of_their_times)
        .with_case("a_cancelled_event_is_not_published", delayed::cancelled)
        .with_case(
            "a_due_event_waits_for_a_transaction_of_its_key_and_others_do_not",
            delayed::behind_an_open_transaction,
        )
        .with_case("a_relay_that_sleeps_is_woken_for_an_earlier_delayed_event", delayed::woken)
        .with_case("a_time_out_of_range_is_refused_and_a_rollback_takes_the_event_back", delayed::refused)
        .with_case("nothing_is_lost_over_restarts_and_killed_sessions", crash::some)
        .with_soak("soak_nothing_is_lost_over_20_restarts_and_500_killed_sessions", crash::many)
        .run()
}

/// A store in a database of its own. Its transactions wait for far longer than a busy machine holds up a test: no test here
/// is about those limits.
pub(crate) async fn store() -> Result<PostgresStore, BoxError> {
    let server = Postgres::shared().await?;
    let config = PostgresConfig::new(server.fresh_database().await?)
        .with_lock_timeout(PATIENCE)
        .with_statement_timeout(PATIENCE)
        .with_idle_in_transaction_timeout(PATIENCE)
        .with_answer_within(PATIENCE);
    Ok(PostgresStore::connect_with(config).await?)
}

/// Settings for tests that are not about polling: nothing is found by chance.
pub(crate) fn config() -> RelayConfig {
    RelayConfig::default().with_retry(Duration::from_millis(5), Duration::from_millis(50))
}

pub(crate) fn relay(store: &PostgresStore, broker: &Arc<Broker>) -> Relay {
    Relay::start_with(store, Arc::clone(broker) as _, config()).unwrap()
}

/// Writes records in one transaction.
pub(crate) async fn commit(store: &PostgresStore, records: Vec<Record>) {
    let mut transaction = store.pool().begin().await.unwrap();
    outbox(store).put(&mut transaction, records).await.unwrap();
    transaction.commit().await.unwrap();
}

pub(crate) fn outbox(store: &PostgresStore) -> Outbox {
    store.outbox("orders")
}

pub(crate) fn record(key: &str, value: impl ToString) -> Record {
    Record::new("t", value.to_string()).with_key(key.to_owned())
}

pub(crate) async fn is_empty(store: &PostgresStore) {
    until("an empty outbox", async || outbox(store).lag().await.unwrap().waiting == 0).await;
}

#[derive(Debug, Serialize, Deserialize, Event, PartialEq)]
#[event(topic = "orders", type = "order.placed", key = "id", crate = "tidings_core")]
pub(crate) struct OrderPlaced {
    pub(crate) id: u32,
    pub(crate) amount: i64,
}

async fn all_or_nothing() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let _relay = relay(&store, &broker);
    let mut transaction = store.pool().begin().await?;
    outbox(&store).put(&mut transaction, vec![record("a", "rolled back")]).await?;
    transaction.rollback().await?;
    let mut transaction = store.pool().begin().await?;
    outbox(&store).put(&mut transaction, vec![record("a", 1), record("b", 2)]).await?;
    outbox(&store).put(&mut transaction, vec![record("a", 3)]).await?;
    assert_eq!(broker.values(), [""; 0], "published before the commit");
    transaction.commit().await?;
    broker.holds(3).await;
    is_empty(&store).await;
    let mut values = broker.values();
    values.sort();
    assert_eq!(values, ["1", "2", "3"]);
    Ok(())
}

async fn written_as_by_a_publisher() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let outbox = store.outbox("shop").with_topic_prefix("eu.");
    let trace = TraceParent::new_root();
    let options =
        PublishOptions::default().with_traceparent(trace).with_correlation_id("c").with_header("tenant", "acme");
    let mut transaction = store.pool().begin().await?;
    let event = OrderPlaced { id: 7, amount: 3 };
    let id = outbox.publish_with(&mut transaction, &event, &options).await?;
    let ids = outbox
        .publish_all(&mut transaction, &[OrderPlaced { id: 8, amount: 1 }, OrderPlaced { id: 9, amount: 2 }])
        .await?;
    let refused =
        outbox.publish_with(&mut transaction, &event, &PublishOptions::default().with_header("eventType", "x")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    transaction.commit().await?;
    let _relay = relay(&store, &broker);
    broker.holds(3).await;
    let records = broker.records();
    let find = |key: &str| records.iter().find(|r| r.key.as_deref() == Some(key.as_bytes())).unwrap();
    let first = find("7");
    assert_eq!(first.topic, "eu.orders");
    for (name, value) in [
        (headers::TRACEPARENT, trace.to_string().as_str()),
        (headers::CORRELATION_ID, "c"),
        ("tenant", "acme"),
        (headers::EVENT_TYPE, OrderPlaced::TYPE),
    ] {
        assert_eq!(first.headers.get_str(name), Some(value));
    }
    let stored = StoredRecord::from_record(first.clone(), 0, Timestamp::now());
    let envelope = codec::decode::<OrderPlaced>(&stored)?;
    assert_eq!((envelope.id, envelope.source.as_str(), envelope.payload), (id, "shop", event));
    assert_eq!((id.get_version_num(), ids[0].get_version_num()), (7, 7));
    let trace_of = |key: &str| find(key).headers.get_str(headers::TRACEPARENT).unwrap().parse::<TraceParent>().unwrap();
    assert_eq!(trace_of("8").trace_id(), trace_of("9").trace_id());
    assert_ne!(trace_of("8").span_id(), trace_of("9").span_id());
    Ok(())
}

/// The next version of [`OrderPlaced`].
#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", version = 2, key = "id", crate = "tidings_core")]
#[event(downcast_to = OrderPlaced)]
struct OrderPlacedV2 {
    id: u32,
    amounts: Vec<i64>,
}

impl From<&OrderPlacedV2> for OrderPlaced {
    fn from(new: &OrderPlacedV2) -> Self {
        Self { id: new.id, amount: new.amounts.iter().sum() }
    }
}

async fn in_an_older_version() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let outbox = store.outbox("shop").with_event_version::<OrderPlaced>();
    let mut transaction = store.pool().begin().await?;
    let id = outbox.publish(&mut transaction, &OrderPlacedV2 { id: 7, amounts: vec![1, 2] }).await?;
    transaction.commit().await?;
    let _relay = relay(&store, &broker);
    broker.holds(1).await;
    let stored = StoredRecord::from_record(broker.records()[0].clone(), 0, Timestamp::now());
    let envelope = codec::decode::<OrderPlaced>(&stored)?;
    assert_eq!((envelope.id, envelope.version), (id, OrderPlaced::VERSION));
    assert_eq!(envelope.payload, OrderPlaced { id: 7, amount: 3 });
    Ok(())
}

async fn byte_for_byte() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let mut full = Record::new("t", vec![0, 159]).with_key(vec![0xff, 0]).with_partition(u32::MAX);
    full = full.with_timestamp(Timestamp::from_millis(-5)).with_header("a", "1").with_header("a", "");
    full.headers.push(Header::null("n"));
    let tombstone = Record::tombstone("t").with_key("");
    let bare = Record::new("u", "");
    commit(&store, vec![full.clone(), tombstone.clone(), bare.clone()]).await;
    let _relay = relay(&store, &broker);
    until("three records", async || broker.records().len() == 3).await;
    let records = broker.records();
    assert!([full, tombstone, bare].iter().all(|record| records.contains(record)), "{records:?}");
    Ok(())
}

async fn refused_at_once() -> Result<(), BoxError> {
    let store = store().await?;
    let mut transaction = store.pool().begin().await?;
    for topic in ["", "a\0b"] {
        let error = outbox(&store).put(&mut transaction, vec![Record::new(topic, "x")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    // Nothing was sent to the server: the transaction goes on.
    outbox(&store).put(&mut transaction, vec![record("a", 1)]).await?;
    transaction.commit().await?;
    Ok(())
}

async fn repeats() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    broker.mute.store(true, Ordering::SeqCst);
    let mut transaction = store.pool().begin().await?;
    let id = outbox(&store).publish(&mut transaction, &OrderPlaced { id: 1, amount: 1 }).await?;
    transaction.commit().await?;
    let first = relay(&store, &broker);
    until("the record at the broker", async || broker.records().len() == 1).await;
    drop(first);
    // Only then: an answer that comes while its task ends would still let it delete the record.
    until("the end of the first relay", async || Arc::strong_count(&broker) == 1).await;
    broker.speak();
    let second = relay(&store, &broker);
    until("the repeat", async || broker.records().len() == 2).await;
    is_empty(&store).await;
    second.shutdown(DEADLINE).await?;
    let ids = broker.records().into_iter().map(|record| {
        codec::decode::<OrderPlaced>(&StoredRecord::from_record(record, 0, Timestamp::now())).unwrap().id
    });
    assert!(ids.into_iter().all(|repeated| repeated == id));
    Ok(())
}

async fn woken() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let config = config().with_poll_interval(LONG).with_lag_interval(LONG);
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, config)?;
    for round in 1..=3 {
        // Asleep for good: its first looks are over.
        until("a sleeper", async || relay.status().state == RelayState::Idle && sleepers(&store).await == 1).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        commit(&store, vec![record("a", round)]).await;
        broker.holds(round).await;
    }
    relay.shutdown(DEADLINE).await?;
    assert_eq!(sleepers(&store).await, 0);
    Ok(())
}

async fn sleepers(store: &PostgresStore) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM tidings.outbox_sleepers").fetch_one(store.pool()).await.unwrap()
}

async fn polling() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let config = config().with_listen(false).with_poll_interval(Duration::from_millis(20));
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, config)?;
    for round in 1..=3 {
        until("an idle relay", async || relay.status().state == RelayState::Idle).await;
        commit(&store, vec![record("a", round)]).await;
        broker.holds(round).await;
    }
    assert_eq!(sleepers(&store).await, 0, "nobody asks for notifications");
    Ok(())
}

async fn shared() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let relays: Vec<Relay> = (0..3).map(|_| relay(&store, &broker)).collect();
    until("an equal share", async || {
        let shares: Vec<usize> = relays.iter().map(|relay| relay.status().shards).collect();
        shares.iter().sum::<usize>() == 64 && shares.iter().all(|share| (20..=22).contains(share))
    })
    .await;
    commit(&store, (0..500).map(|n| record(&n.to_string(), n)).collect()).await;
    broker.holds(500).await;
    // Records that the last relay has not deleted when it is dropped would be published again.
    is_empty(&store).await;
    let mut relays = relays.into_iter();
    let survivor = relays.next().unwrap();
    relays.next().unwrap().shutdown(DEADLINE).await?;
    drop(relays.next());
    until("all shards", async || survivor.status().shards == 64).await;
    commit(&store, (500..1_000).map(|n| record(&n.to_string(), n)).collect()).await;
    broker.holds(1_000).await;
    is_empty(&store).await;
    assert_eq!(broker.records().len(), 1_000, "none was published twice");
    Ok(())
}

async fn bounded() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    commit(&store, (0..300).map(|n| record(&n.to_string(), n)).collect()).await;
    broker.mute.store(true, Ordering::SeqCst);
    let few = config().with_batch_records(20);
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, few)?;
    until("the bound", async || broker.records().len() == 20).await;
    until("its status", async || relay.status().in_flight == 20).await;
    broker.speak();
    broker.holds(300).await;
    assert!(broker.most_waiting.load(Ordering::SeqCst) <= 20);
    relay.shutdown(DEADLINE).await?;
    // In bytes: one record more than fits.
    let big = |n: u32| record(&n.to_string(), format!("{n}{}", "x".repeat(10_000)));
    commit(&store, (0..30).map(big).collect()).await;
    broker.mute.store(true, Ordering::SeqCst);
    let small = config().with_batch_bytes(45_000);
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, small)?;
    until("the bound", async || broker.records().len() == 305).await;
    until("its status", async || relay.status().in_flight == 5).await;
    broker.speak();
    broker.holds(330).await;
    Ok(())
}

async fn shutdown() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    commit(&store, (0..10).map(|n| record(&n.to_string(), n)).collect()).await;
    broker.mute.store(true, Ordering::SeqCst);
    let first = relay(&store, &broker);
    until("records at the broker", async || broker.records().len() == 10).await;
    let error = first.shutdown(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Indeterminate);
    assert_eq!(first.status().state, RelayState::Stopped);
    let second = relay(&store, &broker);
    until("the repeats at the broker", async || broker.records().len() == 20).await;
    let ending = tokio::spawn(async move { second.shutdown(DEADLINE).await });
    broker.speak();
    ending.await??;
    assert_eq!(outbox(&store).lag().await?.waiting, 0, "what was answered is deleted");
    Ok(())
}

async fn lag() -> Result<(), BoxError> {
    let (store, broker) = (store().await?, Broker::new());
    let empty = outbox(&store).lag().await?;
    assert_eq!((empty.waiting, empty.oldest), (0, None));
    commit(&store, (0..7).map(|n| record(&n.to_string(), n)).collect()).await;
    until("an age", async || outbox(&store).lag().await.unwrap().oldest > Some(Duration::from_millis(20))).await;
    assert_eq!(outbox(&store).lag().await?.waiting, 7);
    broker.down.store(true, Ordering::SeqCst);
    let often = config().with_lag_interval(Duration::from_millis(20));
    let relay = Relay::start_with(&store, Arc::clone(&broker) as _, often)?;
    until("the lag in the status", async || relay.status().lag.is_some_and(|lag| lag.waiting == 7)).await;
    until("a problem", async || relay.status().problem.is_some_and(|text| text.contains("broker is down"))).await;
    assert!(!relay.status().is_healthy());
    broker.down.store(false, Ordering::SeqCst);
    until("no lag", async || relay.status().lag.is_some_and(|lag| lag.waiting == 0)).await;
    until("health", async || relay.status().is_healthy()).await;
    assert_eq!(relay.status().published, 7);
    Ok(())
}

async fn through_a_transport() -> Result<(), BoxError> {
    let store = store().await?;
    let transport = MemoryTransport::new();
    transport.faults().down();
    let relay = Relay::start(&store, &transport, config())?;
    commit(&store, vec![record("a", 1)]).await;
    until("a problem", async || relay.status().problem.is_some()).await;
    transport.faults().up();
    is_empty(&store).await;
    relay.shutdown(DEADLINE).await?;
    Ok(())
}
