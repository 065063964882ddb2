//! Records that fail: what is forwarded, what becomes a letter, and what a crash or an outage repeats.

use std::time::Duration;

use bytes::Bytes;
use tidings_core::{BoxError, Delivery, ErrorKind, Header, RawBatch, Record, Start, headers};
use tidings_memory::{MemoryStore, MemoryTransport, PublishFault};
use tidings_service::telemetry::PartitionState;
use tidings_service::{BatchOptions, HandlerExt, PauseReason, Retry, Router, Service, State};
use tokio::time::sleep;

use crate::common::{Log, caught_up, letters, publish, records};
use crate::{DELAYS, Runs, order, orders, retry, service, started};

#[tokio::test(start_paused = true)]
async fn a_rejected_record_becomes_a_letter_at_once() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "never")]).await;
    caught_up(&service).await;
    assert_eq!((letters(&transport, "orders-dlq").await.len(), service.snapshot().waiting()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_was_forwarded_twice_is_handled_once_with_a_store() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs).with_idempotency(MemoryStore::new()), &transport).await;
    // Without an envelope its id is made of its first topic, partition and offset.
    publish(&transport, vec![order("a", "later:3")]).await;
    caught_up(&service).await;
    let waiting = records(&transport, "orders-retry-billing-30s").await.remove(0);
    let mut again = Record::tombstone("orders-retry-billing-30s").with_headers(waiting.headers);
    (again.key, again.value) = (waiting.key, waiting.value);
    publish(&transport, vec![again]).await;
    sleep(Duration::from_secs(60)).await;
    caught_up(&service).await;
    assert_eq!(runs.seconds("later:3"), [0, 0, 30]);
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.duplicates), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_count_once_where_a_store_keeps_them_too() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs).with_idempotency(MemoryStore::new()), &transport).await;
    publish(&transport, vec![order("a", "bad")]).await;
    sleep(Duration::from_secs(5_000)).await;
    caught_up(&service).await;
    assert_eq!(runs.seconds("bad"), [0, 0, 30, 330, 3_930]);
    assert_eq!(letters(&transport, "orders-dlq").await[0].attempts, 5);
}

#[tokio::test(start_paused = true)]
async fn a_redriven_letter_starts_anew_without_the_headers_of_its_waits() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs).with_idempotency(MemoryStore::new()), &transport).await;
    publish(&transport, vec![order("a", "bad")]).await;
    sleep(Duration::from_secs(5_000)).await;
    caught_up(&service).await;
    let redriven = letters(&transport, "orders-dlq").await[0].to_redrive();
    let own = |header: &Header| header.name.starts_with(b"retry-") || header.name.starts_with(b"dlq-");
    assert!(!redriven.headers.iter().any(own), "{:?}", redriven.headers);
    publish(&transport, vec![redriven]).await;
    let begun = runs.started.elapsed().as_secs();
    sleep(Duration::from_secs(5_000)).await;
    caught_up(&service).await;
    assert_eq!(runs.seconds("bad")[5..], [0, 0, 30, 330, 3_930].map(|after| begun + after));
    let letters = letters(&transport, "orders-dlq").await;
    assert_eq!((letters.len(), letters[1].attempts), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn a_retry_topic_that_is_down_pauses_the_source_until_it_is_up() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    let fault = PublishFault::new(ErrorKind::Unavailable).with_topic("orders-retry-billing-30s").with_times(3);
    transport.faults().publish(fault);
    publish(&transport, vec![order("a", "later:3")]).await;
    sleep(Duration::from_millis(150)).await;
    let paused = service.status().await.partitions.into_iter().find(|p| p.partition.topic == "orders");
    assert_eq!(paused.map(|partition| partition.paused), Some(vec![PauseReason::Publisher]));
    caught_up(&service).await;
    assert_eq!(records(&transport, "orders-retry-billing-30s").await.len(), 1);
    sleep(Duration::from_secs(60)).await;
    caught_up(&service).await;
    assert_eq!(runs.seconds("later:3"), [0, 0, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_its_retry_topic_refuses_becomes_a_letter() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    let fault = PublishFault::new(ErrorKind::TooLarge).with_topic("orders-retry-billing-30s").with_times(1);
    transport.faults().publish(fault);
    publish(&transport, vec![order("a", "bad")]).await;
    caught_up(&service).await;
    let letters = letters(&transport, "orders-dlq").await;
    assert_eq!((letters[0].kind, letters[0].attempts), (ErrorKind::Failed, 2));
    assert!(letters[0].error.starts_with("bad at attempt 2; it cannot wait"), "{}", letters[0].error);
}

#[tokio::test(start_paused = true)]
async fn what_waits_outlives_the_service() {
    let (transport, runs) = (orders().await, Runs::new());
    let first = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "later:3")]).await;
    caught_up(&first).await;
    let report = first.shutdown(Duration::from_secs(1)).await.expect("it stops");
    assert_eq!(report.records(), 0, "what waits is in its topic");
    sleep(Duration::from_secs(10)).await;
    let second = started(service("billing", &runs).with_start(Start::Latest), &transport).await;
    caught_up(&second).await;
    assert_eq!(second.snapshot().waiting(), 1);
    sleep(Duration::from_secs(60)).await;
    caught_up(&second).await;
    assert_eq!(runs.seconds("later:3"), [0, 0, 30], "due as before, neither early nor late");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_record_in_a_retry_topic_is_skipped() {
    let (transport, runs, log) = (orders().await, Runs::new(), Log::default());
    let service = started(service("billing", &runs).with_observer(log.clone()), &transport).await;
    publish(&transport, vec![order("a", "later:3")]).await;
    caught_up(&service).await;
    let mut foreign = records(&transport, "orders-retry-billing-30s").await.remove(0);
    foreign.headers.set(headers::RETRY_SERVICE, "shipping");
    let topic = "orders-retry-billing-30s";
    let foreign = Record::new(topic, Bytes::from_static(b"bad")).with_headers(foreign.headers);
    publish(&transport, vec![foreign, Record::new(topic, "bad"), Record::tombstone(topic)]).await;
    sleep(Duration::from_secs(60)).await;
    caught_up(&service).await;
    assert_eq!(runs.seconds("bad"), [0; 0]);
    assert_eq!(service.status().await.totals.skipped, 3);
    assert!(log.lines().contains(&"forwarded 0".to_owned()), "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn records_of_a_batch_wait_one_by_one() {
    let (transport, runs) = (orders().await, Runs::new());
    async fn batch(delivery: Delivery, State(runs): State<Runs>) -> Result<(), BoxError> {
        let bad = delivery.records().position(|record| record.value.as_deref() == Some(b"bad"));
        let attempt = delivery.attempt();
        runs.add(&delivery);
        match bad {
            Some(_) if attempt < 3 => Err("bad".into()),
            _ => Ok(()),
        }
    }
    async fn all(raw: RawBatch, delivery: Delivery, state: State<Runs>) -> Result<(), BoxError> {
        drop(raw);
        batch(delivery, state).await
    }
    let router = Router::new().on_topic("orders", all.batch(BatchOptions::new(4))).with_state(runs.clone());
    let service = started(Service::new("billing", router).with_retry(retry()), &transport).await;
    publish(&transport, vec![order("a", "x"), order("b", "bad"), order("c", "y"), order("d", "z")]).await;
    caught_up(&service).await;
    assert_eq!(service.snapshot().waiting(), 1);
    sleep(Duration::from_secs(60)).await;
    caught_up(&service).await;
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.forwarded), (4, 1));
    assert_eq!(runs.seconds("bad").last(), Some(&30));
}

/// Fails a batch with an error that names no record, if one of them is bad.
async fn any_is_bad(raw: RawBatch, delivery: Delivery, State(runs): State<Runs>) -> Result<(), BoxError> {
    drop(raw);
    runs.add(&delivery);
    let is_bad = |value: Option<&Bytes>| value.is_some_and(|value| &value[..] == b"bad");
    let attempts = delivery.attempt();
    // The innocent one fails alone until it has waited once.
    let fails = delivery.len() == 1 && attempts < 2 || delivery.records().any(|record| is_bad(record.value.as_ref()));
    if fails { Err("some of them".into()) } else { Ok(()) }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waited_is_not_given_up_for_the_failure_of_another() {
    let (transport, runs) = (orders().await, Runs::new());
    let batch = any_is_bad.batch(BatchOptions::new(2).with_wait(Duration::from_millis(50)));
    let router = Router::new().on_topic("orders", batch).with_state(runs.clone());
    let retry = Retry::never().then_topics([DELAYS[0]]);
    let service = started(Service::new("billing", router).with_retry(retry), &transport).await;
    // Both fail alone after their batch, wait, and are a batch again.
    publish(&transport, vec![order("a", "bad"), order("b", "innocent")]).await;
    caught_up(&service).await;
    assert_eq!(service.snapshot().waiting(), 2);
    sleep(Duration::from_secs(40)).await;
    caught_up(&service).await;
    let letters = letters(&transport, "orders-dlq").await;
    let lettered: Vec<_> = letters.iter().filter_map(|letter| letter.record.value.as_deref()).collect();
    assert_eq!(lettered, [b"bad"], "{:?}", runs.all());
}

/// Publishes the first record of the retry topic again, with this header changed.
async fn forged(transport: &MemoryTransport, header: &'static str, value: String) {
    let waiting = records(transport, "orders-retry-billing-30s").await.remove(0);
    let mut forged = Record::tombstone("orders-retry-billing-30s").with_headers(waiting.headers);
    forged.headers.set(header, value);
    (forged.key, forged.value) = (waiting.key, waiting.value);
    publish(transport, vec![forged]).await;
}

#[tokio::test(start_paused = true)]
async fn a_due_time_by_a_wrong_clock_holds_back_nothing_for_long() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "later:3")]).await;
    caught_up(&service).await;
    forged(&transport, headers::RETRY_DUE, i64::MAX.to_string()).await;
    caught_up(&service).await;
    sleep(Duration::from_secs(10)).await;
    publish(&transport, vec![order("b", "later:3")]).await;
    caught_up(&service).await;
    sleep(Duration::from_secs(29)).await;
    assert_eq!(runs.seconds("later:3"), [0, 0, 10, 10, 30], "it is not early either");
    // A minute after its delay.
    sleep(Duration::from_secs(100)).await;
    caught_up(&service).await;
    assert_eq!((runs.all().len(), service.snapshot().waiting()), (7, 0), "{:?}", runs.all());
}

#[tokio::test(start_paused = true)]
async fn a_number_of_attempts_beyond_all_is_no_overflow() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "later:3")]).await;
    caught_up(&service).await;
    forged(&transport, headers::RETRY_ATTEMPT, u32::MAX.to_string()).await;
    sleep(Duration::from_secs(60)).await;
    caught_up(&service).await;
    assert_eq!(runs.all().last().map(|run| run.2), Some(u32::MAX));
    assert_eq!(service.status().await.totals.handled, 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_removed_delay_is_still_read() {
    let (transport, runs) = (orders().await, Runs::new());
    let first = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "bad")]).await;
    caught_up(&first).await;
    first.shutdown(Duration::from_secs(1)).await.expect("it stops");
    let fewer = Retry::never().then_topics([DELAYS[1]]).with_former_topics([DELAYS[0]]);
    let second = started(service("billing", &runs).with_retry(fewer), &transport).await;
    sleep(Duration::from_secs(40)).await;
    publish(&transport, vec![order("b", "bad")]).await;
    sleep(Duration::from_secs(1_000)).await;
    caught_up(&second).await;
    assert_eq!(runs.seconds("bad"), [0, 0, 30, 40, 330, 340]);
    assert_eq!(records(&transport, "orders-retry-billing-30s").await.len(), 1, "nothing more waits there");
    assert_eq!(letters(&transport, "orders-dlq").await.len(), 2);
}

/// Hangs when its record has waited.
async fn hangs(delivery: Delivery) -> Result<(), BoxError> {
    if delivery.attempt() > 1 {
        std::future::pending::<()>().await;
    }
    Err("not yet".into())
}

#[tokio::test(start_paused = true)]
async fn a_due_record_that_hangs_is_a_stall_while_another_waits() {
    let transport = orders().await;
    let router = Router::new().on_topic("orders", hangs);
    let service = Service::new("billing", router)
        .with_retry(Retry::never().then_topics([DELAYS[2]]))
        .with_handler_timeout(None)
        .with_stall_after(Duration::from_secs(60));
    let service = started(service, &transport).await;
    publish(&transport, vec![order("a", "x")]).await;
    sleep(Duration::from_secs(1_800)).await;
    publish(&transport, vec![order("b", "y")]).await;
    sleep(Duration::from_secs(2_100)).await;
    let snapshot = service.snapshot();
    assert_eq!((snapshot.waiting(), snapshot.due()), (1, 1));
    let tier = snapshot.partitions.iter().find(|p| p.partition.topic != "orders").expect("it is assigned");
    assert_eq!(tier.state, PartitionState::Stalled);
}
