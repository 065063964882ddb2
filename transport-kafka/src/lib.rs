//! Apache Kafka transport for tidings, in pure Rust, without librdkafka.
//!
//! ```no_run
//! use tidings_core::{PublisherExt, Record, Transport};
//! use tidings_kafka::{KafkaConfig, KafkaTransport};
//!
//! # async fn example() -> tidings_core::Result<()> {
//! let kafka = KafkaTransport::connect(KafkaConfig::new(["localhost:9092"])).await?;
//! let publisher = kafka.publisher().await?;
//! let stored = publisher.publish_one(Record::new("user-events", "hello").with_key("u1")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! - The client is krafka, behind a narrow interface (`client/`); none of its types is public.
//! - A publisher is idempotent (KIP-98), waits for all in-sync replicas, and keeps the order of
//!   records per partition, retries included. It bounds its in-flight records and bytes.
//! - A consumer is a group member that never fetches, and fetchers that belong to no group. The
//!   group protocol is KIP-848 where the cluster supports it, otherwise the classic one.
//! - [`KafkaConfig::reader`] replaces the fetchers by native readers, which do not use the client library.
//! - [`KafkaConfig::publisher`] replaces the client's producer by a native one.
//! - Offsets are committed only when the caller asks. A commit's metadata carries the assignment's
//!   epoch, so that epochs grow even if the group is created anew.
//! - A batch that cannot be decoded holds its partition and is reported; the others go on.
//!
//! [`KafkaConfig`] has a typed field for each setting; [`KafkaConfig::from_url`] and
//! [`KafkaConfig::from_env`] read the same settings from a URL and from the environment.

mod acls;
mod admin;
mod admin_batches;
mod admin_offsets;
mod client;
mod cluster;
mod config;
mod consumer;
mod dedicated_runtime;
mod error;
mod log_reader;
mod publisher;
mod transport;
mod wire;

pub use self::acls::KafkaAcls;
pub use self::admin::KafkaAdmin;
pub use self::cluster::KafkaCluster;
pub use self::config::{
    Compression, GroupProtocol, Isolation, KafkaConfig, Pem, PublisherKind, ReaderKind, Sasl, ScramHash, Tls, Token,
    TokenFuture, TokenSource,
};
pub use self::consumer::KafkaConsumer;
pub use self::log_reader::KafkaLogReader;
pub use self::publisher::KafkaPublisher;
pub use self::transport::KafkaTransport;
