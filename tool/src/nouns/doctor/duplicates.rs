//! Why events are handled more than once.

use std::collections::HashMap;

use tidings_core::{ErrorKind, LogReader, ReadLimits, SeekTo, TopicPartition};

use super::sample::Sample;
use super::{Complaint, Finding, has_events};
use crate::context::Context;
use crate::exit::Failure;

/// The number of records at the end of each partition that are compared.
const COMPARED: u64 = 1_000;
/// The number of partitions that are read.
const MAX_PARTITIONS: usize = 1_000;

/// Finds groups whose committed offsets went back: the records are handled again.
pub(super) fn moved_back(before: &Sample, after: &Sample) -> Vec<Finding> {
    let mut all = Vec::new();
    for (group, lags) in &after.groups {
        for lag in lags {
            let then = before.lag_of(&group.name, &lag.partition).and_then(|lag| lag.committed);
            if let Some((then, now)) = then.zip(lag.committed).filter(|(then, now)| now < then) {
                let finding = format!("{} went back from offset {then} to {now}", lag.partition);
                let remedy = "the group was reset, or two groups of members commit; with an idempotency store the \
                    events are settled as duplicates";
                all.push(Finding::problem(Complaint::Duplicates, group.name.as_str(), finding, remedy));
            }
        }
    }
    all
}

/// Finds events that are in a topic twice, by the ids of its last records; also returns what could not be read.
pub(super) async fn repeated(cx: &Context, sample: &Sample) -> Result<(Vec<Finding>, Vec<String>), Failure> {
    let (mut all, mut unknown) = (Vec::new(), Vec::new());
    let reader = match cx.transport().await?.log_reader().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok((all, vec![error.report()])),
        reader => reader?,
    };
    let of_topic = |topic: &tidings_core::TopicDescription| {
        topic
            .partitions
            .iter()
            .map(|p| (TopicPartition::new(topic.name.clone(), p.partition), p.start, p.end))
            .collect()
    };
    let mut left = MAX_PARTITIONS;
    for topic in sample.topics.values().filter(|topic| has_events(&topic.name)) {
        let partitions: Vec<(TopicPartition, u64, u64)> = of_topic(topic);
        let (mut seen, mut read) = (HashMap::<uuid::Uuid, u32>::new(), 0);
        for (at, start, end) in partitions.into_iter().take(left) {
            left -= 1;
            match ids(reader.as_ref(), &at, end.saturating_sub(COMPARED).max(start)).await {
                Ok(ids) => {
                    read += ids.len();
                    ids.into_iter().for_each(|id| *seen.entry(id).or_default() += 1);
                }
                Err(error) => unknown.push(error.report()),
            }
        }
        let twice = seen.values().filter(|times| **times > 1).count();
        if twice > 0 {
            let finding = format!("{twice} events are there more than once, of the last {read}");
            let remedy = "a publisher repeats them after an unknown answer, or they were redriven or exported twice: \
                readers need an idempotency store (`with_idempotency`), publishers the outbox";
            all.push(Finding::hint(Complaint::Duplicates, topic.name.as_str(), finding, remedy));
        }
    }
    if left == 0 {
        unknown.push(format!("the partitions beyond the first {MAX_PARTITIONS}"));
    }
    Ok((all, unknown))
}

/// Returns the event ids of the records from `offset` to the end that have one.
async fn ids(reader: &dyn LogReader, at: &TopicPartition, offset: u64) -> tidings_core::Result<Vec<uuid::Uuid>> {
    let partitions = std::slice::from_ref(at);
    let end = reader.offsets(partitions, SeekTo::Latest).await?.remove(0)?;
    let (mut offset, mut ids) = (offset, Vec::new());
    while offset < end {
        let read = reader.read(at, offset, ReadLimits::default()).await?;
        let records = read.batch.records();
        ids.extend(records.iter().filter_map(|record| tidings_core::codec::peek(record).ok()).map(|head| head.id));
        let next = read.unreadable.as_ref().and_then(|unreadable| unreadable.next_offset).unwrap_or(read.next_offset);
        if next <= offset {
            break;
        }
        offset = next;
    }
    Ok(ids)
}
