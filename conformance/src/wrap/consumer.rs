//! A consumer with intercepted calls.
//!
//! `Next` is intercepted like any other call. A refused call never reaches the wrapped consumer, so
//! no step is lost (C6).

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::{Commit, Consumer, Guarantees, Progress, Result, SeekTo, Step, TopicPartition, TransactionOffsets};

use super::tap::{Call, Tap};

/// A consumer whose calls pass a tap.
#[derive(Debug)]
pub(super) struct TappedConsumer {
    pub(super) inner: Arc<dyn Consumer>,
    pub(super) tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Consumer for TappedConsumer {
    async fn next(&self) -> Result<Step> {
        self.tap.one(Call::Next, (), self.inner.next()).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        let asked = commits.clone();
        self.tap.each(Call::Commit, asked.len(), asked, self.inner.commit(commits)).await
    }

    async fn transaction_offsets(&self, commits: Vec<Commit>) -> Result<TransactionOffsets> {
        let asked = commits.clone();
        self.tap.one(Call::TransactionOffsets, asked, self.inner.transaction_offsets(commits)).await
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.tap.one(Call::ReleasedClaim, partitions, self.inner.release(partitions)).await
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.tap.one(Call::Pause, partitions, self.inner.pause(partitions)).await
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.tap.one(Call::Resume, partitions, self.inner.resume(partitions)).await
    }

    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.tap.one(Call::Seek, (partition, to), self.inner.seek(partition, to)).await
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        self.tap.one(Call::Progress, (), self.inner.progress()).await
    }

    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
    }

    async fn close(&self) -> Result<()> {
        self.tap.one(Call::CloseConsumer, (), self.inner.close()).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
