//! Metrics by an exporter in memory: names, units, attributes and values, each compared with the table of the
//! conventions.

mod points;

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    BoxError, Delivery, ErrorKind, PublisherExt, Record, Timestamp, Topic, TransactorOptions, Transport, reject,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::telemetry::{OutboxSnapshot, RelaySnapshot, RelayStats};
use tidings_service::{Router, Service, ServiceHandle};

use self::points::Reader;

/// The most series of a service, besides those of its partitions and handlers.
const MAX_SERIES: usize = 40;
const MAX_SERIES_PER_PARTITION: usize = 10;
const MAX_SERIES_PER_HANDLER: usize = 51;

async fn start(reader: &Reader, transport: &(impl Transport + Clone), router: Router) -> ServiceHandle {
    let service = Service::new("s", router).layer(reader.metrics.layer(transport));
    let service = service.with_idempotency(MemoryStore::new()).with_breaker(None);
    let service = service.start(transport).await.expect("it starts");
    reader.metrics.observe(&service.stats());
    service
}

/// Rejects every other record, with its value as the text of the error.
async fn refuse_odd(delivery: Delivery) -> Result<(), BoxError> {
    let text = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
    if delivery.offset().is_multiple_of(2) { Ok(()) } else { Err(reject(text).into()) }
}

async fn publish(transport: &impl Transport, topic: &'static str, count: usize) {
    let records = (0..count).map(|n| Record::new(topic, format!("canary-{n}")).with_key(format!("canary-key-{n}")));
    let publisher = transport.publisher().await.expect("a publisher");
    assert!(publisher.publish(records.collect()).await.iter().all(Result::is_ok));
}

#[test]
fn the_guide_names_every_metric() {
    let guide = include_str!("../../../docs/guides/opentelemetry.md");
    for metric in points::metrics() {
        assert!(guide.contains(&format!("`{metric}`")), "{metric} is not in the guide");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_read_when_metrics_are_collected() {
    let (reader, transport) = (Reader::new(), MemoryTransport::new());
    let service = start(&reader, &transport, Router::new().on_topic("clicks", refuse_odd)).await;
    publish(&transport, "clicks", 5).await;
    service.caught_up().await.expect("it runs");
    let group = ("messaging.consumer.group.name", "s-group");
    let place = [group, ("messaging.destination.name", "clicks"), ("messaging.destination.partition.id", "0")];
    assert_eq!(reader.value("messaging.client.consumed.messages", &[group]), Some(5.0));
    let settled = |outcome| {
        reader.value("tidings.settled.messages", &[("tidings.outcome", outcome), ("tidings.handler", "topic:clicks")])
    };
    assert_eq!((settled("handled"), settled("dead_lettered")), (Some(3.0), Some(2.0)));
    assert_eq!(reader.value("tidings.failures", &[("tidings.handler", "topic:clicks")]), Some(2.0));
    assert_eq!(reader.value("tidings.group.lag.messages", &place), Some(0.0));
    assert_eq!(reader.value("tidings.group.lag", &place), Some(0.0));
    let state = |state| reader.value("tidings.partition.state", &[place[1], place[2], ("tidings.state", state)]);
    assert_eq!((state("ok"), state("stalled")), (Some(1.0), Some(0.0)));
    assert_eq!(reader.value("tidings.assigned.partitions", &[group]), Some(1.0));
    assert_eq!(reader.value("tidings.circuit.openings", &[group]), Some(0.0));
    assert_eq!(reader.value("tidings.claims.held", &[group]), Some(0.0));
    assert_eq!(reader.value("tidings.claims", &[group, ("tidings.result", "granted")]), Some(5.0));

    service.shutdown(Duration::from_secs(10)).await.expect("it stops");
    assert_eq!(reader.value("messaging.client.consumed.messages", &[group]), Some(5.0), "counters outlive the service");
    assert_eq!(reader.value("tidings.group.lag.messages", &place), None, "it has no partition any more");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_handler_lags() {
    let (reader, transport) = (Reader::new(), MemoryTransport::new());
    let router = Router::new().on_topic("clicks", async |_: Delivery| std::future::pending::<()>().await);
    let _service = start(&reader, &transport, router).await;
    let old = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
    let record = || Record::new("clicks", "1").with_timestamp(old);
    let publisher = transport.publisher().await.expect("a publisher");
    assert!(publisher.publish(vec![record(), record(), record()]).await.iter().all(Result::is_ok));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(reader.value("tidings.group.lag.messages", &[]), Some(3.0));
    let age = reader.value("tidings.group.lag", &[]).expect("a partition");
    assert!((3_600.0..3_900.0).contains(&age), "{age} s");
    assert!(reader.value("tidings.in_flight.bytes", &[]).is_some_and(|bytes| bytes > 0.0));
}

#[tokio::test(start_paused = true)]
async fn calls_of_publishers_are_measured_by_topic_and_error() {
    let (reader, memory) = (Reader::new(), MemoryTransport::new());
    let transport = reader.metrics.transport(memory.clone());
    publish(&transport, "clicks", 3).await;
    let publisher = transport.publisher().await.expect("a publisher");
    memory.faults().fail_publishes(1, ErrorKind::Unavailable);
    assert!(publisher.publish_one(Record::new("clicks", "1")).await.is_err());
    memory.faults().fail_publishes(1, ErrorKind::TooLarge);
    let answers = publisher.publish(vec![Record::new("clicks", "1"), Record::new("clicks", "2")]).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let several = vec![Record::new("clicks", "1"), Record::new("orders", "2"), Record::new("clicks", "3")];
    assert!(publisher.publish(several).await.iter().all(Result::is_ok));
    let transactor = transport.transactor(TransactorOptions::new("t")).await.expect("a transactor");
    assert!(transactor.publish(vec![Record::new("paid", "1")]).await[0].is_ok());
    memory.faults().delay_publishes(Duration::from_secs(60));
    let dropped = tokio::time::timeout(Duration::from_millis(1), publisher.publish(vec![Record::new("orders", "4")]));
    assert!(dropped.await.is_err());

    let points = reader.collect();
    let sum = |name: &str, topic: &str, error: Option<&str>| -> f64 {
        let of = |point: &&points::Point| {
            let seen = point.attributes.get("error.type").map(String::as_str);
            point.name == name && point.has(&[("messaging.destination.name", topic)]) && seen == error
        };
        points.iter().filter(of).map(|point| point.value).sum()
    };
    let sent = "messaging.client.sent.messages";
    assert_eq!((sum(sent, "clicks", None), sum(sent, "clicks", Some("unavailable"))), (6.0, 1.0));
    assert_eq!(sum(sent, "clicks", Some("too-large")), 1.0, "one of a batch");
    assert_eq!((sum(sent, "orders", None), sum(sent, "orders", Some("cancelled"))), (1.0, 1.0));
    assert_eq!(sum(sent, "paid", None), 1.0, "in a transaction");
    let calls = "messaging.client.operation.duration";
    assert_eq!((sum(calls, "clicks", None), sum(calls, "clicks", Some("unavailable"))), (1.0, 1.0));
    let of_several =
        points.iter().find(|p| p.name == calls && !p.attributes.contains_key("messaging.destination.name"));
    assert_eq!(of_several.map(|point| point.value), Some(1.0), "a call for several topics names none");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_measured_in_the_buckets_of_the_conventions() {
    let (reader, transport) = (Reader::new(), MemoryTransport::new());
    let service = start(&reader, &transport, Router::new().on_topic("clicks", refuse_odd)).await;
    publish(&transport, "clicks", 4).await;
    service.caught_up().await.expect("it runs");
    let points = reader.collect();
    let of = |error: Option<&str>| {
        let seen = |point: &&points::Point| point.attributes.get("error.type").map(String::as_str) == error;
        let mut all = points.iter().filter(|point| point.name == "messaging.process.duration").filter(seen);
        all.next().expect("a point").clone()
    };
    assert_eq!((of(None).value, of(Some("rejected")).value), (2.0, 2.0));
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    assert_eq!(of(None).bounds, bounds);
    assert!(of(None).has(&[("messaging.consumer.group.name", "s-group"), ("messaging.destination.name", "clicks")]));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_started_again_replaces_the_former() {
    let (reader, transport) = (Reader::new(), MemoryTransport::new());
    let router = || Router::new().on_topic("clicks", async |_: Delivery| {});
    start(&reader, &transport, router()).await.shutdown(Duration::from_secs(10)).await.expect("it stops");
    let again = start(&reader, &transport, router()).await;
    publish(&transport, "clicks", 3).await;
    again.caught_up().await.expect("it runs");
    assert_eq!(reader.value("messaging.client.consumed.messages", &[]), Some(3.0));
    assert_eq!(format!("{:?}", reader.metrics).matches("\"s\"").count(), 1, "the list does not grow");
}

#[tokio::test(start_paused = true)]
async fn two_services_of_one_group_have_series_of_their_own() {
    let (reader, transport) = (Reader::new(), MemoryTransport::new());
    let start = async |name: &'static str, topic: &'static str| {
        let router = Router::new().on_topic(topic, async |_: Delivery| {});
        let service = Service::new(name, router).with_group("shared").layer(reader.metrics.layer(&transport));
        let service = service.start(&transport).await.expect("it starts");
        publish(&transport, topic, topic.len()).await;
        service.caught_up().await.expect("it runs");
        reader.metrics.observe(&service.stats());
        service
    };
    let _both = (start("a", "clicks").await, start("b", "logins-").await);
    let of = |service| [("messaging.consumer.group.name", "shared"), ("tidings.service", service)];
    for name in ["messaging.client.consumed.messages", "tidings.commits", "tidings.assigned.partitions"] {
        assert!(reader.value(name, &of("a")).is_some() && reader.value(name, &of("b")).is_some(), "{name}");
    }
    assert_eq!(reader.value("messaging.client.consumed.messages", &of("a")), Some(6.0));
    assert_eq!(reader.value("messaging.client.consumed.messages", &of("b")), Some(7.0));
    assert_eq!(reader.value("messaging.process.duration", &of("b")), Some(7.0));
}

/// A relay of an outbox that was measured, or not yet.
#[derive(Debug)]
struct Fixed(Option<u64>);

impl RelayStats for Fixed {
    fn snapshot(&self) -> RelaySnapshot {
        let mut snapshot = RelaySnapshot::default();
        (snapshot.is_running, snapshot.in_flight, snapshot.published, snapshot.refused) = (true, 2, 5, 1);
        snapshot.outbox = self.0.map(|waiting| {
            let mut outbox = OutboxSnapshot::default();
            (outbox.waiting, outbox.holding, outbox.parked) = (waiting, 3, 4);
            outbox.time_lag = Duration::from_millis(1_500);
            outbox
        });
        snapshot
    }
}

#[test]
fn a_relay_is_read_when_metrics_are_collected() {
    let (reader, of) = (Reader::new(), [("tidings.relay", "orders")]);
    reader.metrics.observe_relay("orders", Arc::new(Fixed(None)));
    assert_eq!(reader.value("tidings.outbox.waiting.messages", &of), None, "it was not measured yet");
    reader.metrics.observe_relay("orders", Arc::new(Fixed(Some(7))));
    let values = [
        ("tidings.relay.running", 1.0),
        ("tidings.relay.failing", 0.0),
        ("tidings.relay.in_flight.messages", 2.0),
        ("tidings.relay.published.messages", 5.0),
        ("tidings.relay.refused.messages", 1.0),
        ("tidings.outbox.waiting.messages", 7.0),
        ("tidings.outbox.holding.messages", 3.0),
        ("tidings.outbox.parked.messages", 4.0),
        ("tidings.outbox.lag", 1.5),
    ];
    for (name, value) in values {
        assert_eq!(reader.value(name, &of), Some(value), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn series_are_bounded_and_show_nothing_of_a_record() {
    let (reader, memory) = (Reader::new(), MemoryTransport::new());
    let admin = memory.admin().await.expect("an admin");
    let topic = Topic::new("clicks").with_partitions(3);
    assert!(admin.create_topics(&[topic]).await.expect("memory is up").iter().all(Result::is_ok));
    let transport = reader.metrics.transport(memory);
    let service = start(&reader, &transport, Router::new().on_topic("clicks", refuse_odd)).await;
    // As many keys, and 5,000 texts of errors.
    publish(&transport, "clicks", 10_000).await;
    service.caught_up().await.expect("it runs");
    let points = reader.collect();
    let of_publisher = ["messaging.client.sent.messages", "messaging.client.operation.duration"];
    let of_service = points.iter().filter(|point| !of_publisher.contains(&point.name.as_str()));
    // A histogram is a series per bucket, the last of which has no bound, and those of its sum and count.
    let series: usize = of_service.map(|point| if point.bounds.is_empty() { 1 } else { point.bounds.len() + 3 }).sum();
    let most = MAX_SERIES + 3 * MAX_SERIES_PER_PARTITION + MAX_SERIES_PER_HANDLER;
    assert!(series <= most, "{series} series, {most} at most");
    assert!(!format!("{points:?} {:?}", reader.metrics).contains("canary"));
}
