//! Start offsets of partitions.
//!
//! The committed offset decides. Without one, the start policy applies to partitions that existed when the group
//! first started. That time is stored with each commit of a group whose policy is not "earliest". As long as it is
//! known, "latest" means the records since then, for any partition and any first reader, and a partition added later
//! starts at its beginning without further rules. A group with commits but without that time was started by another
//! client: its other partitions start at their beginning, so that no record is missed.

use std::collections::HashMap;

use tidings_core::{Assignment, Error, ErrorKind, Result, SeekTo, Start, Timestamp, TopicPartition};
use tracing::warn;

use super::epoch::{EpochMark, Generation};
use crate::client::admin::{ClusterClient, Committed};

/// Prefixes of a commit's own metadata, if known: each is followed by its value and a semicolon.
const EPOCH: &str = "tidings-epoch=";
/// Followed by milliseconds since the Unix epoch.
const FIRST_START: &str = "tidings-first-start=";

/// Returns the metadata to commit: the assignment's mark, the time of the group's first start, if it matters, and the
/// caller's own metadata.
pub(super) fn to_metadata(mark: Option<EpochMark>, first_start: Option<i64>, own: Option<&str>) -> Option<String> {
    let mark = mark.map(|mark| format!("{EPOCH}{};", mark.to_text()));
    let first_start = first_start.map(|time| format!("{FIRST_START}{time};"));
    let parts = [mark.as_deref(), first_start.as_deref(), own];
    parts.iter().any(Option::is_some).then(|| parts.into_iter().flatten().collect())
}

/// Parsed metadata of a commit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) mark: Option<EpochMark>,
    pub(super) first_start: Option<i64>,
    /// The caller's own metadata.
    pub(super) own: Option<String>,
}

/// Parses metadata. Text without our prefixes is the caller's, whole: other clients commit theirs.
pub(super) fn from_metadata(text: Option<&str>) -> Metadata {
    let Some(text) = text else { return Metadata::default() };
    let (mark, rest) = marked(text, EPOCH, EpochMark::parse);
    let (first_start, own) = marked(rest, FIRST_START, |time| time.parse().ok());
    Metadata { mark, first_start, own: (!own.is_empty()).then(|| own.to_owned()) }
}

/// Returns the value after `name`, if the text begins with it, and the rest.
fn marked<'a, T>(text: &'a str, name: &str, parse: impl Fn(&str) -> Option<T>) -> (Option<T>, &'a str) {
    let found = text.strip_prefix(name).and_then(|rest| rest.split_once(';'));
    match found.and_then(|(value, rest)| Some((parse(value)?, rest))) {
        Some((value, rest)) => (Some(value), rest),
        None => (None, text),
    }
}

/// All commits of a group, and when it first started, if that is known.
#[derive(Debug)]
pub(super) struct GroupHistory {
    committed: HashMap<TopicPartition, Committed>,
    /// The earliest known time: members that started at once may have recorded different ones.
    first_start: Option<i64>,
}

impl GroupHistory {
    /// Loads the commits; `known` is the group's first start as this member knows it.
    pub(super) async fn of(cluster: &ClusterClient, group: &str, known: Option<i64>) -> Result<Self> {
        let committed = cluster.committed(group).await?;
        let times = committed.values().filter_map(|c| from_metadata(c.metadata.as_deref()).first_start);
        Ok(Self { first_start: times.chain(known).min(), committed })
    }

    /// Returns when the group first started: now, if it has no commits.
    pub(super) fn first_start(&self, now: Timestamp) -> Option<i64> {
        self.first_start.or_else(|| self.committed.is_empty().then(|| now.millis()))
    }

    /// Returns the start of a partition without a commit.
    ///
    /// Only for partitions without a commit; see the module's documentation.
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

/// Requested offsets, each with its own result.
type Answers = HashMap<TopicPartition, Result<Option<u64>>>;

/// An assignment with a known start, and the mark of its epoch.
#[derive(Debug)]
pub(super) struct FoundStart {
    pub(super) assignment: Assignment,
    pub(super) mark: EpochMark,
}

/// Known offsets of partitions' logs.
#[derive(Debug, Default)]
struct Logs {
    /// Oldest offset of each partition.
    oldest: Answers,
    /// Ends of the committed partitions, including open transactions: a reader of uncommitted records may have
    /// committed beyond the stable offset.
    ends: Answers,
    /// Starts of the other partitions under the start policy.
    begins: Answers,
}

impl Logs {
    async fn of(
        cluster: &ClusterClient,
        history: &GroupHistory,
        start: Start,
        partitions: &[TopicPartition],
    ) -> Result<Self> {
        let (held, fresh): (Vec<_>, Vec<_>) =
            partitions.iter().cloned().partition(|p| history.committed.contains_key(p));
        let all = cluster.of_all();
        let oldest = cluster.offsets_each(partitions.iter().map(|p| (p.clone(), SeekTo::Earliest)));
        let ends = all.offsets_each(held.into_iter().map(|p| (p, SeekTo::Latest)));
        let (oldest, ends, begins) = tokio::try_join!(oldest, ends, begins(cluster, history.begin(start), fresh))?;
        Ok(Self { oldest, ends, begins })
    }
}

/// Returns the offset of `begin` in each partition's log; empty, if that is the oldest record.
async fn begins(cluster: &ClusterClient, begin: SeekTo, partitions: Vec<TopicPartition>) -> Result<Answers> {
    if begin == SeekTo::Earliest {
        return Ok(Answers::new());
    }
    let mut begins = cluster.offsets_each(partitions.into_iter().map(|p| (p, begin))).await?;
    let none = |(at, offset): (&TopicPartition, &Result<Option<u64>>)| {
        matches!(offset, Ok(None)).then(|| (at.clone(), SeekTo::Latest))
    };
    let late: Vec<_> = begins.iter().filter_map(none).collect();
    begins.extend(cluster.offsets_each(late).await?);
    Ok(begins)
}

/// Returns the starts of partitions assigned in this generation, each with its own result.
///
/// # Errors
/// Of the requests as a whole; an answer about one partition is that partition's result.
pub(super) async fn assignments(
    cluster: &ClusterClient,
    history: &GroupHistory,
    start: Start,
    partitions: &[TopicPartition],
    generation: Generation,
) -> Result<Vec<Result<FoundStart>>> {
    let mut logs = Logs::of(cluster, history, start, partitions).await?;
    Ok(partitions.iter().map(|partition| assignment(history, partition, generation, &mut logs)).collect())
}

/// The start is within the log: an offset before it is reported as missing records, and one beyond
/// its end belongs to a log that is gone, so reading begins at the oldest record.
fn assignment(
    history: &GroupHistory,
    partition: &TopicPartition,
    generation: Generation,
    logs: &mut Logs,
) -> Result<FoundStart> {
    let unknown = || {
        Error::new(ErrorKind::Unavailable, format!("look up the start offset of {partition}: its leader reported none"))
    };
    let known = |answers: &mut Answers| answers.remove(partition).transpose().map(Option::flatten);
    let oldest = known(&mut logs.oldest)?.ok_or_else(unknown)?;
    let committed = history.committed.get(partition);
    let metadata = from_metadata(committed.and_then(|c| c.metadata.as_deref()));
    let mark = EpochMark::next(metadata.mark, generation, Timestamp::now());
    let mut made = Assignment::new(partition.clone(), mark.epoch, oldest);
    if let Some(committed) = committed.map(|c| c.next) {
        let end = known(&mut logs.ends)?.ok_or_else(unknown)?.max(oldest);
        made.committed = Some(committed);
        if committed > end {
            // The commit belongs to another log: its metadata describes records that are gone, too.
            warn!(%partition, committed, oldest, end, "the committed offset is beyond the end of the log; reading starts at the oldest record");
        } else {
            made.metadata = metadata.own;
            made.start_offset = committed.max(oldest);
            made.missing = (committed < oldest).then_some(committed..oldest);
        }
    } else if let Some(offset) = known(&mut logs.begins)? {
        made.start_offset = offset.max(oldest);
    }
    Ok(FoundStart { assignment: made, mark })
}

/// Returns the offset of a place in a partition's log.
///
/// An offset is clamped to the log. A time later than all records is the log's end.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if no broker reports an offset.
pub(super) async fn offset_of(cluster: &ClusterClient, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
    let ask = async |to: SeekTo| -> Result<Option<u64>> {
        let mut found = cluster.offsets([(partition.clone(), to)]).await?;
        Ok(found.remove(partition).flatten())
    };
    let unknown = || Error::new(ErrorKind::Unavailable, format!("seek {partition}: its leader reported no offset"));
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
    fn what_is_ours_travels_beside_the_callers_metadata() {
        let mark = EpochMark::next(None, Generation { number: 1, newer: true }, Timestamp::now());
        for own in [None, Some("mine"), Some("a;b")] {
            for mark in [None, Some(mark)] {
                for first_start in [None, Some(17)] {
                    let text = to_metadata(mark, first_start, own);
                    let expected = Metadata { mark, first_start, own: own.map(str::to_owned) };
                    assert_eq!(from_metadata(text.as_deref()), expected);
                }
            }
        }
    }

    #[test]
    fn latest_means_since_the_groups_first_start_once_it_has_a_past() {
        let at = TopicPartition::new("t", 0);
        let history = |metadata: Option<&str>| {
            let committed = Committed { next: 1, metadata: metadata.map(str::to_owned) };
            let first_start = from_metadata(metadata).first_start;
            GroupHistory { committed: HashMap::from([(at.clone(), committed)]), first_start }
        };
        let none = GroupHistory { committed: HashMap::new(), first_start: None };
        assert_eq!(none.begin(Start::Latest), SeekTo::Latest);
        let known = history(to_metadata(None, Some(17), None).as_deref());
        assert_eq!(known.begin(Start::Latest), SeekTo::Time(Timestamp::from_millis(17)));
        assert_eq!(history(None).begin(Start::Latest), SeekTo::Earliest);
        assert_eq!(known.begin(Start::Earliest), SeekTo::Earliest);
    }
}
