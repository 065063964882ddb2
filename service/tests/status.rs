//! Tests of a service's status.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use common::{caught_up, publish, start, topics};
use tidings_core::{Delivery, Record, reject};
use tidings_memory::MemoryTransport;
use tidings_service::{HandlerExt, Router, Service};

#[tokio::test(start_paused = true)]
async fn counters_are_kept_by_handler() {
    let transport = MemoryTransport::new();
    topics(&transport, &["t", "u"]).await;
    let records = [("t", Some("x")), ("t", Some("y")), ("u", Some("z")), ("t", None)];
    let record = |(topic, value): (&'static str, Option<&'static str>)| match value {
        Some(value) => Record::new(topic, value),
        None => Record::tombstone(topic),
    };
    publish(&transport, records.into_iter().map(record).collect()).await;
    let router = Router::new()
        .on_topic("t", (async |_: Delivery| {}).named("first"))
        .on_topic("u", (async |_: Delivery| Err::<(), _>(reject("no"))).named("second"));
    let running = start(Service::new("s", router), &transport).await;
    caught_up(&running).await;
    let status = running.status().await;
    let by_handler: Vec<_> = status
        .handlers
        .iter()
        .map(|handler| (&*handler.handler, handler.totals.handled, handler.totals.dead_lettered))
        .collect();
    assert_eq!(by_handler, [("first", 3, 0), ("second", 0, 1)]);
    assert_eq!((status.totals.handled, status.totals.dead_lettered), (3, 1));
}
