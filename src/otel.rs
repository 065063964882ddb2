//! Traces and metrics by OpenTelemetry: see the guide "OpenTelemetry".
//!
//! ```
//! use tidings::otel::{Tracing, opentelemetry};
//! use tidings::publisher::PublisherExt;
//! use tidings::{Delivery, Record, Router, Service, Transport};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let tracing = Tracing::new(&opentelemetry::global::tracer_provider()); // set by the program
//! let transport = tracing.transport(tidings::connect("memory://").await?);
//! let router = Router::new().on_topic("clicks", async |_: Delivery| {});
//! let service = Service::new("meter", router).layer(tracing.layer(&transport)).start(&transport).await?;
//!
//! transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
//! service.caught_up().await?;
//! # Ok(())
//! # }
//! ```

pub use tidings_otel::{
    CONVENTIONS_VERSION, MeteredPublisher, MeteredTransport, Metrics, MetricsFuture, MetricsLayer, MetricsService,
    SCOPE_NAME, TraceFuture, TraceLayer, TraceService, TracedPublisher, TracedTransport, Tracing, current_trace,
    opentelemetry,
};
