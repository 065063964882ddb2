//! The engine: processes each record from fetch to settlement, by the rules E1 to E10 (docs/design/0007).
//!
//! One coordinator task reads, dispatches batches to worker tasks, tracks settled records and commits; workers run
//! handlers. The coordinator never runs user code, and a worker never calls the consumer group.

mod assigned;
mod board;
mod circuit_breaker;
mod claims;
mod commands;
mod control;
mod coordinator;
mod counters;
mod keys;
mod limiter;
mod messages;
mod record;
mod routing;
mod running;
mod settlement;
mod shared;
mod start;
mod stats;
mod tiers;
mod topics;
mod trouble;
mod wall_clock;
mod watchdog;
mod worker;

pub use self::control::ServiceControl;
pub use self::running::ServiceHandle;
pub(crate) use self::start::start;
pub use self::stats::ServiceStats;
pub(crate) use self::tiers::names_of as retry_topic_names;
