//! The entry point: a tracer and its settings, from which layers and publishers are made.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use tidings_core::{Publisher, Transport};

use crate::conventions::{SERVER_ADDRESS, SERVER_PORT, scope};
use crate::layer::TraceLayer;
use crate::publisher::TracedPublisher;
use crate::spans::{Settings, Spans};
use crate::transport::TracedTransport;

/// Traces of services and publishers, by OpenTelemetry's [conventions](crate::CONVENTIONS_VERSION).
///
/// The [transport](Self::transport) traces what is published, and the [layer](Self::layer) what is handled.
///
/// ```
/// use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_otel::Tracing;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let spans = InMemorySpanExporter::default(); // in production an exporter for OTLP
/// let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
///
/// let tracing = Tracing::new(&provider);
/// let transport = tracing.transport(MemoryTransport::new());
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).layer(tracing.layer(&transport)).start(&transport).await?;
///
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// let names: Vec<_> = spans.get_finished_spans().unwrap().into_iter().map(|span| span.name).collect();
/// assert_eq!(names, ["publish clicks", "process clicks"]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tracing {
    tracer: Arc<BoxedTracer>,
    settings: Settings,
}

impl Tracing {
    /// Creates spans with the tracers of `provider`: an SDK's, or `opentelemetry::global::tracer_provider()`.
    pub fn new<P>(provider: &P) -> Self
    where
        P: TracerProvider<Tracer: Send + Sync + 'static>,
        <P::Tracer as Tracer>::Span: Span + Send + Sync + 'static,
    {
        let tracer = Arc::new(BoxedTracer::new(Box::new(provider.tracer_with_scope(scope()))));
        let settings = Settings { links_only: false, create_spans: true, message_keys: false, server: Vec::new() };
        Self { tracer, settings }
    }

    /// Links a handler's span to its records only, so that each delivery starts a trace of its own.
    ///
    /// By default the span of a single record also has the record's publisher as its parent: all that follows from an
    /// event is one trace. The span of a batch always has links only.
    #[must_use]
    pub fn with_links_only(mut self, links_only: bool) -> Self {
        self.settings.links_only = links_only;
        self
    }

    /// Sets whether each event of a published batch, and each that a handler returns, has a span of its own, named
    /// `create`. Default: `true`.
    ///
    /// Without them the events of a batch share the context of its `publish` span, and those that a handler returns
    /// that of its `process` span.
    #[must_use]
    pub fn with_create_spans(mut self, create_spans: bool) -> Self {
        self.settings.create_spans = create_spans;
        self
    }

    /// Sets whether spans of single Kafka records carry the record's key, if it is text. Default: `false`, since keys
    /// are often ids of persons.
    #[must_use]
    pub fn with_message_keys(mut self, message_keys: bool) -> Self {
        self.settings.message_keys = message_keys;
        self
    }

    /// Sets the broker's address and port that all spans name. Default: none.
    #[must_use]
    pub fn with_server(mut self, address: impl Into<String>, port: u16) -> Self {
        let (address, port) =
            (KeyValue::new(SERVER_ADDRESS, address.into()), KeyValue::new(SERVER_PORT, i64::from(port)));
        self.settings.server = vec![address, port];
        self
    }

    /// Wraps a transport: all its publishers are traced, those of services and of
    /// [`EventPublisher`](tidings_service::EventPublisher)s too.
    pub fn transport<T: Transport>(&self, transport: T) -> TracedTransport<T> {
        let spans = self.spans(transport.system());
        TracedTransport::new(transport, spans)
    }

    /// Wraps a publisher, of a transport of this [`system`](Transport::system).
    pub fn publisher(&self, publisher: Arc<dyn Publisher>, system: &'static str) -> TracedPublisher {
        TracedPublisher::new(publisher, self.spans(system))
    }

    /// Creates the layer that traces the handlers of a service on `transport`, for
    /// [`Service::layer`](tidings_service::Service::layer).
    pub fn layer<T: Transport + ?Sized>(&self, transport: &T) -> TraceLayer {
        TraceLayer::new(self.spans(transport.system()))
    }

    fn spans(&self, system: &'static str) -> Arc<Spans> {
        Arc::new(Spans { tracer: self.tracer.clone(), settings: self.settings.clone(), system })
    }
}
