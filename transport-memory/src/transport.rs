//! The memory transport.

use std::fmt;
use std::sync::Arc;

use tidings_core::{
    Admin, Clause, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, LogReader, Publisher, Result,
    Timestamp, Transactor, TransactorOptions, Transport, async_trait,
};

use crate::admin::MemoryAdmin;
use crate::broker::Broker;
use crate::cluster::MemoryCluster;
use crate::config::MemoryConfig;
use crate::consumer::MemoryConsumer;
use crate::dead_letters::MemorySink;
use crate::faults::Faults;
use crate::log_reader::MemoryLogReader;
use crate::publisher::MemoryPublisher;
use crate::transactor::MemoryTransactor;

/// A broker in this process's memory. Clones share the broker, so that several services can use it; it lives as long
/// as any of its clones, publishers or consumers.
///
/// It keeps every clause of the traits except [`Clause::Restart`]. See the [crate's docs](crate).
///
/// ```
/// use tidings_core::{PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let other = transport.clone(); // the same broker
/// transport.publisher().await?.publish_one(Record::new("orders", "1")).await?;
/// assert_eq!(other.admin().await?.list_topics().await?, ["orders"]);
/// assert!(MemoryTransport::new().admin().await?.list_topics().await?.is_empty()); // another one
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryTransport {
    broker: Arc<Broker>,
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport").field("config", &self.broker.config).finish_non_exhaustive()
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTransport {
    /// Creates an empty broker with the default configuration.
    pub fn new() -> Self {
        Self { broker: Arc::new(Broker::new(MemoryConfig::default())) }
    }

    /// Opens an empty broker. Its clock starts now, by tokio's clock: if that is to be paused, pause it first.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid), naming the field.
    ///
    /// ```
    /// use tidings_core::{PublisherExt, Record, Transport};
    /// use tidings_memory::{MemoryConfig, MemoryTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::open(MemoryConfig::new().with_partitions(3))?;
    /// let publisher = transport.publisher().await?;
    /// let first = publisher.publish_one(Record::new("orders", "1").with_key("alice")).await?;
    /// let second = publisher.publish_one(Record::new("orders", "2").with_key("alice")).await?;
    /// assert_eq!((first.partition, second.offset), (second.partition, first.offset + 1));
    ///
    /// assert!(MemoryTransport::open(MemoryConfig::new().with_partitions(0)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(config: MemoryConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { broker: Arc::new(Broker::new(config)) })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &MemoryConfig {
        &self.broker.config
    }

    /// Returns the broker's time, which is the timestamp of a record published now without one.
    ///
    /// It follows tokio's clock, so a test on a paused clock decides it:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidings_memory::MemoryTransport;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let transport = MemoryTransport::new();
    /// let before = transport.now();
    /// tokio::time::advance(Duration::from_secs(60)).await;
    /// assert_eq!(transport.now(), before.saturating_add(Duration::from_secs(60)));
    /// # }
    /// ```
    pub fn now(&self) -> Timestamp {
        self.broker.clock.now()
    }

    /// Returns the broker's fault injection, for tests.
    ///
    /// Faults injected through any clone act on all of them, and on publishers and consumers that
    /// exist already:
    ///
    /// ```
    /// # use tidings_core::{ErrorKind, Transport};
    /// # use tidings_memory::MemoryTransport;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let admin = transport.admin().await?;
    /// transport.faults().down();
    /// assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Unavailable);
    /// transport.faults().up();
    /// assert!(admin.list_topics().await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn faults(&self) -> Faults {
        Faults::new(&self.broker)
    }
}

/// Guarantees of the memory backends.
pub(crate) fn guarantees() -> Guarantees {
    Guarantees::all().without(Clause::Restart, "it is the memory of one process")
}

#[async_trait]
impl Transport for MemoryTransport {
    fn system(&self) -> &'static str {
        "memory"
    }

    /// Opens a publisher. Publishers of one transport are independent: order holds within each.
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.broker.faults.reach("open a publisher")?;
        Ok(Arc::new(MemoryPublisher::new(Arc::clone(&self.broker))))
    }

    /// Joins a group at once; assignments follow as steps.
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(MemoryConsumer::join(&self.broker, options)?))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.broker.faults.reach("open the dead-letter sink")?;
        Ok(Arc::new(MemorySink::new(Arc::clone(&self.broker))))
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.broker.faults.reach("open the admin verbs")?;
        Ok(Arc::new(MemoryAdmin::new(Arc::clone(&self.broker))))
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.broker.faults.reach("open a log reader")?;
        Ok(Arc::new(MemoryLogReader::new(Arc::clone(&self.broker))))
    }

    /// Opens the description of the one broker, whose configuration is read-only, and of its topics.
    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        self.broker.faults.reach("open the cluster")?;
        Ok(Arc::new(MemoryCluster::new(Arc::clone(&self.broker))))
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        Ok(Arc::new(MemoryTransactor::open(&self.broker, &options)?))
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}
