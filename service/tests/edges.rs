//! Edge cases: wrong answers of handlers, floods of records, crashes, and unusual settings.

mod common;
#[path = "common/odd.rs"]
mod odd;

use std::time::Duration;

use common::{Log, caught_up, letters, publish, start, topics};
use odd::Odd;
use tidings_core::{
    Batch, BoxError, Caused, Delivery, EnvelopeRef, ErrorKind, Name, RawBatch, Record, Timestamp, codec, failed,
    stopped_at,
};
use tidings_macros::Event;
use tidings_memory::{Faults, MemoryStore, MemoryTransport, PublishFault};
use tidings_service::{BatchOptions, Breaker, HandlerExt, Retry, Router, Service, State};
use uuid::Uuid;

fn record(key: impl Into<String>, value: impl Into<String>) -> Record {
    Record::new("t", value.into()).with_key(key.into())
}

fn text(record: &tidings_core::StoredRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

/// A batch handler's wrong answer for its bad record: a place that is not in the batch.
async fn says_wrongly(says: fn() -> BoxError) -> (Vec<String>, usize) {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = move |batch: RawBatch, State(log): State<Log>| async move {
        let values: Vec<_> = batch.0.records().map(text).collect();
        if values.iter().any(|value| value == "bad") {
            return Err(says());
        }
        values.into_iter().for_each(|value| log.add(value));
        Ok(())
    };
    let router = Router::new().on_topic("t", handler.batch(BatchOptions::new(10))).with_state(log.clone());
    publish(&transport, vec![record("a", "1"), record("b", "bad"), record("c", "2")]).await;
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    caught_up(&service).await;
    (log.lines(), letters(&transport, "t-dlq").await.len())
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_that_names_a_place_it_was_not_given_loses_nothing() {
    let all: [fn() -> BoxError; 3] = [
        || failed([1_042], "an offset is no place").into(),
        || failed([], "nobody knows which").into(),
        || stopped_at(7, "beyond the end").into(),
    ];
    for says in all {
        let (handled, letters) = says_wrongly(says).await;
        assert_eq!((handled, letters), (vec!["1".to_owned(), "2".to_owned()], 1), "{}", says());
    }
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, Event)]
#[event(topic = "t", type = "asked", key = &self.key, crate = "tidings_core")]
struct Asked {
    key: String,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, Event)]
#[event(topic = "out", type = "answered", key = &self.key, crate = "tidings_core")]
struct Answered {
    key: String,
}

fn asked(key: &str) -> Record {
    let (source, event) = (Name::from_static("test"), Asked { key: key.to_owned() });
    codec::encode(EnvelopeRef::new(Uuid::now_v7(), Timestamp::now(), &source, &event), "").expect("it encodes")
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_refused_for_good_buries_its_own_cause_alone() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t", "out"]).await;
    let handler = async |batch: Batch<Asked>| -> Vec<Caused<Answered>> {
        batch.iter().map(|event| event.causes(Answered { key: event.payload.key.clone() })).collect()
    };
    let refused = PublishFault::new(ErrorKind::TooLarge).with_topic("out").with_times(Faults::UNTIL_HEALED);
    transport.faults().publish(refused.with_matching(|record| record.key.as_deref() == Some(b"big")));
    publish(&transport, vec![asked("a"), asked("big"), asked("b")]).await;
    let router = Router::new().on(handler.batch(BatchOptions::new(10)));
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    caught_up(&service).await;
    let letters = letters(&transport, "t-dlq").await;
    let keys: Vec<_> = letters.iter().filter_map(|letter| letter.record.key.as_deref()).collect();
    assert_eq!((keys, letters[0].kind), (vec![&b"big"[..]], ErrorKind::TooLarge));
}

/// A faulty publisher: every record it sends is garbage.
async fn garbage_floods(set: impl Fn(Service) -> Service) {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on(async |_: Asked, State(log): State<Log>| log.add("handled")).with_state(log.clone());
    let breaker = Breaker::new(Duration::from_secs(10), Duration::from_secs(10));
    let service = start(set(Service::new("s", router).with_breaker(breaker)), &transport).await;
    let flood = (0..500).map(|n| record(n.to_string(), "garbage"));
    publish(&transport, flood.chain([asked("k")]).collect()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = service.status().await;
    assert!(status.totals.dead_lettered < 120, "{:?}", status.totals);
    assert_eq!(status.state, tidings_service::ServiceState::Degraded);
    // Ten seconds for each: the backoff of the policy, until an operator intervenes.
    tokio::time::sleep(Duration::from_secs(6_000)).await;
    assert_eq!(log.lines(), ["handled"], "{:?}", service.status().await);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_not_drained_into_the_dead_letters() {
    garbage_floods(|service| service).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_not_drained_into_the_dead_letters_with_a_store() {
    garbage_floods(|service| service.with_idempotency(MemoryStore::new())).await;
}

#[tokio::test(start_paused = true)]
async fn times_beyond_all_clocks_are_for_ever() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |d: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        tokio::task::yield_now().await;
        log.add(text(d.record()));
        if d.attempt() == 1 { Err("at first".into()) } else { Ok(()) }
    });
    let service = Service::new("s", router.with_state(log.clone()))
        .with_handler_timeout(Duration::MAX)
        .with_lease_ttl(Duration::MAX)
        .with_revocation_deadline(Duration::MAX)
        .with_breaker(Breaker::new(Duration::MAX, Duration::MAX))
        .with_session_timeout(Duration::MAX)
        .with_concurrency(usize::MAX)
        .with_max_bytes_in_flight(usize::MAX)
        .with_max_span(u64::MAX)
        .with_idempotency(MemoryStore::new());
    let service = start(service, &transport).await;
    publish(&transport, vec![record("k", "1")]).await;
    caught_up(&service).await;
    transport.faults().rebalance("s-group");
    publish(&transport, vec![record("k", "2")]).await;
    caught_up(&service).await;
    transport.faults().lose_all("s-group");
    publish(&transport, vec![record("k", "3")]).await;
    caught_up(&service).await;
    assert_eq!(log.lines(), ["1", "1", "2", "2", "3", "3"]);
    service.shutdown(Duration::MAX).await.expect("it stops");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_ever_is_delivered_when_it_is_full() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |batch: RawBatch, State(log): State<Log>| log.add(batch.0.len().to_string());
    let options = BatchOptions::new(2).with_wait(Duration::MAX);
    let router = Router::new().on_topic("t", handler.batch(options)).with_state(log.clone());
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    for n in 0..4 {
        publish(&transport, vec![record(n.to_string(), "x")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    caught_up(&service).await;
    assert_eq!(log.lines(), ["2", "2"]);
}

/// Returns how many of 40 records a batch handler that waits for 1,000 of them has received after a minute.
async fn handled_at_a_bound(set: impl Fn(Service) -> Service) -> usize {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |batch: RawBatch, State(log): State<Log>| {
        batch.0.records().for_each(|record| log.add(text(record)));
    };
    let options = BatchOptions::new(1_000).with_wait(Duration::MAX);
    let router = Router::new().on_topic("t", handler.batch(options)).with_state(log.clone());
    let service = start(set(Service::new("s", router).with_workers(2)), &transport).await;
    for n in 0..40 {
        publish(&transport, vec![record(n.to_string(), "x".repeat(100))]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let handled = log.lines().len();
    service.shutdown(Duration::from_secs(1)).await.expect("it stops");
    handled
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_at_a_bound_is_delivered() {
    let bytes = handled_at_a_bound(|s| s.with_max_bytes_in_flight(2_000)).await;
    assert!(bytes >= 20, "bytes: {bytes}");
    let span = handled_at_a_bound(|s| s.with_max_span(10)).await;
    assert!(span >= 30, "span: {span}");
    let claimed = |s: Service| s.with_max_bytes_in_flight(2_000).with_idempotency(MemoryStore::new());
    let claimed = handled_at_a_bound(claimed).await;
    assert!(claimed >= 20, "claimed: {claimed}");
}

/// Attempts are reported when claims are released, and so count after a restart, however slow the store is.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_until_attempts_are_written_down() {
    let (transport, store, log) = (MemoryTransport::new(), MemoryStore::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = || {
        let router = Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
            log.add("tried");
            Err("poison".into())
        });
        let retry = Retry::exponential(Duration::from_secs(60)).without_jitter().with_max_retries(2);
        let slow = Odd { inner: store.clone(), release_takes: Duration::from_secs(2), ..Odd::default() };
        Service::new("s", router.with_state(log.clone())).with_retry(retry).with_idempotency(slow)
    };
    publish(&transport, vec![record("k", "poison")]).await;
    for n in 1..=3 {
        let running = service().start(&transport).await.expect("it starts");
        while log.lines().len() < n {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        running.shutdown(Duration::from_secs(5)).await.expect("it stops");
    }
    let running = service().start(&transport).await.expect("it starts");
    caught_up(&running).await;
    assert_eq!((log.lines().len(), letters(&transport, "t-dlq").await.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn commits_and_retries_that_wait_for_ever_end_with_the_service() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery, State(log): State<Log>| -> Result<(), BoxError> {
        log.add("tried");
        Err("again".into())
    };
    let retry = Retry::exponential(Duration::MAX).with_cap(Duration::MAX);
    let service = Service::new("s", Router::new().on_topic("t", handler).with_state(log.clone())).with_retry(retry);
    let service = service.with_commit_interval(Duration::MAX).start(&transport).await.expect("it starts");
    publish(&transport, (0..20).map(|n| record(n.to_string(), "x")).collect()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.lines().len(), 20);
    service.shutdown(Duration::from_secs(1)).await.expect("it stops");
}

#[tokio::test]
async fn a_commit_interval_of_nothing_keeps_no_thread_busy() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let router = Router::new().on_topic("t", async |_: Delivery, State(log): State<Log>| log.add("handled"));
    let service = Service::new("s", router.with_state(log.clone())).with_commit_interval(Duration::from_nanos(1));
    let service = service.start(&transport).await.expect("it starts");
    publish(&transport, vec![record("k", "v")]).await;
    caught_up(&service).await;
    // On a paused clock a busy thread lets no time pass: a day would take for ever.
    tokio::time::pause();
    let real = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(real.elapsed() < Duration::from_secs(60), "{:?}", real.elapsed());
    service.shutdown(Duration::from_secs(1)).await.expect("it stops");
}

/// Invalid settings are reported by `start`, with the setting's name.
#[tokio::test(start_paused = true)]
async fn a_setting_that_makes_no_sense_is_named() {
    type With = fn(Service) -> Service;
    let settings: [(&str, With); 8] = [
        ("commit interval", |s| s.with_commit_interval(Duration::ZERO)),
        ("lease ttl", |s| s.with_lease_ttl(Duration::ZERO)),
        ("lease ttl", |s| s.with_lease_ttl(Duration::from_nanos(1))),
        ("handler timeout", |s| s.with_handler_timeout(Duration::ZERO)),
        ("session timeout", |s| s.with_session_timeout(Duration::ZERO)),
        ("number of workers", |s| s.with_workers(usize::MAX)),
        ("concurrency", |s| s.with_concurrency(0)),
        ("maximum span", |s| s.with_max_span(0)),
    ];
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    for (name, with) in settings {
        let router = Router::new().on_topic("t", async |_: Delivery| {});
        let error = with(Service::new("s", router)).start(&transport).await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
}
