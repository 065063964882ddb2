//! Known failures of other frameworks, each as a test of this one. The linked threads are user reports.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    BoxError, ConsumerOptions, Delivery, ErrorKind, Name, Record, Step, StoredRecord, Topic, TopicPartition, Transport,
    dead_letter_headers,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{Retry, Router, Service, ServiceHandle, ServiceState};
use tokio::time::{Instant, sleep, timeout};

/// Long enough for anything on the paused clock.
const LONG: Duration = Duration::from_secs(3_600);

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

fn value(delivery: &Delivery) -> String {
    delivery.record().value.as_deref().map_or("null".into(), |value| String::from_utf8_lossy(value).into_owned())
}

async fn broker(partitions: u32) -> MemoryTransport {
    let transport = MemoryTransport::new();
    let topics = [Topic::new("t").with_partitions(partitions), Topic::new("t-dlq")];
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

/// A service that passes each record to `handler`, with retries after 100, 200 and 400 ms.
fn service<F, Fut>(handler: F) -> Service
where
    F: Fn(Delivery) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let retry = Retry::exponential(Duration::from_millis(100)).without_jitter();
    Service::new("s", Router::new().on_topic("t", handler)).with_retry(retry)
}

async fn caught_up(running: &ServiceHandle) {
    timeout(LONG, running.caught_up()).await.expect("it catches up").unwrap();
}

async fn committed(transport: &MemoryTransport, partition: u32) -> Option<u64> {
    let lag = transport.admin().await.unwrap().group_lag(&Name::from_static("s-group")).await.unwrap();
    lag.into_iter().find(|lag| lag.partition == TopicPartition::new("t", partition))?.committed
}

async fn letters(transport: &MemoryTransport) -> Vec<StoredRecord> {
    let consumer = transport.consumer(ConsumerOptions::new("reader", ["t-dlq"])).await.unwrap();
    let mut letters = Vec::new();
    while let Ok(step) = timeout(Duration::from_millis(10), consumer.next()).await {
        if let Step::Records(fetched) = step.unwrap() {
            letters.extend(fetched.batch.records().to_vec());
        }
    }
    letters
}

/// Attempts counted only in memory restart with each process, so that a poison record blocks for ever:
/// MassTransit/MassTransit#2076.
#[tokio::test(start_paused = true)]
async fn attempts_made_before_a_restart_count() {
    let (transport, store, log) = (broker(1).await, MemoryStore::new(), Log::default());
    let started = |log: Log| {
        let poison = move |delivery: Delivery| {
            log.add(delivery.attempt().to_string());
            async { Err::<(), BoxError>("poison".into()) }
        };
        // A minute between attempts: a restart happens in between.
        let retry = Retry::exponential(Duration::from_secs(60)).without_jitter().with_max_retries(2);
        service(poison).with_retry(retry).with_idempotency(store.clone())
    };
    publish(&transport, [record("k", "poison")]).await;
    for _ in 0..3 {
        let running = started(log.clone()).start(&transport).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        running.shutdown(Duration::from_secs(1)).await.unwrap();
    }
    let running = started(log.clone()).start(&transport).await.unwrap();
    caught_up(&running).await;
    assert_eq!(letters(&transport).await.len(), 1, "attempts: {:?}", log.lines());
    assert_eq!(log.lines().len(), 3, "no attempt beyond the third");
}

/// A dead letter is sent without waiting, and the record is committed though nothing was stored:
/// yaalalabs/agent-kernel#630 (review).
#[tokio::test(start_paused = true)]
async fn nothing_is_committed_past_a_dead_letter_that_was_not_written() {
    let transport = broker(1).await;
    transport.faults().set_dead_letters_down(false);
    let service = service(async |_: Delivery| Err("always".into())).with_retry(Retry::never());
    let running = service.start(&transport).await.unwrap();
    transport.faults().set_dead_letters_down(true);
    publish(&transport, [record("k", "poison")]).await;
    sleep(LONG).await;
    assert_eq!(committed(&transport, 0).await, Some(0));
    let status = running.status().await;
    assert_eq!(status.state, ServiceState::Degraded);
    assert!(status.problems.iter().any(|problem| problem.contains("dead letter")), "{:?}", status.problems);
}

/// A record is settled before its letter is refused, and is lost from both the topic and the dead letters:
/// KanishJebaMathewM/Truxify#5689.
#[tokio::test(start_paused = true)]
async fn a_refused_dead_letter_is_written_when_the_sink_is_back() {
    let transport = broker(1).await;
    let service = service(async |_: Delivery| Err("always".into())).with_retry(Retry::never());
    let running = service.start(&transport).await.unwrap();
    transport.faults().set_dead_letters_down(true);
    publish(&transport, [record("k", "poison")]).await;
    sleep(LONG).await;
    transport.faults().heal();
    caught_up(&running).await;
    assert_eq!(letters(&transport).await.len(), 1);
}

/// The highest offset seen is committed while an earlier record is still being handled, which a crash then loses:
/// bsm/sarama-cluster#148, robinhood/faust#682.
#[tokio::test(start_paused = true)]
async fn the_highest_offset_seen_is_not_committed() {
    let (transport, log) = (broker(1).await, Log::default());
    let hang = Arc::new(AtomicBool::new(true));
    let handler = |log: Log, hang: Arc<AtomicBool>| {
        move |delivery: Delivery| {
            let (log, hang) = (log.clone(), hang.clone());
            async move {
                if value(&delivery) == "slow" && hang.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                log.add(value(&delivery));
                Ok(())
            }
        }
    };
    publish(&transport, [record("a", "slow"), record("b", "fast")]).await;
    let running = service(handler(log.clone(), hang.clone())).start(&transport).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(log.lines(), ["fast"]);
    drop(running);
    hang.store(false, Ordering::SeqCst);
    let running = service(handler(log.clone(), hang)).start(&transport).await.unwrap();
    caught_up(&running).await;
    assert!(log.lines().contains(&"slow".to_owned()), "{:?}", log.lines());
}

/// An event is marked as seen before its handler is done; after a crash the redelivery counts as a duplicate:
/// kalaspuff/tomodachi#2074, apache/pulsar#5218.
#[tokio::test(start_paused = true)]
async fn an_event_whose_handler_died_is_no_duplicate() {
    let (transport, store, log) = (broker(1).await, MemoryStore::new(), Log::default());
    let first = service(async |_: Delivery| std::future::pending().await).with_idempotency(store.clone());
    publish(&transport, [record("k", "event")]).await;
    let running = first.start(&transport).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(running);
    let seen = log.clone();
    let second = service(move |delivery: Delivery| {
        seen.add(value(&delivery));
        async { Ok(()) }
    });
    let running = second.with_idempotency(store).start(&transport).await.unwrap();
    caught_up(&running).await;
    assert_eq!(log.lines(), ["event"]);
}

/// A shutdown cancels the handlers that run, instead of letting them finish: ThreeDotsLabs/watermill#568.
#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_handlers_end() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let slow = service(move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            sleep(Duration::from_secs(5)).await;
            seen.add(value(&delivery));
            Ok(())
        }
    });
    publish(&transport, [record("k", "event")]).await;
    let running = slow.start(&transport).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    running.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(log.lines(), ["event"]);
    assert_eq!(committed(&transport, 0).await, Some(1), "and what they did is committed");
}

/// A healthy partition resets the attempts of another one's poison record, which is then retried for ever:
/// spring-projects/spring-kafka#4371.
#[tokio::test(start_paused = true)]
async fn a_healthy_partition_does_not_reset_another_ones_attempts() {
    let transport = broker(2).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let handler = move |delivery: Delivery| {
        let poison = value(&delivery) == "poison";
        counted.fetch_add(usize::from(poison), Ordering::SeqCst);
        async move { if poison { Err("poison".into()) } else { Ok(()) } }
    };
    let running = service(handler).start(&transport).await.unwrap();
    publish(&transport, [Record::new("t", "poison").with_partition(0)]).await;
    for _ in 0..100 {
        publish(&transport, [Record::new("t", "fine").with_partition(1)]).await;
        sleep(Duration::from_millis(20)).await;
    }
    caught_up(&running).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 4);
    assert_eq!(letters(&transport).await.len(), 1);
}

/// A consumer that has lost a partition continues to commit it, and resets the group: akka/alpakka-kafka#118,
/// confluentinc/confluent-kafka-go#209.
#[tokio::test(start_paused = true)]
async fn a_commit_of_a_lost_assignment_takes_nothing_back() {
    let transport = broker(1).await;
    let slow = Arc::new(AtomicBool::new(true));
    let flag = slow.clone();
    let handler = move |_: Delivery| {
        let wait = flag.swap(false, Ordering::SeqCst);
        async move {
            if wait {
                sleep(Duration::from_secs(5)).await;
            }
            Ok(())
        }
    };
    let first = service(handler.clone()).start(&transport).await.unwrap();
    publish(&transport, [record("a", "1"), record("b", "2"), record("c", "3")]).await;
    sleep(Duration::from_millis(1_500)).await;
    assert!(transport.faults().lose("s-group", &TopicPartition::new("t", 0)));
    caught_up(&first).await;
    assert_eq!(committed(&transport, 0).await, Some(3));
    // The first assignment's handler ends now; its commit comes too late.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(committed(&transport, 0).await, Some(3));
}

/// A consumer at its limit stops polling, and its group removes it: eclipse-hono/hono#2921.
#[tokio::test(start_paused = true)]
async fn backpressure_does_not_leave_the_group() {
    let transport = broker(1).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let handler = move |_: Delivery| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            sleep(Duration::from_secs(1_000)).await;
            Ok(())
        }
    };
    let service = service(handler).with_handler_timeout(None).with_max_span(1).with_max_bytes_in_flight(1);
    let running = service.start(&transport).await.unwrap();
    publish(&transport, [record("a", "1"), record("a", "2"), record("a", "3")]).await;
    caught_up(&running).await;
    assert_eq!(runs.load(Ordering::SeqCst), 3, "each once: the partition was never taken away");
}

/// A handler's error is logged, and the offset is committed nevertheless: Farfetch/kafkaflow#283,
/// mateusjunges/laravel-kafka#394.
#[tokio::test(start_paused = true)]
async fn an_error_of_a_handler_loses_nothing() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let handler = move |delivery: Delivery| {
        seen.add(format!("{} {}", value(&delivery), delivery.attempt()));
        async move { if delivery.attempt() < 3 { Err("not yet".into()) } else { Ok(()) } }
    };
    let running = service(handler).start(&transport).await.unwrap();
    publish(&transport, [record("k", "event")]).await;
    caught_up(&running).await;
    assert_eq!(log.lines(), ["event 1", "event 2", "event 3"]);
}

/// A record that cannot be read is never dead-lettered, and is retried for ever: spring-projects/spring-kafka#1287,
/// AxonIQ/AxonFramework#3126.
#[tokio::test(start_paused = true)]
async fn an_undecodable_record_reaches_the_dead_letters_as_it_is() {
    #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    #[event(crate = "tidings_core", topic = "t", type = "typed")]
    struct Typed;

    let transport = broker(1).await;
    let service = Service::new("s", Router::new().on(async |_: Typed| {}));
    let running = service.start(&transport).await.unwrap();
    let garbage = Record::new("t", &b"\xff\x00 no event"[..]).with_key("k").with_header("h", "1").with_header("h", "2");
    publish(&transport, [garbage]).await;
    caught_up(&running).await;
    let letter = letters(&transport).await.remove(0);
    assert_eq!(letter.value.as_deref(), Some(&b"\xff\x00 no event"[..]));
    assert_eq!(letter.headers.iter().filter(|header| header.name == "h").count(), 2);
    assert_eq!(letter.headers.get_str(dead_letter_headers::ERROR_KIND), Some(ErrorKind::Undecodable.as_str()));
}

/// A retry publishes the record to its topic again, where every other group handles it a second time:
/// Trendyol/Confluent.Kafka#3.
#[tokio::test(start_paused = true)]
async fn a_retry_is_nothing_to_other_groups() {
    let transport = broker(1).await;
    let failing = service(async |d: Delivery| if d.attempt() < 3 { Err("not yet".into()) } else { Ok(()) });
    let failing = failing.start(&transport).await.unwrap();
    let log = Log::default();
    let seen = log.clone();
    let other = service(move |delivery: Delivery| {
        seen.add(value(&delivery));
        async { Ok(()) }
    });
    let other = other.with_group("other").start(&transport).await.unwrap();
    publish(&transport, [record("k", "event")]).await;
    caught_up(&failing).await;
    caught_up(&other).await;
    assert_eq!(log.lines(), ["event"]);
}

/// After one failure, a key is handled in the order 2, 3, 1: apache/pulsar#15317.
#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_over_a_failure() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let handler = move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            if value(&delivery) == "1" && delivery.attempt() == 1 {
                return Err("once".into());
            }
            seen.add(value(&delivery));
            Ok(())
        }
    };
    let running = service(handler).start(&transport).await.unwrap();
    publish(&transport, [record("k", "1"), record("k", "2"), record("k", "3")]).await;
    caught_up(&running).await;
    assert_eq!(log.lines(), ["1", "2", "3"]);
}

/// A failed record is redelivered without delay, repeatedly: Particular/NServiceBus.RabbitMQ#1259,
/// it-at-m/zammad-ai#310.
#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_each_time() {
    let (transport, log) = (broker(1).await, Log::default());
    let (seen, start) = (log.clone(), Instant::now());
    let handler = move |_: Delivery| {
        seen.add(start.elapsed().as_millis().to_string());
        async { Err("always".into()) }
    };
    let running = service(handler).start(&transport).await.unwrap();
    publish(&transport, [record("k", "poison")]).await;
    caught_up(&running).await;
    let times: Vec<u64> = log.lines().iter().map(|line| line.parse().unwrap()).collect();
    let waits: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Timers are exact to a millisecond.
    assert!(waits.iter().zip([100, 200, 400]).all(|(wait, due)| wait.abs_diff(due) <= 1), "{waits:?}");
}

/// One slow key stops all others: apache/pulsar#25706.
#[tokio::test(start_paused = true)]
async fn a_slow_key_stops_no_other() {
    let (transport, log) = (broker(1).await, Log::default());
    let seen = log.clone();
    let handler = move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            if value(&delivery) == "slow" {
                sleep(Duration::from_secs(50)).await;
            }
            seen.add(value(&delivery));
            Ok(())
        }
    };
    let running = service(handler).with_workers(1).start(&transport).await.unwrap();
    publish(&transport, [record("a", "slow"), record("a", "behind"), record("b", "free"), record("c", "free")]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(log.lines(), ["free", "free"]);
    caught_up(&running).await;
    assert_eq!(log.lines(), ["free", "free", "slow", "behind"]);
}
