//! The state of groups and topics at one time.

use std::collections::{BTreeMap, BTreeSet};

use tidings_core::{ErrorKind, GroupDescription, Name, PartitionLag, TopicDescription, TopicPartition};

use crate::context::Context;
use crate::exit::Failure;

/// Groups with their lag, and the topics that they read.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) groups: Vec<(GroupDescription, Vec<PartitionLag>)>,
    pub(super) topics: BTreeMap<Name, TopicDescription>,
    /// The names of all topics.
    pub(super) known: BTreeSet<Name>,
    /// Groups and topics that could not be read, each with the cause.
    pub(super) unknown: Vec<String>,
}

impl Sample {
    pub(super) async fn take(cx: &Context, groups: &[String]) -> Result<Self, Failure> {
        let admin = cx.admin().await?;
        let mut sample = Self { known: admin.list_topics().await?.into_iter().collect(), ..Self::default() };
        sample.read_groups(cx, groups).await?;
        let topics: BTreeSet<Name> = sample.partitions().map(|lag| lag.partition.topic.clone()).collect();
        let topics: Vec<Name> = topics.into_iter().filter(|topic| sample.known.contains(topic)).collect();
        for described in admin.describe_topics(&topics).await? {
            match described {
                Ok(topic) => drop(sample.topics.insert(topic.name.clone(), topic)),
                Err(error) => sample.unknown.push(error.report()),
            }
        }
        Ok(sample)
    }

    /// Reads the groups again; the topics are those of `before`.
    pub(super) async fn groups_of(cx: &Context, groups: &[String], before: &Self) -> Result<Self, Failure> {
        let mut sample = Self { groups: Vec::new(), ..before.clone() };
        sample.unknown.clear();
        sample.read_groups(cx, groups).await?;
        Ok(sample)
    }

    async fn read_groups(&mut self, cx: &Context, groups: &[String]) -> Result<(), Failure> {
        let admin = cx.admin().await?;
        for group in groups {
            let name = Name::from(group.as_str());
            let read = async { Ok((admin.describe_group(&name).await?, admin.group_lag(&name).await?)) };
            match read.await {
                Ok(read) => self.groups.push(read),
                // It ended meanwhile.
                Err(error) if tidings_core::Error::kind(&error) == ErrorKind::NotFound => {}
                Err(error) => self.unknown.push(error.report()),
            }
        }
        Ok(())
    }

    /// Returns the partitions of all groups.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &PartitionLag> {
        self.groups.iter().flat_map(|(_, lags)| lags)
    }

    /// Returns the lag of a group's partition.
    pub(super) fn lag_of(&self, group: &Name, partition: &TopicPartition) -> Option<&PartitionLag> {
        let (_, lags) = self.groups.iter().find(|(found, _)| found.name == *group)?;
        lags.iter().find(|lag| lag.partition == *partition)
    }
}

#[cfg(test)]
pub(super) fn sampled(groups: Vec<(GroupDescription, Vec<PartitionLag>)>, topics: Vec<TopicDescription>) -> Sample {
    let known = topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    Sample { groups, topics, known, unknown: Vec::new() }
}
