//! Retry topics: records that failed wait there, hold nothing meanwhile, and run when they are due.

#[path = "../common/mod.rs"]
mod common;
mod failures;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{caught_up, letters, publish, records, start, topics};
use tidings_core::{
    BoxError, Delivery, ErrorKind, Name, PublisherExt, Record, RetryRecord, Topic, TopicPartition, Transport, reject,
};
use tidings_memory::{MemoryConfig, MemoryTransport};
use tidings_service::telemetry::{Health, HealthOptions, PartitionState};
use tidings_service::{PauseReason, Retry, Router, Service, ServiceHandle, State, TopicPolicy};
use tokio::time::{Instant, sleep};

const DELAYS: [Duration; 3] = [Duration::from_secs(30), Duration::from_secs(300), Duration::from_secs(3_600)];

/// The policy of the tests: two attempts, then one after each delay.
fn retry() -> Retry {
    Retry::exponential(Duration::from_millis(100)).without_jitter().with_max_retries(1).then_topics(DELAYS)
}

/// The handler's runs: the time, the record's value, and the number of the attempt.
#[derive(Debug, Clone)]
struct Runs {
    started: Instant,
    runs: Arc<Mutex<Vec<(Duration, String, u32)>>>,
}

impl Runs {
    fn new() -> Self {
        Self { started: Instant::now(), runs: Arc::default() }
    }

    fn all(&self) -> Vec<(Duration, String, u32)> {
        self.runs.lock().expect("no panics").clone()
    }

    /// Returns the seconds at which the record of this value was handled, rounded down.
    fn seconds(&self, value: &str) -> Vec<u64> {
        self.all().iter().filter(|(_, of, _)| of == value).map(|(at, ..)| at.as_secs()).collect()
    }

    fn add(&self, delivery: &Delivery) -> String {
        let value = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
        let run = (self.started.elapsed(), value.clone(), delivery.attempt());
        self.runs.lock().expect("no panics").push(run);
        value
    }
}

/// Fails a record of the value `bad` always, and one of `later:n` before attempt n.
async fn handle(delivery: Delivery, State(runs): State<Runs>) -> Result<(), BoxError> {
    assert_eq!(&**delivery.topic(), "orders", "each attempt is of the original");
    let value = runs.add(&delivery);
    let needed = value.strip_prefix("later:").and_then(|attempt| attempt.parse::<u32>().ok());
    if value == "bad" || needed.is_some_and(|attempt| delivery.attempt() < attempt) {
        return Err(format!("{value} at attempt {}", delivery.attempt()).into());
    }
    if value == "never" { Err(reject("never").into()) } else { Ok(()) }
}

fn service(name: &str, runs: &Runs) -> Service {
    let router = Router::new().on_topic("orders", handle).with_state(runs.clone());
    Service::new(name, router).with_retry(retry())
}

async fn started(service: Service, transport: &MemoryTransport) -> ServiceHandle {
    service.start(transport).await.expect("it starts")
}

async fn orders() -> MemoryTransport {
    let transport = MemoryTransport::new();
    topics(&transport, &["orders"]).await;
    transport
}

fn order(key: &'static str, value: &'static str) -> Record {
    Record::new("orders", value).with_key(key).with_header("tenant", "acme")
}

#[tokio::test(start_paused = true)]
async fn a_record_waits_for_each_delay_and_then_becomes_a_letter_with_its_first_origin() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "good"), order("b", "bad").with_header("retry-due", "1")]).await;
    caught_up(&service).await;
    sleep(Duration::from_secs(5_000)).await;
    caught_up(&service).await;

    assert_eq!(runs.seconds("bad"), [0, 0, 30, 330, 3_930]);
    let attempts: Vec<u32> = runs.all().iter().filter(|run| run.1 == "bad").map(|run| run.2).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    let letters = letters(&transport, "orders-dlq").await;
    assert_eq!(letters.len(), 1, "one letter for one record");
    let (letter, original) = (&letters[0], &records(&transport, "orders").await[1]);
    assert_eq!((letter.origin.clone(), letter.attempts), (TopicPartition::new("orders", 0), 5));
    assert_eq!(&letter.record, original, "byte for byte, with its first offset and timestamp");
    assert_eq!((letter.error.as_str(), &*letter.handler), ("bad at attempt 5", "topic:orders"));
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.retried, totals.forwarded, totals.dead_lettered), (1, 4, 3, 1));

    let first = &records(&transport, "orders-retry-billing-30s").await[0];
    let waited = RetryRecord::from_record(first).expect("it was forwarded");
    assert_eq!((waited.attempts, waited.kind, waited.error.as_str()), (2, ErrorKind::Failed, "bad at attempt 2"));
    assert_eq!((&*waited.service, &*waited.handler, &waited.record), ("billing", "topic:orders", original));
    let last = RetryRecord::from_record(&records(&transport, "orders-retry-billing-1h").await[0]).expect("forwarded");
    assert_eq!((last.first_failed_at, last.attempts), (waited.first_failed_at, 4));
}

#[tokio::test(start_paused = true)]
async fn a_record_runs_exactly_when_its_delay_has_passed() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    for _ in 0..5 {
        publish(&transport, vec![order("a", "later:4")]).await;
        sleep(Duration::from_millis(1_777)).await;
    }
    sleep(Duration::from_secs(400)).await;
    caught_up(&service).await;
    let of_attempt = |attempt| runs.all().into_iter().filter(move |run| run.2 == attempt).map(|run| run.0);
    let waits: Vec<_> = of_attempt(3).zip(of_attempt(2)).map(|(run, failed)| run - failed).collect();
    assert_eq!(waits.len(), 5);
    for wait in waits
        .into_iter()
        .chain(of_attempt(4).zip(of_attempt(3)).map(|(run, failed)| run - failed - DELAYS[1] + DELAYS[0]))
    {
        assert!(wait >= DELAYS[0] && wait <= DELAYS[0] + Duration::from_millis(5), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_other_records_are_handled_meanwhile() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "bad"), order("a", "same key"), order("b", "other key")]).await;
    caught_up(&service).await;
    sleep(Duration::from_secs(1)).await;
    publish(&transport, vec![order("b", "other key")]).await;
    caught_up(&service).await;
    assert_eq!((runs.seconds("same key"), runs.seconds("other key")), (vec![0], vec![0, 1]));
    let status = service.status().await;
    let source = status.partitions.iter().find(|p| p.partition.topic == "orders").expect("it is assigned");
    assert_eq!((source.committed, source.lag()), (Some(4), 0), "it holds no offset either");
}

#[tokio::test(start_paused = true)]
async fn waiting_is_neither_lag_nor_stall_nor_unready() {
    let (transport, runs) = (orders().await, Runs::new());
    let long = retry().then_topics([Duration::from_secs(24 * 3_600)]);
    let service = started(service("billing", &runs).with_retry(long), &transport).await;
    publish(&transport, vec![order("a", "bad"), order("b", "bad")]).await;
    caught_up(&service).await;
    for _ in 0..20 {
        sleep(Duration::from_secs(3_600)).await;
        let snapshot = service.snapshot();
        assert_eq!((snapshot.waiting(), snapshot.due(), snapshot.lag()), (2, 0, 0));
        assert_eq!(snapshot.time_lag(), Duration::ZERO);
        assert!(snapshot.partitions.iter().all(|partition| partition.state == PartitionState::Ok), "{snapshot:?}");
        let health = Health::of(&snapshot, &HealthOptions::default().with_max_lag(0));
        assert!(health.ready && health.findings.is_empty(), "{health:?}");
        let status = service.status().await;
        assert!(status.is_healthy() && status.lag() == 0, "{status:?}");
    }
    let status = service.status().await;
    let tier = status.partitions.iter().find(|p| p.partition.topic != "orders").expect("it is assigned");
    assert_eq!((tier.paused.clone(), tier.waiting), (vec![PauseReason::Waiting], 2));
    sleep(Duration::from_secs(5 * 3_600)).await;
    caught_up(&service).await;
    assert_eq!((service.snapshot().waiting(), service.status().await.totals.dead_lettered), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_due_and_not_handled_is_lag() {
    let (transport, runs) = (orders().await, Runs::new());
    let service = started(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "bad")]).await;
    caught_up(&service).await;
    service.pause_partitions([TopicPartition::new("orders-retry-billing-30s", 0)]).expect("it runs");
    sleep(Duration::from_secs(90)).await;
    let snapshot = service.snapshot();
    assert_eq!((snapshot.waiting(), snapshot.due(), snapshot.lag()), (0, 1, 1));
    service.resume_partitions([TopicPartition::new("orders-retry-billing-30s", 0)]).expect("it runs");
    caught_up(&service).await;
    assert_eq!(runs.seconds("bad"), [0, 0, 90]);
}

#[tokio::test(start_paused = true)]
async fn two_services_of_one_topic_do_not_see_each_others_retries() {
    let (transport, runs, others) = (orders().await, Runs::new(), Runs::new());
    let failing = started(service("billing", &runs), &transport).await;
    let router = Router::new().on_topic("orders", async |d: Delivery, State(r): State<Runs>| drop(r.add(&d)));
    let other = Service::new("shipping", router.with_state(others.clone())).with_retry(retry());
    let other = started(other, &transport).await;
    publish(&transport, vec![order("a", "bad"), order("b", "bad")]).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(1_000)).await;
        caught_up(&failing).await;
        caught_up(&other).await;
    }
    assert_eq!((runs.all().len(), others.all().len()), (10, 2));
    assert_eq!(records(&transport, "orders").await.len(), 2, "a reader of the topic sees nothing new");
    let names = transport.admin().await.expect("it is up").list_topics().await.expect("it is up");
    let of = |service: &str| names.iter().filter(|name| name.contains(&format!("-retry-{service}-"))).count();
    assert_eq!((of("billing"), of("shipping")), (3, 3));
    assert!(!names.iter().any(|name| name.contains("-retry-") && name.ends_with("-dlq")), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_are_an_error_of_the_start() {
    let transport = orders().await;
    let refused =
        |service: Service| async { service.start(&transport).await.map(drop).expect_err("it must not start") };
    let runs = Runs::new();
    for (service, text) in [
        (service(&"s".repeat(240), &runs), "249"),
        (service("billing", &runs).with_retry(Retry::never().then_topics([DELAYS[0], DELAYS[0]])), "equal delay"),
        (service("billing", &runs).with_retry(Retry::never().then_topics([Duration::ZERO])), "below 1 ms"),
    ] {
        let error = refused(service).await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.report().contains(text), "{}", error.report());
    }
    let twice = Router::new().on_topic("orders", handle).on_topic("orders-retry-billing-30s", handle);
    let error = refused(Service::new("billing", twice.with_state(runs)).with_retry(retry())).await;
    assert!(error.report().contains("another topic of the service"), "{}", error.report());
}

#[tokio::test(start_paused = true)]
async fn the_topics_are_created_with_the_partitions_of_their_source_or_reported_as_missing() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).expect("a good config");
    topics(&transport, &["orders"]).await;
    let runs = Runs::new();
    let error = service("billing", &runs).start(&transport).await.map(drop).expect_err("they are missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.report().contains("orders-retry-billing-5m"), "{}", error.report());
    let admin = transport.admin().await.expect("it is up");
    admin.create_partitions(&"orders".into(), 3, Default::default()).await.expect("it is up");
    // Retry topics are created even for a topic that the policy does not create.
    let handle = started(service("billing", &runs).with_topics(TopicPolicy::Create(Vec::new())), &transport).await;
    let names = ["orders-retry-billing-30s", "orders-retry-billing-5m", "orders-retry-billing-1h"].map(Name::from);
    for found in admin.describe_topics(&names).await.expect("it is up") {
        assert_eq!(found.expect("it exists").partitions.len(), 3);
    }
    handle.shutdown(Duration::from_secs(5)).await.expect("it stops");
}

/// Ten thousand records, each of which waits up to three times, while the group is rebalanced, partitions are lost, and
/// the broker is down for a while.
#[tokio::test(start_paused = true)]
async fn no_record_is_early_or_lost_through_rebalances_and_outages() {
    const RECORDS: u32 = 10_000;
    type Attempts = Arc<Mutex<BTreeMap<String, Vec<(u32, Instant)>>>>;
    let transport = MemoryTransport::new();
    let wanted = Topic::new("orders").with_partitions(4);
    let admin = transport.admin().await.expect("it is up");
    admin.create_topics(&[wanted, Topic::new("orders-dlq")]).await.expect("it is up");
    let attempts = Attempts::default();
    async fn record(delivery: Delivery, State(attempts): State<Attempts>) -> Result<(), BoxError> {
        let value = String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned();
        let number: u32 = value.parse()?;
        let run = (delivery.attempt(), Instant::now());
        attempts.lock().expect("no panics").entry(value).or_default().push(run);
        if delivery.attempt() <= number % 4 { Err("not yet".into()) } else { Ok(()) }
    }
    let delays = [Duration::from_secs(5), Duration::from_secs(20), Duration::from_secs(60)];
    let skew = Duration::from_secs(2);
    let member = || {
        let router = Router::new().on_topic("orders", record).with_state(attempts.clone());
        let retry = Retry::never().then_topics(delays).with_max_clock_skew(skew);
        Service::new("billing", router).with_retry(retry).with_breaker(None)
    };
    let first = started(member(), &transport).await;
    let publisher = transport.publisher().await.expect("it is up");
    let mut second = None;
    for round in 0..20 {
        let records = (0..RECORDS / 20).map(|n| {
            let number = round * (RECORDS / 20) + n;
            Record::new("orders", number.to_string()).with_key(format!("k{}", number % 97))
        });
        for answer in publisher.publish(records.collect()).await {
            answer.expect("it is up");
        }
        match round {
            3 | 11 => second = Some(started(member(), &transport).await),
            7 => second.take().expect("it was started").shutdown(skew).await.map(drop).expect("it stops"),
            5 | 13 => transport.faults().rebalance("billing-group"),
            9 | 15 => transport.faults().lose_all("billing-group"),
            16 => transport.faults().down(),
            _ => {}
        }
        sleep(Duration::from_secs(4)).await;
        transport.faults().heal();
    }
    for _ in 0..4 {
        sleep(Duration::from_secs(70)).await;
        caught_up(&first).await;
    }
    let attempts = attempts.lock().expect("no panics");
    assert_eq!(attempts.len() as u32, RECORDS);
    for (value, runs) in attempts.iter() {
        let number: u32 = value.parse().expect("a number");
        assert!(runs.iter().any(|run| run.0 == number % 4 + 1), "record {value} was lost: {runs:?}");
        for (attempt, at) in runs.iter().filter(|run| run.0 > 1) {
            let before = runs.iter().filter(|run| run.0 == attempt - 1).map(|run| run.1).min().expect("it ran before");
            let wait = delays[*attempt as usize - 2] + skew;
            assert!(*at >= before + wait, "attempt {attempt} of {value} after {:?}, not {wait:?}", *at - before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_retry_topics_reads_no_other_topic() {
    let (transport, runs) = (orders().await, Runs::new());
    assert!(service("billing", &runs).with_retry(Retry::default()).retry_topics().is_empty());
    let service = start(service("billing", &runs), &transport).await;
    publish(&transport, vec![order("a", "bad")]).await;
    transport.publisher().await.expect("it is up").publish_one(order("b", "x")).await.expect("it is up");
    caught_up(&service).await;
    assert_eq!(service.status().await.partitions.len(), 1);
    assert_eq!(letters(&transport, "orders-dlq").await.len(), 1);
}
