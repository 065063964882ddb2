//! Descriptions of many topics and groups at once.
//!
//! Brokers answer for many topics, partitions and groups in one request, so their number decides the time, not that of
//! the topics and groups. Only the committed offsets are one request per group: these are sent side by side.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::StreamExt;
use futures_util::stream;
use tidings_core::{
    ConfigEntry, ConfigResource, Error, ErrorKind, GroupDescription, Name, PartitionDescription, PartitionLag, Result,
    SeekTo, TopicDescription, TopicPartition,
};

use crate::admin::KafkaAdmin;
use crate::client::admin::Committed;

/// Requests for committed offsets in flight at a time.
const REQUESTS: usize = 32;
/// Topics described in one request, which bounds the size of an answer: a topic has about 40 settings.
const TOPICS: usize = 200;

/// The offsets of a group that are committed, and the partitions that its members read.
struct Group {
    committed: HashMap<TopicPartition, Committed>,
    partitions: BTreeSet<TopicPartition>,
}

impl KafkaAdmin {
    /// Describes topics whose partitions were found; answer `i` is topic `i`'s.
    ///
    /// A partition without a leader is described with the bounds 0 and 0.
    pub(crate) async fn describe(
        &self,
        topics: &[Name],
        looked: Vec<Result<Vec<PartitionDescription>>>,
    ) -> Result<Vec<Result<TopicDescription>>> {
        let mut described = Vec::with_capacity(topics.len());
        let mut looked = looked.into_iter();
        for chunk in topics.chunks(TOPICS) {
            let looked: Vec<_> = looked.by_ref().take(chunk.len()).collect();
            described.extend(self.describe_chunk(chunk, looked).await?);
        }
        Ok(described)
    }

    async fn describe_chunk(
        &self,
        topics: &[Name],
        looked: Vec<Result<Vec<PartitionDescription>>>,
    ) -> Result<Vec<Result<TopicDescription>>> {
        let found = || topics.iter().zip(&looked).filter_map(|(topic, found)| Some((topic, found.as_ref().ok()?)));
        let led: Vec<TopicPartition> = found().flat_map(|(topic, partitions)| led(topic, partitions)).collect();
        let at = |to: SeekTo| led.iter().map(move |at| (at.clone(), to));
        let resources: Vec<_> = found().map(|(topic, _)| ConfigResource::Topic(topic.clone())).collect();
        let (start, end, settings) = tokio::try_join!(
            self.cluster.offsets_each(at(SeekTo::Earliest)),
            self.cluster.offsets_each(at(SeekTo::Latest)),
            self.settings(&resources)
        )?;
        let mut settings = settings.into_iter();
        let describe = |(topic, partitions): (&Name, Result<Vec<PartitionDescription>>)| {
            let partitions = partitions?;
            let settings = settings.next();
            let mut described = TopicDescription::new(topic.clone(), partitions);
            for partition in described.partitions.iter_mut().filter(|p| p.leader.is_some()) {
                let at = TopicPartition::new(topic.clone(), partition.partition);
                partition.start = offset(&start, &at)?;
                partition.end = offset(&end, &at)?;
            }
            described.settings = match settings {
                // A client with only read or write access may see that the topic exists, but not its settings.
                Some(Err(error)) if error.kind() == ErrorKind::Denied => BTreeMap::new(),
                Some(settings) => shown(settings?),
                None => BTreeMap::new(),
            };
            Ok(described)
        };
        Ok(topics.iter().zip(looked).map(describe).collect())
    }

    async fn settings(&self, topics: &[ConfigResource]) -> Result<Vec<Result<Vec<ConfigEntry>>>> {
        if topics.is_empty() { Ok(Vec::new()) } else { self.cluster.configs(topics).await }
    }

    /// Returns the lag of each group; answer `i` is group `i`'s.
    pub(crate) async fn lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        let described = self.cluster.groups(groups).await?;
        let asked: Vec<_> = groups.iter().cloned().zip(described).collect();
        let asked = stream::iter(asked).map(|(name, described)| self.group(name, described));
        let found: Vec<Result<Group>> = asked.buffered(REQUESTS).collect().await;
        let all = found.iter().flatten().flat_map(|group| group.partitions.iter().cloned()).collect();
        let bounds = self.bounds_each(&all).await?;
        let lag = |group: Result<Group>| {
            let group = group?;
            Ok(group.partitions.iter().map(|at| lag_of(&group, at, &bounds)).collect())
        };
        Ok(found.into_iter().map(lag).collect())
    }

    async fn group(&self, name: Name, described: Result<GroupDescription>) -> Result<Group> {
        let described = described?;
        let committed = self.cluster.committed(&name).await?;
        let read = described.members.into_iter().flat_map(|member| member.partitions);
        let partitions = committed.keys().cloned().chain(read).collect();
        Ok(Group { committed, partitions })
    }

    /// Returns the bounds of each partition's log, or why they are unknown: a partition without a leader does not
    /// affect the others.
    pub(crate) async fn bounds_each(&self, partitions: &BTreeSet<TopicPartition>) -> Result<Bounds> {
        let topics: BTreeSet<&Name> = partitions.iter().map(|at| &at.topic).collect();
        let topics: Vec<Name> = topics.into_iter().cloned().collect();
        let looked = topics.iter().zip(self.look(&topics).await?).collect::<HashMap<_, _>>();
        let mut led = Vec::new();
        let mut bounds = Bounds::new();
        for at in partitions {
            match leader_of(at, looked.get(&at.topic)) {
                Ok(()) => led.push(at.clone()),
                Err(why) => drop(bounds.insert(at.clone(), Err(why))),
            }
        }
        let at = |to: SeekTo| led.iter().map(move |p| (p.clone(), to));
        let (start, end) = tokio::try_join!(
            self.cluster.offsets_each(at(SeekTo::Earliest)),
            self.cluster.offsets_each(at(SeekTo::Latest))
        )?;
        for at in led {
            let (start, end) = (told(&start, &at), told(&end, &at));
            let of_log = start.and_then(|start| Ok((start, end?.max(start))));
            bounds.insert(at, of_log);
        }
        Ok(bounds)
    }
}

/// The oldest and the next offset of each partition, or why they are unknown.
type Bounds = HashMap<TopicPartition, Result<(u64, u64), String>>;

/// Checks that a partition has a leader, by the description of its topic.
fn leader_of(at: &TopicPartition, topic: Option<&Result<Vec<PartitionDescription>>>) -> Result<(), String> {
    match topic {
        Some(Ok(partitions)) => match partitions.iter().find(|p| p.partition == at.partition) {
            Some(partition) if partition.leader.is_some() => Ok(()),
            Some(_) => Err("it has no leader".into()),
            None => Err("there is no such partition".into()),
        },
        Some(Err(error)) => Err(error.report()),
        None => Err("no broker described its topic".into()),
    }
}

/// Returns the reported offset of a partition, or why none was reported.
fn told(offsets: &HashMap<TopicPartition, Result<Option<u64>>>, at: &TopicPartition) -> Result<u64, String> {
    match offsets.get(at) {
        Some(Ok(offset)) => Ok(offset.unwrap_or(0)),
        Some(Err(error)) => Err(error.report()),
        None => Err("its leader did not report it".into()),
    }
}

fn lag_of(group: &Group, at: &TopicPartition, bounds: &Bounds) -> PartitionLag {
    let next = group.committed.get(at).map(|committed| committed.next);
    match bounds.get(at) {
        Some(Ok((start, end))) => PartitionLag::new(at.clone(), next, *start, *end),
        Some(Err(why)) => PartitionLag::unknown(at.clone(), next, why.as_str()),
        None => PartitionLag::unknown(at.clone(), next, "no broker reported it"),
    }
}

/// Returns the partitions of a topic that have a leader.
fn led(topic: &Name, partitions: &[PartitionDescription]) -> Vec<TopicPartition> {
    let led = partitions.iter().filter(|partition| partition.leader.is_some());
    led.map(|partition| TopicPartition::new(topic.clone(), partition.partition)).collect()
}

/// Returns the reported offset of a partition; 0 if there is none.
fn offset(offsets: &HashMap<TopicPartition, Result<Option<u64>>>, at: &TopicPartition) -> Result<u64> {
    match offsets.get(at) {
        Some(Err(error)) => Err(Error::new(error.kind(), error.report())),
        found => Ok(found.and_then(|found| found.as_ref().ok().copied().flatten()).unwrap_or(0)),
    }
}

/// Returns the settings of a topic that have a value to be shown.
fn shown(entries: Vec<ConfigEntry>) -> BTreeMap<String, String> {
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}
