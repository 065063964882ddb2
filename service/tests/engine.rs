//! The engine over the memory transport, on the paused clock: the processing of each record, rule by rule.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{BoxError, Delivery, ErrorKind, Record, Topic, Transport, reject, unavailable};
use tidings_memory::{MemoryConfig, MemoryStore, MemoryTransport};
use tidings_service::{
    Breaker, HandlerExt, Observer, RecordEvent, RecordOutcome, Retry, Router, Service, ServiceHandle, State,
};
use tokio::sync::Notify;

/// A log of handler calls, in order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("no test panics with the log").push(line.into());
    }
    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no test panics with the log").clone()
    }
}

impl Observer for Log {
    fn observe(&self, event: &RecordEvent<'_>) {
        let value = event.record.value.as_deref().map_or("null".into(), String::from_utf8_lossy);
        self.add(format!("{} {value}", event.outcome.as_str()));
    }
}

fn value(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned()
}

async fn topic(transport: &MemoryTransport, partitions: u32) {
    let admin = transport.admin().await.expect("memory has an admin");
    let topics = [Topic::new("t").with_partitions(partitions), Topic::new("t-dlq")];
    admin.create_topics(&topics).await.expect("memory is up").into_iter().for_each(|r| r.expect("a new topic"));
}

async fn publish(transport: &MemoryTransport, records: &[(&str, &str)]) {
    let publisher = transport.publisher().await.expect("memory is up");
    let record = |(key, value): &(&str, &str)| {
        Record::new("t", Bytes::copy_from_slice(value.as_bytes())).with_key(Bytes::copy_from_slice(key.as_bytes()))
    };
    for answer in publisher.publish(records.iter().map(record).collect()).await {
        answer.expect("memory takes it");
    }
}

async fn start(service: Service, transport: &MemoryTransport) -> ServiceHandle {
    service
        .with_retry(Retry::exponential(Duration::from_millis(100)).without_jitter())
        .start(transport)
        .await
        .expect("it starts")
}

async fn caught_up(service: &ServiceHandle) {
    match tokio::time::timeout(Duration::from_secs(120), service.caught_up()).await {
        Ok(done) => done.expect("it runs"),
        Err(_) => panic!("it did not catch up: {:#?}", service.status().await),
    }
}

fn committed(status: &tidings_service::Status) -> u64 {
    status.partitions.iter().filter_map(|p| p.committed).sum()
}

#[tokio::test(start_paused = true)]
async fn handles_and_commits_what_is_published() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 3).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| log.add(value(&d)));
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    caught_up(&service).await;
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["1", "2", "3"]);
    let status = service.status().await;
    assert_eq!((committed(&status), status.totals.handled, status.lag()), (3, 3, 0));
    assert!(status.is_healthy(), "{status:?}");
    service.shutdown(Duration::from_secs(1)).await.expect("it stops");
}

#[tokio::test(start_paused = true)]
async fn a_failing_record_is_retried_then_buried_and_holds_back_its_key_alone() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        log.add(format!("try {} {}", value(&d), d.attempt()));
        if value(&d) == "bad" { Err("no".into()) } else { Ok(()) }
    });
    let service = Service::new("s", router.with_state(log.clone())).with_observer(Arc::new(log.clone()));
    let service = start(service, &transport).await;
    publish(&transport, &[("k", "bad"), ("k", "after"), ("other", "free")]).await;
    caught_up(&service).await;
    assert_eq!(
        log.lines(),
        [
            "try bad 1",
            "retried bad",
            "try free 1",
            "handled free",
            "try bad 2",
            "retried bad",
            "try bad 3",
            "retried bad",
            "try bad 4",
            "dead-lettered bad",
            "try after 1",
            "handled after",
        ]
    );
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.retried, totals.dead_lettered), (2, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_record_is_buried_at_once_and_an_unavailable_one_never() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        log.add(format!("try {} {}", value(&d), d.attempt()));
        let tries = log.lines().iter().filter(|l| **l == "try down 1").count();
        match value(&d).as_str() {
            "bad" => Err(reject("never").into()),
            "down" if tries < 20 => Err(unavailable("the database").into()),
            _ => Ok(()),
        }
    });
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, &[("a", "bad"), ("b", "down")]).await;
    caught_up(&service).await;
    let lines = log.lines();
    assert_eq!(lines.iter().filter(|l| *l == "try bad 1").count(), 1);
    assert_eq!(lines.iter().filter(|l| *l == "try down 1").count(), 20, "the attempt does not count");
    assert_eq!(service.status().await.totals.dead_lettered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_hang_are_failed_attempts() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let router = Router::new().on_topic("t", async |d: Delivery| match (value(&d).as_str(), d.attempt()) {
        ("panic", 1) => panic!("at first"),
        ("panic-later", 1) => {
            tokio::task::yield_now().await;
            panic!("later");
        }
        ("hang", 1) => std::future::pending().await,
        _ => {}
    });
    let service =
        Service::new("s", router).with_observer(Arc::new(log.clone())).with_handler_timeout(Duration::from_secs(5));
    let service = start(service, &transport).await;
    publish(&transport, &[("a", "panic"), ("b", "panic-later"), ("c", "hang"), ("d", "fine")]).await;
    caught_up(&service).await;
    let lines = log.lines();
    for name in ["panic", "panic-later", "hang"] {
        assert!(lines.contains(&format!("retried {name}")), "{lines:?}");
        assert!(lines.contains(&format!("handled {name}")), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_event_is_handled_once_with_a_store() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 2).await;
    let store = MemoryStore::new();
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| log.add(value(&d)));
    let service = Service::new("s", router.with_state(log.clone())).with_idempotency(store);
    let service = start(service, &transport).await;
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let twin = format!(r#"{{"eventId":"{id}","eventType":"x","timestamp":1,"source":"s","payload":{{}}}}"#);
    publish(&transport, &[("k", &twin), ("k", "other"), ("k", &twin)]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), [twin.as_str(), "other"]);
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.duplicates), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_written_is_not_settled() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let router = Router::new()
        .on_topic("t", async |_: Delivery| -> Result<(), BoxError> { Err(reject("never").into()) })
        .with_state(());
    let service = start(Service::new("s", router).with_observer(Arc::new(log.clone())), &transport).await;
    transport.faults().set_dead_letters_down(true);
    publish(&transport, &[("a", "bad")]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = service.status().await;
    assert_eq!((committed(&status), log.lines().len()), (0, 0));
    assert!(!status.is_healthy() && status.problems.iter().any(|p| p.contains("dead letter")), "{status:#?}");
    transport.faults().set_dead_letters_down(false);
    caught_up(&service).await;
    assert_eq!(log.lines(), ["dead-lettered bad"]);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_stops_a_service_that_fails_always() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let router =
        Router::new().on_topic("t", async |_: Delivery, State(b): State<Arc<std::sync::atomic::AtomicBool>>| {
            if b.load(std::sync::atomic::Ordering::SeqCst) { Err::<(), BoxError>("down".into()) } else { Ok(()) }
        });
    let service = Service::new("s", router.with_state(broken.clone()))
        .with_observer(Arc::new(log.clone()))
        .with_breaker(Breaker::new(Duration::from_secs(10), Duration::from_secs(10)));
    let service = start(service, &transport).await;
    let keys: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    publish(&transport, &keys.iter().map(|k| (k.as_str(), k.as_str())).collect::<Vec<_>>()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = service.status().await;
    assert!(status.totals.dead_lettered < 5 && status.totals.handled == 0, "{status:?}");
    assert_eq!(status.state, tidings_service::ServiceState::Degraded);
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    caught_up(&service).await;
    let totals = service.status().await.totals;
    assert_eq!(totals.handled + totals.dead_lettered, 1_000);
    assert!(totals.handled > 990, "{totals:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_what_has_begun_end_and_commits_no_more_than_that() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let release = Arc::new(Notify::new());
    let router = Router::new()
        .on_topic("t", async |d: Delivery, State((log, release)): State<(Log, Arc<Notify>)>| {
            log.add(format!("begun {}", value(&d)));
            if value(&d) == "slow" {
                release.notified().await;
            }
            log.add(format!("ended {}", value(&d)));
        })
        .with_state((log.clone(), release.clone()));
    let service = start(Service::new("s", router).with_concurrency(1).with_workers(1), &transport).await;
    publish(&transport, &[("a", "slow"), ("b", "waiting")]).await;
    while log.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn(service.shutdown(Duration::from_secs(60)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    release.notify_one();
    stopping.await.expect("no panic").expect("it stops");
    assert_eq!(log.lines(), ["begun slow", "ended slow"]);
    let admin = transport.admin().await.expect("memory is up");
    let lag = admin.group_lag(&"s-group".into()).await.expect("the group is known");
    assert_eq!(lag[0].committed, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_service_commits_nothing_unfinished() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| {
        log.add(value(&d));
        std::future::pending::<()>().await;
    });
    let service = start(Service::new("s", router.with_state(log.clone())), &transport).await;
    publish(&transport, &[("a", "1")]).await;
    while log.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(service);
    let again = Router::new()
        .on_topic("t", async |d: Delivery, State(log): State<Log>| log.add(format!("again {}", value(&d))));
    let service = start(Service::new("s", again.with_state(log.clone())), &transport).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["1", "again 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_gets_batches_and_says_which_record_failed() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 1).await;
    let handler = async |batch: tidings_core::RawBatch, State(log): State<Log>| -> Result<(), BoxError> {
        let values: Vec<_> = batch
            .0
            .records()
            .map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap_or_default()).into_owned())
            .collect();
        log.add(values.join(","));
        match values.iter().position(|v| v == "bad") {
            Some(place) => Err(tidings_core::stopped_at(place, "no").into()),
            None => Ok(()),
        }
    };
    let router =
        Router::new().on_topic("t", handler.batch(tidings_service::BatchOptions::new(10))).with_state(log.clone());
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    publish(&transport, &[("a", "1"), ("b", "bad"), ("c", "2"), ("b", "3")]).await;
    caught_up(&service).await;
    let lines = log.lines();
    assert_eq!(lines[..2], ["1,bad,2,3", "2"], "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("3"), "its key waits for it: {lines:?}");
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.dead_lettered), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn partitions_move_to_a_second_member_without_loss_or_doubles() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topic(&transport, 4).await;
    let router = || {
        Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            log.add(value(&d));
        })
    };
    let first = start(Service::new("s", router().with_state(log.clone())), &transport).await;
    let values: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|v| (v.as_str(), v.as_str())).collect();
    publish(&transport, &records[..200]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = start(Service::new("s", router().with_state(log.clone())), &transport).await;
    publish(&transport, &records[200..]).await;
    caught_up(&first).await;
    caught_up(&second).await;
    let (a, b) = (first.status().await, second.status().await);
    assert_eq!((a.partitions.len(), b.partitions.len()), (2, 2), "{a:#?} {b:#?}");
    let mut lines: Vec<u32> = log.lines().iter().map(|l| l.parse().expect("a number")).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..400).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_stays_within_the_bound() {
    let transport = MemoryTransport::open(MemoryConfig::default()).expect("a good config");
    topic(&transport, 2).await;
    let router = Router::new().on_topic("t", async |_: Delivery| tokio::time::sleep(Duration::from_millis(10)).await);
    let service = Service::new("s", router.with_state(())).with_max_bytes_in_flight(64 << 10).with_concurrency(4);
    let service = start(service, &transport).await;
    let big = "x".repeat(1_000);
    let keys: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    publish(&transport, &keys.iter().map(|k| (k.as_str(), big.as_str())).collect::<Vec<_>>()).await;
    let mut most = 0;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(service.status().await.bytes_in_flight);
    }
    assert!(most > 0 && most <= 64 << 10, "{most}");
    caught_up(&service).await;
    assert_eq!(service.status().await.totals.handled, 2_000);
    let _ = (ErrorKind::Closed, RecordOutcome::Handled);
}
