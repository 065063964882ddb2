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

pub use self::breaker::Breaker;
pub use self::engine::ServiceHandle;
pub use self::extract::{FromDelivery, FromRef, State};
pub use self::from_fn::{FromFn, FromFnService, Next, from_fn};
pub use self::handler::{Arguments, Configured, Handler, HandlerExt};
pub use self::observer::{Observer, RecordEvent, RecordOutcome};
pub use self::options::{BatchOptions, HandlerOptions};
pub use self::publisher::EventPublisher;
pub use self::redrive::{REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport, redrive_topic};
pub use self::requirement::Requirement;
pub use self::retry::Retry;
pub use self::route::{BoxFuture, Route};
pub use self::router::{IntoRouter, Router};
pub use self::service::Service;
pub use self::settings::{DeliveryOrder, TopicPolicy, UnknownTypes};
pub use self::status::{
    Hold, PartitionStatus, PauseReason, ReturnedPartition, ShutdownReport, Skipped, State as ServiceState, Status,
    Totals,
};
pub use tidings_core::PublishOptions;
