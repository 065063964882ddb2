//! The trait of what operators do: topics, groups, health.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::admin_options::{CreatePartitionsOptions, PartitionReset, ResetOffsetsOptions, ResetTo};
use crate::{Guarantees, Name, Result, TopicPartition};

/// Topics and groups of a broker.
///
/// # Contract
/// - **A1** Each verb does what it says or tells why not, per topic or partition; what is missing is
///   [`NotFound`](crate::ErrorKind::NotFound) by its name; nothing is shrunk, deleted, rekeyed or moved back unasked.
#[async_trait]
pub trait Admin: Debug + Send + Sync + 'static {
    /// Creates topics; answer `i` is topic `i`'s.
    ///
    /// A topic that exists already is waited for like one that was created: whoever lost a race to create it may use it.
    ///
    /// # Errors
    /// Per topic [`AlreadyExists`](crate::ErrorKind::AlreadyExists), [`Invalid`](crate::ErrorKind::Invalid),
    /// [`Denied`](crate::ErrorKind::Denied), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>>;

    /// The names of all topics but the broker's internal ones, sorted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn list_topics(&self) -> Result<Vec<Name>>;

    /// Describes topics; answer `i` is topic `i`'s.
    ///
    /// # Errors
    /// Per topic [`NotFound`](crate::ErrorKind::NotFound); [`Invalid`](crate::ErrorKind::Invalid) for a name that no topic can
    /// have ([`check_topic_name`](crate::check_topic_name)).
    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>>;

    /// Deletes topics with all their records; answer `i` is topic `i`'s.
    ///
    /// # Errors
    /// Per topic [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>>;

    /// Raises a topic's number of partitions. That sends keys elsewhere and so breaks their order: a topic that may hold
    /// keyed records is refused unless [`CreatePartitionsOptions::allow_rekeying`] is set.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) without it, [`Invalid`](crate::ErrorKind::Invalid) for
    /// fewer partitions than there are, [`NotFound`](crate::ErrorKind::NotFound).
    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()>;

    /// The names of all groups, sorted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn list_groups(&self) -> Result<Vec<Name>>;

    /// Describes a group.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn describe_group(&self, group: &Name) -> Result<GroupDescription>;

    /// How far a group is on each partition that it has committed, or its members read; sorted. A partition whose log can't be
    /// asked now, as no broker leads it, is [unknown](PartitionLag::unknown) by itself.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>>;

    /// Moves the committed offsets of a group, or returns the plan for it ([`ResetOffsetsOptions::dry_run`]).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while the group has members,
    /// [`NotFound`](crate::ErrorKind::NotFound) for a topic that is missing.
    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>>;

    /// Deletes a group with all that it has committed.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while it has members, [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete_group(&self, group: &Name) -> Result<()>;

    /// How the broker is.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if nothing answers.
    async fn health(&self) -> Result<Health>;

    /// Which clauses it keeps.
    fn guarantees(&self) -> Guarantees;
}

/// A topic as it should be.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::Topic;
///
/// let topic = Topic::new("user-events").with_partitions(3).with_retention(Duration::from_secs(7 * 24 * 3600));
/// assert_eq!(topic.partitions, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: Name,
    /// How many partitions: 1 if not said.
    pub partitions: u32,
    /// How many brokers hold each partition; `None` is the broker's default.
    pub replication: Option<u16>,
    /// How long records are kept; `None` is the broker's default.
    pub retention: Option<Duration>,
    /// How many bytes are kept per partition; `None` is the broker's default.
    pub retention_bytes: Option<u64>,
    /// What happens to old records; `None` is the broker's default.
    pub cleanup: Option<Cleanup>,
    /// The largest record, in bytes; `None` is the broker's default.
    pub max_record_bytes: Option<u64>,
    /// Any other setting, by the broker's own name for it.
    pub settings: BTreeMap<String, String>,
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cleanup {
    /// They are deleted by age or size.
    Delete,
    /// Of each key only the last one is kept.
    Compact,
    /// Both.
    CompactAndDelete,
}

impl Topic {
    /// The topic `name` with one partition and the broker's defaults.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
            replication: None,
            retention: None,
            retention_bytes: None,
            cleanup: None,
            max_record_bytes: None,
            settings: BTreeMap::new(),
        }
    }

    /// With so many partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Held by so many brokers.
    #[must_use]
    pub fn with_replication(mut self, replication: u16) -> Self {
        self.replication = Some(replication);
        self
    }

    /// Keeping records for so long; [`Duration::MAX`] is for ever.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Keeping so many bytes per partition.
    #[must_use]
    pub fn with_retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// With this cleanup.
    #[must_use]
    pub fn with_cleanup(mut self, cleanup: Cleanup) -> Self {
        self.cleanup = Some(cleanup);
        self
    }

    /// Taking records of so many bytes at most.
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// With a setting by the broker's own name.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: Name,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
    /// The settings that the broker tells.
    pub settings: BTreeMap<String, String>,
}

impl TopicDescription {
    /// A topic with these partitions, and no settings told.
    pub fn new(name: impl Into<Name>, partitions: Vec<PartitionDescription>) -> Self {
        Self { name: name.into(), partitions, settings: BTreeMap::new() }
    }
}

/// A partition as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// The oldest offset in the log.
    pub start: u64,
    /// The offset of the next record.
    pub end: u64,
    /// The leading broker; `None` if there is none now.
    pub leader: Option<i32>,
    /// All brokers that should hold it.
    pub replicas: Vec<i32>,
    /// Those that are up to date.
    pub in_sync: Vec<i32>,
}

impl PartitionDescription {
    /// A partition whose log holds `start..end`.
    pub fn new(partition: u32, start: u64, end: u64) -> Self {
        Self { partition, start, end, ..Self::default() }
    }

    /// Whether no broker leads it now, though some hold it: `start` and `end` are then not known.
    pub fn is_offline(&self) -> bool {
        self.leader.is_none() && !self.replicas.is_empty()
    }
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub name: Name,
    /// Its state.
    pub state: GroupState,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

impl GroupDescription {
    /// A group with these members.
    pub fn new(name: impl Into<Name>, state: GroupState, members: Vec<MemberDescription>) -> Self {
        Self { name: name.into(), state, members }
    }
}

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// Nobody is in it.
    Empty,
    /// Its partitions are being moved between members.
    Rebalancing,
    /// Its members read.
    Stable,
    /// The broker tells something else.
    Unknown,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// The member's id, given by the broker.
    pub id: String,
    /// What the client calls itself.
    pub client: String,
    /// What it is assigned.
    pub partitions: Vec<TopicPartition>,
}

impl MemberDescription {
    /// A member that has these partitions.
    pub fn new(id: impl Into<String>, client: impl Into<String>, partitions: Vec<TopicPartition>) -> Self {
        Self { id: id.into(), client: client.into(), partitions }
    }
}

/// How far a group is on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read; `None` if nothing is committed.
    pub committed: Option<u64>,
    /// The oldest offset in the log; 0 where that is unknown.
    pub start: u64,
    /// The offset of the next record; 0 where that is unknown.
    pub end: u64,
    /// Why the log's bounds are not known now, such as that no broker leads the partition; `None` if they are.
    pub unknown: Option<String>,
}

impl PartitionLag {
    /// A group's place on a partition whose log holds `start..end`.
    pub fn new(partition: TopicPartition, committed: Option<u64>, start: u64, end: u64) -> Self {
        Self { partition, committed, start, end, unknown: None }
    }

    /// A group's place on a partition whose log can't be asked for its bounds, and why.
    pub fn unknown(partition: TopicPartition, committed: Option<u64>, why: impl Into<String>) -> Self {
        Self { partition, committed, start: 0, end: 0, unknown: Some(why.into()) }
    }

    /// Offsets still to be read; all that there are, if nothing is committed, or if what is committed lies beyond the end:
    /// the log was truncated or made anew, and is read from its oldest record. `None` where that is
    /// [unknown](Self::unknown), which is not zero.
    pub fn lag(&self) -> Option<u64> {
        let committed = self.committed.filter(|committed| *committed <= self.end).unwrap_or(self.start);
        let left = self.end.saturating_sub(committed.max(self.start));
        self.unknown.is_none().then_some(left)
    }
}

/// How a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Health {
    /// The brokers that answer, by number and address.
    pub brokers: Vec<(i32, String)>,
    /// The controller's number, if there is one now.
    pub controller: Option<i32>,
    /// What is wrong, a line each; empty if nothing is.
    pub problems: Vec<String>,
}

impl Health {
    /// Whether nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
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
