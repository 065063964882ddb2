//! The transport whose publishers are traced.

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, LogReader, Publisher, Result,
    Transactor, TransactorOptions, Transport,
};

use crate::publisher::TracedPublisher;
use crate::spans::Spans;
use crate::transactor::TracedTransactor;

/// A transport whose publishers and transactors are traced. Created by [`Tracing::transport`](crate::Tracing::transport).
///
/// Everything else is the wrapped transport's. Handlers are traced by a [`TraceLayer`](crate::TraceLayer).
#[derive(Debug, Clone)]
pub struct TracedTransport<T> {
    inner: T,
    spans: Arc<Spans>,
}

impl<T> TracedTransport<T> {
    pub(crate) fn new(inner: T, spans: Arc<Spans>) -> Self {
        Self { inner, spans }
    }

    /// Returns the wrapped transport.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: Transport> Transport for TracedTransport<T> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let inner = self.inner.publisher().await?;
        Ok(Arc::new(TracedPublisher::new(inner, self.spans.clone())))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        self.inner.log_reader().await
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        self.inner.acls().await
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        self.inner.cluster().await
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        let inner = self.inner.transactor(options).await?;
        Ok(Arc::new(TracedTransactor::new(inner, self.spans.clone())))
    }

    fn writes_trace_context(&self) -> bool {
        true
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
