//! The native data path to the brokers: connections, the cluster's metadata, record batches, and reading.
//!
//! [`KafkaConfig::reader`](crate::KafkaConfig::reader) selects it. Groups, admin operations and publishing stay with
//! the client (docs/design/0002-kafka-client.md). Requests and responses come from the crate `kafka-protocol`; only
//! modules that build requests or interpret answers name its types.

pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod messages;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "no connection uses it yet"))]
pub(crate) mod producer;
pub(crate) mod reader;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "no producer uses it yet"))]
pub(crate) mod records;
