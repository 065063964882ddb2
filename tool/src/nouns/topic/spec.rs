//! The wanted form of a topic, in plans and in the file of `topic apply`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Cleanup, Topic};

use crate::input;

/// The wanted form of a topic; what is absent is left to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicSpec {
    /// The name.
    pub(crate) name: String,
    /// The number of partitions.
    #[serde(default = "one")]
    pub(crate) partitions: u32,
    /// The number of brokers that hold each partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replication: Option<u16>,
    /// How long records are kept: a duration such as 7d, or forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<String>,
    /// How many bytes are kept per partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<u64>,
    /// The cleanup policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cleanup: Option<CleanupSpec>,
    /// The size limit of a record in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_record_bytes: Option<u64>,
    /// Other settings, by the broker's names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, String>,
}

/// A cleanup policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CleanupSpec {
    /// Delete records by age or size.
    Delete,
    /// Keep only the last record of each key.
    Compact,
    /// Both.
    CompactAndDelete,
}

fn one() -> u32 {
    1
}

impl TopicSpec {
    /// Returns the topic as core knows it; the error names the field.
    pub(crate) fn topic(&self) -> Result<Topic, String> {
        let mut topic = Topic::new(self.name.as_str()).with_partitions(self.partitions);
        topic.replication = self.replication;
        topic.retention = match &self.retention {
            Some(text) => Some(input::retention(text).map_err(|why| format!("{}: retention: {why}", self.name))?),
            None => None,
        };
        topic.retention_bytes = self.retention_bytes;
        topic.cleanup = self.cleanup.map(|cleanup| match cleanup {
            CleanupSpec::Delete => Cleanup::Delete,
            CleanupSpec::Compact => Cleanup::Compact,
            CleanupSpec::CompactAndDelete => Cleanup::CompactAndDelete,
        });
        topic.max_record_bytes = self.max_record_bytes;
        topic.settings = self.settings.clone();
        Ok(topic)
    }

    /// Returns the wanted settings by Kafka's names.
    pub(crate) fn by_name(&self) -> Result<BTreeMap<String, String>, String> {
        let topic = self.topic()?;
        let mut all = topic.settings;
        let mut set = |name: &str, value: Option<String>| all.extend(value.map(|value| (name.to_owned(), value)));
        set(
            "retention.ms",
            topic.retention.map(|time| match time {
                Duration::MAX => "-1".to_owned(),
                time => time.as_millis().to_string(),
            }),
        );
        set("retention.bytes", topic.retention_bytes.map(|bytes| bytes.to_string()));
        let policy = |cleanup| match cleanup {
            CleanupSpec::Delete => "delete",
            CleanupSpec::Compact => "compact",
            CleanupSpec::CompactAndDelete => "compact,delete",
        };
        set("cleanup.policy", self.cleanup.map(|cleanup| policy(cleanup).to_owned()));
        set("max.message.bytes", topic.max_record_bytes.map(|bytes| bytes.to_string()));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_brokers_names() {
        let text = "name = \"a\"\nretention = \"7d\"\ncleanup = \"compact-and-delete\"\n[settings]\n\"x.y\" = \"1\"\n";
        let spec: TopicSpec = toml::from_str(text).unwrap();
        let expected = [("cleanup.policy", "compact,delete"), ("retention.ms", "604800000"), ("x.y", "1")];
        assert_eq!(spec.by_name().unwrap(), expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
        assert_eq!(spec.partitions, 1);
        let wrong = TopicSpec { retention: Some("week".into()), ..spec };
        assert!(wrong.topic().unwrap_err().starts_with("a: retention: expected a duration"));
    }
}
