//! A memory transport whose spans are kept, and the table of the conventions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opentelemetry::Value;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde::{Deserialize, Serialize};
use tidings_core::{
    Admin, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, Headers, Publisher, Result, StoredRecord,
    TraceContext, Transactor, TransactorOptions, Transport, async_trait,
};
use tidings_macros::Event;
use tidings_memory::MemoryTransport;
use tidings_otel::{SCOPE_NAME, TracedTransport, Tracing};
use tidings_service::{Retry, Router, Service, ServiceHandle};

/// The checked-in table.
const TABLE: &str = include_str!("../../conventions-1.44.0.tsv");

/// The trace context of another program.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "asked", type = "asked", key = "id", crate = "tidings_core")]
pub(crate) struct Asked {
    pub(crate) id: u32,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(topic = "answered", type = "answered", key = "id", crate = "tidings_core")]
pub(crate) struct Answered {
    pub(crate) id: u32,
}

/// The memory transport under the name of another system.
#[derive(Debug, Clone)]
pub(crate) struct Named(pub(crate) MemoryTransport, pub(crate) &'static str);

#[async_trait]
impl Transport for Named {
    fn system(&self) -> &'static str {
        self.1
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
    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        self.0.transactor(options).await
    }
    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
}

/// A traced transport and its spans.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
    pub(crate) memory: MemoryTransport,
    pub(crate) tracing: Tracing,
    pub(crate) transport: TracedTransport<Named>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with("memory", |tracing| tracing)
    }

    /// Creates a world whose transport is of this system, with these settings.
    pub(crate) fn with(system: &'static str, settings: impl FnOnce(Tracing) -> Tracing) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        Self::of(provider, exporter, system, settings)
    }

    pub(crate) fn of(
        provider: SdkTracerProvider,
        exporter: InMemorySpanExporter,
        system: &'static str,
        settings: impl FnOnce(Tracing) -> Tracing,
    ) -> Self {
        let (memory, tracing) = (MemoryTransport::new(), settings(Tracing::new(&provider)));
        let transport = tracing.transport(Named(memory.clone(), system));
        Self { provider, exporter, memory, tracing, transport }
    }

    pub(crate) async fn start(&self, name: &str, router: Router) -> ServiceHandle {
        let service = Service::new(name, router).layer(self.tracing.layer(&self.transport)).with_retry(Retry::never());
        service.start(&self.transport).await.expect("it starts")
    }

    /// Returns all spans that have ended, those of the program itself too.
    pub(crate) fn all(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().expect("spans")
    }

    /// Returns the spans of tidings that have ended, each compared with the table.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        let spans: Vec<_> =
            self.all().into_iter().filter(|span| span.instrumentation_scope.name() == SCOPE_NAME).collect();
        spans.iter().for_each(check);
        spans
    }

    /// Returns the spans of this name, which are as many.
    pub(crate) fn named<const N: usize>(&self, name: &str) -> [SpanData; N] {
        let spans: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        let all: Vec<_> = self.spans().into_iter().map(|span| span.name).collect();
        spans.try_into().unwrap_or_else(|_| panic!("not {N} spans {name:?}, but {all:?}"))
    }

    pub(crate) fn only(&self, name: &str) -> SpanData {
        let [span] = self.named(name);
        span
    }

    /// Returns the records of a topic.
    pub(crate) async fn records(&self, topic: &str) -> Vec<StoredRecord> {
        let options = ConsumerOptions::new(uuid::Uuid::new_v4().to_string(), [topic.to_owned()]);
        let consumer = self.memory.consumer(options).await.expect("a consumer");
        let ends = self.memory.admin().await.expect("an admin").describe_topics(&[topic.into()]).await.expect("topics");
        let wanted: u64 = ends.iter().flatten().flat_map(|topic| &topic.partitions).map(|p| p.end - p.start).sum();
        let (mut records, mut read) = (Vec::new(), BTreeMap::new());
        // By offsets: the end of a transaction has one, and is no record.
        while read.values().sum::<u64>() < wanted {
            if let tidings_core::Step::Records(fetched) = consumer.next().await.expect("records") {
                read.insert(fetched.batch.origin().partition, fetched.next_offset);
                records.extend(fetched.batch.records().iter().cloned());
            }
        }
        records
    }
}

/// Returns the ids of the span that the headers name.
pub(crate) fn context_of(headers: &Headers) -> (u128, SpanId) {
    let context = TraceContext::read_from(headers).expect("a trace context");
    (context.parent.trace_id(), SpanId::from(context.parent.span_id()))
}

pub(crate) fn trace_id(context: &SpanContext) -> u128 {
    u128::from_be_bytes(context.trace_id().to_bytes())
}

pub(crate) fn ids(span: &SpanData) -> (u128, SpanId) {
    (trace_id(&span.span_context), span.span_context.span_id())
}

/// Returns the ids of the spans that a span is linked to.
pub(crate) fn links(span: &SpanData) -> Vec<(u128, SpanId)> {
    span.links.iter().map(|link| (trace_id(&link.span_context), link.span_context.span_id())).collect()
}

/// Returns an attribute's value as text; empty if it is absent.
pub(crate) fn attribute(span: &SpanData, name: &str) -> String {
    span.attributes.iter().find(|pair| pair.key.as_str() == name).map(|pair| pair.value.to_string()).unwrap_or_default()
}

/// Compares a span with the table: its name, kind, and attributes with their types.
fn check(span: &SpanData) {
    let operation = (attribute(span, "messaging.operation.type"), &span.span_kind);
    let signal = match (operation.0.as_str(), operation.1) {
        ("create", SpanKind::Producer) => "create.producer",
        ("send", SpanKind::Producer) => "send.producer",
        ("send", SpanKind::Client) => "send.client",
        ("process", SpanKind::Consumer) => "process.consumer",
        other => panic!("{other:?} is no operation of this kind: {span:?}"),
    };
    let destination = attribute(span, "messaging.destination.name");
    let name = format!("{} {destination}", attribute(span, "messaging.operation.name"));
    assert_eq!(span.name, name.trim_end());
    let mut sections = vec!["generic", "tidings"];
    if attribute(span, "messaging.system") == "kafka" {
        sections.push("kafka");
    }
    let rows: Vec<_> = rows().filter(|row| sections.iter().any(|of| row[0] == format!("{of}.{signal}"))).collect();
    let types: BTreeMap<_, _> = rows.iter().map(|row| (row[2], row[3])).collect();
    let mut seen = BTreeSet::new();
    for pair in &span.attributes {
        let found = match pair.value {
            Value::Bool(_) => "boolean",
            Value::I64(_) => "int",
            Value::String(_) => "string",
            _ => "other",
        };
        assert_eq!(types.get(pair.key.as_str()), Some(&found), "{} of {signal} is not in the table", pair.key);
        assert!(seen.insert(pair.key.as_str()), "{} is there twice", pair.key);
    }
    for row in rows.iter().filter(|row| row[4] == "required") {
        assert!(seen.contains(row[2]), "{} of {signal} is required: {seen:?}", row[2]);
    }
    assert_eq!(span.dropped_attributes_count, 0);
}

/// Returns the rows of the table.
pub(crate) fn rows() -> impl Iterator<Item = Vec<&'static str>> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}
