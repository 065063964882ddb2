//! Where reading of a partition starts.
//!
//! What is committed decides. Where nothing is, the start policy is for partitions that were there when the group first
//! started. That time is kept beside each commit of a group whose policy is not "earliest": as long as it is known, "latest"
//! means the records since then, for whatever partition and whoever reads it first, and a partition that appeared later
//! starts at its beginning all by itself. A group with commits but without that time was started by another client: its
//! other partitions start at their beginning, so that nothing is missed.

use std::collections::HashMap;

use tidings_core::{Assignment, Error, ErrorKind, Result, SeekTo, Start, Timestamp, TopicPartition};

use crate::seam::admin::{Asks, Committed};

/// What stands before a commit's own metadata; the time follows, and a semicolon.
const MARK: &str = "tidings-first-start=";

/// The metadata that is committed: the time of the group's first start, if it matters, and the caller's own.
pub(super) fn to_metadata(first_start: Option<&i64>, own: Option<&str>) -> Option<String> {
    match first_start {
        Some(time) => Some(format!("{MARK}{time};{}", own.unwrap_or_default())),
        None => own.map(str::to_owned),
    }
}

/// The time of the group's first start, and the caller's own metadata.
pub(super) fn from_metadata(text: Option<&str>) -> (Option<i64>, Option<String>) {
    let Some(text) = text else { return (None, None) };
    let marked = text.strip_prefix(MARK).and_then(|rest| rest.split_once(';'));
    match marked.and_then(|(time, own)| Some((time.parse().ok()?, own))) {
        Some((time, own)) => (Some(time), (!own.is_empty()).then(|| own.to_owned())),
        None => (None, Some(text.to_owned())),
    }
}

/// Everything that a group has committed, and when it first started, if that is known.
#[derive(Debug)]
pub(super) struct Past {
    committed: HashMap<TopicPartition, Committed>,
    first_start: Option<i64>,
}

impl Past {
    /// `known` is what this member knows of the group's first start.
    pub(super) async fn of(asks: &Asks, group: &str, known: Option<i64>) -> Result<Self> {
        let committed = asks.committed(group).await?;
        let times = committed.values().filter_map(|c| from_metadata(c.metadata.as_deref()).0);
        Ok(Self { first_start: times.chain(known).min(), committed })
    }

    /// When the group first started: now, if it has no past.
    pub(super) fn first_start(&self, now: Timestamp) -> Option<i64> {
        self.first_start.or_else(|| self.committed.is_empty().then(|| now.millis()))
    }

    /// Where a partition of which nothing is committed starts.
    fn begin(&self, start: Start) -> SeekTo {
        match start {
            Start::Time(time) => SeekTo::Time(time),
            Start::Latest => match self.first_start {
                Some(time) => SeekTo::Time(Timestamp::from_millis(time)),
                None if self.committed.is_empty() => SeekTo::Latest,
                None => SeekTo::Earliest,
            },
            _ => SeekTo::Earliest,
        }
    }
}

/// What was asked for, each with its own answer.
type Answers = HashMap<TopicPartition, Result<Option<u64>>>;

/// The starts of partitions, each with its own answer.
pub(super) async fn assignments(
    asks: &Asks,
    past: &Past,
    start: Start,
    partitions: &[TopicPartition],
    epoch: u64,
) -> Result<Vec<Result<Assignment>>> {
    let mut oldest = asks.offsets_each(partitions.iter().map(|p| (p.clone(), SeekTo::Earliest))).await?;
    let begin = past.begin(start);
    let fresh: Vec<TopicPartition> = partitions.iter().filter(|p| !past.committed.contains_key(*p)).cloned().collect();
    let mut begins = HashMap::new();
    if begin != SeekTo::Earliest && !fresh.is_empty() {
        begins = asks.offsets_each(fresh.into_iter().map(|p| (p, begin))).await?;
        let none = |(at, offset): (&TopicPartition, &Result<Option<u64>>)| {
            matches!(offset, Ok(None)).then(|| (at.clone(), SeekTo::Latest))
        };
        let late: Vec<_> = begins.iter().filter_map(none).collect();
        if !late.is_empty() {
            begins.extend(asks.offsets_each(late).await?);
        }
    }
    let made = |partition| assignment(past, partition, epoch, &mut oldest, &mut begins);
    Ok(partitions.iter().map(made).collect())
}

fn assignment(
    past: &Past,
    partition: &TopicPartition,
    epoch: u64,
    oldest: &mut Answers,
    begins: &mut Answers,
) -> Result<Assignment> {
    let unknown = || Error::new(ErrorKind::Unavailable, format!("the start of {partition} is not known"));
    let oldest = oldest.remove(partition).transpose()?.flatten().ok_or_else(unknown)?;
    let mut made = Assignment::new(partition.clone(), epoch, oldest);
    if let Some(committed) = past.committed.get(partition) {
        made.committed = Some(committed.next);
        made.metadata = from_metadata(committed.metadata.as_deref()).1;
        made.start = committed.next.max(oldest);
        made.missing = (committed.next < oldest).then_some(committed.next..oldest);
    } else if let Some(offset) = begins.remove(partition).transpose()?.flatten() {
        made.start = offset.max(oldest);
    }
    Ok(made)
}

/// The offset of a place in a partition's log.
pub(super) async fn place(asks: &Asks, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
    let ask = async |to: SeekTo| -> Result<Option<u64>> {
        let mut found = asks.offsets([(partition.clone(), to)]).await?;
        Ok(found.remove(partition).flatten())
    };
    let unknown = || Error::new(ErrorKind::Unavailable, format!("no offset is known of {partition}"));
    match to {
        SeekTo::Offset(offset) => {
            let (oldest, end) = (ask(SeekTo::Earliest).await?, ask(SeekTo::Latest).await?);
            let (oldest, end) = (oldest.ok_or_else(unknown)?, end.ok_or_else(unknown)?);
            Ok(offset.clamp(oldest, end.max(oldest)))
        }
        other => match ask(other).await? {
            Some(offset) => Ok(offset),
            None => ask(SeekTo::Latest).await?.ok_or_else(unknown),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_travels_beside_the_callers_metadata() {
        for own in [None, Some("mine"), Some("a;b")] {
            let text = to_metadata(Some(&17), own);
            assert_eq!(from_metadata(text.as_deref()), (Some(17), own.map(str::to_owned)));
            assert_eq!(from_metadata(to_metadata(None, own).as_deref()), (None, own.map(str::to_owned)));
        }
    }

    #[test]
    fn latest_means_since_the_groups_first_start_once_it_has_a_past() {
        let at = TopicPartition::new("t", 0);
        let past = |metadata: Option<&str>| {
            let committed = Committed { next: 1, metadata: metadata.map(str::to_owned) };
            let first_start = from_metadata(metadata).0;
            Past { committed: HashMap::from([(at.clone(), committed)]), first_start }
        };
        let none = Past { committed: HashMap::new(), first_start: None };
        assert_eq!(none.begin(Start::Latest), SeekTo::Latest);
        let known = past(to_metadata(Some(&17), None).as_deref());
        assert_eq!(known.begin(Start::Latest), SeekTo::Time(Timestamp::from_millis(17)));
        assert_eq!(past(None).begin(Start::Latest), SeekTo::Earliest);
        assert_eq!(known.begin(Start::Earliest), SeekTo::Earliest);
    }
}
