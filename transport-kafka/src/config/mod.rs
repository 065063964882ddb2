//! Configuration of the Kafka transport: typed fields, a URL, or environment variables.
//!
//! All three ways end in the same [`KafkaConfig`] and the same check, which runs before anything is
//! opened: a mistake is an error that names the field, the parameter or the variable, never a
//! connection that fails later. No error and no `Debug` output contains a secret.

mod check;
mod choices;
mod credentials;
mod environment;
mod show;
mod text;
mod url;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::choices::{Compression, GroupProtocol, Isolation, PublisherKind, ReaderKind};
pub use self::credentials::{Pem, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource};
pub(crate) use self::url::in_context;

impl KafkaConfig {
    /// Default of [`KafkaConfig::client_id`].
    pub const DEFAULT_CLIENT_ID: &str = "tidings";

    /// Default of [`KafkaConfig::linger`]: no linger.
    pub const DEFAULT_LINGER: Duration = Duration::ZERO;

    /// Default of [`KafkaConfig::batch_bytes`]: 256 KiB.
    pub const DEFAULT_BATCH_BYTES: usize = 256 << 10;

    /// Default of [`KafkaConfig::max_record_bytes`]: 8 MiB, large enough that the topic's limit decides.
    pub const DEFAULT_MAX_RECORD_BYTES: usize = 8 << 20;

    /// Default of [`KafkaConfig::max_unanswered_records`].
    pub const DEFAULT_MAX_UNANSWERED_RECORDS: usize = 100_000;

    /// Default of [`KafkaConfig::max_unanswered_bytes`]: 64 MiB.
    pub const DEFAULT_MAX_UNANSWERED_BYTES: usize = 64 << 20;

    /// Default of [`KafkaConfig::delivery_timeout`].
    pub const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

    /// Default of [`KafkaConfig::connect_timeout`].
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// Default of [`KafkaConfig::connect_wait`]: a single attempt.
    pub const DEFAULT_CONNECT_WAIT: Duration = Duration::ZERO;

    /// Default of [`KafkaConfig::request_timeout`].
    pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

    /// Default of [`KafkaConfig::metadata_max_age`].
    pub const DEFAULT_METADATA_MAX_AGE: Duration = Duration::from_secs(30);

    /// Default of [`KafkaConfig::fetch_max_bytes`]: 8 MiB.
    pub const DEFAULT_FETCH_MAX_BYTES: usize = 8 << 20;

    /// Default of [`KafkaConfig::fetch_max_partition_bytes`]: 1 MiB.
    pub const DEFAULT_FETCH_MAX_PARTITION_BYTES: usize = 1 << 20;

    /// Default of [`KafkaConfig::fetch_max_unpacked_bytes`]: 128 MiB.
    pub const DEFAULT_FETCH_MAX_UNPACKED_BYTES: usize = 128 << 20;

    /// Default of [`KafkaConfig::fetch_max_wait`].
    pub const DEFAULT_FETCH_MAX_WAIT: Duration = Duration::from_millis(500);
}

/// Configuration of a Kafka transport. [`KafkaTransport::connect`](crate::KafkaTransport::connect) checks it.
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
    /// Bootstrap brokers as `host:port`; the others are discovered through them.
    pub brokers: Vec<String>,
    /// Client id in the brokers' logs and quotas: [`KafkaConfig::DEFAULT_CLIENT_ID`].
    pub client_id: String,
    /// TLS settings; `None` disables TLS.
    pub tls: Option<Tls>,
    /// SASL credentials; `None` disables SASL.
    pub sasl: Option<Sasl>,
    /// Compression of published batches; none by default.
    pub compression: Compression,
    /// Compression level of gzip (0 to 9) or zstd (1 to 22); `None` is the codec's default.
    pub compression_level: Option<i32>,
    /// How long a batch waits for more records: [`KafkaConfig::DEFAULT_LINGER`].
    ///
    /// Each partition has one batch in flight, and records that arrive meanwhile form the next. Batches therefore
    /// fill under load even without a linger, and a single record does not wait.
    pub linger: Duration,
    /// Size of a full batch per partition, in bytes: [`KafkaConfig::DEFAULT_BATCH_BYTES`]. Topics with a lower limit
    /// get smaller batches.
    pub batch_bytes: usize,
    /// Largest record that is sent, in bytes: [`KafkaConfig::DEFAULT_MAX_RECORD_BYTES`]. A topic may have a lower
    /// limit.
    pub max_record_bytes: usize,
    /// Maximum number of in-flight records: [`KafkaConfig::DEFAULT_MAX_UNANSWERED_RECORDS`].
    pub max_unanswered_records: usize,
    /// Maximum size of all in-flight records, in bytes: [`KafkaConfig::DEFAULT_MAX_UNANSWERED_BYTES`].
    pub max_unanswered_bytes: usize,
    /// How long a record is retried before it ends as indeterminate or unavailable:
    /// [`KafkaConfig::DEFAULT_DELIVERY_TIMEOUT`].
    pub delivery_timeout: Duration,
    /// Timeout of each connection attempt, including those of [`connect`](crate::KafkaTransport::connect):
    /// [`KafkaConfig::DEFAULT_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long [`connect`](crate::KafkaTransport::connect) retries while no broker answers:
    /// [`KafkaConfig::DEFAULT_CONNECT_WAIT`].
    pub connect_wait: Duration,
    /// Timeout of a single request: [`KafkaConfig::DEFAULT_REQUEST_TIMEOUT`].
    pub request_timeout: Duration,
    /// How long a publisher caches a topic's partition count: [`KafkaConfig::DEFAULT_METADATA_MAX_AGE`]. Keys are
    /// partitioned by that count, so two publishers may disagree for this long after a topic grew.
    pub metadata_max_age: Duration,
    /// Bytes fetched from a broker at once: [`KafkaConfig::DEFAULT_FETCH_MAX_BYTES`]. A single fetch gets half of
    /// them, because two are in flight where a broker leads several partitions.
    pub fetch_max_bytes: usize,
    /// Bytes per partition in a fetch: [`KafkaConfig::DEFAULT_FETCH_MAX_PARTITION_BYTES`]. Effectively capped by the
    /// size of a fetch.
    pub fetch_max_partition_bytes: usize,
    /// Maximum decompressed size of a batch: [`KafkaConfig::DEFAULT_FETCH_MAX_UNPACKED_BYTES`]. A larger batch holds
    /// its partition until it is skipped or this limit is raised.
    pub fetch_max_unpacked_bytes: usize,
    /// How long a broker may wait for records before it answers a fetch: [`KafkaConfig::DEFAULT_FETCH_MAX_WAIT`].
    pub fetch_max_wait: Duration,
    /// Group protocol of consumers.
    pub group_protocol: GroupProtocol,
    /// Static member name (`group.instance.id`), for consumers whose options do not set one.
    /// The rule for topic names applies.
    pub instance_id: Option<String>,
    /// Isolation level of reads.
    pub isolation: Isolation,
    /// Rack of this client, so that it can read from replicas in the same rack.
    pub rack: Option<String>,
    /// How consumers read: by the client library, or natively.
    pub reader: ReaderKind,
    /// How records are published: by the client library, or natively.
    pub publisher: PublisherKind,
}

impl KafkaConfig {
    /// Creates a configuration for a cluster with these bootstrap brokers (`host:port`), without TLS.
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            client_id: KafkaConfig::DEFAULT_CLIENT_ID.into(),
            tls: None,
            sasl: None,
            compression: Compression::default(),
            compression_level: None,
            linger: KafkaConfig::DEFAULT_LINGER,
            batch_bytes: KafkaConfig::DEFAULT_BATCH_BYTES,
            max_record_bytes: KafkaConfig::DEFAULT_MAX_RECORD_BYTES,
            max_unanswered_records: KafkaConfig::DEFAULT_MAX_UNANSWERED_RECORDS,
            max_unanswered_bytes: KafkaConfig::DEFAULT_MAX_UNANSWERED_BYTES,
            delivery_timeout: KafkaConfig::DEFAULT_DELIVERY_TIMEOUT,
            connect_timeout: KafkaConfig::DEFAULT_CONNECT_TIMEOUT,
            connect_wait: KafkaConfig::DEFAULT_CONNECT_WAIT,
            request_timeout: KafkaConfig::DEFAULT_REQUEST_TIMEOUT,
            metadata_max_age: KafkaConfig::DEFAULT_METADATA_MAX_AGE,
            fetch_max_bytes: KafkaConfig::DEFAULT_FETCH_MAX_BYTES,
            fetch_max_partition_bytes: KafkaConfig::DEFAULT_FETCH_MAX_PARTITION_BYTES,
            fetch_max_unpacked_bytes: KafkaConfig::DEFAULT_FETCH_MAX_UNPACKED_BYTES,
            fetch_max_wait: KafkaConfig::DEFAULT_FETCH_MAX_WAIT,
            group_protocol: GroupProtocol::default(),
            instance_id: None,
            isolation: Isolation::default(),
            rack: None,
            reader: ReaderKind::default(),
            publisher: PublisherKind::default(),
        }
    }

    /// Sets [`Self::client_id`].
    #[must_use]
    pub fn with_client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Sets [`Self::tls`].
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets [`Self::sasl`].
    #[must_use]
    pub fn with_sasl(mut self, sasl: Sasl) -> Self {
        self.sasl = Some(sasl);
        self
    }

    /// Sets [`Self::compression`].
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets [`Self::compression_level`].
    #[must_use]
    pub fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    /// Sets [`Self::linger`].
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets [`Self::batch_bytes`].
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets [`Self::max_record_bytes`].
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// Sets [`Self::max_unanswered_records`].
    #[must_use]
    pub fn with_max_unanswered_records(mut self, records: usize) -> Self {
        self.max_unanswered_records = records;
        self
    }

    /// Sets [`Self::max_unanswered_bytes`].
    #[must_use]
    pub fn with_max_unanswered_bytes(mut self, bytes: usize) -> Self {
        self.max_unanswered_bytes = bytes;
        self
    }

    /// Sets [`Self::delivery_timeout`].
    #[must_use]
    pub fn with_delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Sets [`Self::connect_timeout`].
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`Self::connect_wait`].
    #[must_use]
    pub fn with_connect_wait(mut self, wait: Duration) -> Self {
        self.connect_wait = wait;
        self
    }

    /// Sets [`Self::request_timeout`].
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets [`Self::metadata_max_age`].
    #[must_use]
    pub fn with_metadata_max_age(mut self, age: Duration) -> Self {
        self.metadata_max_age = age;
        self
    }

    /// Sets [`Self::fetch_max_bytes`].
    #[must_use]
    pub fn with_fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_bytes = bytes;
        self
    }

    /// Sets [`Self::fetch_max_partition_bytes`].
    #[must_use]
    pub fn with_fetch_max_partition_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_partition_bytes = bytes;
        self
    }

    /// Sets [`Self::fetch_max_unpacked_bytes`].
    #[must_use]
    pub fn with_fetch_max_unpacked_bytes(mut self, bytes: usize) -> Self {
        self.fetch_max_unpacked_bytes = bytes;
        self
    }

    /// Sets [`Self::fetch_max_wait`].
    #[must_use]
    pub fn with_fetch_max_wait(mut self, wait: Duration) -> Self {
        self.fetch_max_wait = wait;
        self
    }

    /// Sets [`Self::group_protocol`].
    #[must_use]
    pub fn with_group_protocol(mut self, protocol: GroupProtocol) -> Self {
        self.group_protocol = protocol;
        self
    }

    /// Sets [`Self::instance_id`].
    #[must_use]
    pub fn with_instance_id(mut self, id: impl Into<String>) -> Self {
        self.instance_id = Some(id.into());
        self
    }

    /// Sets [`Self::isolation`].
    #[must_use]
    pub fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets [`Self::rack`].
    #[must_use]
    pub fn with_rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = Some(rack.into());
        self
    }

    /// Sets [`Self::reader`].
    #[must_use]
    pub fn with_reader(mut self, reader: ReaderKind) -> Self {
        self.reader = reader;
        self
    }

    /// Sets [`Self::publisher`].
    #[must_use]
    pub fn with_publisher(mut self, publisher: PublisherKind) -> Self {
        self.publisher = publisher;
        self
    }
}
