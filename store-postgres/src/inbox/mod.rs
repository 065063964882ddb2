//! The inbox: commits a handler's writes and its event's completion atomically.

mod commit;
mod layer;
mod slot;
mod verdict;

pub use self::layer::{Inbox, InboxLayer};
pub use self::slot::Tx;
