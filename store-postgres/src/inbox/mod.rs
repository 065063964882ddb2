//! The inbox: what a handler writes and that its event is done commit together.

mod commit;
mod layer;
mod slot;
mod verdict;

pub use self::layer::{Inbox, InboxLayer};
pub use self::slot::Tx;
