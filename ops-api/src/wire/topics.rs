//! Topics and the health of a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{Cleanup, Error, Name, PartitionDescription, TopicDescription};

use super::unknown;

/// Names, as an answer or a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Names {
    /// The names.
    pub names: Vec<String>,
}

impl Names {
    /// Creates the list of these names.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a Name>) -> Self {
        Self { names: names.into_iter().map(Name::to_string).collect() }
    }

    /// Returns the names.
    pub fn into_names(self) -> Vec<Name> {
        super::names(self.names)
    }
}

/// The wanted configuration of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Topic {
    /// The name.
    pub name: String,
    /// The number of partitions. Default: 1.
    #[serde(default = "one")]
    pub partitions: u32,
    /// The replication factor; by default the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<u16>,
    /// The retention time; `-1` is forever; by default the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<i64>,
    /// The retained bytes per partition; by default the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// `delete`, `compact` or `compact,delete`; by default the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<String>,
    /// The size limit of a record; by default the broker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_record_bytes: Option<u64>,
    /// Other settings, by the broker's own names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

const fn one() -> u32 {
    1
}

/// The texts of [`Cleanup`], as Kafka has them.
const CLEANUPS: [(Cleanup, &str); 3] =
    [(Cleanup::Delete, "delete"), (Cleanup::Compact, "compact"), (Cleanup::CompactAndDelete, "compact,delete")];

impl From<&tidings_core::Topic> for Topic {
    fn from(topic: &tidings_core::Topic) -> Self {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(-1);
        let cleanup = |wanted| CLEANUPS.iter().find(|(known, _)| *known == wanted).map(|(_, text)| (*text).to_owned());
        Self {
            name: topic.name.to_string(),
            partitions: topic.partitions,
            replication: topic.replication,
            retention_ms: topic.retention.map(millis),
            retention_bytes: topic.retention_bytes,
            cleanup: topic.cleanup.and_then(cleanup),
            max_record_bytes: topic.max_record_bytes,
            settings: topic.settings.clone(),
        }
    }
}

impl TryFrom<Topic> for tidings_core::Topic {
    type Error = Error;

    fn try_from(wire: Topic) -> Result<Self, Error> {
        let mut topic = Self::new(wire.name).with_partitions(wire.partitions);
        let cleanup = |text: &String| {
            let known = CLEANUPS.iter().find(|(_, known)| known == text).map(|(cleanup, _)| *cleanup);
            known.ok_or_else(|| unknown("cleanup", text, "delete, compact or compact,delete"))
        };
        topic.replication = wire.replication;
        topic.retention = wire.retention_ms.map(|ms| u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis));
        topic.retention_bytes = wire.retention_bytes;
        topic.cleanup = wire.cleanup.as_ref().map(cleanup).transpose()?;
        topic.max_record_bytes = wire.max_record_bytes;
        topic.settings = wire.settings;
        Ok(topic)
    }
}

/// A request to create topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Create {
    /// The topics.
    pub topics: Vec<Topic>,
}

impl Create {
    /// Creates a request for these topics.
    pub fn of(topics: &[tidings_core::Topic]) -> Self {
        Self { topics: topics.iter().map(Topic::from).collect() }
    }
}

/// A request to add partitions to a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grow {
    /// The topic.
    pub topic: String,
    /// The number of partitions that it has then.
    pub partitions: u32,
    /// Whether keys may move to other partitions, which breaks their order.
    #[serde(default)]
    pub allow_rekeying: bool,
}

/// The present state of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicState {
    /// The name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// The settings that the broker reports.
    pub settings: BTreeMap<String, String>,
}

/// The present state of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Partition {
    /// The number.
    pub partition: u32,
    /// The oldest offset in the log.
    pub start: u64,
    /// The offset of the next record.
    pub end: u64,
    /// The leading broker, if there is one.
    pub leader: Option<i32>,
    /// The brokers assigned to hold it.
    pub replicas: Vec<i32>,
    /// The replicas that are in sync.
    pub in_sync: Vec<i32>,
}

impl From<TopicDescription> for TopicState {
    fn from(topic: TopicDescription) -> Self {
        let partition = |p: PartitionDescription| Partition {
            partition: p.partition,
            start: p.start,
            end: p.end,
            leader: p.leader,
            replicas: p.replicas,
            in_sync: p.in_sync,
        };
        let partitions = topic.partitions.into_iter().map(partition).collect();
        Self { name: topic.name.to_string(), partitions, settings: topic.settings }
    }
}

impl From<TopicState> for TopicDescription {
    fn from(wire: TopicState) -> Self {
        let partition = |p: Partition| {
            let mut partition = PartitionDescription::new(p.partition, p.start, p.end);
            (partition.leader, partition.replicas, partition.in_sync) = (p.leader, p.replicas, p.in_sync);
            partition
        };
        let mut topic = Self::new(wire.name, wire.partitions.into_iter().map(partition).collect());
        topic.settings = wire.settings;
        topic
    }
}

/// The health of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// The brokers that answer, with number and address.
    pub brokers: Vec<(i32, String)>,
    /// The controller's number, if there is one now.
    pub controller: Option<i32>,
    /// The problems, one line each.
    pub problems: Vec<String>,
}

impl From<tidings_core::Health> for Health {
    fn from(health: tidings_core::Health) -> Self {
        Self { brokers: health.brokers, controller: health.controller, problems: health.problems }
    }
}

impl From<Health> for tidings_core::Health {
    fn from(wire: Health) -> Self {
        let mut health = Self::default();
        (health.brokers, health.controller, health.problems) = (wire.brokers, wire.controller, wire.problems);
        health
    }
}
