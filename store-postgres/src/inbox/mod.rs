//! The inbox: commits a handler's writes and its event's completion atomically.
//!
//! A handler's writes and the mark that its event is done are in one transaction, so that a crash
//! leaves both or neither: effects in this database are exactly-once.

mod commit;
mod layer;
mod slot;
mod verdict;

pub use self::layer::{Inbox, InboxLayer};
pub use self::slot::Tx;
