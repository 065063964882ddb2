//! Operations: pausing, status, stalls, and a service that fails.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Log, caught_up, letters, publish, start, topics};
use tidings_core::{BoxError, Delivery, ErrorKind, Record, Topic, TopicPartition, Transport, reject};
use tidings_memory::MemoryTransport;
use tidings_service::{Observer, PauseReason, RecordEvent, Router, Service, ServiceState, State, TopicPolicy};
use tokio::time::sleep;

fn record(key: &'static str, value: &'static str) -> Record {
    Record::new("t", value).with_key(key)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned()
}

/// A handler that takes a second.
fn slow(log: &Log) -> Router {
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", text(&delivery)));
        sleep(Duration::from_secs(1)).await;
        log.add(format!("ended {}", text(&delivery)));
    };
    Router::new().on_topic("t", handler).with_state(log.clone())
}

#[tokio::test(start_paused = true)]
async fn a_paused_service_begins_nothing_and_ends_what_it_began() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = Service::new("s", slow(&log)).with_workers(1).with_concurrency(1);
    let service = start(service, &transport).await;
    // Fetched together: the second waits in the service, not in the broker.
    publish(&transport, vec![record("a", "1"), record("b", "2")]).await;
    sleep(Duration::from_millis(500)).await;
    service.pause().expect("it runs");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines(), ["begun 1", "ended 1"]);
    let status = service.status().await;
    assert_eq!((status.state, status.partitions[0].in_flight, status.lag()), (ServiceState::Paused, 1, 1));
    assert_eq!(status.partitions[0].paused, [PauseReason::Operator]);
    assert_eq!(status.partitions[0].committed, Some(1), "what ended is committed");
    service.resume().expect("it runs");
    caught_up(&service).await;
    assert_eq!(log.lines(), ["begun 1", "ended 1", "begun 2", "ended 2"]);
    assert_eq!(service.status().await.state, ServiceState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_paused_service_can_be_stopped() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = start(Service::new("s", slow(&log)), &transport).await;
    service.pause().expect("it runs");
    publish(&transport, vec![record("a", "1")]).await;
    sleep(Duration::from_secs(5)).await;
    service.shutdown(Duration::from_secs(10)).await.expect("it stops");
    assert!(log.lines().is_empty(), "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_is_not_read_and_the_others_are() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let admin = transport.admin().await.expect("memory is up");
    let wanted = [Topic::new("t").with_partitions(2), Topic::new("t-dlq")];
    admin.create_topics(&wanted).await.expect("memory is up").into_iter().for_each(|answer| answer.expect("it is new"));
    let service = start(Service::new("s", slow(&log)), &transport).await;
    service.pause_partitions([TopicPartition::new("t", 1)]).expect("it runs");
    sleep(Duration::from_secs(1)).await;
    publish(&transport, vec![Record::new("t", "0").with_partition(0), Record::new("t", "1").with_partition(1)]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines(), ["begun 0", "ended 0"]);
    service.resume_partitions([TopicPartition::new("t", 1)]).expect("it runs");
    caught_up(&service).await;
    assert_eq!(log.lines().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_seen_and_so_is_its_end() {
    let (transport, released) = (MemoryTransport::new(), Arc::new(tokio::sync::Notify::new()));
    topics(&transport, &["t"]).await;
    let wait = released.clone();
    let router = Router::new().on_topic("t", move |_: Delivery| {
        let wait = wait.clone();
        async move { wait.notified().await }
    });
    let service = start(Service::new("s", router).with_handler_timeout(None), &transport).await;
    publish(&transport, vec![record("a", "1")]).await;
    sleep(Duration::from_secs(30)).await;
    assert!(service.status().await.is_healthy(), "half a minute is no stall");
    sleep(Duration::from_secs(60)).await;
    let status = service.status().await;
    assert_eq!(status.state, ServiceState::Degraded);
    assert!(status.problems.iter().any(|problem| problem.contains("there is lag")), "{:?}", status.problems);
    released.notify_one();
    caught_up(&service).await;
    assert!(service.status().await.is_healthy());
}

/// A user's observer with a bug.
#[derive(Debug)]
struct Panics;

impl Observer for Panics {
    fn observe(&self, event: &RecordEvent<'_>) {
        assert!(event.record.offset == 0, "an observer with a bug");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_commits_nothing_unfinished_and_says_so() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    publish(&transport, vec![record("a", "1"), record("a", "2"), record("b", "3")]).await;
    let service = start(Service::new("s", slow(&log)).with_observer(Arc::new(Panics)), &transport).await;
    let error = tokio::time::timeout(Duration::from_secs(60), service.stopped()).await.expect("it ends");
    assert_eq!(error.expect_err("it failed").kind(), ErrorKind::Failed);
    assert_eq!(service.status().await.state, ServiceState::Failed);
    let lag = transport.admin().await.expect("memory is up").group_lag(&"s-group".into()).await.expect("it is known");
    assert!(lag[0].committed <= Some(1), "{lag:?}");
    let again = start(Service::new("s", slow(&log)), &transport).await;
    caught_up(&again).await;
    let ended = log.lines();
    assert!(["ended 1", "ended 2", "ended 3"].iter().all(|line| ended.contains(&(*line).to_owned())), "{ended:?}");
    assert!(letters(&transport, "t-dlq").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn topics_that_are_missing_are_made_with_the_prefix_and_room_for_their_letters() {
    let transport =
        MemoryTransport::open(tidings_memory::MemoryConfig::new().with_auto_create(false)).expect("a config");
    let wanted = vec![Topic::new("t").with_partitions(3).with_max_record_bytes(5_000_000)];
    let handler = async |_: Delivery| -> Result<(), BoxError> { Err(reject("on purpose").into()) };
    let service = Service::new("s", Router::new().on_topic("t", handler)).with_topic_prefix("dev-");
    let running = start(service.with_topics(TopicPolicy::Create(wanted)), &transport).await;
    let admin = transport.admin().await.expect("an admin");
    let found = admin.describe_topics(&["dev-t".into(), "dev-t-dlq".into()]).await.expect("memory is up");
    let found: Vec<_> = found.into_iter().map(|topic| topic.expect("it is there")).collect();
    assert_eq!(found.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [3, 3]);
    publish(&transport, vec![Record::new("dev-t", vec![0; 4_990_000])]).await;
    caught_up(&running).await;
    assert_eq!(running.status().await.totals.dead_lettered, 1);
}
