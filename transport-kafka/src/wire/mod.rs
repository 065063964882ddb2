//! A data path of our own to the brokers: connections, the cluster's metadata, and record batches.
//!
//! Groups, admin operations and publishing stay with the client (docs/design/0002-kafka-client.md). Requests and
//! responses come from the crate `kafka-protocol`; only [`messages`] and the modules that build a request name its
//! types.

pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod messages;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "no connection uses it yet"))]
pub(crate) mod producer;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "no reader or producer uses it yet"))]
pub(crate) mod records;
