//! The transport: opens publishers, consumers, the dead-letter sink and the admin verbs.

use std::sync::Arc;

use tidings_core::{
    Admin, Consumer, ConsumerOptions, DeadLetterSink, DeadLetterTopics, Guarantees, Publisher, Result, Transport,
    async_trait,
};

use crate::admin::KafkaAdmin;
use crate::config::{KafkaConfig, in_context};
use crate::consumer::KafkaConsumer;
use crate::publisher::KafkaPublisher;
use crate::seam::admin::Asks;
use crate::seam::connection::{Connection, Role};

/// How large a dead letter may be, whatever [`KafkaConfig::max_record_bytes`]: a letter has more than its record, and other
/// clients publish larger ones than ours. It is the topic that decides.
const LARGEST_LETTER: usize = 64 << 20;

/// Apache Kafka.
///
/// All clauses are kept, with two exceptions. A member of a classic group ([`GroupProtocol::Classic`]) does not see that a
/// topic gains partitions until the next rebalance, when one comes or goes; what they hold is then read from its beginning.
/// And where a broker refuses a batch for one of its records, others of it may end as
/// [`Unavailable`](tidings_core::ErrorKind::Unavailable), not stored (P1): see
/// [`KafkaPublisher`](crate::KafkaPublisher).
///
/// [`GroupProtocol::Classic`]: crate::GroupProtocol::Classic
#[derive(Debug, Clone)]
pub struct KafkaTransport {
    config: Arc<KafkaConfig>,
    asks: Asks,
}

impl KafkaTransport {
    /// Checks `config` and connects to the first of its brokers that answers. While none does, it tries again for
    /// [`KafkaConfig::connect_wait`]. Cancel-safe.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid) names the wrong setting;
    /// [`Denied`](tidings_core::ErrorKind::Denied) for credentials and certificates;
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable), naming the brokers, when none answers within
    /// [`KafkaConfig::connect_timeout`] (each attempt). The error's text names the cause.
    pub async fn connect(config: KafkaConfig) -> Result<Self> {
        config.check().map_err(in_context)?;
        let connection = Connection::open_patiently(&config, Role::Steady).await?;
        let asks = Asks::new(&connection, &config);
        Ok(Self { config: Arc::new(config), asks })
    }

    /// What it was made with.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }
}

pub(crate) fn guarantees() -> Guarantees {
    Guarantees::all().with_shared(true)
}

#[async_trait]
impl Transport for KafkaTransport {
    fn system(&self) -> &'static str {
        "kafka"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        Ok(Arc::new(KafkaPublisher::open(&self.config).await?))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(KafkaConsumer::open(&self.config, &self.asks, options).await?))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        let mut config = KafkaConfig::clone(&self.config);
        config.max_record_bytes = config.max_record_bytes.max(LARGEST_LETTER);
        let publisher = Arc::new(KafkaPublisher::open(&config).await?);
        Ok(Arc::new(DeadLetterTopics::new(publisher, self.admin().await?)))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(KafkaAdmin::new(self.asks.clone())))
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}
