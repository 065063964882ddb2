//! The transport: opens publishers, consumers, the dead-letter sink and the admin client.

use std::sync::Arc;

use tidings_core::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, DeadLetterTopics, Guarantees, LogReader,
    Publisher, Result, Transport, async_trait,
};

use crate::acls::KafkaAcls;
use crate::admin::KafkaAdmin;
use crate::client::admin::ClusterClient;
use crate::client::connection::{Connection, Role};
use crate::cluster::KafkaCluster;
use crate::config::{KafkaConfig, PublisherKind, in_context};
use crate::consumer::KafkaConsumer;
use crate::log_reader::KafkaLogReader;
use crate::publisher::{KafkaPublisher, NativePublisher};

/// Minimum of [`KafkaConfig::max_record_bytes`] for dead letters: a letter is larger than its record, and other
/// clients publish larger records than this one. The topic's limit decides.
const LARGEST_LETTER: usize = 64 << 20;

/// Apache Kafka transport.
///
/// It keeps all clauses, with two exceptions:
///
/// - Members of a classic group ([`GroupProtocol::Classic`]) do not notice partitions added to a topic until the next
///   rebalance, when a member joins or leaves. These partitions are then read from their beginning.
/// - Where a broker refuses a batch because of one of its records, other records of the batch may end as
///   [`Unavailable`](tidings_core::ErrorKind::Unavailable), not stored (P1): see
///   [`KafkaPublisher`](crate::KafkaPublisher).
///
/// [`GroupProtocol::Classic`]: crate::GroupProtocol::Classic
///
/// Clones share the connection for admin requests. Each publisher and each consumer opens its own.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings_core::Transport;
/// use tidings_kafka::{KafkaConfig, KafkaTransport};
///
/// # async fn example() -> tidings_core::Result<()> {
/// let config = KafkaConfig::new(["localhost:9092"]).with_connect_wait(Duration::from_secs(60));
/// let kafka = KafkaTransport::connect(config).await?; // waits up to a minute for the first broker
/// assert!(kafka.admin().await?.health().await?.problems.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct KafkaTransport {
    config: Arc<KafkaConfig>,
    cluster: ClusterClient,
}

impl KafkaTransport {
    /// Checks `config` and connects to the first broker that answers.
    ///
    /// While no broker answers, it retries for [`KafkaConfig::connect_wait`]. Cancel-safe.
    ///
    /// # Errors
    /// - [`Invalid`](tidings_core::ErrorKind::Invalid) names the invalid setting.
    /// - [`Denied`](tidings_core::ErrorKind::Denied) if credentials or certificates are refused.
    /// - [`Unavailable`](tidings_core::ErrorKind::Unavailable), naming the brokers, if none answers within
    ///   [`KafkaConfig::connect_timeout`] (for each attempt).
    ///
    /// The error's text names the cause.
    pub async fn connect(config: KafkaConfig) -> Result<Self> {
        config.check().map_err(in_context)?;
        let connection = Connection::open_patiently(&config, Role::Steady).await?;
        let cluster = ClusterClient::new(&connection, &config);
        Ok(Self { config: Arc::new(config), cluster })
    }

    /// Returns the configuration of this transport.
    ///
    /// Publishers and consumers opened later use it unchanged.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }
}

/// Opens the kind of publisher that is configured.
async fn open_publisher(config: &KafkaConfig) -> Result<Arc<dyn Publisher>> {
    Ok(match config.publisher {
        PublisherKind::Client => Arc::new(KafkaPublisher::open(config).await?),
        PublisherKind::Native => Arc::new(NativePublisher::open(config).await?),
    })
}

/// All clauses; the exceptions are in the documentation of [`KafkaTransport`]. They are shared by
/// processes.
pub(crate) fn guarantees() -> Guarantees {
    Guarantees::all().with_shared(true).without_transactions("its transactor is not implemented yet")
}

#[async_trait]
impl Transport for KafkaTransport {
    fn system(&self) -> &'static str {
        "kafka"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        open_publisher(&self.config).await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(KafkaConsumer::open(&self.config, &self.cluster, options).await?))
    }

    /// Opens a publisher of its own, whose size limit leaves room for a letter's headers.
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        let mut config = KafkaConfig::clone(&self.config);
        config.max_record_bytes = config.max_record_bytes.max(LARGEST_LETTER);
        let publisher = open_publisher(&config).await?;
        Ok(Arc::new(DeadLetterTopics::new(publisher, self.admin().await?)))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(KafkaAdmin::new(self.cluster.clone())))
    }

    /// Opens a reader with a connection of its own.
    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        Ok(Arc::new(KafkaLogReader::open(&self.config).await?))
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        Ok(Arc::new(KafkaAcls::new(self.cluster.clone())))
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Ok(Arc::new(KafkaCluster::new(self.cluster.clone())))
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}
