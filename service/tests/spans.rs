//! The spans that a service opens.
//!
//! This file has one test: `tracing` caches per callsite whether a subscriber is interested, and a thread without a
//! subscriber that comes first decides for all others. So the subscriber here is global, and no other test runs in the
//! process.

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use common::{caught_up, publish, start, topics};
use tidings_core::{Delivery, Record};
use tidings_memory::MemoryTransport;
use tidings_service::{Router, Service};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};

/// A span's name and fields.
type Seen = (String, BTreeMap<String, String>);

/// The spans that were opened.
#[derive(Debug, Clone, Default)]
struct Spans {
    seen: Arc<Mutex<Vec<Seen>>>,
    next: Arc<AtomicU64>,
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span()
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields(BTreeMap::new());
        attributes.record(&mut fields);
        self.seen.lock().expect("no panic").push((attributes.metadata().name().to_owned(), fields.0));
        Id::from_u64(self.next.fetch_add(1, SeqCst) + 1)
    }
    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_delivery_has_a_span_by_the_names_of_opentelemetry() {
    let (transport, spans) = (MemoryTransport::new(), Spans::default());
    topics(&transport, &["t"]).await;
    tracing::subscriber::set_global_default(spans.clone()).expect("the only subscriber");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let router = Router::new().on_topic("t", async |_: Delivery| {});
    let service = start(Service::new("s", router), &transport).await;
    publish(&transport, vec![Record::new("t", "1").with_key("a").with_header("traceparent", trace)]).await;
    caught_up(&service).await;
    let seen = spans.seen.lock().expect("no panic").clone();
    let (_, fields) = seen.iter().find(|(name, _)| name == "process").expect("a span");
    let wanted = [
        ("otel.kind", "consumer"),
        ("messaging.system", "memory"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "t"),
        ("messaging.destination.partition.id", "0"),
        ("messaging.consumer.group.name", "s-group"),
        ("messaging.kafka.offset", "0"),
        ("messaging.batch.message_count", "1"),
        ("traceparent", trace),
    ];
    for (name, value) in wanted {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name} of {fields:?}");
    }
}
