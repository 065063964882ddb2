//! The memory transport.

use std::fmt;
use std::sync::Arc;

use tidings_core::{
    Admin, Clause, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, Publisher, Result, Timestamp, Transport,
    async_trait,
};

use crate::admin::MemoryAdmin;
use crate::broker::Broker;
use crate::config::MemoryConfig;
use crate::consumer::MemoryConsumer;
use crate::dead_letters::MemorySink;
use crate::faults::Faults;
use crate::publisher::MemoryPublisher;

/// A broker in this process's memory. Clones share the broker, so that several services can use it; it lives as long
/// as any of its clones, publishers or consumers.
///
/// It keeps every clause of the traits except [`Clause::Restart`]. See the [crate's docs](crate).
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
    pub fn open(config: MemoryConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { broker: Arc::new(Broker::new(config)) })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &MemoryConfig {
        &self.broker.config
    }

    /// Returns the broker's time, which is the timestamp of a record published now without one.
    pub fn now(&self) -> Timestamp {
        self.broker.clock.now()
    }

    /// Returns the broker's fault injection, for tests.
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

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.broker.faults.reach("open a publisher")?;
        Ok(Arc::new(MemoryPublisher::new(Arc::clone(&self.broker))))
    }

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

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}
