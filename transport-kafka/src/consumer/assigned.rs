//! An assigned partition, and its records that wait to be handed out.
//!
//! Three offsets move along the log: `fetched` (the next one to fetch) is ahead of `position` (the
//! next one to hand out), which is ahead of `committed`. Records between the first two are in
//! `queue`.

use std::collections::VecDeque;
use std::sync::Arc;

use tidings_core::TopicPartition;
use tokio::time::Instant;

use super::epoch::EpochMark;
use super::fetch_mode::FetchMode;
use super::unreadable::Hold;
use crate::client::fetcher::FetchedRecords;

/// A partition assigned to this consumer.
#[derive(Debug)]
pub(super) struct AssignedPartition {
    pub(super) origin: Arc<TopicPartition>,
    /// Number of the lookup of its start.
    pub(super) lookup: u64,
    /// Mark of its epoch, once its start is known.
    pub(super) mark: EpochMark,
    pub(super) stage: Stage,
    /// Number of the current reading; results of earlier readings are dropped.
    ///
    /// Zero means that it is not read. Each change of fetcher or position takes a new number.
    pub(super) ticket: u64,
    /// Broker that leads it, as last reported; without one it has no fetcher.
    pub(super) leader: Option<i32>,
    /// Replica that is read instead of the leader, and until when (KIP-392).
    pub(super) replica: Option<(i32, Instant)>,
    /// Epoch of the leader that appended the last fetched batch, if it is known.
    pub(super) leader_epoch: Option<i32>,
    /// Whether the second of its leader's fetchers reads it.
    pub(super) second: bool,
    pub(super) fetch_mode: FetchMode,
    /// Next offset to hand out.
    pub(super) position: u64,
    /// Next offset to fetch.
    pub(super) fetched: u64,
    /// Fetched records in order; each chunk begins where the one before ends.
    pub(super) queue: VecDeque<Chunk>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// Why the records after the queue cannot be read.
    pub(super) hold: Option<Hold>,
    /// Next offset by the last accepted commit, of this member or an earlier one.
    pub(super) committed: Option<u64>,
    /// The reading since which commits may go back, until one requested after it began is accepted.
    pub(super) back_since: Option<u64>,
}

/// Records of one poll, and the offset after them and any gap.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) records: FetchedRecords,
    pub(super) next: u64,
    pub(super) size: usize,
    /// Epoch of the leader that appended the last batch; `None` if the reader does not report it.
    pub(super) leader_epoch: Option<i32>,
}

impl Chunk {
    /// Creates a chunk without records, up to this offset.
    pub(super) fn gap(next: u64) -> Self {
        Self { records: FetchedRecords::default(), next, size: 0, leader_epoch: None }
    }
}

/// Life of an assignment. It is removed when released or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its start is being looked up; the caller does not know of it yet.
    Starting,
    /// The caller knows of it, and it is fetched unless paused or held.
    Reading,
    /// Commits are accepted until this time; `None` before the step is handed out.
    Revoking(Option<Instant>),
}

impl AssignedPartition {
    /// Creates an assignment whose start is unknown; it is not read.
    pub(super) fn new(partition: TopicPartition, lookup: u64) -> Self {
        Self {
            origin: Arc::new(partition),
            lookup,
            mark: EpochMark::default(),
            stage: Stage::Starting,
            ticket: 0,
            leader: None,
            replica: None,
            leader_epoch: None,
            second: false,
            fetch_mode: FetchMode::default(),
            position: 0,
            fetched: 0,
            queue: VecDeque::new(),
            queued: 0,
            hold: None,
            committed: None,
            back_since: None,
        }
    }
}
