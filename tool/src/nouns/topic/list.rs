//! `topic list`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::nouns::topic::describe_each;
use crate::output::{Format, Table, View, or_dash};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only topics whose name begins so
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Look at each topic: partitions, replication and records; the same as -o wide
    #[arg(long)]
    details: bool,
}

/// Topics.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TopicsView {
    /// The topics, by name.
    topics: Vec<TopicRow>,
    #[serde(skip)]
    details: bool,
}

/// A topic.
#[derive(Debug, Serialize, JsonSchema)]
struct TopicRow {
    /// The name.
    name: String,
    /// The number of partitions; with --details.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<usize>,
    /// The number of brokers that hold each partition; with --details, where the broker says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<usize>,
    /// The number of offsets in the log, which is at least that of the records; with --details.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
}

impl Query for List {
    type View = TopicsView;

    async fn run(&self, cx: &Context) -> Result<TopicsView, Failure> {
        let admin = cx.admin().await?.as_ref();
        let mut names = admin.list_topics().await?;
        names.retain(|name| name.starts_with(&self.prefix));
        let details = self.details || cx.globals.output == Format::Wide;
        let name_only = |name: String| TopicRow { name, partitions: None, replication: None, records: None };
        if !details {
            let topics = names.iter().map(|name| name_only(name.as_str().to_owned())).collect();
            return Ok(TopicsView { topics, details });
        }
        // One that was deleted meanwhile is left out.
        let found = describe_each(admin, &names).await?.into_iter().flatten();
        let topics = found.map(|topic| TopicRow {
            partitions: Some(topic.partitions.len()),
            replication: topic.partitions.iter().map(|p| p.replicas.len()).find(|count| *count > 0),
            records: Some(topic.partitions.iter().map(|p| p.end - p.start.min(p.end)).sum()),
            ..name_only(topic.name.as_str().to_owned())
        });
        Ok(TopicsView { topics: topics.collect(), details })
    }
}

impl View for TopicsView {
    const ITEMS: Option<&'static str> = Some("topics");

    fn tables(&self) -> Vec<Table> {
        let columns: &[_] = if self.details { &["NAME", ">PARTITIONS", ">REPLICATION", ">RECORDS"] } else { &["NAME"] };
        let rows = self.topics.iter().map(|topic| {
            let cells =
                [topic.name.clone(), or_dash(topic.partitions), or_dash(topic.replication), or_dash(topic.records)];
            cells.into_iter().take(columns.len()).collect()
        });
        vec![Table::new(columns).with_rows(rows)]
    }
}
