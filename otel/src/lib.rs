//! OpenTelemetry traces and metrics of services and publishers.
//!
//! Applications use it as `tidings::otel`, by the feature `otel` of the crate `tidings`. No other crate of tidings
//! depends on OpenTelemetry: a new major version of it affects only this one.
//!
//! - [`Tracing`] creates spans for published and handled records, with links between them, and propagates the trace
//!   context in the W3C headers `traceparent` and `tracestate`.
//! - [`Metrics`] exports counters, gauges and histograms: of services when they are collected, of publishers per call,
//!   of handlers per attempt.
//!
//! Names of spans, metrics and attributes are those of the semantic conventions for messaging in the version
//! [`CONVENTIONS_VERSION`]. They are in development: a later version of this crate may follow a later version of them.
//!
//! # What a trace looks like
//!
//! | Span | Kind | When | Parent | Links |
//! |---|---|---|---|---|
//! | `publish <topic>` | `PRODUCER`, or `CLIENT` if all records have contexts of their own | a call of a publisher | the active span | contexts of the records |
//! | `create <topic>` | `PRODUCER` | each event of a batch, and each that a handler returns | the active span, for a returned event that of its handler | |
//! | `process <topic>` | `CONSUMER` | each attempt of a handler | of a single record: its publisher | contexts of the records |
//!
//! Payloads and the texts of errors are never part of a span. Keys are not, unless
//! [`with_message_keys`](Tracing::with_message_keys) is set.
//!
//! A span costs an allocation or more, as each delivery behind a layer does. The SDK's sampler decides how many are
//! recorded; its processors and exporters bound what is kept.

mod context;
mod conventions;
mod errors;
mod layer;
mod metrics;
mod publisher;
mod spans;
mod tracing;
mod transactor;
mod transport;

/// The version of OpenTelemetry's API that this crate is built with.
pub use opentelemetry;

pub use self::context::current_trace;
pub use self::conventions::{CONVENTIONS_VERSION, SCOPE_NAME};
pub use self::layer::{TraceFuture, TraceLayer, TraceService};
pub use self::metrics::{MeteredPublisher, MeteredTransport, Metrics, MetricsFuture, MetricsLayer, MetricsService};
pub use self::publisher::TracedPublisher;
pub use self::tracing::Tracing;
pub use self::transport::TracedTransport;
