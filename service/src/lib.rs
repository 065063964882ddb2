//! The service side of tidings: the router and its extractors, the engine, and the event publisher.
//!
//! Applications depend on the crate `tidings`, which re-exports the parts of this crate that they need.
//!
//! # How the parts work together
//!
//! 1. A [`Router`] collects handlers. Each is an `async fn` of an input and [extractors](FromDelivery), erased into a
//!    [`Route`] when the service starts; layers wrap routes.
//! 2. [`Service::start`] checks everything that can be checked without a record: handlers, their
//!    [requirements](Requirement), settings, topics, the dead-letter sink. So these mistakes fail a deployment, instead
//!    of records.
//! 3. The engine reads its group's partitions. One coordinator owns the membership: assignments, pauses, commits and
//!    revocations. Workers run handlers; a key belongs to one worker, so that its order needs no lock.
//! 4. A record is settled when its handler is done and its returned events are published, when it is a duplicate or
//!    skipped, or when its dead letter is written. A partition commits up to its lowest unsettled record.
//! 5. The [`ServiceHandle`] reports the [`Status`], pauses, skips, and shuts down. [`telemetry`] has counters and states
//!    for metrics and health endpoints.
//!
//! # Failures
//!
//! A handler's error is read by [`Failure::of`](tidings_core::Failure::of): the record is retried by [`Retry`],
//! dead-lettered, or its partition waits. When most deliveries fail, the [`Breaker`] opens. An outage of the broker,
//! the store or the dead-letter sink pauses what needs it; no record is dead-lettered for it.

mod announce;
mod begun;
mod breaker;
mod dead_letters;
mod directory;
mod engine;
mod environment;
mod extract;
mod from_fn;
mod handler;
mod handler_description;
mod limit;
mod logs;
mod observer;
mod options;
mod passing_on;
mod publisher;
mod requirement;
mod retry;
mod route;
mod router;
mod run;
mod service;
mod service_description;
mod service_topics;
mod settings;
mod signal;
mod status;
mod table;
mod target;
pub mod telemetry;
mod time;
mod undecodable;

pub use self::breaker::Breaker;
pub use self::dead_letters::{
    DeadLetters, GroupBy, LetterGroup, LetterGroups, REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport,
    TopicDeadLetters,
};
pub use self::directory::DirectoryOptions;
pub use self::engine::{ServiceControl, ServiceHandle, ServiceStats};
pub use self::extract::{FromDelivery, FromRef, State};
pub use self::from_fn::{FromFn, FromFnService, Next, from_fn};
pub use self::handler::{Arguments, Configured, Handler, HandlerExt};
pub use self::handler_description::{HandlerDescription, HandlerKind};
pub use self::observer::{Observer, RecordEvent, RecordOutcome};
pub use self::options::{BatchOptions, HandlerOptions, RateLimit};
pub use self::publisher::EventPublisher;
pub use self::requirement::Requirement;
pub use self::retry::Retry;
pub use self::route::{BoxFuture, Route};
pub use self::router::{IntoRouter, Router};
pub use self::service::Service;
pub use self::service_description::ServiceDescription;
pub use self::settings::{DeliveryOrder, TopicPolicy, UnknownTypes};
pub use self::status::{
    HandlerTotals, Hold, PartitionStatus, PauseReason, ReturnedPartition, ShutdownReport, Skipped, Sought,
    State as ServiceState, Status, Totals,
};
pub use tidings_core::PublishOptions;
