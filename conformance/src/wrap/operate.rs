//! Intercepted admin calls.
//!
//! All verbs count as one kind of call, [`Call::Operate`]; the recorded arguments name the verb.

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::{
    Admin, CreatePartitionsOptions, GroupDescription, Guarantees, Health, Name, PartitionLag, PartitionReset,
    ResetOffsetsOptions, ResetTo, Result, Topic, TopicDescription, TopicPartition,
};

use super::tap::{Call, Tap};

/// An admin client whose calls pass a tap.
#[derive(Debug)]
pub(super) struct TappedAdmin {
    pub(super) inner: Arc<dyn Admin>,
    pub(super) tap: Tap,
}

const OPERATE: Call = Call::Operate;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for TappedAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        self.tap.one(OPERATE, ("create topics", topics), self.inner.create_topics(topics)).await
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        self.tap.one(OPERATE, "list topics", self.inner.list_topics()).await
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        self.tap.one(OPERATE, ("describe topics", topics), self.inner.describe_topics(topics)).await
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        self.tap.one(OPERATE, ("delete topics", topics), self.inner.delete_topics(topics)).await
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        let asked = ("grow", topic, partitions, options);
        self.tap.one(OPERATE, asked, self.inner.create_partitions(topic, partitions, options)).await
    }

    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        // Values may be secrets.
        let names: Vec<_> = changes.iter().map(|(name, _)| name).collect();
        self.tap.one(OPERATE, ("alter topic", topic, names), self.inner.alter_topic(topic, changes)).await
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        self.tap.one(OPERATE, "list groups", self.inner.list_groups()).await
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        self.tap.one(OPERATE, ("describe group", group), self.inner.describe_group(group)).await
    }

    async fn describe_groups(&self, groups: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        self.tap.one(OPERATE, ("describe groups", groups), self.inner.describe_groups(groups)).await
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        self.tap.one(OPERATE, ("lag", group), self.inner.group_lag(group)).await
    }

    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        self.tap.one(OPERATE, ("lags", groups), self.inner.group_lags(groups)).await
    }

    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        let asked = ("reset", group, topics, to, options);
        self.tap.one(OPERATE, asked, self.inner.reset_offsets(group, topics, to, options)).await
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.tap.one(OPERATE, ("alter offsets", group, offsets), self.inner.alter_offsets(group, offsets)).await
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        self.tap.one(OPERATE, ("delete group", group), self.inner.delete_group(group)).await
    }

    async fn health(&self) -> Result<Health> {
        self.tap.one(OPERATE, "health", self.inner.health()).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
