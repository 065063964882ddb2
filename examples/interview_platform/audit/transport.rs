//! A transport around another: it tells the ledger what is published, also what handlers return.

use std::sync::Arc;
use std::time::Duration;

use tidings::admin::Admin;
use tidings::consumer::{Consumer, ConsumerOptions};
use tidings::dead_letter::DeadLetterSink;
use tidings::publisher::Publisher;
use tidings::record::Position;
use tidings::transport::{Guarantees, async_trait};
use tidings::{Record, Result, Transport};

use super::ledger::Ledger;

/// The transport `inner`, of one service.
#[derive(Debug, Clone)]
pub(crate) struct AuditedTransport {
    inner: Arc<dyn Transport>,
    ledger: Arc<Ledger>,
    service: &'static str,
}

impl AuditedTransport {
    pub(crate) fn new(inner: Arc<dyn Transport>, ledger: Arc<Ledger>) -> Self {
        Self { inner, ledger, service: "" }
    }

    /// The same transport for another service.
    pub(crate) fn of(&self, service: &'static str) -> Self {
        Self { service, ..self.clone() }
    }
}

#[async_trait]
impl Transport for AuditedTransport {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let (inner, ledger) = (self.inner.publisher().await?, self.ledger.clone());
        Ok(Arc::new(AuditedPublisher { inner, ledger, service: self.service }))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    /// Letters go by the sink's own publisher, past the ledger: they are no events.
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct AuditedPublisher {
    inner: Arc<dyn Publisher>,
    ledger: Arc<Ledger>,
    service: &'static str,
}

#[async_trait]
impl Publisher for AuditedPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let copies = records.clone();
        let answers = self.inner.publish(records).await;
        for (record, answer) in copies.into_iter().zip(&answers) {
            if let Ok(position) = answer {
                self.ledger.published(self.service, record, *position);
            }
        }
        answers
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
