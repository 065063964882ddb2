//! A transport that opens each of its parts once, at their first use, and keeps them.

use std::sync::Arc;

use tidings_core::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, LogReader, Publisher, Result,
    Transactor, TransactorOptions, Transport, async_trait,
};
use tokio::sync::OnceCell;

/// Keeps what was opened of a transport: a request needs no connection of its own. A failure is not kept.
#[derive(Debug)]
pub(super) struct Once {
    inner: Arc<dyn Transport>,
    admin: OnceCell<Arc<dyn Admin>>,
    publisher: OnceCell<Arc<dyn Publisher>>,
    log_reader: OnceCell<Arc<dyn LogReader>>,
    acls: OnceCell<Arc<dyn Acls>>,
    cluster: OnceCell<Arc<dyn Cluster>>,
}

impl Once {
    pub(super) fn new(inner: Arc<dyn Transport>) -> Self {
        Self {
            inner,
            admin: OnceCell::new(),
            publisher: OnceCell::new(),
            log_reader: OnceCell::new(),
            acls: OnceCell::new(),
            cluster: OnceCell::new(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Once {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.publisher.get_or_try_init(|| self.inner.publisher()).await.cloned()
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.admin.get_or_try_init(|| self.inner.admin()).await.cloned()
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.log_reader.get_or_try_init(|| self.inner.log_reader()).await.cloned()
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        self.acls.get_or_try_init(|| self.inner.acls()).await.cloned()
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        self.cluster.get_or_try_init(|| self.inner.cluster()).await.cloned()
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        self.inner.transactor(options).await
    }

    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
