//! Allocations per delivery: at most one beyond those of its publisher, and none if the handler is ready at once.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use bytes::Bytes;
use common::{caught_up, start, topics};
use serde::{Deserialize, Serialize};
use tidings_core::{Delivery, Envelope, Event, Name, Record, StoredRecord, Timestamp, Transport, codec};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service};

const RECORDS: u64 = 20_000;
const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];

/// Publishes `records`, and handles and commits them all; returns the number handled.
fn drain(records: u64) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let transport = MemoryTransport::new();
        topics(&transport, &["t"]).await;
        let publisher = transport.publisher().await.expect("memory is up");
        // Records share static values and keys: the remaining allocations are the log's segments and the engine's.
        let record = |n: u64| {
            Record::new(Name::from_static("t"), Bytes::from_static(b"value")).with_key(KEYS[n as usize % KEYS.len()])
        };
        publisher.publish((0..records).map(record).collect()).await;
        let router = Router::new().on_topic("t", async |delivery: Delivery| drop(delivery));
        let service = Service::new("s", router).with_workers(1);
        let service = start(service, &transport).await;
        caught_up(&service).await;
        service.status().await.totals.handled
    })
}

#[test]
fn a_raw_delivery_whose_handler_is_ready_allocates_nothing_of_its_own() {
    let count = |records| {
        let mut handled = 0;
        let counted = allocation_counter::measure(|| handled = drain(records));
        assert_eq!(handled, records);
        counted.count_total
    };
    let (few, many) = (count(1_000), count(1_000 + RECORDS));
    let per_record = many.saturating_sub(few) as f64 / RECORDS as f64;
    assert!(per_record < 0.1, "{per_record} allocations for each delivery");
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "noted")]
struct NotedV1 {
    id: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "noted", version = 2, upcast_from = NotedV1)]
struct Noted {
    number: u32,
}

/// The same, without an older version.
#[derive(Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "t", type = "noted", version = 2)]
struct Alone {
    number: u32,
}

impl From<NotedV1> for Noted {
    fn from(old: NotedV1) -> Self {
        Self { number: old.id }
    }
}

/// Returns the allocations of reading `record` as an `E`.
fn allocations<E: Event>(record: &StoredRecord) -> u64 {
    allocation_counter::measure(|| drop(codec::decode::<E>(record).expect("it is read"))).count_total
}

#[test]
fn an_upcast_costs_records_of_the_current_version_no_allocation() {
    fn stored<E: Event>(event: E) -> StoredRecord {
        let record = codec::encode(Envelope::new(event).with_source("a service").as_ref(), "").expect("it is written");
        StoredRecord::from_record(record, 0, Timestamp::now())
    }
    let current = stored(Noted { number: 7 });
    assert_eq!(allocations::<Noted>(&current), allocations::<Alone>(&current));
    // Nor those of the older one: it is read once, and converted.
    let older = stored(NotedV1 { id: 7 });
    assert_eq!(allocations::<Noted>(&older), allocations::<NotedV1>(&older));
}
