//! Settings with a few named values.

/// Compression of batches in transit and in the broker's log. Consumers read all of them.
///
/// ```
/// # use tidings_kafka::{Compression, KafkaConfig};
/// let config = KafkaConfig::from_url("kafka://broker?compression=gzip&compression_level=9")?;
/// assert_eq!((config.compression, config.compression_level), (Compression::Gzip, Some(9)));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// Gzip: small, slow, and supported by every client, including KafkaJS.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4: fast.
    Lz4,
    /// Zstandard: small and fast. Publishing needs the cargo feature `zstd` (`kafka-zstd` of the facade).
    Zstd,
}

/// Protocol by which a group assigns partitions.
///
/// ```
/// # use tidings_kafka::{GroupProtocol, KafkaConfig};
/// let config = KafkaConfig::from_url("kafka://broker?group_protocol=classic")?;
/// assert_eq!(config.group_protocol, GroupProtocol::Classic);
/// assert_eq!(KafkaConfig::new(["broker:9092"]).group_protocol, GroupProtocol::Auto);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// KIP-848 where the cluster supports it, otherwise the classic protocol.
    #[default]
    Auto,
    /// KIP-848: the broker assigns partitions, and only partitions that move are interrupted.
    Consumer,
    /// Classic protocol: a member assigns partitions, and all members first revoke everything (eager, `range`).
    /// Partitions added to a topic are not read before the next rebalance.
    Classic,
}

/// Which records are read from topics written by transactions.
///
/// ```
/// # use tidings_kafka::{Isolation, KafkaConfig};
/// let config = KafkaConfig::from_url("kafka://broker?isolation=read_uncommitted")?;
/// assert_eq!(config.isolation, Isolation::ReadUncommitted);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Only records of committed transactions and records outside transactions; lag counts to the last stable offset.
    #[default]
    ReadCommitted,
    /// All records, including those of aborted transactions.
    ReadUncommitted,
}

/// How consumers fetch and decode records. Groups and commits are the same with both.
///
/// ```
/// # use tidings_kafka::{KafkaConfig, ReaderKind};
/// let config = KafkaConfig::from_url("kafka://broker?reader=native")?;
/// assert_eq!(config.reader, ReaderKind::Native);
/// assert_eq!(KafkaConfig::new(["broker:9092"]).reader, ReaderKind::Client);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReaderKind {
    /// The client library, krafka.
    #[default]
    Client,
    /// Native connections and a native decoder: faster, with one connection per broker and bounded decompression.
    /// Experimental. Requires brokers of version 2.4 or newer.
    Native,
}

/// How records are published. The contract of the publisher is the same with both.
///
/// ```
/// # use tidings_kafka::{KafkaConfig, PublisherKind};
/// let config = KafkaConfig::from_url("kafka://broker?publisher=native")?;
/// assert_eq!(config.publisher, PublisherKind::Native);
/// assert_eq!(KafkaConfig::new(["broker:9092"]).publisher, PublisherKind::Client);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PublisherKind {
    /// The client library, krafka.
    #[default]
    Client,
    /// Native connections and a native producer: faster, with one connection per broker and up to five requests in
    /// flight. If a broker refuses a batch because of one of its records, the other records are stored in their order.
    /// Experimental. Requires brokers of version 2.4 or newer.
    Native,
}
