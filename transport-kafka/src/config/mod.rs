//! What a Kafka transport is made with: typed fields, the same as a URL, and from the environment.

mod check;
mod credentials;
mod environment;
mod show;
mod text;
mod url;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::credentials::{Pem, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource};
pub(crate) use self::url::in_context;

/// The default of [`KafkaConfig::client_id`].
pub const DEFAULT_CLIENT_ID: &str = "tidings";
/// The default of [`KafkaConfig::linger`]: none.
pub const DEFAULT_LINGER: Duration = Duration::ZERO;
/// The default of [`KafkaConfig::batch_bytes`]: 256 KiB.
pub const DEFAULT_BATCH_BYTES: usize = 256 << 10;
/// The default of [`KafkaConfig::max_record_bytes`]: 8 MiB, so that it is the topic that decides.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 8 << 20;
/// The default of [`KafkaConfig::max_unanswered_records`].
pub const DEFAULT_MAX_UNANSWERED_RECORDS: usize = 100_000;
/// The default of [`KafkaConfig::max_unanswered_bytes`]: 64 MiB.
pub const DEFAULT_MAX_UNANSWERED_BYTES: usize = 64 << 20;
/// The default of [`KafkaConfig::delivery_timeout`].
pub const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of [`KafkaConfig::connect_timeout`].
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The default of [`KafkaConfig::connect_wait`]: one attempt.
pub const DEFAULT_CONNECT_WAIT: Duration = Duration::ZERO;
/// The default of [`KafkaConfig::request_timeout`].
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The default of [`KafkaConfig::metadata_max_age`].
pub const DEFAULT_METADATA_MAX_AGE: Duration = Duration::from_secs(30);
/// The default of [`KafkaConfig::fetch_max_bytes`]: 8 MiB.
pub const DEFAULT_FETCH_MAX_BYTES: usize = 8 << 20;
/// The default of [`KafkaConfig::fetch_max_partition_bytes`]: 1 MiB.
pub const DEFAULT_FETCH_MAX_PARTITION_BYTES: usize = 1 << 20;
/// The default of [`KafkaConfig::fetch_max_unpacked_bytes`]: 128 MiB.
pub const DEFAULT_FETCH_MAX_UNPACKED_BYTES: usize = 128 << 20;
/// The default of [`KafkaConfig::fetch_max_wait`].
pub const DEFAULT_FETCH_MAX_WAIT: Duration = Duration::from_millis(500);

/// How to reach Kafka, and how to publish and read. Checked in [`KafkaTransport::connect`](crate::KafkaTransport::connect).
///
/// ```
/// use std::time::Duration;
/// use tidings_kafka::{Compression, KafkaConfig};
///
/// let config = KafkaConfig::new(["a:9092", "b:9092"]).with_compression(Compression::Lz4);
/// let same = KafkaConfig::from_url("kafka://a:9092,b:9092?compression=lz4")?;
/// assert_eq!((config.brokers, config.compression), (same.brokers, same.compression));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Some of the cluster's brokers as `host:port`; the others are found through them.
    pub brokers: Vec<String>,
    /// The name in the brokers' logs and quotas: [`DEFAULT_CLIENT_ID`].
    pub client_id: String,
    /// TLS; `None` is plain text.
    pub tls: Option<Tls>,
    /// Who we are; `None` is nobody.
    pub sasl: Option<Sasl>,
    /// How batches are compressed: not at all, if not said.
    pub compression: Compression,
    /// How hard gzip (0 to 9) or zstd (1 to 22) try; `None` is the codec's default.
    pub compression_level: Option<i32>,
    /// How long a batch waits for more records: [`DEFAULT_LINGER`]. A partition has one batch under way at a time, and what
    /// comes meanwhile is the next one; so batches fill under load all the same, and a record that comes alone doesn't wait.
    pub linger: Duration,
    /// Bytes of a full batch, per partition: [`DEFAULT_BATCH_BYTES`]. A topic that takes less gets smaller ones.
    pub batch_bytes: usize,
    /// The largest record that is tried at all: [`DEFAULT_MAX_RECORD_BYTES`]. A topic may take less.
    pub max_record_bytes: usize,
    /// Records that may wait for the brokers' answers: [`DEFAULT_MAX_UNANSWERED_RECORDS`].
    pub max_unanswered_records: usize,
    /// Bytes that may wait for the brokers' answers: [`DEFAULT_MAX_UNANSWERED_BYTES`].
    pub max_unanswered_bytes: usize,
    /// How long a record is tried before it ends as unknown or unavailable: [`DEFAULT_DELIVERY_TIMEOUT`].
    pub delivery_timeout: Duration,
    /// How long [`connect`](crate::KafkaTransport::connect) and each new connection may take:
    /// [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long [`connect`](crate::KafkaTransport::connect) tries again while no broker answers: [`DEFAULT_CONNECT_WAIT`].
    pub connect_wait: Duration,
    /// How long one request may wait for its answer: [`DEFAULT_REQUEST_TIMEOUT`].
    pub request_timeout: Duration,
    /// How long a publisher believes that a topic has so many partitions: [`DEFAULT_METADATA_MAX_AGE`]. Keys go by that
    /// number, so this is how long two publishers may differ after a topic grew.
    pub metadata_max_age: Duration,
    /// Bytes fetched from a broker at once: [`DEFAULT_FETCH_MAX_BYTES`]. One fetch has half of them, as two are under way
    /// where a broker leads several partitions.
    pub fetch_max_bytes: usize,
    /// Bytes of one partition in a fetch: [`DEFAULT_FETCH_MAX_PARTITION_BYTES`]. More than the fetch has comes to nothing.
    pub fetch_max_partition_bytes: usize,
    /// Bytes that a compressed batch may unpack to: [`DEFAULT_FETCH_MAX_UNPACKED_BYTES`]. A larger one holds its partition,
    /// until it is skipped or this is raised.
    pub fetch_max_unpacked_bytes: usize,
    /// How long a broker may wait for records before it answers a fetch: [`DEFAULT_FETCH_MAX_WAIT`].
    pub fetch_max_wait: Duration,
    /// How members of a group agree.
    pub group_protocol: GroupProtocol,
    /// A static member's name, for consumers whose options give none.
    pub instance_id: Option<String>,
    /// Which records are read.
    pub isolation: Isolation,
    /// The rack that we run in, so that reads can stay in it.
    pub rack: Option<String>,
}

/// How batches are compressed on their way to the broker, and in its log. Reading knows all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip: small, slow, and read by every client, KafkaJS among them.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4: fast.
    Lz4,
    /// Zstandard: small and fast. To publish it needs the cargo feature `zstd` (`kafka-zstd` of the facade).
    Zstd,
}

/// How members of a group agree on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The newer one (KIP-848) where the cluster has it, else the classic one.
    #[default]
    Auto,
    /// KIP-848: the broker assigns, and only what moves stops.
    Consumer,
    /// The protocol of old: a member assigns, and all give up everything first (eager, `range`). Partitions that a topic
    /// gains are not read before the next rebalance.
    Classic,
}

/// Which records are read where transactions write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Isolation {
    /// Those of committed transactions, and those outside any; lag counts to the last stable offset.
    #[default]
    ReadCommitted,
    /// All, aborted ones too.
    ReadUncommitted,
}

impl KafkaConfig {
    /// A cluster, found through these brokers (`host:port`), in plain text.
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: DEFAULT_CLIENT_ID.into(),
            tls: None,
            sasl: None,
            compression: Compression::default(),
            compression_level: None,
            linger: DEFAULT_LINGER,
            batch_bytes: DEFAULT_BATCH_BYTES,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            max_unanswered_records: DEFAULT_MAX_UNANSWERED_RECORDS,
            max_unanswered_bytes: DEFAULT_MAX_UNANSWERED_BYTES,
            delivery_timeout: DEFAULT_DELIVERY_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            connect_wait: DEFAULT_CONNECT_WAIT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
            metadata_max_age: DEFAULT_METADATA_MAX_AGE,
            fetch_max_bytes: DEFAULT_FETCH_MAX_BYTES,
            fetch_max_partition_bytes: DEFAULT_FETCH_MAX_PARTITION_BYTES,
            fetch_max_unpacked_bytes: DEFAULT_FETCH_MAX_UNPACKED_BYTES,
            fetch_max_wait: DEFAULT_FETCH_MAX_WAIT,
            group_protocol: GroupProtocol::default(),
            instance_id: None,
            isolation: Isolation::default(),
            rack: None,
        }
    }

    /// See [`Self::client_id`].
    #[must_use]
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// See [`Self::tls`].
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// See [`Self::sasl`].
    #[must_use]
    pub fn with_sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// See [`Self::compression`].
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// See [`Self::compression_level`].
    #[must_use]
    pub fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    /// See [`Self::linger`].
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// See [`Self::batch_bytes`].
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// See [`Self::max_record_bytes`].
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// See [`Self::max_unanswered_records`].
    #[must_use]
    pub fn with_max_unanswered_records(mut self, records: usize) -> Self {
        self.max_unanswered_records = records;
        self
    }

    /// See [`Self::max_unanswered_bytes`].
    #[must_use]
    pub fn with_max_unanswered_bytes(mut self, bytes: usize) -> Self {
        self.max_unanswered_bytes = bytes;
        self
    }

    /// See [`Self::delivery_timeout`].
    #[must_use]
    pub fn with_delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// See [`Self::connect_timeout`].
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// See [`Self::connect_wait`].
    #[must_use]
    pub fn with_connect_wait(mut self, wait: Duration) -> Self {
        self.connect_wait = wait;
        self
    }

    /// See [`Self::request_timeout`].
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// See [`Self::metadata_max_age`].
    #[must_use]
    pub fn with_metadata_max_age(mut self, age: Duration) -> Self {
        self.metadata_max_age = age;
        self
    }

    /// See [`Self::fetch_max_bytes`].
    #[must_use]
    pub fn with_fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_bytes = bytes;
        self
    }

    /// See [`Self::fetch_max_partition_bytes`].
    #[must_use]
    pub fn with_fetch_max_partition_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_partition_bytes = bytes;
        self
    }

    /// See [`Self::fetch_max_unpacked_bytes`].
    #[must_use]
    pub fn with_fetch_max_unpacked_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_unpacked_bytes = bytes;
        self
    }

    /// See [`Self::fetch_max_wait`].
    #[must_use]
    pub fn with_fetch_max_wait(mut self, wait: Duration) -> Self {
        self.fetch_max_wait = wait;
        self
    }

    /// See [`Self::group_protocol`].
    #[must_use]
    pub fn with_group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.group_protocol = protocol;
        self
    }

    /// See [`Self::instance_id`].
    #[must_use]
    pub fn with_instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// See [`Self::isolation`].
    #[must_use]
    pub fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// See [`Self::rack`].
    #[must_use]
    pub fn with_rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = Some(rack.into());
        self
    }
}
