//! A publisher whose calls are seen.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{Guarantees, Position, Publisher, Record, Result};

use super::tap::{Call, Tap};

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

    async fn publish_one(&self, record: Record) -> Result<Position> {
        let asked = vec![record.clone()];
        self.tap.one(Call::Publish, asked, self.inner.publish_one(record)).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.tap.one(Call::ClosePublisher, deadline, self.inner.close(deadline)).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
