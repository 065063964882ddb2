//! The native data path to the brokers: connections, the cluster's metadata, record batches, reading, and publishing.
//!
//! [`KafkaConfig::reader`](crate::KafkaConfig::reader) and [`KafkaConfig::publisher`](crate::KafkaConfig::publisher)
//! select it. Groups and admin operations stay with the client (docs/design/0002-kafka-client.md). Requests and
//! responses come from the crate `kafka-protocol`; only modules that build requests or interpret answers name its
//! types.

pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod messages;
pub(crate) mod producer;
pub(crate) mod reader;
pub(crate) mod records;
