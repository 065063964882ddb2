//! The engine: processes each record from fetch to settlement, by the rules E1 to E10 (docs/design/0007).
//!
//! One coordinator task reads, dispatches batches to worker tasks, tracks settled records and commits; workers run
//! handlers. The coordinator never runs user code, and a worker never calls the consumer group.

mod beat;
mod claims;
mod coordinator;
mod gate;
mod running;
mod shared;
mod start;
mod tracker;
mod work;
mod worker;

pub use self::gate::{BREAKER_WINDOW, Breaker, DEFAULT_BREAKER_BASE, DEFAULT_BREAKER_CAP};
pub use self::running::ServiceHandle;
pub(crate) use self::start::start;
pub(crate) use self::work::FOR_EVER;
