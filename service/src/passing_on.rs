//! The publisher for raw records that handlers forward.
//!
//! A handler of raw records often republishes the record that it got. If that record was redriven, its headers would
//! make the next service skip it; so every record that leaves through a delivery's publisher loses the headers that
//! steer a delivery.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Begun, DelayedRecord, Guarantees, Position, Publisher, Record, Result, async_trait, headers};
use uuid::Uuid;

/// Forwards records to another publisher, without the headers that control the delivery of a forwarded record.
#[derive(Debug)]
pub(crate) struct PassingOn(pub(crate) Arc<dyn Publisher>);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Publisher for PassingOn {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        records.iter_mut().for_each(|record| headers::remove_steering(&mut record.headers));
        self.0.publish(records).await
    }

    fn begin_one(&self, mut record: Record) -> Begun<'_> {
        headers::remove_steering(&mut record.headers);
        self.0.begin_one(record)
    }

    async fn publish_delayed(&self, mut delayed: DelayedRecord) -> Result<()> {
        headers::remove_steering(&mut delayed.record.headers);
        self.0.publish_delayed(delayed).await
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        self.0.cancel_delayed(id).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.0.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }
}
