//! The kinds of reader and publisher that are tested together.

use tidings_kafka::{KafkaConfig, PublisherKind, ReaderKind};

/// Sets the reader, and the publisher of the same kind.
pub(crate) fn by(reader: ReaderKind, config: KafkaConfig) -> KafkaConfig {
    let publisher = if reader == ReaderKind::Native { PublisherKind::Native } else { PublisherKind::Client };
    config.with_reader(reader).with_publisher(publisher)
}
