//! The audited transport.

use std::sync::Arc;

use tidings_core::audit::Principal;
use tidings_core::{
    Acls, Admin, Cluster, Consumer, ConsumerOptions, DeadLetterSink, Guarantees, LogReader, Publisher, Result,
    Transactor, TransactorOptions, Transport, async_trait,
};

use super::acls::AuditedAcls;
use super::admin::AuditedAdmin;
use super::call::Actor;
use super::cluster::AuditedCluster;
use super::log_reader::AuditedLog;
use super::publisher::AuditedPublisher;
use super::transactor::AuditedTransactor;
use crate::auditor::Auditor;

/// A transport that records changes through its [`Admin`], [`Acls`] and [`Cluster`], and publishing to, and reads by
/// position from, the topics of the auditor's [event policy](crate::AuditorOptions::events). In a transaction, an event
/// is recorded when it is stored, also if the transaction is aborted later.
///
/// Other reads are forwarded without a record. Records that concern several resources state each of them; values of
/// sensitive settings are hidden.
///
/// ```
/// use tidings_audit::{Audited, Auditor, MemoryAudit, decode};
/// use tidings_core::audit::Principal;
/// use tidings_core::{Topic, Transport};
/// use tidings_memory::MemoryTransport;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// let sink = MemoryAudit::new();
/// let transport = Audited::new(MemoryTransport::new(), Auditor::new(sink.clone()))
///     .as_principal(Principal::new("ann").with_authentication("token"))
///     .with_reason("a new service");
/// transport.admin().await?.create_topics(&[Topic::new("orders").with_partitions(6)]).await?;
///
/// let [_, result] = &sink.records()[..] else { panic!("an intent and a result") };
/// let result = decode(result)?;
/// assert_eq!((result.verb.as_str(), &*result.resources), ("topic.create", &["topic:orders".to_owned()][..]));
/// assert_eq!(result.outcome().map(|outcome| outcome.as_str()), Some("ok"));
/// assert_eq!(result.after["orders.partitions"], "6");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Audited<T> {
    inner: T,
    actor: Actor,
}

impl<T: Transport> Audited<T> {
    /// Wraps `inner`, which may be an `Arc` of a transport. The principal is the auditor's
    /// [source](crate::AuditorOptions::source).
    pub fn new(inner: T, auditor: Auditor) -> Self {
        Self { inner, actor: Actor::new(auditor) }
    }

    /// Sets who acts.
    #[must_use]
    pub fn as_principal(mut self, principal: Principal) -> Self {
        self.actor.principal = principal;
        self
    }

    /// Sets the reason that the principal gave.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.actor.reason = reason.into();
        self
    }

    /// Sets the id that the records of one request or command share.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.actor.correlation_id = Some(id.into());
        self
    }

    /// Sets the digest of the plan that is executed.
    #[must_use]
    pub fn with_plan(mut self, digest: impl Into<String>) -> Self {
        self.actor.plan = Some(digest.into());
        self
    }

    /// Returns the wrapped transport.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for Audited<T> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let inner = self.inner.publisher().await?;
        if !self.actor.auditor.events().policy().records_publishing() {
            return Ok(inner);
        }
        Ok(Arc::new(AuditedPublisher::new(inner, &self.actor)))
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        self.inner.consumer(options).await
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        Ok(Arc::new(AuditedAdmin { inner: self.inner.admin().await?, actor: self.actor.clone() }))
    }

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        let inner = self.inner.log_reader().await?;
        if !self.actor.auditor.events().policy().records_reading() {
            return Ok(inner);
        }
        Ok(Arc::new(AuditedLog { inner, actor: self.actor.clone() }))
    }

    async fn acls(&self) -> Result<Arc<dyn Acls>> {
        Ok(Arc::new(AuditedAcls { inner: self.inner.acls().await?, actor: self.actor.clone() }))
    }

    async fn cluster(&self) -> Result<Arc<dyn Cluster>> {
        Ok(Arc::new(AuditedCluster { inner: self.inner.cluster().await?, actor: self.actor.clone() }))
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        let inner = self.inner.transactor(options).await?;
        if !self.actor.auditor.events().policy().records_publishing() {
            return Ok(inner);
        }
        Ok(Arc::new(AuditedTransactor::new(inner, &self.actor)))
    }

    fn writes_trace_context(&self) -> bool {
        self.inner.writes_trace_context()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
