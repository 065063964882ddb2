//! The lines of troubles that are rare: when each is written, with its level, target and fields.

#[expect(dead_code, reason = "only a part of it is needed here")]
#[path = "common/bent.rs"]
mod bent;
#[path = "common/capture.rs"]
mod capture;
#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;
#[path = "common/odd.rs"]
mod odd;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bent::Bent;
use capture::{Captured, Line};
use common::{publish, topics};
use odd::Odd;
use tidings_core::{Delivery, Record, RetryRecord, StoredRecord, Timestamp, TopicPartition};
use tidings_memory::{MemoryDeadLetters, MemoryStore, MemoryTransport};
use tidings_service::{HandlerExt, Retry, Router, Service, ServiceHandle};
use tokio::time::{Instant, sleep};

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A transport with a topic of one partition, and the log.
async fn given() -> (Bent, Captured) {
    let transport = Bent::new(MemoryTransport::new());
    topics(&transport.inner, &["t"]).await;
    (transport, Captured::log())
}

fn ok() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| {}).named("h"))
}

fn forever() -> Router {
    Router::new().on_topic("t", (async |_: Delivery| std::future::pending::<()>().await).named("h"))
}

async fn put(transport: &Bent, count: usize) {
    publish(&transport.inner, (0..count).map(|n| Record::new("t", "x").with_key(n.to_string())).collect()).await;
}

async fn started(service: Service, transport: &Bent) -> ServiceHandle {
    let service = service.start(transport).await.expect("it starts");
    let begun = Instant::now();
    while service.snapshot().partitions.is_empty() && begun.elapsed() < LONG {
        sleep(Duration::from_millis(10)).await;
    }
    service
}

/// Waits until a delivery has begun.
async fn begun(service: &ServiceHandle) {
    let begun = Instant::now();
    while service.snapshot().partitions.iter().all(|partition| partition.in_flight == 0) && begun.elapsed() < LONG {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(1)).await;
}

/// Waits for a line of a service.
async fn line(log: &Captured, service: &str, message: &str) -> Line {
    let begun = Instant::now();
    while log.of(service, message).is_empty() && begun.elapsed() < 5 * LONG {
        sleep(Duration::from_millis(10)).await;
    }
    log.of(service, message).pop().unwrap_or_else(|| panic!("{message:?}: {:#?}", log.of(service, "")))
}

#[track_caller]
fn check(line: &Line, level: &str, target: &str, fields: &[(&str, &str)]) {
    assert_eq!((line.level.as_str(), line.target), (level, target), "{line:?}");
    for (name, value) in fields {
        assert_eq!(line.get(name), Some(*value), "{name} of {line:#?}");
    }
}

/// Checks that the line has the text of the error.
#[track_caller]
fn check_error(line: &Line, text: &str) {
    assert!(line.get("error").is_some_and(|error| error.contains(text)), "{text:?} in {line:#?}");
}

const SHUTDOWN: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn stores_of_one_process_on_a_shared_broker() {
    let (transport, log) = given().await;
    let own = Service::new("own", ok()).with_idempotency(MemoryStore::new());
    drop(started(own.with_dead_letters(MemoryDeadLetters::new()), &transport).await);
    let message = |what: &str| format!("the {what} store belongs to this process");
    assert!(log.of("own", &message("idempotency")).is_empty() && log.of("own", &message("dead-letter")).is_empty());
    transport.share();
    let shared = Service::new("shared", ok()).with_idempotency(MemoryStore::new());
    drop(started(shared.with_dead_letters(MemoryDeadLetters::new()), &transport).await);
    for what in ["idempotency", "dead-letter"] {
        check(&log.only("shared", &message(what)), "WARN", "tidings::service", &[]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_of_a_retry_topic_of_others_or_by_a_wrong_clock() {
    let (transport, log) = given().await;
    let retry = Retry::never().then_topics([Duration::from_secs(30)]);
    let service = started(Service::new("waits", ok()).with_retry(retry), &transport).await;
    let far = Timestamp::from_millis(i64::MAX);
    let waiting = |of: &'static str, due| {
        let record = StoredRecord::new(7, Timestamp::now()).with_value("x");
        RetryRecord::new(of, TopicPartition::new("t", 0), record, due).to_record("t-retry-waits-30s")
    };
    publish(&transport.inner, vec![waiting("others", Timestamp::now()), waiting("waits", far)]).await;
    sleep(2 * LONG).await;
    let lines = log.of("waits", "a record of a retry topic is not as this service forwards it");
    let faults = [("0", "not forwarded by this service"), ("1", "by a wrong clock")];
    assert_eq!(lines.len(), faults.len(), "{lines:#?}");
    for (line, (offset, fault)) in lines.iter().zip(faults) {
        let fields = [("topic", "t-retry-waits-30s"), ("partition", "0"), ("offset", offset), ("held_back", "0")];
        check(line, "WARN", "tidings::delivery", &fields);
        assert!(line.get("fault").is_some_and(|text| text.contains(fault)), "{line:#?}");
    }
    drop(service);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_panics_while_it_is_dropped() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("planted");
        }
    }
    let (transport, log) = given().await;
    let handler = async |_: Delivery| {
        let _guard = Panics;
        std::future::pending::<()>().await;
    };
    let service = Service::new("panics", Router::new().on_topic("t", handler));
    let _service = started(service.with_handler_timeout(Duration::from_secs(1)), &transport).await;
    put(&transport, 1).await;
    let panicked = line(&log, "panics", "a handler's future panicked while it was dropped").await;
    check(&panicked, "ERROR", "tidings::service", &[]);
}

#[tokio::test(start_paused = true)]
async fn steps_of_the_shutdown_that_fail() {
    let (transport, log) = given().await;
    let store = MemoryStore::new();
    let service = started(Service::new("ends", ok()).with_idempotency(store.clone()), &transport).await;
    transport.fail("close publisher");
    transport.fail("leave");
    store.faults().down();
    service.shutdown(SHUTDOWN).await.expect("it ends");
    let closed = log.only("ends", "the publisher was closed with records unanswered");
    check(&closed, "WARN", "tidings::service", &[]);
    check_error(&closed, "close publisher: no answer");
    let left = log.only("ends", "the group could not be left");
    check(&left, "WARN", "tidings::group", &[]);
    check_error(&left, "leave: no answer");
    check(&log.only("ends", "the lease was not retired"), "WARN", "tidings::store", &[]);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_paused() {
    let (transport, log) = given().await;
    let service = started(Service::new("unpaused", ok()), &transport).await;
    transport.fail("pause");
    service.pause_partitions([TopicPartition::new("t", 0)]).expect("it runs");
    let failed = line(&log, "unpaused", "partitions could not be paused or resumed").await;
    check(&failed, "WARN", "tidings::group", &[]);
    check_error(&failed, "pause: no answer");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_be_released() {
    let (transport, log) = given().await;
    let _service = started(Service::new("unreleased", ok()), &transport).await;
    transport.fail("release");
    transport.inner.faults().rebalance("unreleased-group");
    let failed = line(&log, "unreleased", "partitions could not be released").await;
    check(&failed, "WARN", "tidings::group", &[]);
    check_error(&failed, "release: no answer");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_goes_back_under_an_assignment() {
    let (transport, log) = given().await;
    put(&transport, 3).await;
    let service = started(Service::new("goes-back", ok()), &transport).await;
    common::caught_up(&service).await;
    transport.rewind(TopicPartition::new("t", 0));
    put(&transport, 1).await;
    let rewound = line(&log, "goes-back", "records come below those that were read").await;
    let fields = [("topic", "t"), ("partition", "0"), ("position", "3"), ("committed", "3"), ("start", "0")];
    check(&rewound, "ERROR", "tidings::group", &fields);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_not_polled_before_a_new_lease() {
    let (transport, log) = given().await;
    let store = MemoryStore::new();
    let service = Service::new("unpolled", ok()).with_idempotency(store.clone()).with_lease_ttl(Duration::from_secs(9));
    let service = started(service, &transport).await;
    transport.hang("pause");
    service.pause_partitions([TopicPartition::new("t", 0)]).expect("it runs");
    store.faults().down();
    let unpolled = line(&log, "unpolled", "the group was not polled before a new lease").await;
    check(&unpolled, "WARN", "tidings::store", &[("limit_ms", "3000")]);
}

#[tokio::test(start_paused = true)]
async fn claims_that_are_not_released_at_once() {
    let (transport, log) = given().await;
    let store = Odd { denied_releases: Arc::new(AtomicUsize::new(1)), ..Odd::default() };
    let service = started(Service::new("claims", forever()).with_idempotency(store), &transport).await;
    put(&transport, 2).await;
    begun(&service).await;
    transport.inner.faults().lose_all("claims-group");
    let failed = line(&log, "claims", "claims could not be released; it is tried again").await;
    check(&failed, "WARN", "tidings::store", &[("claims", "2")]);
    check_error(&failed, "the answer is lost");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_are_not_persisted_at_the_end() {
    let (transport, log) = given().await;
    let store = Odd { release_takes: 10 * LONG, ..Odd::default() };
    let service = started(Service::new("attempts", forever()).with_idempotency(store), &transport).await;
    put(&transport, 1).await;
    begun(&service).await;
    service.shutdown(SHUTDOWN).await.expect("it ends");
    check(&log.only("attempts", "some attempt counts were not persisted"), "WARN", "tidings::store", &[]);
}

/// A handler that blocks its thread until the test drops the sender.
fn blocks(released: Receiver<()>) -> Router {
    let released = Arc::new(Mutex::new(released));
    let handler = move |_: Delivery| {
        let released = released.clone();
        async move {
            // An error is the release.
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
    };
    Router::new().on_topic("t", handler.named("blocks"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_also_at_the_end() {
    let (transport, log) = given().await;
    let (release, released) = channel();
    let service = Service::new("blocked", blocks(released)).with_workers(1).with_idempotency(MemoryStore::new());
    let service = started(service, &transport).await;
    put(&transport, 1).await;
    let blocked = line(&log, "blocked", "a handler blocks its thread: other deliveries").await;
    check(&blocked, "ERROR", "tidings::service", &[("handler", "blocks")]);
    assert!(blocked.get("seconds").and_then(|seconds| seconds.parse::<u64>().ok()) >= Some(5), "{blocked:?}");
    service.shutdown(Duration::from_millis(1)).await.expect("it ends");
    let kept = log.only("blocked", "a handler blocks its thread at the end");
    check(&kept, "ERROR", "tidings::store", &[]);
    drop(release);
}
