//! The lines of a service's log: when each is written, with its level, target and fields.

#[path = "common/capture.rs"]
mod capture;
#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture::{Captured, Line};
use common::{caught_up, publish, topics};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, Topic, TopicPartition, Transport, reject, unavailable};
use tidings_memory::{MemoryConfig, MemoryStore, MemoryTransport, StoreFaults};
use tidings_service::{Breaker, HandlerExt, Retry, Router, Service, ServiceHandle, State, TopicPolicy};
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

type Switch = Arc<AtomicBool>;

/// A transport with a topic of one partition, and the log.
async fn given() -> (MemoryTransport, Captured) {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    (transport, Captured::log())
}

fn ok() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| {}).named("h"))
}

/// A handler that fails as long as the switch is on.
fn failing(error: fn() -> BoxError) -> (Router, Switch) {
    let switch = Switch::new(AtomicBool::new(true));
    let handler = move |_: Delivery, State(on): State<Switch>| async move {
        if on.load(Ordering::Relaxed) { Err(error()) } else { Ok(()) }
    };
    (Router::new().on_topic("t", handler.named("h")).with_state(switch.clone()), switch)
}

async fn put(transport: &MemoryTransport, count: usize) {
    publish(transport, (0..count).map(|n| Record::new("t", "x").with_key(n.to_string())).collect()).await;
}

/// Waits for a line.
async fn line(log: &Captured, service: &str, message: &str) -> Line {
    let until = Instant::now() + Duration::from_secs(300);
    while log.of(service, message).is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(10)).await;
    }
    log.of(service, message).pop().unwrap_or_else(|| panic!("{message:?}: {:#?}", log.of(service, "")))
}

#[track_caller]
fn check(line: &Line, level: Level, target: &str, fields: &[(&str, &str)]) {
    assert_eq!((line.level, line.target), (level, target), "{line:?}");
    for (name, value) in fields {
        assert_eq!(line.get(name), Some(*value), "{name} of {line:#?}");
    }
}

async fn started(service: Service, transport: &MemoryTransport) -> ServiceHandle {
    service.start(transport).await.expect("it starts")
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_service() {
    let (transport, log) = given().await;
    let service = started(Service::new("life", ok()).with_idempotency(MemoryStore::new()), &transport).await;
    put(&transport, 3).await;
    caught_up(&service).await;
    let fields = [("group", "life-group"), ("transport", "memory"), ("topics", "t"), ("handlers", "1")];
    check(&log.only("life", "the service has started"), Level::INFO, "tidings::service", &fields);
    let fields = [("store", "MemoryStore"), ("dead_letters", "the transport's")];
    check(&log.only("life", "the service has started"), Level::INFO, "tidings::service", &fields);
    let assigned = log.only("life", "partitions are assigned");
    check(&assigned, Level::INFO, "tidings::group", &[("count", "1"), ("partitions", "t[0]"), ("group", "life-group")]);
    service.pause().unwrap();
    service.resume().unwrap();
    service.status().await;
    check(&log.only("life", "paused by an operator"), Level::INFO, "tidings::service", &[]);
    check(&log.only("life", "resumed by an operator"), Level::INFO, "tidings::service", &[]);
    service.shutdown(Duration::from_secs(10)).await.unwrap();
    let draining = log.only("life", "the service shuts down");
    check(
        &draining,
        Level::INFO,
        "tidings::service",
        &[("partitions", "1"), ("records", "0"), ("timeout_ms", "10000")],
    );
    let drained = log.only("life", "the service has shut down");
    check(&drained, Level::INFO, "tidings::service", &[("handled", "3"), ("dead_lettered", "0"), ("returned", "0")]);
}

#[tokio::test(start_paused = true)]
async fn partitions_that_move_to_another_member_and_back() {
    let (transport, log) = (MemoryTransport::new(), Captured::log());
    let both = [Topic::new("t").with_partitions(2), Topic::new("t-dlq")];
    assert!(transport.admin().await.unwrap().create_topics(&both).await.unwrap().iter().all(Result::is_ok));
    let first = started(Service::new("mover", ok()), &transport).await;
    caught_up(&first).await;
    let second = started(Service::new("joiner", ok()).with_group("mover-group"), &transport).await;
    line(&log, "joiner", "partitions are assigned").await;
    let revoking = log.only("mover", "partitions are revoked");
    check(&revoking, Level::INFO, "tidings::group", &[("count", "1"), ("group", "mover-group")]);
    assert!(revoking.get("deadline_ms").is_some());
    check(&line(&log, "mover", "a partition was given back").await, Level::INFO, "tidings::group", &[("records", "0")]);
    transport.faults().lose("mover-group", &TopicPartition::new("t", 0));
    transport.faults().lose("mover-group", &TopicPartition::new("t", 1));
    check(&line(&log, "joiner", "partitions are lost").await, Level::WARN, "tidings::group", &[("count", "1")]);
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_a_partition_says_how_many_members_there_are() {
    let (transport, log) = given().await;
    let first = started(Service::new("owner", ok()), &transport).await;
    caught_up(&first).await;
    let second = started(Service::new("spare", ok()).with_group("owner-group"), &transport).await;
    let standby = line(&log, "spare", "this instance has no partition").await;
    check(&standby, Level::INFO, "tidings::group", &[("members", "2"), ("session_timeout_ms", "45000")]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((second.snapshot().members, second.snapshot().joined), (Some(2), true));
    sleep(Duration::from_secs(600)).await;
    log.only("spare", "this instance has no partition");
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_are_limited_and_counted_and_the_letter_follows() {
    let (transport, log) = given().await;
    let (router, _) = failing(|| "out of stock".into());
    let retry = Retry::exponential(Duration::from_millis(100)).without_jitter().with_max_retries(2);
    let service = started(Service::new("failing", router).with_retry(retry).with_breaker(None), &transport).await;
    put(&transport, 10).await;
    caught_up(&service).await;
    let attempt = log.only("failing", "an attempt failed");
    let fields = [("handler", "h"), ("topic", "t"), ("partition", "0"), ("attempt", "1"), ("kind", "failed")];
    check(&attempt, Level::WARN, "tidings::delivery", &fields);
    let fields = [("error", "out of stock"), ("next", "retry"), ("next_ms", "100"), ("held_back", "0")];
    check(&attempt, Level::WARN, "tidings::delivery", &fields);
    assert!(attempt.get("event_id").is_some_and(|id| id.len() == 36), "{attempt:#?}");
    let letters = log.of("failing", "a record is given up");
    assert_eq!(letters.len(), 10, "each");
    check(&letters[0], Level::WARN, "tidings::delivery", &[("handler", "h"), ("attempts", "3"), ("kind", "failed")]);
    let held_back = line(&log, "failing", "further lines").await;
    check(&held_back, Level::WARN, "tidings::delivery", &[("handler", "h"), ("kind", "failed"), ("held_back", "29")]);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_pauses_with_its_cause_and_resumes() {
    let (transport, log) = given().await;
    let (router, down) = failing(|| unavailable("the warehouse is down").into());
    let service = started(Service::new("waiting", router), &transport).await;
    put(&transport, 1).await;
    let paused = line(&log, "waiting", "the partition is paused").await;
    let fields = [("topic", "t"), ("partition", "0"), ("reason", "handler")];
    assert!(paused.get("error").is_some_and(|error| error.ends_with("the warehouse is down")), "{paused:?}");
    check(&paused, Level::WARN, "tidings::partition", &fields);
    sleep(Duration::from_secs(60)).await;
    log.only("waiting", "the partition is paused");
    down.store(false, Ordering::Relaxed);
    caught_up(&service).await;
    let resumed = line(&log, "waiting", "the partition is resumed").await;
    check(&resumed, Level::INFO, "tidings::partition", &[("reason", "handler")]);
}

#[tokio::test(start_paused = true)]
async fn a_stall_names_what_holds_it_and_ends() {
    let (transport, log) = given().await;
    let (open, gate) = tokio::sync::watch::channel(false);
    let waits = async |_: Delivery, State(gate): State<tokio::sync::watch::Receiver<bool>>| {
        let opened = gate.clone().wait_for(|open| *open).await.is_ok();
        assert!(opened);
    };
    let router = Router::new().on_topic("t", waits.named("score")).with_state(gate);
    let service = started(Service::new("stalled", router).with_handler_timeout(None), &transport).await;
    put(&transport, 2).await;
    let begun = Instant::now();
    let stalled = line(&log, "stalled", "the partition is stalled").await;
    assert!(begun.elapsed() <= Duration::from_secs(65), "{:?}", begun.elapsed());
    let fields = [("topic", "t"), ("partition", "0"), ("offset", "0"), ("handler", "score"), ("attempt", "1")];
    check(&stalled, Level::ERROR, "tidings::partition", &fields);
    check(&stalled, Level::ERROR, "tidings::partition", &[("cause", "handler"), ("seconds", "60")]);
    sleep(Duration::from_secs(600)).await;
    log.only("stalled", "the partition is stalled");
    open.send(true).unwrap();
    caught_up(&service).await;
    check(&line(&log, "stalled", "the partition was stalled").await, Level::INFO, "tidings::partition", &[]);
}

#[tokio::test(start_paused = true)]
async fn unreadable_records_and_their_skip() {
    let (transport, log) = given().await;
    put(&transport, 3).await;
    let partition = TopicPartition::new("t", 0);
    transport.faults().unreadable(&partition, 1..2);
    let service = started(Service::new("unreadable", ok()), &transport).await;
    let held = line(&log, "unreadable", "records cannot be read").await;
    check(&held, Level::ERROR, "tidings::partition", &[("offset", "1"), ("next_offset", "2"), ("topic", "t")]);
    service.skip(&partition, 1..2).await.unwrap();
    let skipped = line(&log, "unreadable", "skipped by an operator").await;
    check(&skipped, Level::WARN, "tidings::delivery", &[("offset", "1"), ("next_offset", "2")]);
}

#[tokio::test(start_paused = true)]
async fn the_circuit_breaker() {
    let (transport, log) = given().await;
    let (router, on) = failing(|| "no".into());
    let service =
        Service::new("breaker", router).with_breaker(Breaker::new(Duration::from_secs(3), Duration::from_secs(3)));
    let service = started(service.with_retry(Retry::never()), &transport).await;
    put(&transport, 150).await;
    let opened = line(&log, "breaker", "most deliveries fail").await;
    check(&opened, Level::ERROR, "tidings::service", &[("wait_ms", "3000")]);
    assert!(service.snapshot().circuit.open.is_some() && service.snapshot().counters.circuit_openings == 1);
    on.store(false, Ordering::Relaxed);
    caught_up(&service).await;
    check(&line(&log, "breaker", "deliveries succeed again").await, Level::INFO, "tidings::service", &[]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_broker() {
    let (transport, log) = given().await;
    let service = started(Service::new("cut-off", ok()), &transport).await;
    caught_up(&service).await;
    transport.faults().fail_fetches(5, ErrorKind::Unavailable);
    transport.faults().fail_commits(1, ErrorKind::Unavailable);
    put(&transport, 2).await;
    caught_up(&service).await;
    check(
        &line(&log, "cut-off", "reading from the group failed").await,
        Level::WARN,
        "tidings::group",
        &[("held_back", "0")],
    );
    check(&line(&log, "cut-off", "reading from the group works").await, Level::INFO, "tidings::group", &[]);
    let failed = line(&log, "cut-off", "an offset was not committed").await;
    check(&failed, Level::WARN, "tidings::group", &[("topic", "t"), ("partition", "0"), ("held_back", "0")]);
    assert!(service.snapshot().counters.commit_failures > 0 && service.snapshot().counters.read_failures > 0);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_cannot_be_written() {
    let (transport, log) = given().await;
    let (router, _) = failing(|| reject("bad").into());
    let service = started(Service::new("letters", router), &transport).await;
    transport.faults().set_dead_letters_down(true);
    put(&transport, 1).await;
    let line = line(&log, "letters", "a dead letter could not be written").await;
    check(&line, Level::WARN, "tidings::delivery", &[("topic", "t"), ("partition", "0"), ("offset", "0")]);
    transport.faults().set_dead_letters_down(false);
    caught_up(&service).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_truncated() {
    let (transport, log) = given().await;
    let partition = TopicPartition::new("t", 0);
    put(&transport, 4).await;
    let service = started(Service::new("rewound", ok()), &transport).await;
    caught_up(&service).await;
    assert!(transport.faults().truncate(&partition, 1));
    put(&transport, 1).await;
    let beyond = line(&log, "rewound", "the committed offset lies beyond the end").await;
    check(&beyond, Level::ERROR, "tidings::group", &[("topic", "t"), ("committed", "4"), ("start", "0")]);
    caught_up(&service).await;
}

#[tokio::test(start_paused = true)]
async fn records_that_were_deleted_before_they_were_read() {
    let (transport, log) = given().await;
    put(&transport, 2).await;
    let service = started(Service::new("missing", ok()), &transport).await;
    caught_up(&service).await;
    service.shutdown(Duration::from_secs(5)).await.unwrap();
    put(&transport, 6).await;
    assert!(transport.faults().drop_records(&TopicPartition::new("t", 0), 6));
    let service = started(Service::new("missing", ok()), &transport).await;
    let missing = line(&log, "missing", "records were deleted").await;
    check(&missing, Level::ERROR, "tidings::group", &[("topic", "t"), ("from", "2"), ("to", "6")]);
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_are_cancelled_at_the_deadline() {
    let (transport, log) = given().await;
    let router = Router::new().on_topic("t", async |_: Delivery| std::future::pending::<()>().await);
    let service = started(Service::new("cancelled", router), &transport).await;
    put(&transport, 1).await;
    sleep(Duration::from_secs(1)).await;
    let report = service.shutdown(Duration::from_secs(1)).await.unwrap();
    assert!(report.is_cancelled());
    let cancelled = log.only("cancelled", "deliveries were cancelled");
    check(&cancelled, Level::WARN, "tidings::service", &[("topic", "t"), ("partition", "0"), ("records", "1")]);
    check(&log.only("cancelled", "deliveries are cancelled"), Level::WARN, "tidings::group", &[]);
    check(&log.only("cancelled", "the service has shut down"), Level::INFO, "tidings::service", &[("returned", "1")]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_for_good() {
    let (transport, log) = given().await;
    let service = started(Service::new("failed", ok()), &transport).await;
    transport.faults().fail_fetches(1, ErrorKind::Denied);
    put(&transport, 1).await;
    assert!(timeout(Duration::from_secs(60), service.stopped()).await.expect("it ends").is_err());
    let failed = log.only("failed", "the service failed");
    check(&failed, Level::ERROR, "tidings::service", &[]);
    assert!(failed.get("error").is_some_and(|error| error.contains("read from the group")), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_differs_is_left_unchanged() {
    let (transport, log) = (MemoryTransport::open(MemoryConfig::new()).unwrap(), Captured::log());
    let admin = transport.admin().await.unwrap();
    assert!(admin.create_topics(&[Topic::new("differs").with_partitions(1)]).await.unwrap()[0].is_ok());
    let router = Router::new().on_topic("differs", async |_: Delivery| {});
    let wanted = TopicPolicy::Create(vec![Topic::new("differs").with_partitions(9)]);
    let _service = started(Service::new("differing", router).with_topics(wanted), &transport).await;
    let lines = log.all().into_iter().filter(|line| line.message().starts_with("the topic differs"));
    let lines: Vec<_> = lines.filter(|line| line.get("topic") == Some("differs")).collect();
    check(&lines[0], Level::WARN, "tidings::service", &[("wanted", "9"), ("found", "1")]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_and_one_that_expired() {
    let (transport, log) = given().await;
    let store = MemoryStore::new();
    let faults: StoreFaults = store.faults();
    let service = started(Service::new("leases", ok()).with_idempotency(store), &transport).await;
    caught_up(&service).await;
    faults.down();
    check(&line(&log, "leases", "the lease could not be renewed").await, Level::WARN, "tidings::store", &[]);
    put(&transport, 1).await;
    let paused = line(&log, "leases", "the partition is paused").await;
    check(&paused, Level::WARN, "tidings::partition", &[("reason", "store")]);
    sleep(Duration::from_secs(60)).await;
    faults.up();
    caught_up(&service).await;
    let expired = log.all().into_iter().find(|line| line.message().starts_with("the lease of this service expired"));
    check(&expired.expect("it is logged"), Level::WARN, "tidings::store", &[("scope", "leases")]);
}
