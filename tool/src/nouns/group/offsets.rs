//! Committed offsets to be set: the steps of `group reset` and `group clone`.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_core::{Error, ErrorKind, Name, TopicPartition};

use super::refuse_live;
use crate::change::{Step, same_for_all};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::or_dash;

/// A committed offset with its old and its new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OffsetStep {
    /// The group.
    pub(super) group: String,
    /// The topic.
    pub(super) topic: String,
    /// The partition's number.
    pub(super) partition: u32,
    /// The committed offset when the plan was made; null if there was none.
    pub(super) from: Option<u64>,
    /// The offset to commit.
    pub(super) to: u64,
    /// The number of offsets between them: those handled anew, or skipped.
    pub(super) offsets: u64,
    /// How many of the events that are handled anew are marked done in the store; null if unknown.
    pub(super) done: Option<u64>,
}

impl OffsetStep {
    pub(super) fn new(group: &str, at: &TopicPartition, from: Option<u64>, to: u64) -> Self {
        let (group, topic) = (group.to_owned(), at.topic.as_str().to_owned());
        let offsets = from.map_or(0, |from| from.abs_diff(to));
        Self { group, topic, partition: at.partition, from, to, offsets, done: None }
    }

    pub(super) fn at(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }

    /// Returns whether records are read again.
    pub(super) fn goes_back(&self) -> bool {
        self.from.is_some_and(|from| self.to < from)
    }
}

impl Step for OffsetStep {
    const COLUMNS: &'static [&'static str] =
        &["GROUP", "TOPIC", ">PARTITION", ">FROM", ">TO", "WILL BE", ">EVENTS", ">DONE"];

    fn cells(&self) -> Vec<String> {
        let effect = match self.from {
            None => "set",
            Some(from) if from == self.to => "unchanged",
            Some(_) if self.goes_back() => "handled anew",
            Some(_) => "skipped",
        };
        let done =
            if self.goes_back() { self.done.map_or("unknown".into(), |done| done.to_string()) } else { "-".into() };
        vec![
            self.group.clone(),
            self.topic.clone(),
            self.partition.to_string(),
            or_dash(self.from),
            self.to.to_string(),
            effect.to_owned(),
            self.offsets.to_string(),
            done,
        ]
    }
}

/// Returns the committed offsets of a group; none if there is no such group.
pub(super) async fn committed(cx: &Context, group: &str) -> Result<HashMap<TopicPartition, u64>, Failure> {
    match cx.admin().await?.group_lag(&group.into()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(HashMap::new()),
        lag => Ok(lag?.into_iter().filter_map(|lag| Some((lag.partition, lag.committed?))).collect()),
    }
}

/// Refuses a group that has members; one that does not exist may get its offsets before it first runs.
pub(super) async fn refuse_members(cx: &Context, group: &str, what: &str) -> Result<(), Failure> {
    match cx.admin().await?.describe_group(&group.into()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        described => refuse_live(&described?, what),
    }
}

/// Returns which committed offsets have changed, and which new ones the log no longer has.
pub(super) async fn stale(cx: &Context, steps: &[OffsetStep], what: &str) -> Result<Vec<String>, Failure> {
    let Some(first) = steps.first() else { return Ok(Vec::new()) };
    refuse_members(cx, &first.group, what).await?;
    let now = committed(cx, &first.group).await?;
    let mut topics: Vec<Name> = steps.iter().map(|step| step.topic.as_str().into()).collect();
    topics.sort();
    topics.dedup();
    let found = crate::nouns::topic::describe_each(cx.admin().await?.as_ref(), &topics).await?;
    let bounds: HashMap<TopicPartition, (u64, u64)> = found
        .iter()
        .flatten()
        .flat_map(|topic| {
            topic.partitions.iter().map(|p| (TopicPartition::new(topic.name.clone(), p.partition), (p.start, p.end)))
        })
        .collect();
    let mut why = Vec::new();
    for step in steps {
        let (at, committed) = (step.at(), now.get(&step.at()).copied());
        if committed != step.from {
            why.push(format!("{at}: {} is committed now, not {}", or_dash(committed), or_dash(step.from)));
        }
        match bounds.get(&at) {
            None => why.push(format!("{at} is gone")),
            Some((start, end)) if !(*start..=*end).contains(&step.to) => {
                why.push(format!("{at}: the log is {start} to {end} now, without {}", step.to));
            }
            Some(_) => {}
        }
    }
    Ok(why)
}

/// Commits the offsets, all of one group.
pub(super) async fn apply(cx: &Context, steps: &[OffsetStep]) -> Vec<tidings_core::Result<()>> {
    same_for_all(steps.len(), commit(cx, steps).await)
}

async fn commit(cx: &Context, steps: &[OffsetStep]) -> tidings_core::Result<()> {
    let Some(first) = steps.first() else { return Ok(()) };
    let admin = cx.admin().await.map_err(|failure| Error::new(ErrorKind::Unavailable, failure.to_string()))?;
    let group = Name::from(first.group.as_str());
    let offsets: Vec<_> = steps.iter().map(|step| (step.at(), step.to)).collect();
    admin.alter_offsets(&group, &offsets).await
}
