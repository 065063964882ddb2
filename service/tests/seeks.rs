//! Seeks of a running service: its position moves, and no record is lost, reordered or settled by older work.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Log, caught_up, publish, start, topics};
use tidings_core::{Delivery, ErrorKind, Record, SeekTo, Topic, TopicPartition, Transport};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{Router, Service, ServiceHandle, State};
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(5);

fn at() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn record(key: &'static str, value: &'static str) -> Record {
    Record::new("t", value).with_key(key)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.record().value.as_deref().unwrap_or_default()).into_owned()
}

/// A handler that takes a second, and for ever with a record that is stuck.
fn slow(log: &Log) -> Router {
    let handler = async |delivery: Delivery, State(log): State<Log>| {
        log.add(format!("begun {}", text(&delivery)));
        if text(&delivery) == "stuck" {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_secs(1)).await;
        log.add(format!("ended {}", text(&delivery)));
    };
    Router::new().on_topic("t", handler).with_state(log.clone())
}

async fn running(transport: &MemoryTransport, log: &Log) -> ServiceHandle {
    topics(transport, &["t"]).await;
    start(Service::new("s", slow(log)).with_workers(2).with_handler_timeout(None), transport).await
}

async fn committed(transport: &MemoryTransport) -> Option<u64> {
    let lag = transport.admin().await.expect("memory is up").group_lag(&"s-group".into()).await.expect("it is known");
    lag.iter().find(|lag| lag.partition == at()).and_then(|lag| lag.committed)
}

#[tokio::test(start_paused = true)]
async fn a_seek_back_handles_the_records_again_in_order_and_commits() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "1"), record("a", "2"), record("a", "3")]).await;
    caught_up(&service).await;
    let sought = service.seek(&at(), SeekTo::Offset(1), DEADLINE).await.expect("it is assigned");
    assert_eq!((sought.partition, sought.from, sought.to), (at(), 3, 1));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(committed(&transport).await, Some(1), "the new position is committed first");
    caught_up(&service).await;
    let ended: Vec<String> = log.lines().into_iter().filter(|line| line.starts_with("ended")).collect();
    assert_eq!(ended, ["ended 1", "ended 2", "ended 3", "ended 2", "ended 3"]);
    assert_eq!(committed(&transport).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_seek_forward_leaves_out_what_has_not_begun_and_finishes_what_has() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "1"), record("a", "2"), record("a", "3"), record("a", "4")]).await;
    sleep(Duration::from_millis(500)).await;
    let sought = service.seek(&at(), SeekTo::Offset(3), DEADLINE).await.expect("it is assigned");
    assert_eq!((sought.from, sought.to), (1, 3));
    caught_up(&service).await;
    assert_eq!(log.lines(), ["begun 1", "ended 1", "begun 4", "ended 4"]);
    assert_eq!(committed(&transport).await, Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_is_cancelled_at_the_deadline_and_passed() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "stuck"), record("a", "2")]).await;
    sleep(Duration::from_secs(10)).await;
    let begun = tokio::time::Instant::now();
    let sought = service.seek(&at(), SeekTo::Offset(1), DEADLINE).await.expect("it is assigned");
    assert_eq!((sought.from, sought.to), (0, 1));
    assert!(begun.elapsed() >= DEADLINE && begun.elapsed() < 2 * DEADLINE, "{:?}", begun.elapsed());
    caught_up(&service).await;
    assert_eq!(log.lines(), ["begun stuck", "begun 2", "ended 2"]);
    assert_eq!(committed(&transport).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_store_knows_what_a_seek_back_repeats() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    topics(&transport, &["t"]).await;
    let service = Service::new("s", slow(&log)).with_idempotency(MemoryStore::new());
    let service = start(service, &transport).await;
    publish(&transport, vec![record("a", "1"), record("b", "2")]).await;
    caught_up(&service).await;
    service.seek(&at(), SeekTo::Earliest, DEADLINE).await.expect("it is assigned");
    caught_up(&service).await;
    let totals = service.status().await.totals;
    assert_eq!((totals.handled, totals.duplicates), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn other_partitions_go_on_meanwhile() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let admin = transport.admin().await.expect("memory is up");
    let wanted = [Topic::new("t").with_partitions(2), Topic::new("t-dlq")];
    admin.create_topics(&wanted).await.expect("memory is up").into_iter().for_each(|answer| answer.expect("it is new"));
    let service = start(Service::new("s", slow(&log)).with_handler_timeout(None), &transport).await;
    publish(&transport, vec![Record::new("t", "stuck").with_partition(0)]).await;
    sleep(Duration::from_secs(1)).await;
    let control = service.control();
    let seek = tokio::spawn(async move { control.seek(&at(), SeekTo::Latest, Duration::from_secs(60)).await });
    sleep(Duration::from_secs(1)).await;
    publish(&transport, vec![Record::new("t", "other").with_partition(1)]).await;
    sleep(Duration::from_secs(5)).await;
    assert!(log.lines().contains(&"ended other".to_owned()), "{:?}", log.lines());
    assert!(!seek.is_finished());
    assert_eq!(seek.await.expect("it ends").expect("it is assigned").to, 1);
    caught_up(&service).await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_of_another_instance_is_refused_and_so_is_a_second_seek() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "stuck")]).await;
    sleep(Duration::from_secs(1)).await;
    let foreign = service.seek(&TopicPartition::new("t", 7), SeekTo::Earliest, DEADLINE).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::NotFound, "{foreign}");
    let first = service.control();
    let first = tokio::spawn(async move { first.seek(&at(), SeekTo::Latest, DEADLINE).await });
    sleep(Duration::from_secs(1)).await;
    let second = service.seek(&at(), SeekTo::Earliest, DEADLINE).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict, "{second}");
    assert_eq!(first.await.expect("it ends").expect("it is assigned").to, 1);
    let control = service.control();
    service.shutdown(DEADLINE).await.expect("it stops");
    assert_eq!(control.seek(&at(), SeekTo::Latest, DEADLINE).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_seek_moves_nothing_and_loses_nothing() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "1"), record("a", "2"), record("a", "3")]).await;
    sleep(Duration::from_millis(500)).await;
    transport.faults().down();
    let refused = service.seek(&at(), SeekTo::Latest, DEADLINE).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused}");
    assert!(refused.to_string().contains("nothing was moved"), "{refused}");
    transport.faults().up();
    caught_up(&service).await;
    let ended: Vec<String> = log.lines().into_iter().filter(|line| line.starts_with("ended")).collect();
    assert_eq!(ended, ["ended 1", "ended 2", "ended 3"], "those that had not begun are read again");
    assert_eq!(committed(&transport).await, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_revoked_meanwhile_is_not_moved() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "1"), record("a", "stuck")]).await;
    sleep(Duration::from_secs(3)).await;
    let control = service.control();
    let seek = tokio::spawn(async move { control.seek(&at(), SeekTo::Latest, Duration::from_secs(600)).await });
    sleep(Duration::from_secs(1)).await;
    transport.faults().rebalance("s-group");
    let fenced = tokio::time::timeout(Duration::from_secs(120), seek).await.expect("the group's deadline counts");
    assert_eq!(fenced.expect("it ends").unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(committed(&transport).await, Some(1), "the group has the old position");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_with_an_earlier_deadline_shortens_a_drain() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = running(&transport, &log).await;
    publish(&transport, vec![record("a", "stuck")]).await;
    sleep(Duration::from_secs(1)).await;
    service.control().drain(Duration::from_secs(3_600)).expect("it runs");
    sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    let report = service.shutdown(Duration::from_secs(5)).await.expect("it stops");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(report.returned[0].cancelled, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_a_service_that_run_owns() {
    let (transport, log) = (MemoryTransport::new(), Log::default());
    let service = Arc::new(running(&transport, &log).await);
    let control = service.control();
    publish(&transport, vec![record("a", "1")]).await;
    sleep(Duration::from_millis(500)).await;
    control.drain(Duration::from_secs(60)).expect("it runs");
    service.stopped().await.expect("it ends as after a shutdown");
    assert_eq!(log.lines(), ["begun 1", "ended 1"]);
    assert_eq!(committed(&transport).await, Some(1));
}
