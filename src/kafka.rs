//! The transport on Apache Kafka.

pub use tidings_kafka::{
    Compression, GroupProtocol, Isolation, KafkaAdmin, KafkaConfig, KafkaConsumer, KafkaPublisher, KafkaTransport, Pem,
    PublisherKind, ReaderKind, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource,
};
