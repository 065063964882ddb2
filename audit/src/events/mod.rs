//! Audit of event operations: which events were published, handled and dead-lettered, by position and id.
//!
//! Off by default, and enabled per topic. Events are collected and recorded in groups, so that not each event needs a
//! record. These operations do not wait for the sink.

mod id;
mod observer;
mod policy;
mod waiting;

pub(crate) use self::id::id_of;
pub use self::observer::AuditObserver;
pub use self::policy::{EventOperations, EventPolicy};
pub(crate) use self::waiting::{Events, Operation};
