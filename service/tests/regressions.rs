//! Bugs of the engine found by the simulation, each as a small test of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{
    Batch, BoxError, ConsumerOptions, Delivery, EnvelopeRef, ErrorKind, Name, RawBatch, Record, Step, StoredRecord,
    Timestamp, Topic, TopicPartition, Transport, codec, dead_letter_headers, reject, stopped_at, unavailable,
};
use tidings_macros::Event;
use tidings_memory::{MemoryStore, MemoryTransport, PublishFault};
use tidings_service::{BatchOptions, HandlerExt, Observer, RecordEvent, Retry, Router, Service, ServiceHandle};
use tokio::time::{sleep, timeout};

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Log {
    fn observe(&self, event: &RecordEvent<'_>) {
        self.add(format!("{} {}", event.outcome.as_str(), text(event.record)));
    }
}

fn text(record: &StoredRecord) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

async fn broker(partitions: u32) -> MemoryTransport {
    let transport = MemoryTransport::new();
    let topics = [Topic::new("t").with_partitions(partitions), Topic::new("t-dlq"), Topic::new("out")];
    transport.admin().await.unwrap().create_topics(&topics).await.unwrap();
    transport
}

async fn publish(transport: &MemoryTransport, records: impl IntoIterator<Item = Record>) {
    let publisher = transport.publisher().await.unwrap();
    for answer in publisher.publish(records.into_iter().collect()).await {
        answer.unwrap();
    }
}

fn record(key: &'static str, value: &'static str) -> Record {
    Record::new("t", value).with_key(key)
}

async fn caught_up(running: &ServiceHandle) {
    timeout(Duration::from_secs(3_600), running.caught_up()).await.expect("it catches up").unwrap();
}

async fn read(transport: &MemoryTransport, topic: &'static str) -> Vec<StoredRecord> {
    let consumer = transport.consumer(ConsumerOptions::new("reader", [topic])).await.unwrap();
    let mut read = Vec::new();
    while let Ok(step) = timeout(Duration::from_millis(10), consumer.next()).await {
        if let Step::Records(fetched) = step.unwrap() {
            read.extend(fetched.batch.records().to_vec());
        }
    }
    read
}

async fn committed(transport: &MemoryTransport) -> Option<u64> {
    let lag = transport.admin().await.unwrap().group_lag(&Name::from_static("s-group")).await.unwrap();
    lag.into_iter().find(|lag| lag.partition == TopicPartition::new("t", 0))?.committed
}

fn handling(log: &Log) -> Router {
    let log = log.clone();
    Router::new().on_topic("t", move |delivery: Delivery| {
        log.add(text(delivery.record()));
        async {}
    })
}

#[tokio::test(start_paused = true)]
async fn a_partition_lost_before_its_start_is_committed_is_read_when_it_comes_back() {
    let (transport, log) = (broker(1).await, Log::default());
    let running = Service::new("s", handling(&log)).start(&transport).await.unwrap();
    // The service has not polled yet: it will be notified of the assignment, and then of its loss.
    transport.faults().lose_all("s-group");
    publish(&transport, [record("k", "1")]).await;
    caught_up(&running).await;
    assert_eq!(log.lines(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_a_partition_that_was_given_up_hold_nothing_back() {
    let (transport, log) = (broker(2).await, Log::default());
    let seen = log.clone();
    let router = Router::new().on_topic("t", move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            sleep(Duration::from_secs(60)).await;
            seen.add(text(delivery.record()));
        }
    });
    let first = Service::new("s", router).with_max_bytes_in_flight(1).start(&transport).await.unwrap();
    publish(&transport, [record("a", "1"), record("a", "2"), record("b", "3"), record("c", "4")]).await;
    sleep(Duration::from_secs(1)).await;
    transport.faults().lose_all("s-group");
    caught_up(&first).await;
    assert_eq!(log.lines().into_iter().collect::<HashSet<_>>().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_paused_when_it_was_revoked_is_read_when_it_comes_back() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let router = Router::new().on_topic("t", move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            sleep(Duration::from_secs(1)).await;
            seen.add(text(delivery.record()));
        }
    });
    let running = Service::new("s", router).with_max_span(1).start(&transport).await.unwrap();
    publish(&transport, [record("a", "1")]).await;
    sleep(Duration::from_millis(500)).await;
    transport.faults().rebalance("s-group");
    sleep(Duration::from_secs(5)).await;
    publish(&transport, [record("a", "2")]).await;
    caught_up(&running).await;
    assert_eq!(log.lines(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_though_partitions_are_assigned_meanwhile() {
    let transport = broker(2).await;
    let slow = || Router::new().on_topic("t", async |_: Delivery| sleep(Duration::from_secs(20)).await);
    let first = Service::new("s", slow()).start(&transport).await.unwrap();
    let second = Service::new("s", slow()).start(&transport).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for partition in 0..2 {
        publish(&transport, [Record::new("t", "1").with_partition(partition)]).await;
    }
    sleep(Duration::from_secs(1)).await;
    let stopping = tokio::spawn(first.shutdown(Duration::from_secs(60)));
    sleep(Duration::from_secs(1)).await;
    // The second member's partitions now belong to the first.
    drop(second);
    timeout(Duration::from_secs(120), stopping).await.expect("the shutdown ends").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_commit_of_a_shutdown_is_made_after_others_failed() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let router = Router::new().on_topic("t", move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            sleep(Duration::from_secs(if text(delivery.record()) == "slow" { 5 } else { 0 })).await;
            seen.add(text(delivery.record()));
        }
    });
    let running = Service::new("s", router).start(&transport).await.unwrap();
    publish(&transport, [record("a", "1"), record("b", "slow")]).await;
    sleep(Duration::from_millis(100)).await;
    transport.faults().fail_commits(3, ErrorKind::Unavailable);
    running.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(log.lines(), ["1", "slow"]);
    assert_eq!(committed(&transport).await, Some(2));
}

/// A service whose batch handler logs its records, after `fails` has decided which of them fail.
fn batches(
    log: &Log,
    options: BatchOptions,
    fails: impl Fn(u32) -> Option<BoxError> + Clone + Sync + Send + 'static,
) -> Service {
    let (log, runs) = (log.clone(), Arc::new(AtomicU32::new(0)));
    let handler = move |batch: RawBatch| {
        let (log, fails, runs) = (log.clone(), fails.clone(), runs.clone());
        async move {
            if let Some(error) = fails(runs.fetch_add(1, Ordering::SeqCst)) {
                return Err(error);
            }
            // Long enough for another batch to overtake this one.
            sleep(Duration::from_millis(100)).await;
            batch.0.records().for_each(|record| log.add(text(record)));
            Ok(())
        }
    };
    Service::new("s", Router::new().on_topic("t", handler.batch(options)))
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_unavailable_keeps_its_order() {
    for seed in 0..20 {
        let (transport, log) = (broker(1).await, Log::default());
        let options = BatchOptions::new(5).with_wait(Duration::ZERO);
        let service = batches(&log, options, |run| (run == 0).then(|| unavailable("once").into()));
        publish(&transport, ["1", "2", "3", "4", "5"].map(|value| record("k", value))).await;
        let running = service.with_seed(seed).start(&transport).await.unwrap();
        caught_up(&running).await;
        assert_eq!(log.lines(), ["1", "2", "3", "4", "5"], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_joins_no_batch_past_one_that_waits() {
    let (transport, log) = (broker(1).await, Log::default());
    let options = BatchOptions::new(10).with_wait(Duration::from_millis(50));
    let running = batches(&log, options, |_| None).start(&transport).await.unwrap();
    for value in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        publish(&transport, [record("k", value)]).await;
        sleep(Duration::from_millis(30)).await;
    }
    caught_up(&running).await;
    assert_eq!(log.lines(), ["1", "2", "3", "4", "5", "6", "7", "8"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_failed_buries_no_innocent_record() {
    let (transport, log) = (broker(1).await, Log::default());
    let options = BatchOptions::new(3).with_wait(Duration::ZERO);
    // Once in the batch, and then the first one once alone: that is its first failure, not its second.
    let service = batches(&log, options, |run| (run < 2).then(|| "of one of them".into()));
    publish(&transport, [record("a", "1"), record("b", "2"), record("c", "3")]).await;
    let retry = Retry::exponential(Duration::from_secs(1)).without_jitter().with_max_retries(1);
    let running = service.with_retry(retry).start(&transport).await.unwrap();
    caught_up(&running).await;
    assert_eq!(log.lines(), ["2", "3", "1"]);
    assert!(read(&transport, "t-dlq").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_a_batch_waits_until_what_was_handled_is_settled() {
    let (transport, store, log) = (broker(1).await, MemoryStore::new(), Log::default());
    let options = BatchOptions::new(2).with_wait(Duration::ZERO);
    let service = batches(&log, options, |run| (run == 0).then(|| stopped_at(1, "once").into()));
    publish(&transport, [record("k", "1"), record("k", "2")]).await;
    store.faults().fail_completes(5, ErrorKind::Unavailable);
    let service = service.with_idempotency(store).with_observer(Arc::new(log.clone()));
    let running = service.start(&transport).await.unwrap();
    caught_up(&running).await;
    assert_eq!(log.lines(), ["retried 2", "handled 1", "2", "handled 2"]);
}

#[tokio::test(start_paused = true)]
async fn claims_that_could_not_be_given_back_are_given_back_later() {
    let (transport, store, log) = (broker(2).await, MemoryStore::new(), Log::default());
    let hang = Arc::new(AtomicBool::new(true));
    let service = || {
        let (log, hang) = (log.clone(), hang.clone());
        let router = Router::new().on_topic("t", move |delivery: Delivery| {
            let (log, hang) = (log.clone(), hang.clone());
            async move {
                if hang.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                log.add(text(delivery.record()));
            }
        });
        Service::new("s", router)
            .with_idempotency(store.clone())
            .with_revocation_deadline(Duration::from_secs(1))
            .with_handler_timeout(None)
    };
    let first = service().start(&transport).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for partition in 0..2 {
        publish(&transport, [Record::new("t", "1").with_partition(partition)]).await;
    }
    sleep(Duration::from_secs(1)).await;
    let second = service().start(&transport).await.unwrap();
    // Now a partition moves: the first member's deliveries are cancelled, and its claim cannot be released.
    store.faults().down();
    sleep(Duration::from_secs(2)).await;
    store.faults().up();
    hang.store(false, Ordering::SeqCst);
    caught_up(&second).await;
    assert!(!log.lines().is_empty(), "the first lives on, and its claim with it");
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_letter_counts_the_attempt_that_rejected_the_record() {
    let transport = broker(1).await;
    let handler = async |delivery: Delivery| -> Result<(), BoxError> {
        if delivery.attempt() < 3 { Err("not yet".into()) } else { Err(reject("never").into()) }
    };
    let running = Service::new("s", Router::new().on_topic("t", handler)).start(&transport).await.unwrap();
    publish(&transport, [record("k", "1")]).await;
    caught_up(&running).await;
    let letter = read(&transport, "t-dlq").await.remove(0);
    assert_eq!(letter.headers.get_str(dead_letter_headers::RETRY_COUNT), Some("2"));
    assert_eq!(letter.headers.get_str(dead_letter_headers::ATTEMPTS), Some("3"));
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "asked", key = &self.key)]
struct Asked {
    key: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "out", type = "answered", key = &self.key)]
struct Answered {
    key: String,
}

fn asked(id: u128) -> Record {
    let source = Name::default();
    let event = Asked { key: "k".into() };
    codec::encode(EnvelopeRef::new(uuid::Uuid::from_u128(id), Timestamp::default(), &source, &event), "").unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_published_twice_is_answered_under_one_id() {
    let transport = broker(1).await;
    let router = Router::new().on(async |event: Asked| Answered { key: event.key });
    publish(&transport, [asked(1), asked(1)]).await;
    let running = Service::new("s", router).start(&transport).await.unwrap();
    caught_up(&running).await;
    let ids: Vec<_> = read(&transport, "out").await.iter().map(|record| codec::peek(record).unwrap().id).collect();
    assert_eq!((ids.len(), ids[0]), (2, ids[1]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_answers_were_refused_keeps_its_order() {
    for seed in 0..20 {
        let (transport, log) = (broker(1).await, Log::default());
        let seen = log.clone();
        let handler = move |batch: Batch<Asked>| {
            let seen = seen.clone();
            async move {
                seen.add(batch.iter().map(|event| event.id.as_u128().to_string()).collect::<Vec<_>>().join(" "));
                batch.iter().map(|event| event.causes(Answered { key: event.payload.key.clone() })).collect::<Vec<_>>()
            }
        };
        let handler = handler.batch(BatchOptions::new(4).with_wait(Duration::ZERO));
        transport.faults().publish(PublishFault::new(ErrorKind::Denied).with_topic("out"));
        publish(&transport, (1..=4).map(asked)).await;
        let running = Service::new("s", Router::new().on(handler)).with_seed(seed).start(&transport).await.unwrap();
        caught_up(&running).await;
        let runs = log.lines();
        let again: Vec<_> = runs[1..].iter().flat_map(|run| run.split(' ')).collect();
        assert_eq!(again, ["1", "2", "3", "4"], "seed {seed}");
    }
}
