//! Health, metrics, status and admin over HTTP, for probes, Prometheus and operators.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tidings::ops::{Ops, Tokens};
//! use tidings::{Delivery, Router, Service};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let router = Router::new().on_topic("clicks", async |_: Delivery| {});
//! let service = Service::new("meter", router).start(&transport).await?;
//!
//! let ops = Ops::new().with_service(&service).with_tokens(Tokens::from_env()?).with_open_metrics();
//! let ops = ops.serve("0.0.0.0:9400")?; // /livez, /readyz, /metrics, /status
//!
//! service.stopped().await?;
//! ops.shutdown(Duration::from_secs(1)).await
//! # }
//! ```

pub use tidings_ops::{Metric, MetricKind, Ops, OpsHandle, Role, Tokens, generate, metrics, metrics_table};
