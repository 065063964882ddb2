//! The client, behind a narrow door: nothing of it is seen outside of here and of `error.rs`, so that it can be swapped.

pub(crate) mod admin;
pub(crate) mod connection;
pub(crate) mod member;
pub(crate) mod peek;
mod port;
pub(crate) mod producer;
pub(crate) mod reader;
