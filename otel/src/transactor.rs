//! The transactor that traces its records.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{Guarantees, Position, Record, Result, TransactionOffsets, Transactor};

use crate::publisher::Sending;
use crate::spans::Spans;

/// A transactor whose publishing is traced as by a [`TracedPublisher`](crate::TracedPublisher). Its ends have no spans.
pub(crate) struct TracedTransactor {
    inner: Arc<dyn Transactor>,
    spans: Arc<Spans>,
}

impl fmt::Debug for TracedTransactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TracedTransactor").field(&self.inner).finish()
    }
}

impl TracedTransactor {
    pub(crate) fn new(inner: Arc<dyn Transactor>, spans: Arc<Spans>) -> Self {
        Self { inner, spans }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Transactor for TracedTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        Sending::around(&self.spans, records, |records| self.inner.publish(records)).await
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
