//! Arguments and options of the verbs of [`Admin`](crate::Admin).

use crate::{SeekTo, TopicPartition};

/// How [`Admin::create_partitions`](crate::Admin::create_partitions) treats a topic with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CreatePartitionsOptions {
    /// Allows that keys move to other partitions, which breaks their order. Default: `false`.
    pub allow_rekeying: bool,
}

impl CreatePartitionsOptions {
    /// Allows that keys move to other partitions.
    #[must_use]
    pub fn with_rekeying(mut self) -> Self {
        self.allow_rekeying = true;
        self
    }
}

/// How [`Admin::reset_offsets`](crate::Admin::reset_offsets) works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ResetOffsetsOptions {
    /// Returns the plan and changes nothing. Default: `false`.
    pub dry_run: bool,
}

impl ResetOffsetsOptions {
    /// Returns the plan and changes nothing.
    #[must_use]
    pub fn with_dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }
}

/// Where a reset moves a group to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// To this place, on each partition.
    Place(SeekTo),
    /// By so many records forward (or back, if negative), within the log.
    Shift(i64),
}

/// What a reset did, or would do, to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReset {
    /// The partition.
    pub partition: TopicPartition,
    /// What was committed.
    pub from: Option<u64>,
    /// What is committed now.
    pub to: u64,
}

impl PartitionReset {
    /// A move of a partition.
    pub fn new(partition: TopicPartition, from: Option<u64>, to: u64) -> Self {
        Self { partition, from, to }
    }
}
