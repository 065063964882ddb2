//! An admin with a bug.

use std::sync::{Arc, Mutex};

use tidings_core::{
    Admin, CreatePartitionsOptions, Error, ErrorKind, GroupDescription, GroupState, Guarantees, Health, Name,
    PartitionLag, PartitionReset, ResetOffsetsOptions, ResetTo, Result, SeekTo, Topic, TopicDescription,
    TopicPartition, async_trait,
};
use tidings_memory::MemoryTransport;

use super::{Kind, Shared, group_of, lock};

#[derive(Debug)]
pub(super) struct BentAdmin {
    pub(super) inner: Arc<dyn Admin>,
    pub(super) memory: MemoryTransport,
    pub(super) kind: Kind,
    pub(super) shared: Arc<Mutex<Shared>>,
}

fn planted<T>(kind: ErrorKind) -> Result<T> {
    Err(Error::new(kind, "a planted bug"))
}

impl BentAdmin {
    /// Those of `listed` that begin like `name`, but for itself.
    fn alike(listed: Vec<Name>, name: &Name) -> Vec<Name> {
        listed.into_iter().filter(|other| other != name && other.starts_with(name.as_str())).collect()
    }

    fn created(&self, mut topic: Topic, first: &Topic) -> Topic {
        match self.kind {
            Kind::CreatesAllLikeTheFirst => topic.partitions = first.partitions,
            Kind::ForgetsTheSize => topic.retention_bytes = None,
            Kind::KeepsHalfOfTheSize => topic.retention_bytes = topic.retention_bytes.map(|bytes| bytes / 2),
            Kind::ForgetsCleanup => topic.cleanup = None,
            Kind::ForgetsRetention => topic.retention = None,
            Kind::TakesNegativeCountsForADefault if topic.partitions > i32::MAX as u32 => topic.partitions = 1,
            _ => {}
        }
        topic
    }

    /// Notes which groups have committed to topics that are deleted.
    async fn note_commits(&self, topics: &[Name]) -> Result<()> {
        for group in self.inner.list_groups().await? {
            let lag = self.inner.group_lag(&group).await?;
            let of = lag.into_iter().filter(|l| l.committed.is_some() && topics.contains(&l.partition.topic));
            lock(&self.shared).deleted.extend(of.map(|l| (group.clone(), l.partition)));
        }
        Ok(())
    }

    /// Gives the groups their commits back on a topic that is there again.
    async fn commit_again(&self, topics: &[Topic]) -> Result<()> {
        let deleted = lock(&self.shared).deleted.clone();
        for (group, p) in deleted.iter().filter(|(_, p)| topics.iter().any(|t| t.name == p.topic)) {
            let topics = [p.topic.clone()];
            let to = ResetTo::Position(SeekTo::Earliest);
            self.inner.reset_offsets(group, &topics, to, ResetOffsetsOptions::default()).await?;
        }
        Ok(())
    }

    /// Resets each topic by its own call, as the bug has it.
    async fn reset_each(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        let mut moved = Vec::new();
        let mut shift = None;
        for topic in topics {
            let one = std::slice::from_ref(topic);
            let to = match (self.kind, to, shift) {
                (Kind::ShiftsLikeTheFirst, ResetTo::Shift(_), Some(first)) => ResetTo::Position(SeekTo::Offset(first)),
                _ => to,
            };
            let resets = self.inner.reset_offsets(group, one, to, options).await?;
            shift = shift.or_else(|| resets.first().map(|r: &PartitionReset| r.to));
            moved.extend(resets);
        }
        Ok(moved)
    }

    fn target(&self, to: ResetTo) -> ResetTo {
        match (self.kind, to) {
            (Kind::ResetsOffsetsOf32Bits, ResetTo::Position(SeekTo::Offset(offset))) => {
                ResetTo::Position(SeekTo::Offset(offset & 0xffff_ffff))
            }
            (Kind::ShiftsBy32Bits, ResetTo::Shift(by)) => ResetTo::Shift(i64::from(by as i32)),
            _ => to,
        }
    }
}

#[async_trait]
impl Admin for BentAdmin {
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>> {
        let bent: Vec<Topic> = topics.iter().map(|topic| self.created(topic.clone(), &topics[0])).collect();
        if self.kind == Kind::PretendsToCreateInAnOutage && self.inner.list_topics().await.is_err() {
            return Ok(topics.iter().map(|_| Ok(())).collect());
        }
        let answers = self.inner.create_topics(&bent).await?;
        if self.kind == Kind::KeepsCommitsOfADeletedTopic {
            self.commit_again(topics).await?;
        }
        Ok(answers)
    }

    async fn list_topics(&self) -> Result<Vec<Name>> {
        let mut listed = self.inner.list_topics().await;
        match (self.kind, &mut listed) {
            (Kind::ListsAThousand, Ok(names)) => names.truncate(1_000),
            (Kind::ListsNothingInAnOutage, Err(_)) => return Ok(Vec::new()),
            _ => {}
        }
        listed
    }

    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>> {
        if matches!(self.kind, Kind::ExpiresAll | Kind::ExpiresTheYoungWithTheOld) {
            for name in topics {
                let described = self.inner.describe_topics(std::slice::from_ref(name)).await?;
                let short = |d: &TopicDescription| d.settings.get("retention.ms").is_some_and(|ms| ms == "3600000");
                for description in described.into_iter().flatten().filter(short) {
                    let all = self.kind == Kind::ExpiresAll;
                    for p in description.partitions.iter().filter(|p| all || p.end > 10 && p.start > 0) {
                        self.memory.faults().drop_records(&TopicPartition::new(name, p.partition), u64::MAX);
                    }
                }
            }
        }
        let mut answers = self.inner.describe_topics(topics).await?;
        if self.kind == Kind::ExpiresCompactedTopics {
            let compacted = |d: &&TopicDescription| d.settings.get("cleanup.policy").is_some_and(|c| c == "compact");
            for d in answers.iter().flatten().filter(compacted) {
                self.memory.faults().drop_records(&TopicPartition::new(&d.name, 0), 2);
            }
            answers = self.inner.describe_topics(topics).await?;
        }
        if matches!(self.kind, Kind::CountsWhatIsGone | Kind::KeepsNothingThatIsTooLarge) {
            let small = |d: &&TopicDescription| d.settings.get("retention.bytes").is_some_and(|b| b == "100000");
            for d in answers.iter().flatten().filter(small) {
                let keeps = if self.kind == Kind::CountsWhatIsGone { 60 } else { 0 };
                for p in d.partitions.iter().filter(|p| p.end > 100 || keeps == 0 && p.end - p.start == 1) {
                    self.memory.faults().drop_records(&TopicPartition::new(&d.name, p.partition), p.end - keeps);
                }
            }
            answers = self.inner.describe_topics(topics).await?;
        }
        if self.kind == Kind::DescribesLogsFromZero {
            answers.iter_mut().flatten().flat_map(|d| &mut d.partitions).for_each(|p| p.start = 0);
        }
        for (n, answer) in answers.iter_mut().enumerate() {
            let left_out = match self.kind {
                Kind::DescribesAThousand => n >= 1_000,
                Kind::DescribesATopicOnce => topics[..n].contains(&topics[n]),
                _ => false,
            };
            if left_out {
                *answer = planted(ErrorKind::NotFound);
            }
        }
        Ok(answers)
    }

    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>> {
        match self.kind {
            Kind::KeepsCommitsOfADeletedTopic => self.note_commits(topics).await?,
            Kind::DeletesTheFirst => {
                let missing = self.inner.describe_topics(topics).await?.into_iter().map(|d| d.map(drop)).collect();
                self.inner.delete_topics(&topics[..1]).await?;
                return Ok(missing);
            }
            Kind::LosesAllAtADeletion => {
                let groups: Vec<Name> = lock(&self.shared).open.iter().map(|(group, _)| group.clone()).collect();
                groups.iter().for_each(|group| self.memory.faults().lose_all(group));
            }
            Kind::DeletesWhatBeginsAlike => {
                for name in topics {
                    let alike = Self::alike(self.inner.list_topics().await?, name);
                    self.inner.delete_topics(&alike).await?;
                }
            }
            _ => {}
        }
        self.inner.delete_topics(topics).await
    }

    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()> {
        match self.kind {
            Kind::NeverGrowsUnasked if !options.allow_rekeying => return planted(ErrorKind::Conflict),
            Kind::GrowsWhatBeginsAlike => {
                for other in Self::alike(self.inner.list_topics().await?, topic) {
                    self.inner.create_partitions(&other, partitions, options.with_rekeying()).await?;
                }
            }
            _ => {}
        }
        self.inner.create_partitions(topic, partitions, options).await
    }

    async fn list_groups(&self) -> Result<Vec<Name>> {
        let mut listed = self.inner.list_groups().await?;
        if self.kind == Kind::ListsAThousandGroups {
            listed.truncate(1_000);
        }
        Ok(listed)
    }

    async fn describe_group(&self, group: &Name) -> Result<GroupDescription> {
        let mut described = self.inner.describe_group(&group_of(self.kind, group)).await?;
        if self.kind == Kind::CallsARebalanceStable && described.state == GroupState::Rebalancing {
            described.state = GroupState::Stable;
        }
        if self.kind == Kind::DescribesOneMemberWithAll {
            let all = described.members.iter_mut().flat_map(|m| std::mem::take(&mut m.partitions)).collect();
            described.members.iter_mut().take(1).for_each(|m| m.partitions = Vec::clone(&all));
        }
        Ok(described)
    }

    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>> {
        let mut lag = self.inner.group_lag(&group_of(self.kind, group)).await?;
        match self.kind {
            Kind::ForgetsLagWithoutACommit => lag.retain(|l| l.committed.is_some()),
            Kind::SortsLagAsText => lag.sort_by_key(|l| l.partition.to_string()),
            _ => {}
        }
        Ok(lag)
    }

    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>> {
        let to = self.target(to);
        match self.kind {
            Kind::ResetsToWhatIsGone => {
                let mut moved = self.inner.reset_offsets(group, topics, to, options).await?;
                if let ResetTo::Position(SeekTo::Offset(asked)) = to {
                    moved.iter_mut().for_each(|m| m.to = m.to.min(asked));
                }
                return Ok(moved);
            }
            Kind::ShiftsANewGroupFromZero if self.inner.group_lag(group).await.is_err() => {
                if let ResetTo::Shift(by) = to {
                    let to = ResetTo::Position(SeekTo::Offset(by.unsigned_abs()));
                    return self.inner.reset_offsets(group, topics, to, options).await;
                }
            }
            Kind::ResetsTheFirst => {
                let dry = self.inner.reset_offsets(group, topics, to, options.with_dry_run()).await?;
                self.inner.reset_offsets(group, &topics[..1], to, options).await?;
                return Ok(dry);
            }
            Kind::ResetsAllTopics => {
                let lag = self.inner.group_lag(group).await.unwrap_or_default();
                let moved = self.inner.reset_offsets(group, topics, to, options).await?;
                for l in lag.iter().filter(|l| l.partition.partition == 0 && !topics.contains(&l.partition.topic)) {
                    let other = [l.partition.topic.clone()];
                    self.inner.reset_offsets(group, &other, to, options).await?;
                }
                return Ok(moved);
            }
            Kind::MovesBeforeItRefuses | Kind::ShiftsLikeTheFirst => {
                return self.reset_each(group, topics, to, options).await;
            }
            Kind::CreatesAGroupInADryRun if options.dry_run && self.inner.group_lag(group).await.is_err() => {
                return self.inner.reset_offsets(group, topics, to, ResetOffsetsOptions::default()).await;
            }
            Kind::ResetsGroupsThatBeginAlike => {
                for other in Self::alike(self.inner.list_groups().await?, group) {
                    self.inner.reset_offsets(&other, topics, to, options).await?;
                }
            }
            _ => {}
        }
        self.inner.reset_offsets(group, topics, to, options).await
    }

    async fn delete_group(&self, group: &Name) -> Result<()> {
        if self.kind == Kind::DeletesGroupsThatBeginAlike {
            for other in Self::alike(self.inner.list_groups().await?, group) {
                self.inner.delete_group(&other).await?;
            }
        }
        self.inner.delete_group(group).await
    }

    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
