//! The audited administration of topics and groups.

use std::sync::Arc;

use tidings_core::{
    Admin, Cleanup, CreatePartitionsOptions, GroupDescription, Guarantees, Health, Name, PartitionLag, PartitionReset,
    ResetOffsetsOptions, ResetTo, Result, SeekTo, Topic, TopicDescription, TopicPartition, async_trait,
    is_sensitive_config,
};

use super::call::Actor;

/// An admin whose changes are recorded.
#[derive(Debug)]
pub(super) struct AuditedAdmin {
    pub(super) inner: Arc<dyn Admin>,
    pub(super) actor: Actor,
}

impl AuditedAdmin {
    /// Describes topics as they are before a change. What cannot be read is left out: the change itself tells why.
    async fn topics_before(&self, topics: &[Name]) -> Vec<(String, String)> {
        let described = self.inner.describe_topics(topics).await.unwrap_or_default();
        described.into_iter().flatten().flat_map(|topic| facts(&topic)).collect()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Admin for AuditedAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        let call = self.actor.call("topic.create").on_all(topics.iter().map(|topic| topic_resource(&topic.name)));
        let call = call.after(topics.iter().flat_map(asked));
        let settings = topics.iter().flat_map(|topic| {
            let prefix = format!("{}.", topic.name);
            topic.settings.iter().map(move |(name, value)| (prefix.clone(), name.as_str(), Some(value.as_str())))
        });
        call.settings(settings).each(self.inner.create_topics(topics)).await
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        self.inner.list_topics().await
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        self.inner.describe_topics(topics).await
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        let call = self.actor.call("topic.delete").on_all(topics.iter().map(topic_resource));
        let call = call.before(self.topics_before(topics).await);
        call.each(self.inner.delete_topics(topics)).await
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        let call = self.actor.call("topic.grow").on(topic_resource(topic));
        let call = call.before(self.topics_before(std::slice::from_ref(topic)).await).after([
            (format!("{topic}.partitions"), partitions.to_string()),
            ("allow-rekeying".to_owned(), options.allow_rekeying.to_string()),
        ]);
        call.one(self.inner.create_partitions(topic, partitions, options), |_, ()| {}).await
    }

    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        let before = self.inner.describe_topics(std::slice::from_ref(topic)).await.unwrap_or_default();
        let before = before.into_iter().flatten().flat_map(|topic| topic.settings).filter(|(name, _)| {
            let is_changed = changes.iter().any(|(changed, _)| changed == name);
            is_changed && !is_sensitive_config(name)
        });
        let call = self.actor.call("topic.alter").on(topic_resource(topic)).before(before);
        let settings = changes.iter().map(|(name, value)| (String::new(), name.as_str(), value.as_deref()));
        call.settings(settings).one(self.inner.alter_topic(topic, changes), |_, ()| {}).await
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        self.inner.list_groups().await
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        self.inner.describe_group(group).await
    }

    async fn describe_groups(&self, groups: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        self.inner.describe_groups(groups).await
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        self.inner.group_lag(group).await
    }

    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        self.inner.group_lags(groups).await
    }

    /// A dry run changes nothing and is not recorded.
    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        if options.dry_run {
            return self.inner.reset_offsets(group, topics, to, options).await;
        }
        let call = self.actor.call("group.reset").on(group_resource(group)).on_all(topics.iter().map(topic_resource));
        let call = call.after([("to".to_owned(), place(to))]);
        call.one(self.inner.reset_offsets(group, topics, to, options), |result, resets| {
            for PartitionReset { partition, from, to, .. } in resets {
                result.before.insert(partition.to_string(), from.map_or("none".to_owned(), |from| from.to_string()));
                result.after.insert(partition.to_string(), to.to_string());
            }
            result.counts.insert("partitions".to_owned(), resets.len() as u64);
        })
        .await
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        let committed = self.inner.group_lag(group).await.unwrap_or_default();
        let named = |at: &TopicPartition| offsets.iter().any(|(partition, _)| partition == at);
        let committed = committed.into_iter().filter(|lag| named(&lag.partition));
        let before = committed.filter_map(|lag| Some((lag.partition.to_string(), lag.committed?.to_string())));
        let after = offsets.iter().map(|(partition, offset)| (partition.to_string(), offset.to_string()));
        let call = self.actor.call("group.alter-offsets").on(group_resource(group)).before(before).after(after);
        call.one(self.inner.alter_offsets(group, offsets), |_, ()| {}).await
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        let committed = self.inner.group_lag(group).await.unwrap_or_default();
        let committed = committed.into_iter().filter_map(|lag| Some((lag.partition, lag.committed?)));
        let before = committed.map(|(partition, offset)| (partition.to_string(), offset.to_string()));
        let call = self.actor.call("group.delete").on(group_resource(group)).before(before);
        call.one(self.inner.delete_group(group), |_, ()| {}).await
    }

    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn topic_resource(topic: &Name) -> String {
    format!("topic:{topic}")
}

fn group_resource(group: &Name) -> String {
    format!("group:{group}")
}

/// Returns what a topic is asked to be. Its settings are added apart, as they may be sensitive.
fn asked(topic: &Topic) -> Vec<(String, String)> {
    let Topic { name, partitions, replication, retention, retention_bytes, cleanup, max_record_bytes, .. } = topic;
    let cleanup = cleanup.map(|cleanup| match cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        _ => "compact,delete",
    });
    let facts = [
        ("partitions", Some(partitions.to_string())),
        ("replication", replication.map(|replication| replication.to_string())),
        ("retention", retention.map(|retention| format!("{retention:?}"))),
        ("retention-bytes", retention_bytes.map(|bytes| bytes.to_string())),
        ("cleanup", cleanup.map(str::to_owned)),
        ("max-record-bytes", max_record_bytes.map(|bytes| bytes.to_string())),
    ];
    facts.into_iter().filter_map(|(fact, value)| Some((format!("{name}.{fact}"), value?))).collect()
}

/// Returns what a topic is: the number of partitions and the offsets in its logs.
fn facts(topic: &TopicDescription) -> Vec<(String, String)> {
    let name = &topic.name;
    let ends = topic.partitions.iter().map(|partition| partition.end.saturating_sub(partition.start)).sum::<u64>();
    vec![
        (format!("{name}.partitions"), topic.partitions.len().to_string()),
        (format!("{name}.offsets"), ends.to_string()),
    ]
}

fn place(to: ResetTo) -> String {
    match to {
        ResetTo::Position(SeekTo::Earliest) => "earliest".to_owned(),
        ResetTo::Position(SeekTo::Latest) => "latest".to_owned(),
        ResetTo::Position(place) => format!("{place:?}"),
        ResetTo::Shift(by) => format!("{by:+}"),
        _ => "unknown".to_owned(),
    }
}
