//! `topic describe`.

use std::collections::BTreeMap;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::TopicDescription;

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::nouns::topic::{checked, describe_all};
use crate::output::{Table, View, list, or_dash};

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
}

/// Topics, with their partitions and settings.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DescribedTopics {
    /// The topics, as they were asked for.
    topics: Vec<DescribedTopic>,
}

/// A topic.
#[derive(Debug, Serialize, JsonSchema)]
struct DescribedTopic {
    /// The name.
    name: String,
    /// The partitions, by number.
    partitions: Vec<DescribedPartition>,
    /// The settings that the broker reports.
    settings: BTreeMap<String, String>,
}

/// A partition.
#[derive(Debug, Serialize, JsonSchema)]
struct DescribedPartition {
    /// The number.
    partition: u32,
    /// The oldest offset in the log; unknown while no broker leads the partition.
    start: Option<u64>,
    /// The offset of the next record; unknown while no broker leads the partition.
    end: Option<u64>,
    /// The leading broker, if there is one now.
    leader: Option<i32>,
    /// The brokers that hold the partition.
    replicas: Vec<i32>,
    /// The replicas that are in sync.
    in_sync: Vec<i32>,
}

impl From<TopicDescription> for DescribedTopic {
    fn from(topic: TopicDescription) -> Self {
        let partitions = topic.partitions.into_iter().map(|p| {
            let known = !p.is_offline();
            DescribedPartition {
                partition: p.partition,
                start: known.then_some(p.start),
                end: known.then_some(p.end),
                leader: p.leader,
                replicas: p.replicas,
                in_sync: p.in_sync,
            }
        });
        Self { name: topic.name.as_str().to_owned(), partitions: partitions.collect(), settings: topic.settings }
    }
}

impl Query for Describe {
    type View = DescribedTopics;

    async fn run(&self, cx: &Context) -> Result<DescribedTopics, Failure> {
        let found = describe_all(cx, &checked(&self.topics)?).await?;
        Ok(DescribedTopics { topics: found.into_iter().map(DescribedTopic::from).collect() })
    }
}

impl View for DescribedTopics {
    const ITEMS: Option<&'static str> = Some("topics");

    fn tables(&self) -> Vec<Table> {
        self.topics.iter().flat_map(DescribedTopic::tables).collect()
    }
}

impl DescribedTopic {
    fn tables(&self) -> Vec<Table> {
        let row = |p: &DescribedPartition| {
            vec![
                p.partition.to_string(),
                or_dash(p.start),
                or_dash(p.end),
                or_dash(p.start.zip(p.end).map(|(start, end)| end.saturating_sub(start))),
                or_dash(p.leader),
                list(&p.replicas),
                list(&p.in_sync),
            ]
        };
        let columns = [">PARTITION", ">START", ">END", ">RECORDS", ">LEADER", "REPLICAS", "IN SYNC"];
        let title = format!("{}: {} partitions", self.name, self.partitions.len());
        let partitions = Table::new(&columns).with_title(title).with_rows(self.partitions.iter().map(row));
        let pairs = self.settings.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
        let settings = Table::new(&["SETTING", "VALUE"]).with_rows(pairs);
        if self.settings.is_empty() { vec![partitions] } else { vec![partitions, settings] }
    }
}
