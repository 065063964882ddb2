//! Snapshots of running services: counters, durations, lag, and the states of partitions.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{caught_up, publish, start, topics};
use tidings_core::{
    BoxError, Delivery, ErrorKind, PublisherExt, RawBatch, Record, TopicPartition, Transport, reject, unavailable,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::telemetry::{HoldCause, PartitionSnapshot, PartitionState, Snapshot};
use tidings_service::{
    BatchOptions, DeliveryOrder, EventPublisher, HandlerExt, PauseReason, Retry, Router, Service, ServiceHandle,
    ServiceState, State,
};
use tokio::time::{sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);

fn record(value: &'static str) -> Record {
    Record::new("t", value)
}

/// A service with one topic of one partition, whose handler fails as its records say.
async fn with(handler: Router, transport: &MemoryTransport) -> ServiceHandle {
    topics(transport, &["t"]).await;
    start(Service::new("s", handler).with_workers(2), transport).await
}

/// Waits until a snapshot matches, and returns it.
async fn until(service: &ServiceHandle, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let wait = async {
        loop {
            let snapshot = service.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    match timeout(Duration::from_secs(900), wait).await {
        Ok(snapshot) => snapshot,
        Err(_) => panic!("{what}: {:#?}", service.snapshot()),
    }
}

fn only(snapshot: &Snapshot) -> &PartitionSnapshot {
    let [partition] = &snapshot.partitions[..] else { panic!("{snapshot:#?}") };
    partition
}

fn forever() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| std::future::pending::<()>().await).named("forever"))
}

#[tokio::test(start_paused = true)]
async fn outcomes_attempts_and_failures_are_counted_by_handler() {
    let transport = MemoryTransport::new();
    let failed_once = Arc::new(AtomicBool::new(false));
    let handler = async |delivery: Delivery, State(failed): State<Arc<AtomicBool>>| -> Result<(), BoxError> {
        match delivery.record().value.as_deref() {
            Some(b"bad") => Err(reject("no").into()),
            Some(b"once") if !failed.swap(true, Ordering::Relaxed) => Err("not yet".into()),
            _ => Ok(()),
        }
    };
    let router = Router::new().on_topic("t", handler.named("h")).with_state(failed_once);
    let service = with(router, &transport).await;
    publish(&transport, vec![record("good"), record("bad"), record("once"), Record::tombstone("t")]).await;
    caught_up(&service).await;
    let snapshot = service.snapshot();
    let [handler] = &snapshot.handlers[..] else { panic!("{snapshot:#?}") };
    assert_eq!(handler.handler, "h");
    assert_eq!((handler.totals.handled, handler.totals.dead_lettered, handler.totals.retried), (3, 1, 1));
    assert_eq!((handler.attempts(), handler.failures), (5, 2));
    assert_eq!(snapshot.totals(), service.status().await.totals);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_waits_is_measured_to_its_end() {
    let transport = MemoryTransport::new();
    let slow = async |_: Delivery| sleep(Duration::from_millis(60)).await;
    let service = with(Router::new().on_topic("t", slow), &transport).await;
    publish(&transport, vec![record("1"), record("2"), record("3")]).await;
    caught_up(&service).await;
    let durations = service.snapshot().handlers[0].durations;
    assert_eq!((durations.count(), durations.sum()), (3, Duration::from_millis(180)));
    let counted: Vec<_> = durations.buckets().filter(|(_, count)| *count > 0).map(|(bound, _)| bound).collect();
    assert_eq!(counted.first(), Some(&0.075));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_times_out_is_measured_too() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let service = Service::new("s", forever()).with_handler_timeout(Duration::from_secs(2));
    let service = service.with_retry(Retry::never()).start(&transport).await.unwrap();
    publish(&transport, vec![record("1")]).await;
    caught_up(&service).await;
    let handler = &service.snapshot().handlers[0];
    assert_eq!((handler.attempts(), handler.failures, handler.totals.dead_lettered), (1, 1, 1));
    assert_eq!(handler.durations.sum(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn ready_deliveries_and_batches_are_counted_once_each() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t", "u"]).await;
    let batches = async |batch: RawBatch| drop(batch);
    let router =
        Router::new().on_topic("t", async |_: Delivery| {}).on_topic("u", batches.batch(BatchOptions::new(10)));
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    publish(&transport, (0..100).map(|n| Record::new("t", n.to_string()).with_key(n.to_string())).collect()).await;
    publish(&transport, (0..40).map(|n| Record::new("u", n.to_string()).with_key(n.to_string())).collect()).await;
    caught_up(&service).await;
    let snapshot = service.snapshot();
    let counted: Vec<_> = snapshot.handlers.iter().map(|h| (h.totals.handled, h.attempts())).collect();
    assert_eq!(counted[0], (100, 100));
    assert!(counted[1].0 == 40 && counted[1].1 < 40, "a delivery of several records is one: {counted:?}");
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_exact_with_a_stopped_handler_and_zero_when_caught_up() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let (open, gate) = tokio::sync::watch::channel(false);
    let waits = async |_: Delivery, State(gate): State<tokio::sync::watch::Receiver<bool>>| {
        let opened = gate.clone().wait_for(|open| *open).await.is_ok();
        assert!(opened);
    };
    let router = Router::new().on_topic("t", waits).with_state(gate);
    let service = start(Service::new("s", router).with_handler_timeout(None), &transport).await;
    let idle = until(&service, "the idle partition", |s| !s.partitions.is_empty()).await;
    assert_eq!((idle.lag(), idle.time_lag(), only(&idle).unmoved), (0, Duration::ZERO, Duration::ZERO));
    let publisher = transport.publisher().await.unwrap();
    for _ in 0..100 {
        publisher.publish_one(record("x")).await.unwrap();
        sleep(Duration::from_millis(600)).await;
    }
    let behind = service.snapshot();
    assert_eq!((behind.lag(), only(&behind).in_flight), (100, 100));
    let age = behind.time_lag().as_secs_f64();
    assert!((age - 60.0).abs() <= 1.0, "{age}");
    open.send(true).unwrap();
    caught_up(&service).await;
    let done = service.snapshot();
    assert_eq!((done.lag(), done.time_lag(), done.bytes_in_flight), (0, Duration::ZERO, 0));
    sleep(10 * MINUTE).await;
    let idle = service.snapshot();
    assert_eq!((idle.time_lag(), only(&idle).state), (Duration::ZERO, PartitionState::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_stalls_its_partition_and_is_named() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let service = start(Service::new("s", forever()).with_handler_timeout(None), &transport).await;
    publish(&transport, vec![record("0"), record("1")]).await;
    sleep(MINUTE - Duration::from_secs(1)).await;
    assert_eq!(only(&service.snapshot()).state, PartitionState::Ok);
    sleep(Duration::from_secs(3)).await;
    let snapshot = service.snapshot();
    let partition = only(&snapshot);
    assert_eq!(partition.state, PartitionState::Stalled);
    let holding = partition.holding.as_ref().expect("it is known");
    assert_eq!((holding.offset, holding.handler.as_deref()), (0, Some("forever")));
    assert_eq!((holding.attempt, holding.cause, holding.error), (Some(1), HoldCause::Handler, None));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_again_and_again_stalls_its_partition() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let fails = async |_: Delivery| Err::<(), BoxError>("no".into());
    let retry = Retry::exponential(Duration::from_secs(7)).without_jitter().with_cap(Duration::from_secs(7));
    let service =
        Service::new("s", Router::new().on_topic("t", fails.named("f"))).with_retry(retry.with_max_retries(99));
    let service = service.start(&transport).await.unwrap();
    publish(&transport, vec![record("0")]).await;
    let snapshot =
        until(&service, "a stall", |s| s.partitions.iter().any(|p| p.state == PartitionState::Stalled)).await;
    assert!(snapshot.uptime < MINUTE + Duration::from_secs(5), "{:?}", snapshot.uptime);
    let holding = only(&snapshot).holding.clone().expect("it is known");
    assert_eq!((holding.cause, holding.error), (HoldCause::Retry, Some(ErrorKind::Failed)));
    assert!(holding.attempt.is_some_and(|attempt| attempt > 5), "{holding:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_due_time_an_operator_or_the_breaker_is_not_stalled() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let fails = async |_: Delivery| Err::<(), BoxError>("no".into());
    let due_in_ten_minutes = Retry::exponential(10 * MINUTE).without_jitter().with_cap(10 * MINUTE);
    let service = Service::new("s", Router::new().on_topic("t", fails)).with_retry(due_in_ten_minutes);
    let service = service.start(&transport).await.unwrap();
    publish(&transport, vec![record("0")]).await;
    sleep(5 * MINUTE).await;
    let waiting = service.snapshot();
    assert_eq!(only(&waiting).state, PartitionState::Ok);
    assert!(only(&waiting).holding.as_ref().is_some_and(|holding| holding.due > Some(4 * MINUTE)), "{waiting:#?}");
    assert!(only(&waiting).time_lag >= 4 * MINUTE);

    service.pause().unwrap();
    sleep(7 * MINUTE).await;
    let paused = service.snapshot();
    assert_eq!(only(&paused).state, PartitionState::Paused(PauseReason::Operator));
    assert_eq!(paused.state, ServiceState::Paused);
    assert_eq!(only(&paused).pauses[0].lasted.as_secs(), 420);
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_lag_never_falls_is_slow_until_it_does() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let slow = async |_: Delivery| sleep(Duration::from_secs(10)).await;
    let router = Router::new().on_topic("t", slow);
    let service = start(Service::new("s", router).with_delivery_order(DeliveryOrder::Partition), &transport).await;
    let publisher = transport.publisher().await.unwrap();
    for _ in 0..100 {
        publisher.publish_one(record("x")).await.unwrap();
        sleep(Duration::from_secs(5)).await;
    }
    let snapshot = service.snapshot();
    assert_eq!(only(&snapshot).state, PartitionState::Slow, "{snapshot:#?}");
    sleep(MINUTE).await;
    assert_eq!(only(&service.snapshot()).state, PartitionState::Ok, "now it falls");
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_paused_with_its_reason_while_a_dependency_is_down() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let down = async |_: Delivery| Err::<(), BoxError>(unavailable("the database is down").into());
    let service = start(Service::new("s", Router::new().on_topic("t", down)), &transport).await;
    publish(&transport, vec![record("0")]).await;
    sleep(5 * MINUTE).await;
    let snapshot = service.snapshot();
    assert_eq!(only(&snapshot).state, PartitionState::Paused(PauseReason::Handler));
    assert!(snapshot.counters.pauses.contains(&(PauseReason::Handler, 1)), "{:?}", snapshot.counters);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_partition_names_the_offset_and_a_rewound_one_recovers() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let partition = TopicPartition::new("t", 0);
    publish(&transport, vec![record("0"), record("1"), record("2")]).await;
    transport.faults().unreadable(&partition, 1..2);
    let service = start(Service::new("s", Router::new().on_topic("t", async |_: Delivery| {})), &transport).await;
    until(&service, "unreadable", |s| s.partitions.iter().any(|p| p.state == PartitionState::Unreadable(1))).await;
    service.skip(&partition, 1..2).await.unwrap();
    caught_up(&service).await;
    assert_eq!(only(&service.snapshot()).state, PartitionState::Ok);

    assert!(transport.faults().truncate(&partition, 0));
    publish(&transport, vec![record("0")]).await;
    let rewound = |s: &Snapshot| s.partitions.iter().any(|p| p.settled == 1 && p.epoch > 0);
    until(&service, "the new log", rewound).await;
    caught_up(&service).await;
    assert_eq!(only(&service.snapshot()).state, PartitionState::Ok, "the end of the new log is reached");
}

#[tokio::test(start_paused = true)]
async fn fetches_commits_claims_and_publishes_are_counted() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t", "events"]).await;
    let returns = async |_: Delivery| Happened { id: "1".into() };
    let router = Router::new().on_topic("t", returns);
    let service = start(Service::new("s", router).with_idempotency(MemoryStore::new()), &transport).await;
    publish(&transport, vec![record("0"), record("1")]).await;
    caught_up(&service).await;
    let snapshot = service.snapshot();
    assert!(snapshot.joined && snapshot.draining.is_none() && snapshot.reading_failed.is_none());
    let counters = &snapshot.counters;
    assert_eq!((counters.records_fetched, counters.rebalances, counters.read_failures), (2, 1, 0));
    assert!(counters.fetches > 0 && counters.bytes_fetched > 0 && counters.commits > 0, "{counters:?}");
    let claims = snapshot.claims.expect("it has a store");
    assert_eq!((claims.held, claims.granted, claims.refused, claims.duplicates), (0, 2, 0, 0));
    assert_eq!((snapshot.published.published, snapshot.published.failed), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_counts_what_the_broker_took_and_refused() {
    let transport = MemoryTransport::new();
    topics(&transport, &["events"]).await;
    let events = EventPublisher::new(&transport, "gateway");
    let stats = events.stats();
    events.publish(&Happened { id: "1".into() }).await.unwrap();
    let all: Vec<_> = (0..10).map(|n| Happened { id: n.to_string() }).collect();
    assert!(events.publish_all(&all).await.iter().all(Result::is_ok));
    transport.faults().fail_publishes(1, ErrorKind::Denied);
    events.publish(&Happened { id: "1".into() }).await.unwrap_err();
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.published, snapshot.failed, snapshot.calls), (11, 1, 3));
}

#[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
#[event(crate = "tidings_core", topic = "events", type = "happened", key = "id")]
struct Happened {
    id: String,
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_shown_from_its_begin_to_after_its_end() {
    let transport = MemoryTransport::new();
    let service = with(forever(), &transport).await;
    publish(&transport, vec![record("0")]).await;
    until(&service, "the delivery", |s| s.bytes_in_flight > 0).await;
    let stats = service.stats();
    let ending = tokio::spawn(service.shutdown(Duration::from_secs(10)));
    sleep(Duration::from_secs(5)).await;
    let draining = stats.snapshot();
    assert_eq!((draining.state, draining.draining), (ServiceState::Stopping, Some(Duration::from_secs(5))));
    ending.await.unwrap().unwrap();
    let ended = stats.snapshot();
    assert_eq!((ended.state, ended.partitions.len(), ended.bytes_in_flight), (ServiceState::Stopped, 0, 0));
}

#[test]
fn a_snapshot_is_taken_while_all_handlers_block_their_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let (began, begun) = std::sync::mpsc::channel::<()>();
    let blocks = async |_: Delivery, State(wait): State<Arc<dyn Fn() + Send + Sync>>| wait();
    let wait: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        began.send(()).expect("the test listens");
        let until_released = blocked.lock().expect("no panic").recv_timeout(MINUTE);
        until_released.expect("the test releases it");
    });
    let transport = MemoryTransport::new();
    let router = Router::new().on_topic("t", blocks.named("blocks")).with_state(wait);
    let service = runtime.block_on(async {
        let service = Service::new("s", router).start(&transport).await.unwrap();
        transport.publisher().await.unwrap().publish_one(record("0")).await.unwrap();
        service
    });
    begun.recv_timeout(MINUTE).expect("the handler begins");
    let deadline = std::time::Instant::now() + MINUTE;
    let snapshot = loop {
        let snapshot = service.snapshot();
        let is_seen = !snapshot.tasks.workers.is_empty() && snapshot.tasks.starved > Duration::ZERO;
        if is_seen || std::time::Instant::now() > deadline {
            break snapshot;
        }
        std::thread::yield_now();
    };
    assert_eq!(snapshot.tasks.workers[0].handler.as_deref(), Some("blocks"));
    assert!(snapshot.tasks.starved > Duration::ZERO, "the coordinator has no thread either");
    release.send(()).unwrap();
    runtime.block_on(service.shutdown(MINUTE)).unwrap();
}
