//! Arguments and options of the methods of [`Admin`](crate::Admin).
//!
//! An option that is off by default guards something that cannot be undone: the order of keys, or a group's committed
//! offsets.

use crate::{SeekTo, TopicPartition};

/// Options of [`Admin::create_partitions`](crate::Admin::create_partitions).
///
/// ```
/// use tidings_core::CreatePartitionsOptions;
///
/// assert!(!CreatePartitionsOptions::default().allow_rekeying);
/// assert!(CreatePartitionsOptions::default().with_rekeying().allow_rekeying);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CreatePartitionsOptions {
    /// Allows keys to move to other partitions, which breaks their order. Default: `false`.
    pub allow_rekeying: bool,
}

impl CreatePartitionsOptions {
    /// Allows keys to move to other partitions.
    #[must_use]
    pub fn with_rekeying(mut self) -> Self {
        self.allow_rekeying = true;
        self
    }
}

/// Options of [`Admin::reset_offsets`](crate::Admin::reset_offsets).
///
/// ```
/// use tidings_core::{Admin, Name, ResetOffsetsOptions, ResetTo, Result, SeekTo};
///
/// /// Returns how many partitions a reset to the oldest records would move.
/// async fn plan(admin: &dyn Admin, group: &Name, topics: &[Name]) -> Result<usize> {
///     let dry_run = ResetOffsetsOptions::default().with_dry_run();
///     let plan = admin.reset_offsets(group, topics, ResetTo::Position(SeekTo::Earliest), dry_run).await?;
///     Ok(plan.iter().filter(|change| change.from != Some(change.to)).count())
/// }
/// ```
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

/// The target of an offset reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// Moves each partition to this position.
    Position(SeekTo),
    /// Moves forward by this number of offsets (back, if negative), within the log; from the oldest record, if nothing
    /// is committed.
    Shift(i64),
}

/// The change that a reset made, or would make, to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionReset {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset committed before the reset.
    pub from: Option<u64>,
    /// The offset committed by the reset.
    pub to: u64,
}

impl PartitionReset {
    /// Creates a change of a partition's committed offset.
    pub fn new(partition: TopicPartition, from: Option<u64>, to: u64) -> Self {
        Self { partition, from, to }
    }
}
