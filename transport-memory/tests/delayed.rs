//! Delayed records: when they are published, their bounds, their cancellation, and an unreachable broker.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    DelayedRecord, Due, ErrorKind, Publisher, ReadLimits, Record, Timestamp, TopicPartition, Transport,
};
use tidings_memory::{MemoryConfig, MemoryTransport, PublishFault};
use tokio::time::{advance, sleep};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);
/// Timers of tokio have this precision.
const TICK: Duration = Duration::from_millis(1);

async fn publisher(transport: &MemoryTransport) -> Arc<dyn Publisher> {
    transport.publisher().await.unwrap()
}

fn delayed(value: &str, due: impl Into<Due>) -> DelayedRecord {
    DelayedRecord::new(Uuid::now_v7(), Record::new("t", value.to_owned()).with_key("k"), due)
}

/// Returns the values of the topic in their order, and when they were stored.
async fn stored(transport: &MemoryTransport) -> Vec<(String, Timestamp)> {
    let reader = transport.log_reader().await.unwrap();
    let partition = TopicPartition::new("t", 0);
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let (mut stored, mut offset) = (Vec::new(), 0);
    loop {
        let read = reader.read(&partition, offset, ReadLimits::default()).await.unwrap();
        let records = read.batch.records().iter();
        stored.extend(records.map(|record| (text(record.value.as_ref().unwrap()), record.timestamp)));
        offset = read.next_offset;
        if offset >= read.end_offset {
            return stored;
        }
    }
}

async fn values(transport: &MemoryTransport) -> Vec<String> {
    stored(transport).await.into_iter().map(|(value, _)| value).collect()
}

#[tokio::test(start_paused = true)]
async fn records_are_stored_when_they_are_due_and_not_before() {
    let transport = MemoryTransport::new();
    let (publisher, start) = (publisher(&transport).await, transport.now());
    publisher.publish_delayed(delayed("last", 2 * HOUR)).await.unwrap();
    publisher.publish_delayed(delayed("first", start.saturating_add(HOUR))).await.unwrap();
    publisher.publish_delayed(delayed("second", HOUR)).await.unwrap();
    publisher.publish_delayed(delayed("past", Timestamp::from_millis(0))).await.unwrap();
    sleep(HOUR - TICK).await;
    assert_eq!(values(&transport).await, ["past"]);
    sleep(2 * TICK).await;
    assert_eq!(values(&transport).await, ["past", "first", "second"]);
    publisher.publish(vec![Record::new("t", "now").with_key("k")]).await.remove(0).unwrap();
    sleep(HOUR).await;
    let stored = stored(&transport).await;
    assert_eq!(stored[3..].iter().map(|(value, _)| value.as_str()).collect::<Vec<_>>(), ["now", "last"]);
    assert!(stored[1].1 >= start.saturating_add(HOUR) && stored[4].1 >= start.saturating_add(2 * HOUR));
}

#[tokio::test(start_paused = true)]
async fn a_later_record_that_is_due_earlier_is_stored_first() {
    let transport = MemoryTransport::new();
    let publisher = publisher(&transport).await;
    publisher.publish_delayed(delayed("late", 24 * HOUR)).await.unwrap();
    sleep(TICK).await;
    publisher.publish_delayed(delayed("soon", HOUR)).await.unwrap();
    sleep(HOUR + TICK).await;
    assert_eq!(values(&transport).await, ["soon"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_record_is_never_stored_and_others_of_its_time_are() {
    let transport = MemoryTransport::new();
    let publisher = publisher(&transport).await;
    let (gone, stays) = (delayed("gone", HOUR), delayed("stays", HOUR));
    let again = DelayedRecord::new(gone.id, gone.record.clone(), 2 * HOUR);
    for record in [&gone, &stays, &again] {
        publisher.publish_delayed(record.clone()).await.unwrap();
    }
    assert!(publisher.cancel_delayed(gone.id).await.unwrap());
    assert!(!publisher.cancel_delayed(gone.id).await.unwrap());
    sleep(3 * HOUR).await;
    assert_eq!(values(&transport).await, ["stays"]);
    assert!(!publisher.cancel_delayed(stays.id).await.unwrap(), "it was published");
    // The task that had nothing left is started again.
    publisher.publish_delayed(delayed("next", HOUR)).await.unwrap();
    sleep(HOUR + TICK).await;
    assert_eq!(values(&transport).await, ["stays", "next"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_are_due_while_the_broker_is_down_are_stored_when_it_is_back() {
    let transport = MemoryTransport::new();
    let publisher = publisher(&transport).await;
    publisher.publish_delayed(delayed("1", HOUR)).await.unwrap();
    publisher.publish_delayed(delayed("2", HOUR)).await.unwrap();
    transport.faults().down();
    assert_eq!(publisher.publish_delayed(delayed("3", HOUR)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    sleep(2 * HOUR).await;
    transport.faults().up();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(values(&transport).await, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_wait_are_bounded_by_number_and_bytes() {
    let few = MemoryConfig::new().with_max_delayed_records(2);
    let small = MemoryConfig::new().with_max_delayed_bytes(2 * delayed("1", HOUR).record.size());
    for config in [few, small] {
        let transport = MemoryTransport::open(config).unwrap();
        let publisher = publisher(&transport).await;
        publisher.publish_delayed(delayed("1", HOUR)).await.unwrap();
        publisher.publish_delayed(delayed("2", HOUR)).await.unwrap();
        let refused = publisher.publish_delayed(delayed("3", HOUR)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("max_delayed_records"), "{refused}");
        sleep(HOUR + TICK).await;
        publisher.publish_delayed(delayed("4", HOUR)).await.unwrap();
        sleep(HOUR + TICK).await;
        assert_eq!(values(&transport).await, ["1", "2", "4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_can_not_be_published_is_refused_at_once() {
    let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false)).unwrap();
    let publisher = publisher(&transport).await;
    let missing = publisher.publish_delayed(delayed("1", HOUR)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let transport = MemoryTransport::open(MemoryConfig::new().with_max_record_bytes(10)).unwrap();
    let publisher = self::publisher(&transport).await;
    let large = publisher.publish_delayed(delayed("too large for it", HOUR)).await.unwrap_err();
    assert_eq!(large.kind(), ErrorKind::TooLarge);
    let publisher = self::publisher(&MemoryTransport::new()).await;
    let never = publisher.publish_delayed(delayed("1", Duration::MAX)).await.unwrap_err();
    assert_eq!(never.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_is_closed_accepts_none_and_what_it_accepted_is_published() {
    let transport = MemoryTransport::new();
    let publisher = publisher(&transport).await;
    let waits = delayed("1", HOUR);
    publisher.publish_delayed(waits.clone()).await.unwrap();
    publisher.close(HOUR).await.unwrap();
    assert_eq!(publisher.publish_delayed(delayed("2", HOUR)).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(publisher.cancel_delayed(waits.id).await.unwrap_err().kind(), ErrorKind::Closed);
    drop(publisher);
    advance(HOUR + TICK).await;
    sleep(TICK).await;
    assert_eq!(values(&transport).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn none_overtakes_one_that_failed() {
    let transport = MemoryTransport::new();
    let publisher = publisher(&transport).await;
    publisher.publish_delayed(delayed("first", HOUR)).await.unwrap();
    publisher.publish_delayed(delayed("second", HOUR)).await.unwrap();
    transport.faults().publish(PublishFault::new(ErrorKind::Unavailable));
    sleep(2 * HOUR).await;
    assert_eq!(values(&transport).await, ["first", "second"]);
}
