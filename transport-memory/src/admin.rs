//! Admin operations in memory.
//!
//! The checks are Kafka's, so that a program that passes here passes against a cluster: a topic's
//! partitions are never lowered, keys are never rehashed without consent, and a group with members
//! is neither reset nor deleted. Each call asks the injected faults first, because an unreachable
//! broker answers nothing, not even reads.

use std::sync::Arc;

use tidings_core::{
    Admin, CreatePartitionsOptions, Error, ErrorKind, GroupDescription, Guarantees, Health, Name, PartitionLag,
    PartitionReset, ResetOffsetsOptions, ResetTo, Result, Topic, TopicDescription, TopicPartition, async_trait,
};

use crate::broker::Broker;
use crate::error::{no_group, no_topic};
use crate::group::Group;
use crate::topic::check_partitions;

/// Admin client of one broker. It holds no state of its own; any number of them may exist.
#[derive(Debug)]
pub(crate) struct MemoryAdmin {
    broker: Arc<Broker>,
}

impl MemoryAdmin {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Returns the group `name`, if it has members or commits.
    ///
    /// A vacant group is treated as missing: the broker forgets it as soon as it notices, and
    /// callers must not see the difference.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the broker is down,
    /// [`NotFound`](ErrorKind::NotFound) for a group that is missing or vacant.
    fn group(&self, verb: &str, name: &Name) -> Result<Arc<Group>> {
        self.broker.faults.reach(verb)?;
        self.broker.transactions.expire(&self.broker);
        self.broker.group(name).filter(|group| !group.is_vacant()).ok_or_else(|| no_group(verb, name))
    }
}

#[async_trait]
impl Admin for MemoryAdmin {
    /// Creates the topics one by one; a topic that cannot be created does not stop the next ones.
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        self.broker.faults.reach("create topics")?;
        Ok(topics.iter().map(|topic| self.broker.create(topic).map(drop)).collect())
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        self.broker.faults.reach("list topics")?;
        Ok(self.broker.topics().iter().map(|topic| topic.name.clone()).collect())
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        self.broker.faults.reach("describe topics")?;
        self.broker.transactions.expire(&self.broker);
        let now = self.broker.clock.now();
        let describe = |name: &Name| {
            let topic = self.broker.topic(name).ok_or_else(|| no_topic("describe topic", name))?;
            Ok(topic.describe(&self.broker.config, now))
        };
        Ok(topics.iter().map(describe).collect())
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        self.broker.faults.reach("delete topics")?;
        Ok(topics.iter().map(|name| self.broker.delete(name)).collect())
    }

    /// Adds partitions and rebalances all groups, so that members are assigned them at once.
    ///
    /// Growing a topic that has ever held a record with a key sends the same key to another
    /// partition, which breaks its order. So this needs
    /// [`allow_rekeying`](CreatePartitionsOptions::allow_rekeying), unless the count stays the
    /// same.
    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        self.broker.faults.reach("grow")?;
        let found = self.broker.topic(topic).ok_or_else(|| no_topic("create partitions", topic))?;
        check_partitions(topic, partitions)?;
        let present = found.logs().len() as u32;
        if partitions < present {
            let text = format!(
                "create partitions of topic {topic:?}, {partitions} in all: it has {present}, and partitions cannot be removed"
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        if partitions > present && found.is_keyed() && !options.allow_rekeying {
            let text = format!(
                "create partitions of topic {topic:?}: its keys would move to other partitions, which requires allow_rekeying"
            );
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        found.grow(partitions, &self.broker.config);
        self.broker.rebalance_all();
        Ok(())
    }

    /// Settings without an effect here, such as `segment.ms`, are kept and described, as at the creation.
    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        self.broker.faults.reach("alter topic")?;
        let found = self.broker.topic(topic).ok_or_else(|| no_topic("alter topic", topic))?;
        found.alter(changes, &self.broker.config).map_err(|e| e.in_context(format_args!("alter topic {topic:?}")))
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        self.broker.faults.reach("list groups")?;
        let groups = self.broker.groups();
        Ok(groups.iter().filter(|group| !group.is_vacant()).map(|group| group.name().clone()).collect())
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        Ok(self.group("describe group", group)?.describe(&self.broker))
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        Ok(self.group("lag", group)?.lag(&self.broker))
    }

    /// Moves the committed offsets of a group without members.
    ///
    /// The group need not exist: resetting creates it, as in Kafka, so that a service can be given
    /// its start before it first runs.
    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        self.broker.faults.reach("reset")?;
        self.broker.transactions.expire(&self.broker);
        self.broker.with_group(group, |group| group.reset(&self.broker, topics, to, options.dry_run))
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.broker.faults.reach("alter offsets")?;
        self.broker.with_group(group, |group| group.set_offsets(&self.broker, offsets))
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        self.group("delete group", group)?;
        self.broker.with_group(group, |group| group.clear(&self.broker))
    }

    /// Reports a single healthy broker, number 0, which is its own controller.
    async fn health(&self) -> Result<Health> {
        self.broker.faults.reach("health")?;
        let mut health = Health::default();
        health.brokers.push((0, "memory".into()));
        health.controller = Some(0);
        Ok(health)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
