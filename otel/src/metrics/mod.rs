//! The entry point of metrics: a meter, from which layers and publishers are made, and which reads services.

mod layer;
mod publisher;
mod relays;
mod services;

use std::sync::Arc;

use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider};
use tidings_core::{Publisher, Transport};
use tidings_service::ServiceStats;
use tidings_service::telemetry::{Histogram as Durations, RelayStats};

pub use self::layer::{MetricsFuture, MetricsLayer, MetricsService};
pub use self::publisher::{MeteredPublisher, MeteredTransport};
use self::relays::Relays;
use self::services::Services;
use crate::conventions::{OPERATION_DURATION, PROCESS_DURATION, SENT_MESSAGES, scope};

/// Metrics of services and publishers, by OpenTelemetry's [conventions](crate::CONVENTIONS_VERSION).
///
/// - [`observe`](Self::observe) reads a service's [snapshot](tidings_service::telemetry::Snapshot) when metrics are
///   collected, and costs nothing in between: `messaging.client.consumed.messages`, and `tidings.*` for lag and more.
/// - The [transport](Self::transport) measures calls of publishers: `messaging.client.sent.messages` and
///   `messaging.client.operation.duration`.
/// - The [layer](Self::layer) measures handlers: `messaging.process.duration`.
///
/// Keys, ids and texts of errors are never attributes.
///
/// ```
/// use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_otel::Metrics;
/// use tidings_service::{Router, Service};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let exporter = InMemoryMetricExporter::default(); // in production an exporter for OTLP
/// let provider = SdkMeterProvider::builder().with_periodic_exporter(exporter.clone()).build();
///
/// let metrics = Metrics::new(&provider);
/// let transport = metrics.transport(MemoryTransport::new());
/// let router = Router::new().on_topic("clicks", async |_: Delivery| {});
/// let service = Service::new("meter", router).layer(metrics.layer(&transport)).start(&transport).await?;
/// metrics.observe(&service.stats());
///
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// provider.force_flush().unwrap();
/// assert!(format!("{:?}", exporter.get_finished_metrics()).contains("messaging.client.consumed.messages"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Metrics {
    instruments: Arc<Instruments>,
    services: Arc<Services>,
    relays: Arc<Relays>,
}

/// The instruments that are written to when something happens.
#[derive(Debug)]
pub(crate) struct Instruments {
    sent: Counter<u64>,
    operations: Histogram<f64>,
    processing: Histogram<f64>,
}

impl Metrics {
    /// Creates the instruments at a meter of `provider`: an SDK's, or `opentelemetry::global::meter_provider()`.
    ///
    /// Create one for each provider: a second one reads services of its own.
    pub fn new(provider: &dyn MeterProvider) -> Self {
        let meter = provider.meter_with_scope(scope());
        let services = Arc::new(Services::default());
        services::register(&meter, &services);
        let relays = Arc::new(Relays::default());
        relays::register(&meter, &relays);
        Self { instruments: Arc::new(Instruments::new(&meter)), services, relays }
    }

    /// Adds a service to those that are read when metrics are collected.
    ///
    /// It replaces an earlier service of the same name and group, so that a service that was started again continues
    /// the series. After its end the last counters remain.
    pub fn observe(&self, service: &ServiceStats) {
        self.services.add(service);
    }

    /// Adds the relay of an outbox to those that are read when metrics are collected, under a name that is its attribute
    /// `tidings.relay`. It replaces an earlier relay of that name.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tidings_otel::Metrics;
    /// use tidings_service::telemetry::RelayStats;
    ///
    /// /// The statistics are those of a running relay, as `Relay::stats` returns them.
    /// fn observe(metrics: &Metrics, relay: Arc<dyn RelayStats>) {
    ///     metrics.observe_relay("orders", relay);
    /// }
    /// ```
    pub fn observe_relay(&self, name: impl Into<String>, relay: Arc<dyn RelayStats>) {
        self.relays.add(name.into(), relay);
    }

    /// Wraps a transport: calls of all its publishers are measured.
    pub fn transport<T: Transport>(&self, transport: T) -> MeteredTransport<T> {
        MeteredTransport::new(transport, self.instruments.clone())
    }

    /// Wraps a publisher, of a transport of this [`system`](Transport::system).
    pub fn publisher(&self, publisher: Arc<dyn Publisher>, system: &'static str) -> MeteredPublisher {
        MeteredPublisher::new(publisher, self.instruments.clone(), system)
    }

    /// Creates the layer that measures the handlers of a service on `transport`, for
    /// [`Service::layer`](tidings_service::Service::layer).
    pub fn layer<T: Transport + ?Sized>(&self, transport: &T) -> MetricsLayer {
        MetricsLayer::new(self.instruments.clone(), transport.system())
    }
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_description(description).with_unit("s");
            histogram.with_boundaries(Durations::BOUNDS.to_vec()).build()
        };
        let sent = meter.u64_counter(SENT_MESSAGES).with_description("Records that publishers passed to the broker.");
        Self {
            sent: sent.with_unit("{message}").build(),
            operations: seconds(OPERATION_DURATION, "Duration of calls of publishers."),
            processing: seconds(PROCESS_DURATION, "Duration of attempts of handlers."),
        }
    }
}
