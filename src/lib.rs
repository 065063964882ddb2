#![doc = include_str!("../README.md")]

mod connect;

pub use tidings_core::{
    Batch, BoxError, Delivery, Envelope, Error, ErrorKind, Event, PublishOptions, Record, Result, Topic, Transport,
    failed, reject, unavailable,
};
#[cfg(feature = "macros")]
pub use tidings_macros::Event;
pub use tidings_service::{EventPublisher, Retry, Router, Service, ServiceHandle, State, TopicPolicy};

pub use self::connect::connect;

pub mod admin;
pub mod codec;
pub mod consumer;
pub mod dead_letter;
pub mod directory;
pub mod error;
pub mod handler;
pub mod idempotency;
pub mod log_reader;
pub mod publisher;
pub mod record;
pub mod service;
pub mod telemetry;
pub mod transactor;
pub mod transport;

#[cfg(feature = "audit")]
pub mod audit;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "ops")]
pub mod ops;
#[cfg(feature = "ops-api")]
pub mod ops_api;
#[cfg(feature = "otel")]
pub mod otel;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sled")]
pub mod sled;
#[cfg(feature = "test")]
pub mod testing;
#[cfg(feature = "tool")]
pub mod tool;

/// For the code that `derive(Event)` writes.
#[doc(hidden)]
pub use tidings_core::__private;

/// The guides' code is tested with the crate; that of the guides to Postgres and OpenTelemetry with integration/.
#[cfg(all(doctest, feature = "full"))]
mod guides {
    #[doc = include_str!("../docs/guides/audit.md")]
    struct Audit;
    #[doc = include_str!("../docs/guides/operations.md")]
    struct Operations;
    #[doc = include_str!("../docs/guides/command.md")]
    struct Command;
    #[doc = include_str!("../docs/guides/deployment.md")]
    struct Deployment;
    #[doc = include_str!("../docs/guides/from-memory-to-kafka.md")]
    struct Kafka;
    #[doc = include_str!("../docs/guides/retry-topics.md")]
    struct RetryTopics;
}
