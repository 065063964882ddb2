//! Traces and metrics of two services by OpenTelemetry.
//!
//! `cargo run -p telemetry` prints them. `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run -p telemetry
//! --features otlp` sends them to a collector, such as Jaeger's or Grafana's.

use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tidings::otel::{Metrics, Tracing};
use tidings::{BoxError, Event, EventPublisher, Router, Service};
use tracing_subscriber::EnvFilter;

/// How long the services may take to finish.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "orders", type = "order.placed", key = "id")]
struct Placed {
    id: u32,
}

#[derive(Serialize, Deserialize, Event)]
#[event(topic = "invoices", type = "invoice.sent", key = "order")]
struct Invoiced {
    order: u32,
}

/// Returns an event, which continues the trace of the order.
async fn invoice(order: Placed) -> Invoiced {
    Invoiced { order: order.id }
}

async fn ship(_: Invoiced) {}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    log();
    let sdk = Sdk::new()?;
    run(&sdk).await?;
    // Exports what is still buffered. The exporters block.
    tokio::task::spawn_blocking(move || sdk.shutdown()).await?
}

/// Runs both services on three orders.
async fn run(sdk: &Sdk) -> Result<(), BoxError> {
    let (tracing, metrics) = (Tracing::new(&sdk.traces), Metrics::new(&sdk.metrics));
    let transport = metrics.transport(tracing.transport(tidings::connect("memory://").await?));
    let layered = |service: Service| service.layer(metrics.layer(&transport)).layer(tracing.layer(&transport));

    let billing = layered(Service::new("billing", Router::new().on(invoice))).start(&transport).await?;
    let shipping = layered(Service::new("shipping", Router::new().on(ship))).start(&transport).await?;
    metrics.observe(&billing.stats());
    metrics.observe(&shipping.stats());

    let shop = EventPublisher::new(&transport, "shop");
    shop.publish(&Placed { id: 1 }).await?;
    for answer in shop.publish_all(&[2, 3].map(|id| Placed { id })).await {
        answer?;
    }
    for service in [billing, shipping] {
        tokio::time::timeout(LIMIT, service.caught_up()).await??;
        service.shutdown(LIMIT).await?;
    }
    Ok(())
}

/// The SDK's providers, whose exporters the program chooses.
struct Sdk {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Sdk {
    fn new() -> Result<Self, BoxError> {
        #[cfg(feature = "otlp")]
        if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
            let traces = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
            let metrics = opentelemetry_otlp::MetricExporter::builder().with_http().build()?;
            return Ok(Self {
                traces: SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(traces).build(),
                metrics: SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(metrics).build(),
            });
        }
        let (traces, metrics) =
            (opentelemetry_stdout::SpanExporter::default(), opentelemetry_stdout::MetricExporter::default());
        Ok(Self {
            traces: SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(traces).build(),
            metrics: SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(metrics).build(),
        })
    }

    fn shutdown(self) -> Result<(), BoxError> {
        self.traces.shutdown()?;
        Ok(self.metrics.shutdown()?)
    }
}

/// Names the program in all traces and metrics.
fn resource() -> Resource {
    Resource::builder().with_service_name("shop").build()
}

/// Logs to stderr, by RUST_LOG if that is set. Of the Kafka client, only the warnings are needed.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,krafka=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
