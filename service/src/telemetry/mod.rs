//! The state of running services and publishers, for metrics, health endpoints and operators.
//!
//! A [`Snapshot`] is taken in microseconds by [`ServiceHandle::snapshot`](crate::ServiceHandle::snapshot), or by
//! [`ServiceStats`](crate::ServiceStats), which a metrics endpoint keeps: from any thread, without I/O, also while all
//! handlers block their threads. Everything in it is bounded: it has entries by partition, handler and cause, never by
//! key, event or error text.
//!
//! The engine counts once per batch and not per record. The counters of publishers are [`PublisherStats`], those of
//! outbox relays [`RelayStats`].
//!
//! [`Health`] is a function of a snapshot: whether the service is live and ready, and why not. A [`HealthMonitor`] keeps
//! its answers from flapping.

pub(crate) mod health;
pub(crate) mod health_reason;
pub(crate) mod histogram;
pub(crate) mod partition;
pub(crate) mod publishing;
pub(crate) mod relay;
pub(crate) mod snapshot;

pub use self::health::{Finding, Health, HealthMonitor, HealthOptions};
pub use self::health_reason::{HealthReason, Severity};
pub use self::histogram::Histogram;
pub use self::partition::{ClockGap, HoldCause, Holding, PartitionSnapshot, PartitionState, Pause};
pub use self::publishing::{PublisherSnapshot, PublisherStats};
pub use self::relay::{OutboxSnapshot, RelaySnapshot, RelayStats};
pub use self::snapshot::{
    BusyWorker, CircuitSnapshot, ClaimSnapshot, HandlerSnapshot, ServiceCounters, Snapshot, TaskSnapshot,
};
