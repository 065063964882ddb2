//! Groups as an [`Admin`](crate::Admin) describes them: their state, their members and their lag.

use crate::{Name, TopicPartition};

/// The current state of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// The group's name.
    pub name: Name,
    /// The group's state.
    pub state: GroupState,
    /// The group's members.
    pub members: Vec<MemberDescription>,
}

impl GroupDescription {
    /// Creates a group with these members.
    pub fn new(name: impl Into<Name>, state: GroupState, members: Vec<MemberDescription>) -> Self {
        Self { name: name.into(), state, members }
    }
}

/// The state of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// The group has no members.
    Empty,
    /// Partitions are being moved between members.
    Rebalancing,
    /// The members are reading.
    Stable,
    /// The broker reports a state that is not listed here.
    Unknown,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The member's id, assigned by the broker.
    pub id: String,
    /// The client's name for itself.
    pub client: String,
    /// The assigned partitions.
    pub partitions: Vec<TopicPartition>,
}

impl MemberDescription {
    /// Creates a member that has these partitions.
    pub fn new(id: impl Into<String>, client: impl Into<String>, partitions: Vec<TopicPartition>) -> Self {
        Self { id: id.into(), client: client.into(), partitions }
    }
}

/// The progress of a group on a partition.
///
/// ```
/// use tidings_core::{PartitionLag, TopicPartition};
///
/// let partition = TopicPartition::new("orders", 0);
/// assert_eq!(PartitionLag::new(partition.clone(), Some(7), 0, 10).lag(), Some(3));
/// assert_eq!(PartitionLag::new(partition.clone(), None, 4, 10).lag(), Some(6), "all that is in the log");
/// assert_eq!(PartitionLag::unknown(partition, Some(7), "no leader").lag(), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed next offset to read; `None` if nothing is committed.
    pub committed: Option<u64>,
    /// The oldest offset in the log; 0 where that is unknown.
    pub start: u64,
    /// The offset of the next record; 0 where that is unknown.
    pub end: u64,
    /// The reason why the log's bounds are unknown now, for example that no broker leads the partition; `None` if
    /// they are known.
    pub unknown: Option<String>,
}

impl PartitionLag {
    /// Creates the lag of a group on a partition whose log holds `start..end`.
    pub fn new(partition: TopicPartition, committed: Option<u64>, start: u64, end: u64) -> Self {
        Self { partition, committed, start, end, unknown: None }
    }

    /// Creates the lag of a group on a partition whose log bounds are unknown, with the reason.
    pub fn unknown(partition: TopicPartition, committed: Option<u64>, why: impl Into<String>) -> Self {
        Self { partition, committed, start: 0, end: 0, unknown: Some(why.into()) }
    }

    /// Returns the number of offsets still to be read.
    ///
    /// That is the whole log if nothing is committed, or if the committed offset lies beyond the end: the log was
    /// truncated or recreated, and is read from its oldest record. `None` where the lag is [unknown](Self::unknown),
    /// which is not zero.
    pub fn lag(&self) -> Option<u64> {
        let committed = self.committed.filter(|committed| *committed <= self.end).unwrap_or(self.start);
        let left = self.end.saturating_sub(committed.max(self.start));
        self.unknown.is_none().then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_lag_is_not_zero() {
        let at = || TopicPartition::new("t", 0);
        assert_eq!(PartitionLag::new(at(), Some(3), 1, 10).lag(), Some(7));
        assert_eq!(PartitionLag::new(at(), None, 1, 10).lag(), Some(9));
        assert_eq!(PartitionLag::unknown(at(), Some(3), "it has no leader").lag(), None);
    }
}
