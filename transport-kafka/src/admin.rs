//! Admin operations on a Kafka cluster.
//!
//! A change is reported as done only once the brokers show it: each broker learns of a new topic at
//! its own time, and a publish right after the creation would fail without that wait.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidings_core::{
    Admin, Cleanup, ConfigResource, CreatePartitionsOptions, Error, ErrorKind, GroupDescription, Guarantees, Health,
    Name, PartitionDescription, PartitionLag, PartitionReset, ResetOffsetsOptions, ResetTo, Result, SeekTo, Topic,
    TopicDescription, TopicPartition, async_trait,
};
use tokio::time::{Instant, sleep};

use crate::client::admin::ClusterClient;
use crate::cluster::{alter, seen_by_all};

/// How long to wait until a created or deleted topic is visible.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two checks for a change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Attempts to find a topic before it is reported missing: brokers learn of a new topic at different times, and any
/// of them may be asked.
pub(crate) const LOOKS: usize = 4;
/// Pause between two of these attempts.
pub(crate) const NEXT_LOOK: Duration = Duration::from_millis(25);

/// Admin client for Kafka.
///
/// Reach it by [`Transport::admin`](tidings_core::Transport::admin). All requests are bounded by
/// [`request_timeout`](crate::KafkaConfig::request_timeout).
#[derive(Debug, Clone)]
pub struct KafkaAdmin {
    pub(crate) cluster: ClusterClient,
}

impl KafkaAdmin {
    pub(crate) fn new(cluster: ClusterClient) -> Self {
        Self { cluster }
    }

    /// Waits, up to a limit, until the broker that is asked and the leaders of the topic's partitions see a change of
    /// the topic.
    async fn see(&self, topic: &Name, seen: impl Fn(Result<usize, ErrorKind>) -> bool) {
        let ends = Instant::now() + SEEN_WITHIN;
        while Instant::now() < ends {
            let described = self.look(std::slice::from_ref(topic)).await;
            let partitions = described.and_then(|mut d| d.pop().unwrap_or_else(|| Ok(Vec::new()))).map(|p| {
                // A partition without a leader cannot be written to.
                p.into_iter().filter(|p| p.leader.is_some()).map(|p| p.partition).collect::<Vec<_>>()
            });
            if seen(partitions.as_ref().map(Vec::len).map_err(Error::kind)) && self.is_led(topic, partitions).await {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Returns the partitions of each topic; a topic is missing if no attempt found it.
    pub(crate) async fn look(&self, names: &[Name]) -> Result<Vec<Result<Vec<PartitionDescription>>>> {
        let mut found = self.cluster.topics(names).await?;
        for _ in 1..LOOKS {
            let missing = |one: &Result<_>| one.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound);
            let again: Vec<usize> = (0..names.len()).filter(|i| missing(&found[*i])).collect();
            if again.is_empty() {
                break;
            }
            sleep(NEXT_LOOK).await;
            let asked: Vec<Name> = again.iter().map(|i| names[*i].clone()).collect();
            for (index, answer) in again.into_iter().zip(self.cluster.topics(&asked).await?) {
                found[index] = answer;
            }
        }
        Ok(found)
    }

    /// Checks whether the leaders of these partitions know that they lead them; they may learn it later than the
    /// broker that reported it.
    async fn is_led(&self, topic: &Name, partitions: Result<Vec<u32>>) -> bool {
        let ends = |p| (TopicPartition::new(topic.clone(), p), SeekTo::Latest);
        match partitions {
            Ok(partitions) => match self.cluster.offsets(partitions.into_iter().map(ends)).await {
                // A client that may create a topic is not necessarily allowed to read it.
                Err(error) => error.kind() == ErrorKind::Denied,
                Ok(_) => true,
            },
            Err(_) => true,
        }
    }

    /// Returns all partitions of the topics.
    pub(crate) async fn partitions(&self, topics: &[Name]) -> Result<Vec<TopicPartition>> {
        let mut all = Vec::new();
        for (topic, partitions) in topics.iter().zip(self.look(topics).await?) {
            all.extend(partitions?.into_iter().map(|p| TopicPartition::new(topic.clone(), p.partition)));
        }
        Ok(all)
    }

    /// Returns the bounds of all partitions, or the first error: for callers that need every one.
    pub(crate) async fn bounds(&self, partitions: &[TopicPartition]) -> Result<HashMap<TopicPartition, (u64, u64)>> {
        let at = |to: SeekTo| partitions.iter().map(move |p| (p.clone(), to));
        let (start, end) =
            tokio::try_join!(self.cluster.offsets(at(SeekTo::Earliest)), self.cluster.offsets(at(SeekTo::Latest)))?;
        let mut bounds = HashMap::new();
        for partition in partitions {
            let of = |offsets: &HashMap<TopicPartition, Option<u64>>| offsets.get(partition).copied().flatten();
            let start = of(&start).unwrap_or(0);
            bounds.insert(partition.clone(), (start, of(&end).unwrap_or(start).max(start)));
        }
        Ok(bounds)
    }
}

/// Returns a topic's settings under their Kafka names.
///
/// Explicit settings of the topic are kept unless a typed field sets the same name.
fn settings(topic: &Topic) -> BTreeMap<String, String> {
    let mut settings = topic.settings.clone();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    if let Some(retention) = topic.retention {
        let millis = i64::try_from(retention.as_millis()).unwrap_or(-1);
        set("retention.ms", if retention == Duration::MAX { "-1".into() } else { millis.to_string() });
    }
    if let Some(bytes) = topic.retention_bytes {
        set("retention.bytes", bytes.to_string());
    }
    if let Some(cleanup) = topic.cleanup {
        let value = match cleanup {
            Cleanup::Compact => "compact",
            Cleanup::CompactAndDelete => "compact,delete",
            _ => "delete",
        };
        set("cleanup.policy", value.into());
    }
    if let Some(bytes) = topic.max_record_bytes {
        set("max.message.bytes", bytes.to_string());
    }
    settings
}

#[async_trait]
impl Admin for KafkaAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        let asked: Vec<_> = topics.iter().map(|topic| (topic, settings(topic))).collect();
        let answers = self.cluster.create_topics(&asked).await;
        for (topic, created) in topics.iter().zip(&answers) {
            match created.as_ref().map_err(Error::kind) {
                Ok(()) => {
                    let wanted = topic.partitions as usize;
                    self.see(&topic.name, |count| count.is_ok_and(|count| count >= wanted)).await;
                }
                // A client that lost the race to create the topic continues once it can use it. It may lack the right
                // to describe it.
                Err(ErrorKind::AlreadyExists) => {
                    let there = |count| matches!(count, Ok(1..) | Err(ErrorKind::Denied));
                    self.see(&topic.name, there).await;
                }
                Err(_) => {}
            }
        }
        Ok(answers)
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        self.cluster.list_topics().await
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        let looked = self.look(topics).await?;
        self.describe(topics, looked).await
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        let answers = self.cluster.delete_topics(topics).await;
        for (topic, _) in topics.iter().zip(&answers).filter(|(_, deleted)| deleted.is_ok()) {
            self.see(topic, |count| count == Err(ErrorKind::NotFound)).await;
        }
        Ok(answers)
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        let what = |why: &str| format!("create partitions of topic {topic:?}, {partitions} in all: {why}");
        let now = self.partitions(std::slice::from_ref(topic)).await?;
        let count = u32::try_from(now.len()).unwrap_or(u32::MAX);
        if partitions < count {
            return Err(Error::new(
                ErrorKind::Invalid,
                what(&format!("it has {count}, and partitions cannot be removed")),
            ));
        }
        if partitions == count {
            return Ok(());
        }
        let filled = self.bounds(&now).await?.values().any(|(_, end)| *end > 0);
        if filled && !options.allow_rekeying {
            return Err(Error::new(
                ErrorKind::Conflict,
                what("its keys would move to other partitions, which requires allow_rekeying"),
            ));
        }
        self.cluster.grow_topic(topic, partitions).await?;
        self.see(topic, |count| count.is_ok_and(|count| count >= partitions as usize)).await;
        let names = std::slice::from_ref(topic);
        let is_grown = || async { self.partitions(names).await.is_ok_and(|all| all.len() >= partitions as usize) };
        seen_by_all(&self.cluster, is_grown).await;
        Ok(())
    }

    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        let altered = alter(&self.cluster, &ConfigResource::Topic(topic.clone()), changes).await;
        altered.map_err(|e| e.in_context(format_args!("alter topic {topic:?}")))
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        self.cluster.list_groups().await
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        self.cluster.group(group).await
    }

    async fn describe_groups(&self, groups: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        self.cluster.groups(groups).await
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        self.lags(std::slice::from_ref(group)).await?.remove(0)
    }

    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        self.lags(groups).await
    }

    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        self.refuse_members("reset offsets", group).await?;
        let partitions = self.partitions(topics).await?;
        let bounds = self.bounds(&partitions).await?;
        let committed = self.cluster.committed(group).await?;
        let found = match to {
            ResetTo::Position(place @ SeekTo::Time(_)) => {
                self.cluster.offsets(partitions.iter().map(|p| (p.clone(), place))).await?
            }
            _ => HashMap::new(),
        };
        let mut resets = Vec::new();
        for partition in partitions {
            let (start, end) = bounds.get(&partition).copied().unwrap_or_default();
            let from = committed.get(&partition).map(|c| c.next);
            let target = match to {
                ResetTo::Position(SeekTo::Offset(offset)) => offset.clamp(start, end),
                ResetTo::Position(SeekTo::Latest) => end,
                ResetTo::Position(SeekTo::Time(_)) => found.get(&partition).copied().flatten().unwrap_or(end),
                ResetTo::Shift(by) => from.unwrap_or(start).saturating_add_signed(by).clamp(start, end),
                _ => start,
            };
            resets.push(PartitionReset::new(partition, from, target));
        }
        resets.sort_by(|a, b| a.partition.cmp(&b.partition));
        if !options.dry_run {
            let offsets: Vec<_> = resets.iter().map(|r| (r.partition.clone(), r.to)).collect();
            self.cluster.commit_for(group, &offsets).await?;
        }
        Ok(resets)
    }

    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        self.set_offsets(group, offsets).await
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        self.cluster.delete_group(group).await
    }

    async fn health(&self) -> Result<Health> {
        let cluster = self.cluster.describe_cluster().await?;
        let mut health = Health::default();
        health.controller = cluster.controller;
        for broker in cluster.brokers {
            let (number, address) = (broker.id, format!("{}:{}", broker.host, broker.port));
            if broker.fenced {
                health.problems.push(format!("broker {number} at {address} is fenced"));
            } else {
                health.brokers.push((number, address));
            }
        }
        if health.controller.is_none() {
            health.problems.push("there is no controller".into());
        }
        let topics = self.cluster.list_topics().await?;
        for (topic, partitions) in topics.iter().zip(self.cluster.topics(&topics).await?) {
            for partition in partitions.unwrap_or_default() {
                let (held, wanted) = (partition.in_sync.len(), partition.replicas.len());
                let place = TopicPartition::new(topic.clone(), partition.partition);
                if partition.leader.is_none() {
                    health.problems.push(format!("{place} has no leader"));
                } else if held < wanted {
                    health.problems.push(format!("{place} has {held} of {wanted} replicas in sync"));
                }
            }
        }
        Ok(health)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
