//! A publisher with intercepted calls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{Begun, DelayedRecord, Guarantees, Position, Publisher, PublisherExt, Record, Result};
use uuid::Uuid;

use super::tap::{Call, Tap};

/// A publisher whose calls pass a tap; each record of a call has its own answer.
#[derive(Debug)]
pub(super) struct TappedPublisher {
    pub(super) inner: Arc<dyn Publisher>,
    pub(super) tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for TappedPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let asked = records.clone();
        self.tap.each(Call::Publish, asked.len(), asked, self.inner.publish(records)).await
    }

    /// Always pending, since the tap acts before and after the call.
    fn begin_one(&self, record: Record) -> Begun<'_> {
        let asked = vec![record.clone()];
        Begun::Pending(Box::pin(self.tap.one(Call::Publish, asked, self.inner.publish_one(record))))
    }

    async fn publish_delayed(&self, delayed: DelayedRecord) -> Result<()> {
        self.inner.publish_delayed(delayed).await
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        self.inner.cancel_delayed(id).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.tap.one(Call::ClosePublisher, deadline, self.inner.close(deadline)).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
