//! The transactor whose events are recorded.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Guarantees, Position, Record, Result, TransactionOffsets, Transactor, async_trait};

use super::call::Actor;
use super::publisher::Notes;

/// Records published events as [`AuditedPublisher`](super::publisher::AuditedPublisher) does, once they are stored.
///
/// Keeping the records until the commit would need unbounded memory, and would lose them if the process crashes.
#[derive(Debug)]
pub(super) struct AuditedTransactor {
    inner: Arc<dyn Transactor>,
    notes: Notes,
}

impl AuditedTransactor {
    pub(super) fn new(inner: Arc<dyn Transactor>, actor: &Actor) -> Self {
        Self { inner, notes: Notes::new(actor) }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Transactor for AuditedTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        self.notes.around(records, |records| self.inner.publish(records)).await
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        self.inner.commit(offsets).await
    }

    async fn abort(&self) -> Result<()> {
        self.inner.abort().await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
