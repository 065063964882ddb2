//! The warning about stores that belong to one process.
//!
//! This file has one test: its subscriber is global.

use std::sync::{Arc, Mutex};

use tidings_core::{
    Admin, Consumer, ConsumerOptions, DeadLetterSink, Delivery, Guarantees, Publisher, Result, Transport, async_trait,
};
use tidings_memory::{MemoryStore, MemoryTransport};
use tidings_service::{Router, Service};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects the messages of warnings.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Message<'a>(&'a mut Vec<String>);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message(&mut self.0.lock().expect("no panic")));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The memory transport, as if several processes could reach it.
#[derive(Debug, Clone)]
struct Shared(MemoryTransport);

#[async_trait]
impl Transport for Shared {
    fn system(&self) -> &'static str {
        self.0.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.0.publisher().await
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.0.consumer(options).await
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.0.dead_letters().await
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.0.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees().with_shared(true)
    }
}

#[tokio::test]
async fn a_store_of_one_process_is_warned_of_where_several_can_join_the_group() {
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(warnings.clone()).expect("the only subscriber");
    let service = || {
        let router = Router::new().on_topic("t", async |_: Delivery| {});
        Service::new("s", router).with_idempotency(MemoryStore::new())
    };
    drop(service().start(&MemoryTransport::new()).await.unwrap());
    assert!(warnings.0.lock().unwrap().is_empty(), "the broker, too, belongs to this process");

    drop(service().start(&Shared(MemoryTransport::new())).await.unwrap());
    let seen = warnings.0.lock().unwrap().clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("idempotency store belongs to this process"), "{seen:?}");
}
