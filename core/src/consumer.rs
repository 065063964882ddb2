//! Members of consumer groups: the [`Consumer`] trait and the steps it yields.
//!
//! A consumer is a stream of [`Step`]s: partitions come and go, and records come between. Everything is tied to the
//! epoch of an assignment. A commit under an old epoch is refused, so work that outlives a revocation can neither lose
//! nor repeat what the next owner does.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Error, ErrorKind, Guarantees, Progress, RecordBatch, Result, Timestamp, TopicPartition, TransactionOffsets,
};

/// A member of a consumer group.
///
/// All methods take `&self`, so that commits overlap reading; only one [`next`](Self::next) may be pending at a time.
///
/// # Contract
/// - **C1** A partition's records come in offset order, from the committed offset. The start policy applies to a
///   partition that existed when the group first started; one that appears later starts at its beginning. From a
///   committed offset that is no longer in the log, below its start or beyond its end, reading goes to the oldest
///   record left, never to the latest; this is logged with the committed offset and the log's start and end. Records
///   lost below the start are reported as `missing`. Within an assignment each record comes once, also after an outage:
///   it comes again only after a seek, or where the log itself went back.
/// - **C2** Records of a partition come only after its [`Step::Assigned`] and before its [`release`](Self::release)
///   or [`Step::Lost`]. `Assigned` carries the start offset and an epoch that grows with each assignment of the
///   partition in the group, across processes. After a rebalance, members that read the same topics own equal numbers
///   of partitions, give or take one. An outage shorter than the session timeout takes no partition from a consumer,
///   nor does a log that was cut no earlier than where it reads. A consumer whose heartbeats were not answered for its
///   session timeout raises `Lost` by itself. [`Fetched::next_offset`] is the offset after the records: it counts gaps
///   and may come with no record.
/// - **C3** After [`Step::Revoking`] commits of its partitions are accepted until `release` is called or the deadline
///   passes, when `Lost` follows; meanwhile `next` continues to yield the other steps. After `Lost` commits fail as
///   [`Fenced`](crate::ErrorKind::Fenced).
/// - **C4** A commit names, per partition, the next offset to read, optional metadata, and ranges settled beyond it
///   (which a broker with one ack per message uses). Each has its own result. Nothing is committed unasked, and
///   nothing goes back except after [`seek`](Self::seek), a reset, or where the log itself went back: if an
///   assignment starts below the committed offset, or records come below those yielded before, a commit may go back
///   to there, or to anywhere between. Only the next commit of that partition that is accepted may go back.
/// - **C5** After `pause` returns, no record of the partition comes until `resume`, not even right after `Assigned`,
///   after a seek, or when the partition was lost and is assigned to this consumer again. A pause ends with its
///   consumer. Records fetched of paused partitions count towards
///   [`max_buffered_bytes`](crate::ConsumerOptions::max_buffered_bytes), and never keep the others from being read.
///   Membership continues while handlers work; a pending `next` keeps it alive. It ends when the consumer is dropped,
///   or when a step was yielded and `next` was not called for [`max_idle`](crate::ConsumerOptions::max_idle).
/// - **C6** `next` is cancel-safe: no record and no step is lost by dropping it. A loop of calls lets other tasks of
///   its thread run.
/// - **C7** `close` leaves the group at once (a static member stays), so that others take over without a timeout.
/// - **C8** Bytes that cannot be read hold only their partition. After the records before them, [`Step::Unreadable`]
///   comes once per assignment or seek. The consumer continues to read all other partitions; this one stays assigned
///   and committable, and a [`seek`](Self::seek) beyond the range continues reading it. No limit of the reader is an
///   error of `next`.
/// - **C9** [`is_member`](Self::is_member) is `Some(true)` during the membership and else `Some(false)`, or disclaimed.
#[async_trait]
pub trait Consumer: Debug + Send + Sync + 'static {
    /// Returns the next step, waiting until there is one.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) while the broker cannot be reached: call again after a backoff.
    /// Others are final: [`Denied`](crate::ErrorKind::Denied), [`NotFound`](crate::ErrorKind::NotFound) for a missing
    /// topic, [`Fenced`](crate::ErrorKind::Fenced) for a static member that was replaced,
    /// [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// Cancel-safe (C6): no step is lost.
    async fn next(&self) -> Result<Step>;

    /// Commits offsets; result `i` is commit `i`'s.
    ///
    /// An offset below the committed one succeeds and changes nothing, unless the partition was set back (C4).
    ///
    /// # Errors
    /// Per commit: [`Fenced`](crate::ErrorKind::Fenced) if the partition, or that epoch of it, is no longer this
    /// member's; [`Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate): commit again later.
    ///
    /// # Cancel safety
    /// Dropping the future may still commit. Repeating a commit changes nothing.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>>;

    /// Returns `commits` with the current membership, for [`Transactor::commit`](crate::Transactor::commit) of the same
    /// transport.
    ///
    /// Commits nothing. Default: [`Unsupported`](ErrorKind::Unsupported).
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) for the whole call if one of the partitions, or that epoch of it, is no longer
    /// this member's; [`Unsupported`](ErrorKind::Unsupported), [`Closed`](ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    async fn transaction_offsets(&self, commits: Vec<Commit>) -> Result<TransactionOffsets> {
        drop(commits);
        Err(Error::new(ErrorKind::Unsupported, "commit in a transaction: this consumer does not offer it"))
    }

    /// Ends a revocation early: from now on the partitions may be assigned to other members.
    ///
    /// A partition that is not being revoked is ignored.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Pauses these partitions until [`resume`](Self::resume): no record of theirs is yielded, even if they are
    /// assigned later.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Ends [`pause`](Self::pause); reading continues where it stopped.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()>;

    /// Continues reading an assigned partition at another position and returns its offset. The next commit may go
    /// back to it (C4). A paused partition stays paused.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced) if the partition is not assigned,
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// A dropped future may have moved the position.
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64>;

    /// Returns the progress of each assigned partition, from what is known and without a long wait for the broker.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Closed`](crate::ErrorKind::Closed).
    async fn progress(&self) -> Result<Vec<Progress>>;

    /// Returns whether this consumer is a member of its group now, with or without partitions; `None`, the default, if
    /// that is never known. The membership begins once the group has accepted it, without a call of [`next`](Self::next),
    /// and ends for this consumer at `close` also where a static member keeps its place (C9).
    ///
    /// ```
    /// # use tidings_core::{Consumer, Progress};
    /// fn waits_for_a_share(consumer: &dyn Consumer, progress: &[Progress]) -> bool {
    ///     consumer.is_member() == Some(true) && progress.is_empty()
    /// }
    /// ```
    fn is_member(&self) -> Option<bool> {
        None
    }

    /// Leaves the group. Idempotent; afterwards every call is [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the group could not be notified; partitions then move after
    /// the session timeout.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the group or not. Call it again.
    async fn close(&self) -> Result<()>;

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
}

/// A step of a consumer's membership: an assignment, records, or a revocation.
///
/// ```
/// use tidings_core::{Consumer, Commit, Result, Step};
///
/// /// Reads a group's partitions and commits each batch after it was processed.
/// async fn read(consumer: &dyn Consumer) -> Result<()> {
///     loop {
///         match consumer.next().await? {
///             Step::Records(fetched) => {
///                 let partition = (**fetched.batch.origin()).clone();
///                 println!("{} records of {partition}", fetched.batch.len());
///                 let commit = Commit::new(partition, fetched.epoch, fetched.next_offset);
///                 for answer in consumer.commit(vec![commit]).await {
///                     answer?;
///                 }
///             }
///             Step::Revoking(revocation) => consumer.release(&revocation.partitions).await?,
///             _ => {}
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// These partitions are assigned to this member from now on.
    Assigned(Vec<Assignment>),
    /// Records of an assigned partition.
    Records(Fetched),
    /// These partitions will be assigned to other members: settle, commit, then [`release`](Consumer::release).
    Revoking(Revocation),
    /// These partitions are lost: other members may have them already.
    Lost(Vec<TopicPartition>),
    /// An assigned partition continues with bytes that cannot be read: it is held there.
    Unreadable(Unreadable),
}

/// The assignment of a partition to this member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// Grows with each assignment of the partition in the group, across processes.
    pub epoch: u64,
    /// The offset of the first record that will come, or the next one beyond a gap. It is below `committed` if that
    /// lies beyond the end of the log: records read again are committed again.
    pub start_offset: u64,
    /// The committed offset; `None` if the group has not committed this partition yet.
    pub committed: Option<u64>,
    /// The metadata committed with the offset.
    pub metadata: Option<String>,
    /// The range from the committed offset on that is no longer in the log: records lost to retention.
    pub missing: Option<Range<u64>>,
}

impl Assignment {
    /// Creates an assignment with nothing committed and nothing missing.
    pub fn new(partition: TopicPartition, epoch: u64, start_offset: u64) -> Self {
        Self { partition, epoch, start_offset, committed: None, metadata: None, missing: None }
    }
}

/// Records of one partition, and the offset where reading continues.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fetched {
    /// The records, in offset order; may be empty.
    pub batch: RecordBatch,
    /// The epoch of the assignment that the records belong to.
    pub epoch: u64,
    /// The offset after the records, beyond gaps such as compacted records and transaction markers.
    pub next_offset: u64,
}

impl Fetched {
    /// Creates a fetch of `batch`, read under `epoch`, after which reading continues at `next_offset`.
    pub fn new(batch: RecordBatch, epoch: u64, next_offset: u64) -> Self {
        Self { batch, epoch, next_offset }
    }
}

/// The offset from which a partition cannot be read, and the cause.
///
/// The consumer yields nothing more of the partition until [`seek`](Consumer::seek) moves it beyond the range.
///
/// ```
/// use tidings_core::{Error, ErrorKind, TopicPartition, Unreadable};
///
/// let damaged = Error::new(ErrorKind::Undecodable, "read a batch: wrong checksum");
/// let held = Unreadable::new(TopicPartition::new("orders", 0), 3, 41, damaged).with_next_offset(44);
/// assert_eq!(held.next_offset, Some(44), "seek there to skip the offsets 41 to 43");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unreadable {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the assignment.
    pub epoch: u64,
    /// The first offset that cannot be read. All records before it were yielded.
    pub offset: u64,
    /// The offset at which readable records may continue, if known.
    pub next_offset: Option<u64>,
    /// The cause: [`Undecodable`](crate::ErrorKind::Undecodable) for damaged or unknown bytes,
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for a limit of the reader.
    pub error: Arc<Error>,
}

impl Unreadable {
    /// Creates an unreadable range that starts at `offset` and whose end is unknown.
    pub fn new(partition: TopicPartition, epoch: u64, offset: u64, error: impl Into<Arc<Error>>) -> Self {
        Self { partition, epoch, offset, next_offset: None, error: error.into() }
    }

    /// Sets the offset at which readable records may continue.
    #[must_use]
    pub fn with_next_offset(mut self, next_offset: u64) -> Self {
        self.next_offset = Some(next_offset);
        self
    }
}

/// The revocation of partitions from this member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revocation {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// The time for which commits are accepted, counted from when the step is yielded.
    pub deadline: Duration,
}

impl Revocation {
    /// Creates a revocation of `partitions` that must end within `deadline`.
    pub fn new(partitions: Vec<TopicPartition>, deadline: Duration) -> Self {
        Self { partitions, deadline }
    }
}

/// The settled offsets of a partition, to be committed.
///
/// ```
/// use tidings_core::{Commit, TopicPartition};
///
/// // Offsets 0 to 6 are settled: the group resumes at 7.
/// let commit = Commit::new(TopicPartition::new("orders", 0), 3, 7).with_metadata("by billing-0");
/// assert_eq!((commit.epoch, commit.next_offset), (3, 7));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch of the assignment under which the work was done.
    pub epoch: u64,
    /// The next offset to read, not the last one read.
    pub next_offset: u64,
    /// Metadata stored with the offset and returned with the next assignment.
    pub metadata: Option<String>,
    /// Ranges settled beyond `next_offset`, in order: for brokers that acknowledge single messages.
    pub settled_beyond: Vec<Range<u64>>,
}

impl Commit {
    /// Creates a commit of everything before `next_offset`.
    pub fn new(partition: TopicPartition, epoch: u64, next_offset: u64) -> Self {
        Self { partition, epoch, next_offset, metadata: None, settled_beyond: Vec::new() }
    }

    /// Sets the metadata stored with the offset.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }
}

/// The position where reading continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// This offset, or the nearest one in the log.
    Offset(u64),
    /// The oldest record in the log.
    Earliest,
    /// The end of the log: only future records are read.
    Latest,
    /// The first record in the log with this timestamp or a later one; the end of the log, if there is none. A broker
    /// that cannot look up a time before 1970 goes to the oldest record.
    Time(Timestamp),
}

/// The start position of a group on a partition that existed when the group first started and has no committed
/// offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// Starts at the oldest record: nothing published before is missed.
    #[default]
    Earliest,
    /// Starts at the end: reads only records published from now on.
    Latest,
    /// Starts at the first record with this timestamp or a later one.
    Time(Timestamp),
}
