//! The trait of a member of a consumer group, and the steps it goes through.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, Guarantees, RecordBatch, Result, Timestamp, TopicPartition};

/// A member of a consumer group.
///
/// All methods take `&self`, so that commits overlap reading; one [`next`](Self::next) at a time.
///
/// # Contract
/// - **C1** A partition's records come in offset order, from the committed offset. The start policy is for a partition
///   that existed when the group first started; one that appears later starts at its beginning. A committed offset that
///   is no longer in the log, below its start or beyond its end, goes to the oldest record left, never to the latest; it is
///   logged with the committed offset and the log's start and end. Records lost below the start are reported as `missing`.
/// - **C2** Records of a partition come only after its [`Step::Assigned`] and before its [`release`](Self::release) or
///   [`Step::Lost`]. `Assigned` carries the start offset and an epoch that grows with each assignment of the partition in
///   the group, across processes. A consumer that has had no answer to its heartbeats for its session timeout raises
///   `Lost` by itself. [`Fetched::next_offset`] is the offset after the records: it counts gaps and may come with no record.
/// - **C3** After [`Step::Revoking`] commits of its partitions are taken until `release` is called or the deadline passes,
///   when `Lost` follows; `next` goes on yielding the other steps meanwhile. After `Lost` commits fail as
///   [`Fenced`](crate::ErrorKind::Fenced).
/// - **C4** A commit names, per partition, the next offset to read, optional metadata, and ranges settled beyond it (which
///   a broker with one ack per message uses). Each has its own result. Nothing is committed unasked, and nothing goes
///   back unless after [`seek`](Self::seek), a reset, or where the log itself went back: if an assignment starts below what
///   is committed, or records come below those handed out before, a commit may go back to there, or to anywhere between.
/// - **C5** After `pause` returns, no record of the partition comes until `resume`, not even right after `Assigned`.
///   Membership lives while handlers work; a pending `next` is alive. It dies when the consumer is dropped, or when a step
///   was handed out and `next` was not called for [`ConsumerOptions::max_idle`](crate::ConsumerOptions::max_idle).
/// - **C6** `next` is cancel-safe: no record and no step is lost by dropping it.
/// - **C7** `close` leaves the group at once (a static member stays), so that others take over without a timeout.
/// - **C8** Bytes that cannot be read hold their partition alone. After the records before them, [`Step::Unreadable`] comes
///   once per assignment or seek. The consumer reads on for all other partitions; this one stays assigned and committable,
///   and a [`seek`](Self::seek) beyond the range goes on reading it. No limit of the reader is an error of `next`.
#[async_trait]
pub trait Consumer: Debug + Send + Sync + 'static {
    /// The next step. Waits until there is one.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) while the broker can't be reached: call again after a pause.
    /// Others are final: [`Denied`](crate::ErrorKind::Denied), [`NotFound`](crate::ErrorKind::NotFound) for a topic that
    /// is missing, [`Fenced`](crate::ErrorKind::Fenced) for a static member whose place was taken,
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn next(&self) -> Result<Step>;

    /// Commits; result `i` is commit `i`'s. An offset below what is committed already is taken as done and changes nothing,
    /// unless the partition was set back (C4).
    ///
    /// # Errors
    /// Per commit: [`Fenced`](crate::ErrorKind::Fenced) if the partition, or that epoch of it, is not this member's any
    /// more; [`Unavailable`](crate::ErrorKind::Unavailable) or [`Indeterminate`](crate::ErrorKind::Indeterminate): commit again later.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>>;

    /// Ends a revocation early: from now on the partitions may go to others. Of a partition that is not being revoked
    /// nothing happens.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Yields no record of these partitions until [`resume`](Self::resume), also of such as are not yet assigned.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Ends [`pause`](Self::pause); reading goes on where it stopped.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Goes on reading an assigned partition elsewhere; returns the offset. The next commit may go back to it.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if the partition is not assigned, [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64>;

    /// How far each assigned partition is: from what is known, without waiting for the broker for long.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Closed`](crate::ErrorKind::Closed).
    async fn progress(&self) -> Result<Vec<Progress>>;

    /// Leaves the group. Closing twice is one close; afterwards every call is [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the group could not be told; it then takes a session timeout.
    async fn close(&self) -> Result<()>;

    /// Which clauses it keeps.
    fn guarantees(&self) -> Guarantees;
}

/// What a consumer goes through.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// These partitions are this member's from now on.
    Assigned(Vec<Assignment>),
    /// Records of a partition that is this member's.
    Records(Fetched),
    /// These partitions go to others soon: settle, commit, [`release`](Consumer::release).
    Revoking(Revocation),
    /// These partitions are gone: others may have them already.
    Lost(Vec<TopicPartition>),
    /// A partition that is this member's goes on with bytes that cannot be read: it is held there.
    Unreadable(Unreadable),
}

/// A partition that became this member's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// Grows with each assignment of the partition in the group, across processes.
    pub epoch: u64,
    /// The offset of the first record that will come, or the next one beyond a gap. Below `committed` if that lies beyond
    /// the end of the log: what is read anew is committed anew.
    pub start_offset: u64,
    /// What is committed; `None` if the group has no offset of this partition yet.
    pub committed: Option<u64>,
    /// The metadata that was committed with it.
    pub metadata: Option<String>,
    /// Offsets that were committed as next but are no longer in the log: records lost to retention.
    pub missing: Option<Range<u64>>,
}

impl Assignment {
    /// An assignment with nothing committed and nothing missing.
    pub fn new(partition: TopicPartition, epoch: u64, start_offset: u64) -> Self {
        Self { partition, epoch, start_offset, committed: None, metadata: None, missing: None }
    }
}

/// Records of one partition, and where reading goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// The records, in offset order; may be none.
    pub batch: RecordBatch,
    /// The epoch of the assignment they belong to.
    pub epoch: u64,
    /// The offset after them: beyond gaps such as compacted records and transaction markers.
    pub next_offset: u64,
}

impl Fetched {
    /// `batch`, read under `epoch`, with reading to go on at `next_offset`.
    pub fn new(batch: RecordBatch, epoch: u64, next_offset: u64) -> Self {
        Self { batch, epoch, next_offset }
    }
}

/// Where a partition cannot be read on, and why.
///
/// The consumer hands out nothing more of the partition until [`seek`](Consumer::seek) moves it beyond the range.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unreadable {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the assignment.
    pub epoch: u64,
    /// The first offset that cannot be read. All records before it were handed out.
    pub offset: u64,
    /// The offset at which readable records may go on, where it is known.
    pub next_offset: Option<u64>,
    /// The cause: [`Undecodable`](crate::ErrorKind::Undecodable) for damaged or unknown bytes,
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for a limit of the reader.
    pub error: Arc<Error>,
}

impl Unreadable {
    /// The partition cannot be read from `offset` on; where it can be read again is not known.
    pub fn new(partition: TopicPartition, epoch: u64, offset: u64, error: impl Into<Arc<Error>>) -> Self {
        Self { partition, epoch, offset, next_offset: None, error: error.into() }
    }

    /// Readable records may go on at `next_offset`.
    #[must_use]
    pub fn with_next_offset(mut self, next_offset: u64) -> Self {
        self.next_offset = Some(next_offset);
        self
    }
}

/// Partitions that are to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// How long commits are taken, counted from when the step is handed out.
    pub deadline: Duration,
}

impl Revocation {
    /// These partitions are given up within `deadline`.
    pub fn new(partitions: Vec<TopicPartition>, deadline: Duration) -> Self {
        Self { partitions, deadline }
    }
}

/// How far a partition is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the assignment that the work was done under.
    pub epoch: u64,
    /// The next offset to read, not the last one read.
    pub next_offset: u64,
    /// Kept beside the offset; handed back with the next assignment.
    pub metadata: Option<String>,
    /// Settled beyond `next_offset`, in order: for brokers that acknowledge single messages.
    pub settled_beyond: Vec<Range<u64>>,
}

impl Commit {
    /// Everything before `next_offset` is settled.
    pub fn new(partition: TopicPartition, epoch: u64, next_offset: u64) -> Self {
        Self { partition, epoch, next_offset, metadata: None, settled_beyond: Vec::new() }
    }

    /// With metadata beside the offset.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }
}

/// Where to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// This offset; outside the log, the nearest one in it.
    Offset(u64),
    /// The oldest record there is.
    Earliest,
    /// The end: only records still to come.
    Latest,
    /// The first record of this time or later; the end, if there is none.
    Time(Timestamp),
}

/// Where a group starts on a partition that existed when it first started and of which it has committed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// At the oldest record: nothing published before is missed.
    #[default]
    Earliest,
    /// At the end: only what is published from now on.
    Latest,
    /// At the first record of this time or later.
    Time(Timestamp),
}

/// How far an assigned partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset that will be handed out.
    pub position: u64,
    /// The next offset to read by what is committed.
    pub committed: Option<u64>,
    /// The oldest offset of the log, as far as it is known; else 0.
    pub start: u64,
    /// The end of the log: of what may be read, where transactions are open.
    pub end: u64,
    /// Whether it is paused.
    pub paused: bool,
}

impl Progress {
    /// The progress of a partition that is not paused.
    pub fn new(partition: TopicPartition, position: u64, committed: Option<u64>, end: u64) -> Self {
        Self { partition, position, committed, start: 0, end, paused: false }
    }

    /// How many offsets lie between what is committed (else the position) and the end.
    ///
    /// A committed offset beyond the end is of a log that was truncated or made anew: then it counts from the position, or
    /// from the start if that lies beyond the end, too.
    pub fn lag(&self) -> u64 {
        let in_log = |offset: &u64| *offset <= self.end;
        let from = self.committed.filter(in_log).or(Some(self.position)).filter(in_log).unwrap_or(self.start);
        self.end.saturating_sub(from.max(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_offset_beyond_the_end_counts_from_where_reading_goes_on() {
        let lag = |position, committed, start, end| {
            let mut progress = Progress::new(TopicPartition::new("t", 0), position, committed, end);
            progress.start = start;
            progress.lag()
        };
        assert_eq!(lag(3, Some(2), 0, 5), 3);
        assert_eq!(lag(3, None, 0, 5), 2);
        assert_eq!(lag(0, Some(20), 0, 4), 4, "made anew, and read anew");
        assert_eq!(lag(20, Some(20), 1, 4), 3, "truncated, and not yet noticed");
        assert_eq!(lag(20, Some(20), 0, 20), 0);
        assert_eq!(lag(3, Some(1), 4, 4), 0);
    }
}
