//! Handlers behind layers that wait, and handlers with a limit of their own: waiting counts against no timeout, loses
//! no order and no permit, and holds up no other handler.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Log, caught_up, letters, publish, start, topics};
use tidings_core::{BoxError, Delivery, RawBatch, Record, Topic, Transport, dead_letter_topic};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{BatchOptions, HandlerExt, Retry, Router, Service, State};
use tokio::time::{Instant, sleep};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;

fn record(topic: &'static str, key: usize, value: usize) -> Record {
    Record::new(topic, Bytes::from(value.to_string())).with_key(Bytes::from(key.to_string()))
}

fn value(delivery: &Delivery) -> usize {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).parse().unwrap()
}

fn key(delivery: &Delivery) -> usize {
    String::from_utf8_lossy(delivery.record().key.as_deref().unwrap_or_default()).parse().unwrap()
}

async fn partitions(transport: &MemoryTransport, topic: &'static str, count: u32) {
    let topics = [Topic::new(topic).with_partitions(count), Topic::new(dead_letter_topic(topic))];
    transport.admin().await.unwrap().create_topics(&topics).await.unwrap();
}

/// Counts the deliveries in flight, and keeps the time at which each began.
#[derive(Debug, Clone, Default)]
struct Meter {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    began: Arc<Mutex<Vec<(Instant, usize, usize)>>>,
}

impl Meter {
    async fn handle(&self, delivery: &Delivery, time: Duration) {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        self.began.lock().unwrap().push((Instant::now(), key(delivery), value(delivery)));
        sleep(time).await;
        self.now.fetch_sub(1, SeqCst);
    }

    fn began(&self) -> Vec<(Instant, usize, usize)> {
        self.began.lock().unwrap().clone()
    }

    /// Checks that the values of each key began in order.
    fn assert_ordered(&self, keys: usize) {
        for key in 0..keys {
            let values: Vec<_> = self.began().iter().filter(|(_, k, _)| *k == key).map(|(.., value)| *value).collect();
            assert!(values.is_sorted(), "key {key}: {values:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_towers_dead_letters_no_healthy_record() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let limit = ServiceBuilder::new().buffer(4).rate_limit(1, Duration::from_secs(5));
    let router = Router::new().on_topic("t", async |_: Delivery| {}).layer(limit);
    let service = Service::new("s", router).with_handler_timeout(Duration::from_secs(2)).with_observer(log.clone());
    publish(&transport, (0..8).map(|n| record("t", n, n)).collect()).await;
    let service = start(service, &transport).await;
    caught_up(&service).await;
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.retried, totals.dead_lettered), (8, 0, 0), "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_starts_when_the_handler_begins() {
    let (transport, began) = (MemoryTransport::new(), Instant::now());
    topics(&transport, &["t"]).await;
    let limit = ServiceBuilder::new().buffer(4).rate_limit(1, Duration::from_secs(5));
    let handler = async |delivery: Delivery| {
        if value(&delivery) == 1 {
            std::future::pending::<()>().await;
        }
    };
    let router = Router::new().on_topic("t", handler).layer(limit);
    let service = Service::new("s", router).with_handler_timeout(Duration::from_secs(2)).with_retry(Retry::never());
    publish(&transport, (0..2).map(|n| record("t", n, n)).collect()).await;
    let service = service.start(&transport).await.unwrap();
    caught_up(&service).await;
    let letters = letters(&transport, "t-dlq").await;
    assert!(letters.len() == 1 && letters[0].error.contains("not done after 2s"), "{letters:?}");
    let took = began.elapsed();
    assert!((7..8).contains(&took.as_secs()), "five seconds in the layer, and two with the handler: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_loses_the_delivery_is_timed_out() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    async fn lose(delivery: Delivery, _: tidings_service::Next) -> Result<tidings_core::Outcome, BoxError> {
        drop(delivery);
        std::future::pending().await
    }
    let router = Router::new().on_topic("t", async |_: Delivery| {}).layer(tidings_service::from_fn(lose));
    let service = Service::new("s", router).with_handler_timeout(Duration::from_secs(2)).with_retry(Retry::never());
    publish(&transport, vec![record("t", 0, 0)]).await;
    let service = service.start(&transport).await.unwrap();
    caught_up(&service).await;
    assert_eq!(service.status().await.totals.dead_lettered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_is_kept_over_all_workers() {
    for workers in [1, 4] {
        let (transport, meter) = (MemoryTransport::new(), Meter::default());
        partitions(&transport, "t", 4).await;
        let handler = async |delivery: Delivery, State(meter): State<Meter>| {
            meter.handle(&delivery, Duration::from_millis(10)).await;
        };
        let router = Router::new().on_topic("t", handler.with_concurrency(3)).with_state(meter.clone());
        let service = Service::new("s", router).with_workers(workers).with_handler_timeout(Duration::from_millis(20));
        publish(&transport, (0..300).map(|n| record("t", n % 50, n)).collect()).await;
        let service = start(service, &transport).await;
        caught_up(&service).await;
        assert_eq!((meter.most.load(SeqCst), service.status().await.totals.handled), (3, 300), "{workers} workers");
        meter.assert_ordered(50);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_over_all_workers_and_a_retry_counts() {
    for store in [false, true] {
        let (transport, meter) = (MemoryTransport::new(), Meter::default());
        partitions(&transport, "t", 2).await;
        let handler = async |delivery: Delivery, State(meter): State<Meter>| -> Result<(), BoxError> {
            meter.handle(&delivery, Duration::ZERO).await;
            if delivery.attempt() == 1 && value(&delivery) % 10 == 3 { Err("once".into()) } else { Ok(()) }
        };
        let period = Duration::from_secs(1);
        let router = Router::new().on_topic("t", handler.with_rate(5, period)).with_state(meter.clone());
        let mut service = Service::new("s", router).with_workers(3).with_handler_timeout(Duration::from_millis(100));
        if store {
            service = service.with_idempotency(MemoryStore::new());
        }
        publish(&transport, (0..60).map(|n| record("t", n % 7, n)).collect()).await;
        let service = start(service, &transport).await;
        caught_up(&service).await;
        let totals = service.status().await.totals;
        assert_eq!((totals.handled, totals.retried, totals.dead_lettered), (60, 6, 0));
        let began: Vec<_> = meter.began().into_iter().map(|(at, ..)| at).collect();
        assert!(began.windows(6).all(|six| six[5] - six[0] >= period), "more than five in a second: {began:?}");
        assert!(began[65] - began[0] < Duration::from_secs(15), "it is used: {:?}", began[65] - began[0]);
        meter.assert_ordered(7);
    }
}

/// A record of a later batch whose key is busy must not queue up before one of an earlier batch that waits as a whole.
#[tokio::test(start_paused = true)]
async fn later_batches_of_a_partition_wait_behind_one_that_waits() {
    let (transport, meter) = (MemoryTransport::new(), Meter::default());
    topics(&transport, &["t"]).await;
    let handler = async |delivery: Delivery, State(meter): State<Meter>| -> Result<(), BoxError> {
        meter.handle(&delivery, Duration::from_millis(10)).await;
        if delivery.attempt() < 3 && value(&delivery).is_multiple_of(4) { Err("again".into()) } else { Ok(()) }
    };
    let router = Router::new().on_topic("t", handler.with_concurrency(1)).with_state(meter.clone());
    let service = start(Service::new("s", router).with_workers(1), &transport).await;
    for batch in 0..20 {
        publish(&transport, (0..10).map(|n| record("t", (n * n + batch) % 4, batch * 10 + n)).collect()).await;
        sleep(Duration::from_millis(7)).await;
    }
    caught_up(&service).await;
    assert_eq!(service.status().await.totals.handled, 200);
    meter.assert_ordered(4);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_holds_up_no_other() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["slow", "fast"]).await;
    let slow = async |_: Delivery| sleep(Duration::from_secs(1)).await;
    let fast = async |delivery: Delivery, State(log): State<Log>| log.add(value(&delivery).to_string());
    let router = Router::new().on_topic("slow", slow.with_concurrency(1)).on_topic("fast", fast);
    let service = Service::new("s", router.with_state(log.clone())).with_workers(1).with_concurrency(8);
    publish(&transport, (0..50).map(|n| record("slow", n, n)).collect()).await;
    let service = start(service, &transport).await;
    sleep(Duration::from_millis(1_500)).await;
    publish(&transport, (0..50).map(|n| record("fast", n, n)).collect()).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(log.lines().len(), 50, "all of the other handler, while most of the first wait");
    caught_up(&service).await;
    assert_eq!(service.status().await.totals.handled, 100);
}

#[tokio::test(start_paused = true)]
async fn two_handlers_of_one_topic_wait_for_themselves() {
    let (transport, meter) = (MemoryTransport::new(), Meter::default());
    topics(&transport, &["t"]).await;
    let slow = async |_: Delivery, State(_): State<Meter>| sleep(Duration::from_secs(1)).await;
    let tombstone = async |delivery: Delivery, State(meter): State<Meter>| {
        meter.began.lock().unwrap().push((Instant::now(), key(&delivery), 0));
    };
    let router = Router::new().on_topic("t", slow.with_concurrency(1)).on_tombstone("t", tombstone);
    let service = Service::new("s", router.with_state(meter.clone())).with_workers(1);
    let tombstone = |n: usize| Record::tombstone("t").with_key(Bytes::from(n.to_string()));
    publish(&transport, (0..20).map(|n| if n % 2 == 0 { record("t", n, n) } else { tombstone(n) }).collect()).await;
    let (service, start) = (start(service, &transport).await, Instant::now());
    caught_up(&service).await;
    let began = meter.began();
    assert!(began.len() == 10 && began.iter().all(|(at, ..)| *at - start < Duration::from_millis(500)), "{began:?}");
}

#[tokio::test(start_paused = true)]
async fn batches_wait_for_their_handler() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let handler = async |batch: RawBatch, State(log): State<Log>| {
        let value = |r: &tidings_core::StoredRecord| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned();
        let values: Vec<String> = batch.0.records().map(value).collect();
        log.add(values.join(" "));
        sleep(Duration::from_millis(100)).await;
    };
    let options = BatchOptions::new(4).with_wait(Duration::from_millis(5));
    let handler = handler.batch(options).with_concurrency(1).with_rate(1, Duration::from_secs(1));
    let service = Service::new("s", Router::new().on_topic("t", handler).with_state(log.clone())).with_workers(2);
    publish(&transport, (0..30).map(|n| record("t", n % 3, n)).collect()).await;
    let service = start(service.with_handler_timeout(Duration::from_millis(200)), &transport).await;
    caught_up(&service).await;
    assert_eq!(service.status().await.totals.handled, 30);
    for key in 0..3 {
        let lines = log.lines();
        let values = lines.iter().flat_map(|line| line.split(' ')).map(|value| value.parse::<usize>().unwrap());
        let of_key: Vec<_> = values.filter(|value| value % 3 == key).collect();
        assert!(of_key.len() == 10 && of_key.is_sorted(), "{lines:?}");
    }
}

/// A record that waits for its handler has not begun: it goes back at once when its partition is revoked, and its place
/// in the queue for a permit with it.
#[tokio::test(start_paused = true)]
async fn a_revocation_takes_what_waits_back_and_leaks_no_permit() {
    let (transport, meter) = (MemoryTransport::new(), Meter::default());
    partitions(&transport, "t", 4).await;
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let service = |meter: Meter| {
        let handler = async |delivery: Delivery, State(meter): State<Meter>| {
            meter.handle(&delivery, Duration::from_millis(200)).await;
        };
        let router = Router::new().on_topic("t", handler).with_state(meter).layer(limit.clone());
        Service::new("s", router).with_workers(2).with_handler_timeout(Duration::from_millis(300))
    };
    publish(&transport, (0..60).map(|n| record("t", n % 20, n)).collect()).await;
    let first = start(service(meter.clone()), &transport).await;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        transport.faults().rebalance("t");
        sleep(Duration::from_millis(700)).await;
    }
    let second = start(service(meter.clone()), &transport).await;
    sleep(Duration::from_secs(1)).await;
    first.shutdown(Duration::from_secs(1)).await.unwrap();
    caught_up(&second).await;
    assert_eq!(meter.most.load(SeqCst), 1);
    let values: std::collections::BTreeSet<_> = meter.began().into_iter().map(|(.., value)| value).collect();
    assert_eq!(values.len(), 60, "each was handled");
}

/// A paused service starts nothing, so it must not keep others from starting.
#[tokio::test(start_paused = true)]
async fn a_paused_service_keeps_no_place_in_a_queue() {
    let (transport, limit) = (MemoryTransport::new(), GlobalConcurrencyLimitLayer::new(1));
    topics(&transport, &["a", "b"]).await;
    let service = |topic: &'static str| {
        let handler = async |_: Delivery| sleep(Duration::from_secs(1)).await;
        Service::new(topic, Router::new().on_topic(topic, handler).layer(limit.clone())).with_workers(1)
    };
    let (a, b) = (start(service("a"), &transport).await, start(service("b"), &transport).await);
    publish(&transport, vec![record("b", 0, 0)]).await;
    sleep(Duration::from_millis(500)).await;
    // `a` waits for the permit of `b`, and is paused then.
    publish(&transport, vec![record("a", 0, 0)]).await;
    sleep(Duration::from_millis(100)).await;
    a.pause().unwrap();
    publish(&transport, (1..4).map(|n| record("b", n, n)).collect()).await;
    caught_up(&b).await;
    assert_eq!(a.status().await.totals.handled, 0);
    a.resume().unwrap();
    caught_up(&a).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_is_an_error() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    let handler = async |_: Delivery| {};
    for (handler, text) in [
        (handler.with_concurrency(0), "a concurrency of 0"),
        (handler.with_rate(0, Duration::from_secs(1)), "a rate of 0"),
        (handler.with_rate(1, Duration::ZERO), "a period of 0"),
    ] {
        let error = Service::new("s", Router::new().on_topic("t", handler)).start(&transport).await.unwrap_err();
        assert!(error.report().contains(text), "{}", error.report());
    }
}
