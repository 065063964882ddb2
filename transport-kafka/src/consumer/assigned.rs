//! An assigned partition, and its records that wait to be handed out.

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
    pub(super) ticket: u64,
    pub(super) leader: Option<i32>,
    /// Whether the second of its leader's fetchers reads it.
    pub(super) second: bool,
    pub(super) fetch_mode: FetchMode,
    /// Next offset to hand out.
    pub(super) position: u64,
    /// Next offset to fetch.
    pub(super) fetched: u64,
    pub(super) queue: VecDeque<Chunk>,
    pub(super) queued: usize,
    /// Why the records after the queue cannot be read.
    pub(super) hold: Option<Hold>,
    pub(super) committed: Option<u64>,
    /// The reading since which commits may go back, until one requested after it began is accepted.
    pub(super) back_since: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) records: FetchedRecords,
    pub(super) next: u64,
    pub(super) size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its start is being looked up; the caller does not know of it yet.
    Starting,
    Reading,
    /// Commits are accepted until this time; `None` before the step is handed out.
    Revoking(Option<Instant>),
}

impl AssignedPartition {
    pub(super) fn new(partition: TopicPartition, lookup: u64) -> Self {
        Self {
            origin: Arc::new(partition),
            lookup,
            mark: EpochMark::default(),
            stage: Stage::Starting,
            ticket: 0,
            leader: None,
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
