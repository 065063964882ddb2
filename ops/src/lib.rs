//! Health, metrics, status and admin of [tidings](https://docs.rs/tidings) services, publishers and outbox relays over
//! HTTP.
//!
//! | path | answer | open |
//! |---|---|---|
//! | `/livez` | 200 if every engine works, 503 if only a restart helps; for a liveness probe | to everybody |
//! | `/readyz` | 200 if every service takes its share of the work, also degraded; 503 if not; for a readiness probe | to everybody |
//! | `/metrics` | all [`metrics()`] in the text formats of Prometheus and OpenMetrics | with [`Ops::with_open_metrics`] |
//! | `/status` | the state of each service, handler and partition as JSON | no |
//! | `/api/v1/..` | admin of the broker, dead letters and the control of services, as far as [`Ops::with_admin`], [`Ops::with_control`] and others allow it; the routes are listed in [`tidings_ops_api`] | no |
//!
//! [`Ops::serve`] answers on a thread and a runtime of its own, and queries neither brokers nor stores: it works while
//! the handlers of all services block their threads, and while the broker is down.
//!
//! # Probes
//!
//! The answers have reasons, and no names. `/readyz?verbose` has a line for each service, in the order of
//! [`with_service`](Ops::with_service); with `Accept: application/json` the answer is JSON. The reasons are those of
//! [`HealthReason`](tidings_service::telemetry::HealthReason), which says which of them fail a probe.
//!
//! # Access
//!
//! `/status`, and `/metrics` unless it is open, need `Authorization: Bearer TOKEN` with one of the [`Tokens`]. Without
//! any tokens, they are served on a loopback address only, to requests that name a loopback host and no proxy, and
//! refused elsewhere. Some proxies do not name themselves, as nginx by default: set tokens behind one.
//!
//! # Limits
//!
//! At most [`Ops::MAX_CONNECTIONS`] connections, of HTTP/1.1; 16 KiB and 64 headers of a request; a body below `/api/v1`
//! only, of at most 8 MiB; a client that takes longer than [`Ops::with_client_timeout`] for a request is disconnected.
#![doc = include_str!("docs/status.md")]

mod access;
mod advice;
mod api;
pub mod generate;
mod metrics;
mod ops;
mod probes;
mod refusals;
mod routes;
mod server;
mod sources;
mod status;

pub use self::access::{Role, Tokens};
pub use self::metrics::{Metric, MetricKind, metrics, metrics_table};
pub use self::ops::Ops;
pub use self::server::OpsHandle;
