//! `group lag`.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::{ErrorKind, LogReader, PartitionLag, ReadLimits, TopicPartition};

use super::describe;
use crate::context::{Context, Query};
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output::{Table, View, or_dash};

/// The number of partitions whose oldest record is read at the same time.
const READS: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct Lag {
    /// Name of the group
    group: String,
    /// Only this topic
    #[arg(long)]
    topic: Option<String>,
    /// Fail with exit code 4 if the lag of a partition is above --max-lag, or unknown
    #[arg(long)]
    check: bool,
    /// The largest lag that passes --check
    #[arg(long, value_name = "OFFSETS", default_value_t = 0, requires = "check")]
    max_lag: u64,
}

/// The lag of a group.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LagView {
    /// The group.
    group: String,
    /// The partitions, by topic and number.
    partitions: Vec<PartitionRow>,
    /// The offsets still to be read, over all partitions whose lag is known.
    lag: u64,
    /// The number of partitions whose lag is unknown.
    unknown: usize,
    #[serde(skip)]
    limit: Option<u64>,
}

/// The lag on a partition.
#[derive(Debug, Serialize, JsonSchema)]
struct PartitionRow {
    /// The topic.
    topic: String,
    /// The partition's number.
    partition: u32,
    /// The committed next offset to read; null if nothing is committed.
    committed: Option<u64>,
    /// The oldest offset in the log; null if unknown.
    start: Option<u64>,
    /// The offset of the next record; null if unknown.
    end: Option<u64>,
    /// The offsets still to be read; null if unknown.
    lag: Option<u64>,
    /// The age in seconds of the oldest record still to be read; null if there is none or it is unknown.
    oldest_seconds: Option<u64>,
    /// Why the lag is unknown.
    unknown: Option<String>,
    /// The client's name of the member that reads it.
    member: Option<String>,
}

impl PartitionRow {
    fn new(lag: &PartitionLag, member: Option<&String>) -> Self {
        let known = lag.unknown.is_none();
        Self {
            topic: lag.partition.topic.as_str().to_owned(),
            partition: lag.partition.partition,
            committed: lag.committed,
            start: known.then_some(lag.start),
            end: known.then_some(lag.end),
            lag: lag.lag(),
            oldest_seconds: None,
            unknown: lag.unknown.clone(),
            member: member.cloned(),
        }
    }

    /// Reads the oldest record still to be read for its age. One that cannot be read has none: the lag is known all the
    /// same.
    async fn with_age(mut self, reader: &dyn LogReader) -> Self {
        if let (Some(1..), Some(start)) = (self.lag, self.start) {
            let at = TopicPartition::new(self.topic.as_str(), self.partition);
            let limits = ReadLimits::default().with_max_records(1);
            let read = reader.read(&at, self.committed.unwrap_or(start).max(start), limits).await;
            let record = read.ok().and_then(|read| read.batch.records().first().cloned());
            self.oldest_seconds = record.map(|record| input::since(record.timestamp).as_secs());
        }
        self
    }

    fn cells(&self) -> Vec<String> {
        let state = match (&self.unknown, self.lag, &self.member) {
            (Some(why), ..) => format!("unknown: {why}"),
            (None, Some(0), _) => "ok".to_owned(),
            (None, _, None) => "behind, no member".to_owned(),
            _ => "behind".to_owned(),
        };
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            or_dash(self.committed),
            or_dash(self.start),
            or_dash(self.end),
            or_dash(self.lag),
            or_dash(self.oldest_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)))),
            state,
            or_dash(self.member.as_ref()),
        ]
    }
}

impl Query for Lag {
    type View = LagView;

    async fn run(&self, cx: &Context) -> Result<LagView, Failure> {
        let found = describe(cx, &self.group).await?;
        let lag = match cx.admin().await?.group_lag(&self.group.as_str().into()).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(cx.unknown("group", &self.group).await),
            lag => lag?,
        };
        let of_member =
            |m: tidings_core::MemberDescription| m.partitions.into_iter().map(move |at| (at, m.client.clone()));
        let members: HashMap<_, String> = found.members.into_iter().flat_map(of_member).collect();
        let wanted =
            lag.iter().filter(|lag| self.topic.as_ref().is_none_or(|topic| lag.partition.topic == topic.as_str()));
        let partitions: Vec<_> = wanted.map(|lag| PartitionRow::new(lag, members.get(&lag.partition))).collect();
        let partitions = match cx.transport().await?.log_reader().await {
            Ok(reader) => {
                let aged = partitions.into_iter().map(|row| row.with_age(reader.as_ref()));
                stream::iter(aged).buffered(READS).collect().await
            }
            // A target without reading by position knows no ages.
            Err(_) => partitions,
        };
        if let (true, Some(topic)) = (partitions.is_empty(), &self.topic) {
            let text = format!("group {} has committed nothing to topic {topic}, and reads it nowhere", self.group);
            return Err(Failure::failed(text).with_hint(format!("see `tidings group lag {}`", self.group)));
        }
        Ok(LagView {
            group: self.group.clone(),
            lag: partitions.iter().filter_map(|row| row.lag).sum(),
            unknown: partitions.iter().filter(|row| row.lag.is_none()).count(),
            partitions,
            limit: self.check.then_some(self.max_lag),
        })
    }
}

impl LagView {
    /// Returns the number of partitions that do not pass the check.
    fn above(&self, limit: u64) -> usize {
        self.partitions.iter().filter(|row| row.lag.is_none_or(|lag| lag > limit)).count()
    }
}

impl View for LagView {
    const ITEMS: Option<&'static str> = Some("partitions");

    fn tables(&self) -> Vec<Table> {
        let columns = ["TOPIC", ">PARTITION", ">COMMITTED", "+>START", ">END", ">LAG", ">OLDEST", "STATE", "MEMBER"];
        vec![Table::new(&columns).with_rows(self.partitions.iter().map(PartitionRow::cells))]
    }

    fn notes(&self) -> Vec<String> {
        let unknown = if self.unknown > 0 { format!(", {} partitions unknown", self.unknown) } else { String::new() };
        let mut notes = vec![format!("{} behind in all{unknown}.", self.lag)];
        if let Some(limit) = self.limit.filter(|limit| self.above(*limit) > 0) {
            let (above, all) = (self.above(limit), self.partitions.len());
            notes.push(format!("{above} of {all} partitions do not pass: the lag is above {limit} or unknown."));
        }
        notes
    }

    fn exit(&self) -> Exit {
        match self.limit {
            Some(limit) if self.above(limit) > 0 => Exit::CheckFailed,
            _ => Exit::Ok,
        }
    }
}
