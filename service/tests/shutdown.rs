//! Reports of a shutdown.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::time::Duration;

use common::{publish, start, topics};
use tidings_core::{Delivery, Record, TopicPartition};
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service};

/// A service whose handler never ends for the value `hang`.
async fn with_records(values: &[&'static str]) -> tidings_service::ServiceHandle {
    let transport = MemoryTransport::new();
    topics(&transport, &["t"]).await;
    publish(&transport, values.iter().map(|value| Record::new("t", *value).with_key("one")).collect()).await;
    let handler = async |delivery: Delivery| {
        if delivery.record().value.as_deref() == Some(b"hang".as_slice()) {
            std::future::pending::<()>().await;
        }
    };
    let running = start(Service::new("s", Router::new().on_topic("t", handler)), &transport).await;
    let all_fetched = async {
        while running.status().await.partitions.first().is_none_or(|p| p.position < values.len() as u64) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_fetched).await.expect("the records are fetched");
    running
}

#[tokio::test(start_paused = true)]
async fn what_was_cancelled_is_reported_by_partition() {
    let running = with_records(&["a", "hang", "c"]).await;
    let report = running.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!((report.records(), report.is_cancelled(), report.returned.len()), (2, true, 1));
    let partition = &report.returned[0];
    assert_eq!(partition.partition, TopicPartition::new("t", 0));
    assert_eq!((partition.committed, partition.records, partition.cancelled), (Some(1), 2, true));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reported_where_all_is_settled() {
    let running = with_records(&["a", "b", "c"]).await;
    running.caught_up().await.unwrap();
    let report = running.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!((report.records(), report.is_cancelled()), (0, false));
}
