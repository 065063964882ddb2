//! `event count`.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::filter::{Filter, filter};
use crate::context::{Context, Query};
use crate::exit::Failure;
use crate::nouns::log::{self, Place, Range};
use crate::nouns::topic::checked;
use crate::output::{Table, View};

#[derive(Debug, Args)]
pub(crate) struct Count {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    range: Range,
    /// Only events whose FIELD is, or by ~ contains, a text; every record is read
    #[arg(long = "filter", value_name = "FIELD=TEXT", value_parser = filter)]
    filters: Vec<Filter>,
    /// Read every record, instead of counting offsets
    #[arg(long)]
    exact: bool,
}

/// The number of events.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CountView {
    /// The partitions, by topic and number.
    partitions: Vec<CountRow>,
    /// The number of events in all.
    count: u64,
    /// Whether records were counted; else offsets were, which is an upper bound: compacted records and the marks of
    /// transactions have offsets, too.
    exact: bool,
}

/// The number of events of a partition.
#[derive(Debug, Serialize, JsonSchema)]
struct CountRow {
    /// The topic.
    topic: String,
    /// The partition's number.
    partition: u32,
    /// The first offset.
    from: u64,
    /// The offset after the last one.
    to: u64,
    /// The number of events.
    count: u64,
}

impl Query for Count {
    type View = CountView;

    async fn run(&self, cx: &Context) -> Result<CountView, Failure> {
        let exact = self.exact || !self.filters.is_empty();
        let mut partitions = Vec::new();
        for span in log::spans(cx, &checked(&self.topics)?, &self.range, Place::Start).await? {
            let (topic, partition) = (span.partition.topic.as_str().to_owned(), span.partition.partition);
            let mut row = CountRow { topic, partition, from: span.next, to: span.end, count: span.end - span.next };
            if exact {
                row.count = 0;
                log::for_each(cx, vec![span], |_, record| {
                    row.count += u64::from(self.filters.iter().all(|filter| filter.matches(&record)));
                    Ok(true)
                })
                .await?;
            }
            partitions.push(row);
        }
        Ok(CountView { count: partitions.iter().map(|row| row.count).sum(), partitions, exact })
    }
}

impl View for CountView {
    const ITEMS: Option<&'static str> = Some("partitions");

    fn tables(&self) -> Vec<Table> {
        let row = |row: &CountRow| {
            let numbers = [row.from, row.to, row.count].map(|number| number.to_string());
            [row.topic.clone(), row.partition.to_string()].into_iter().chain(numbers).collect()
        };
        vec![Table::new(&["TOPIC", ">PARTITION", ">FROM", ">TO", ">COUNT"]).with_rows(self.partitions.iter().map(row))]
    }

    fn notes(&self) -> Vec<String> {
        let hint = if self.exact { "" } else { " offsets, an upper bound: --exact reads every record" };
        vec![format!("{} in all{hint}.", self.count)]
    }
}
