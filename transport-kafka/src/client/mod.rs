//! The client behind a narrow interface: only this module and `error.rs` use its types, so that it can be replaced.
//!
//! The client is krafka (docs/design/0002-kafka-client.md). Its errors are mapped in `error.rs`;
//! each workaround for its behaviour is in the file that needs it, and says which behaviour that
//! is.

pub(crate) mod admin;
pub(crate) mod connection;
mod fetched;
pub(crate) mod fetcher;
pub(crate) mod log;
pub(crate) mod member;
pub(crate) mod peek;
pub(crate) mod producer;
mod protocol_probe;
