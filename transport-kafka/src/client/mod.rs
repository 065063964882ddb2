//! The client behind a narrow interface: only this module and `error.rs` use its types, so that it can be replaced.

pub(crate) mod admin;
pub(crate) mod connection;
pub(crate) mod fetcher;
pub(crate) mod member;
pub(crate) mod peek;
pub(crate) mod producer;
mod protocol_probe;
