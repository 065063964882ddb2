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

mod admin;
mod client;
mod config;
mod consumer;
mod dedicated_runtime;
mod error;
mod publisher;
mod transport;

pub use self::admin::KafkaAdmin;
pub use self::config::{
    Compression, GroupProtocol, Isolation, KafkaConfig, Pem, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource,
};
pub use self::consumer::KafkaConsumer;
pub use self::publisher::KafkaPublisher;
pub use self::transport::KafkaTransport;
