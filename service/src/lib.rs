//! The service side of Tidings: the router and its extractors, the engine, and the event publisher.
//!
//! Applications depend on the crate `tidings`, which re-exports the parts of this crate that they need.

mod breaker;
mod engine;
mod environment;
mod extract;
mod from_fn;
mod handler;
mod observer;
mod options;
mod passing_on;
mod publisher;
mod redrive;
mod requirement;
mod retry;
mod route;
mod router;
mod run;
mod service;
mod settings;
mod signal;
mod status;
mod table;
mod time;
mod undecodable;

pub use self::breaker::{BREAKER_WINDOW, Breaker, DEFAULT_BREAKER_BASE, DEFAULT_BREAKER_CAP};
pub use self::engine::ServiceHandle;
pub use self::extract::{FromDelivery, FromRef, State};
pub use self::from_fn::{FromFn, FromFnService, Next, from_fn};
pub use self::handler::{Arguments, Configured, Handler, HandlerExt};
pub use self::observer::{Observer, RecordEvent, RecordOutcome};
pub use self::options::{BatchOptions, DEFAULT_BATCH_SIZE, DEFAULT_BATCH_WAIT, HandlerOptions};
pub use self::publisher::EventPublisher;
pub use self::redrive::{DEFAULT_REDRIVE_PATIENCE, REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport, redrive_topic};
pub use self::requirement::Requirement;
pub use self::retry::{DEFAULT_MAX_RETRIES, DEFAULT_RETRY_BASE, DEFAULT_RETRY_CAP, Retry};
pub use self::route::{BoxFuture, Route};
pub use self::router::{IntoRouter, Router};
pub use self::service::{
    DEFAULT_COMMIT_INTERVAL, DEFAULT_CONCURRENCY, DEFAULT_HANDLER_TIMEOUT, DEFAULT_LEASE_TTL,
    DEFAULT_MAX_BYTES_IN_FLIGHT, DEFAULT_MAX_SPAN, DEFAULT_SHUTDOWN_TIMEOUT, Service,
};
pub use self::settings::{DeliveryOrder, MAX_WORKERS, TopicPolicy, UnknownTypes};
pub use self::status::{
    Hold, PartitionStatus, PauseReason, ReturnedPartition, STALL_AFTER, ShutdownReport, Skipped, State as ServiceState,
    Status, Totals,
};
pub use tidings_core::PublishOptions;
