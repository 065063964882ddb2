//! The state of running services, publishers and relays: for metrics, health endpoints and operators.
//!
//! ```
//! use tidings::telemetry::{Health, HealthOptions, PartitionState};
//! use tidings::{Delivery, Router, Service};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> tidings::Result<()> {
//! let transport = tidings::connect("memory://").await?;
//! let router = Router::new().on_topic("clicks", async |_: Delivery| {});
//! let service = Service::new("meter", router).start(&transport).await?;
//! service.caught_up().await?;
//!
//! let snapshot = service.snapshot(); // from any thread, without I/O
//! assert_eq!((snapshot.partitions[0].state, snapshot.lag()), (PartitionState::Ok, 0));
//! assert!(Health::of(&snapshot, &HealthOptions::default()).ready);
//! # Ok(())
//! # }
//! ```

pub use tidings_service::ServiceStats;
pub use tidings_service::telemetry::{
    BusyWorker, CircuitSnapshot, ClaimSnapshot, ClockGap, Finding, HandlerSnapshot, Health, HealthMonitor,
    HealthOptions, HealthReason, Histogram, HoldCause, Holding, OutboxSnapshot, PartitionSnapshot, PartitionState,
    Pause, PublisherSnapshot, PublisherStats, RelaySnapshot, RelayStats, ServiceCounters, Severity, Snapshot,
    TaskSnapshot,
};
