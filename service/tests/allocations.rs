//! Allocations per delivery: at most one beyond those of its publisher, and none if the handler is ready at once.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use bytes::Bytes;
use common::{caught_up, start, topics};
use tidings_core::{Delivery, Name, Record, Transport};
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
