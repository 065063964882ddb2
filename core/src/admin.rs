//! Administration of a broker: the [`Admin`] trait, topics and health.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::admin_options::{CreatePartitionsOptions, PartitionReset, ResetOffsetsOptions, ResetTo};
use crate::{Error, ErrorKind, GroupDescription, Guarantees, Name, PartitionLag, Result, TopicPartition};

/// Administers the topics and groups of a broker.
///
/// # Contract
/// - **A1** Each method does what it states or returns why not, per topic or partition; a missing resource is
///   [`NotFound`](crate::ErrorKind::NotFound), with its name; nothing is shrunk, deleted, rekeyed or moved back
///   unasked. Names count as a whole: no verb on `orders` changes anything of `orders-eu`.
///
/// # Cancel safety
/// Dropping the future of a method that changes something leaves open whether it was changed. Methods that only look
/// have no effect.
#[async_trait]
pub trait Admin: Debug + Send + Sync + 'static {
    /// Creates topics; answer `i` is topic `i`'s.
    ///
    /// For a topic that exists already it waits as for one that it created, so the loser of a race to create a topic
    /// may use it.
    ///
    /// # Errors
    /// Per topic [`AlreadyExists`](crate::ErrorKind::AlreadyExists), [`Invalid`](crate::ErrorKind::Invalid),
    /// [`Denied`](crate::ErrorKind::Denied), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn create_topics(&self, topics: &[Topic]) -> Result<Vec<Result<()>>>;

    /// Returns the names of all topics except the broker's internal ones, sorted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn list_topics(&self) -> Result<Vec<Name>>;

    /// Describes topics; answer `i` is topic `i`'s.
    ///
    /// # Errors
    /// Per topic [`NotFound`](crate::ErrorKind::NotFound); [`Invalid`](crate::ErrorKind::Invalid) for an invalid topic
    /// name ([`check_topic_name`](crate::check_topic_name)).
    async fn describe_topics(&self, topics: &[Name]) -> Result<Vec<Result<TopicDescription>>>;

    /// Deletes topics with all their records and the offsets that groups have committed to them; answer `i` is topic
    /// `i`'s.
    ///
    /// The offsets may go a moment later. A topic that is created again under the name is then read from its start.
    ///
    /// # Errors
    /// Per topic [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete_topics(&self, topics: &[Name]) -> Result<Vec<Result<()>>>;

    /// Raises the number of partitions of a topic.
    ///
    /// This moves keys to other partitions and so breaks their order: a topic that may hold keyed records is refused
    /// unless [`CreatePartitionsOptions::allow_rekeying`] is set. The number that it has already is accepted.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) without it, [`Invalid`](crate::ErrorKind::Invalid) for
    /// fewer partitions than there are, [`NotFound`](crate::ErrorKind::NotFound).
    async fn create_partitions(&self, topic: &Name, partitions: u32, options: CreatePartitionsOptions) -> Result<()>;

    /// Changes settings of a topic, all or none: a name and its new value, by the broker's own names, or `None` to return
    /// to the broker's default. Settings that are not named keep their values. Default:
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// ```
    /// # use tidings_core::{Admin, Result};
    /// /// Keeps the records of a topic for a day, and its segments by the broker's default.
    /// async fn keep_a_day(admin: &dyn Admin) -> Result<()> {
    ///     let changes = [("retention.ms".into(), Some("86400000".into())), ("segment.ms".into(), None)];
    ///     admin.alter_topic(&"orders".into(), &changes).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Invalid`](crate::ErrorKind::Invalid) for an unknown setting or a wrong
    /// value.
    async fn alter_topic(&self, topic: &Name, changes: &[(String, Option<String>)]) -> Result<()> {
        let _ = changes;
        let what = format!("alter topic {topic:?}: this transport cannot change the settings of a topic");
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Returns the names of all groups, sorted.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn list_groups(&self) -> Result<Vec<Name>>;

    /// Describes a group.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn describe_group(&self, group: &Name) -> Result<GroupDescription>;

    /// Describes groups; answer `i` is group `i`'s.
    ///
    /// For many groups: a broker answers for several at once. Default: one
    /// [`describe_group`](Self::describe_group) after the other.
    ///
    /// # Errors
    /// Per group [`NotFound`](crate::ErrorKind::NotFound), and whatever else concerns that group only.
    async fn describe_groups(&self, groups: &[Name]) -> Result<Vec<Result<GroupDescription>>> {
        let mut described = Vec::with_capacity(groups.len());
        for group in groups {
            described.push(self.describe_group(group).await);
        }
        Ok(described)
    }

    /// Returns the lag of a group on each partition that it has committed or that its members read, sorted by topic and
    /// number.
    ///
    /// A partition whose log cannot be queried now, because no broker leads it, is reported as
    /// [unknown](PartitionLag::unknown); the others are not affected.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn group_lag(&self, group: &Name) -> Result<Vec<PartitionLag>>;

    /// Returns the lags of groups, each as [`group_lag`](Self::group_lag) does; answer `i` is group `i`'s.
    ///
    /// For many groups: a broker answers for several at once. Default: one [`group_lag`](Self::group_lag) after the
    /// other.
    ///
    /// # Errors
    /// Per group [`NotFound`](crate::ErrorKind::NotFound), and whatever else concerns that group only.
    async fn group_lags(&self, groups: &[Name]) -> Result<Vec<Result<Vec<PartitionLag>>>> {
        let mut lags = Vec::with_capacity(groups.len());
        for group in groups {
            lags.push(self.group_lag(group).await);
        }
        Ok(lags)
    }

    /// Moves the committed offsets of a group on all partitions of `topics`, or returns the plan
    /// ([`ResetOffsetsOptions::dry_run`]).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while the group has members,
    /// [`NotFound`](crate::ErrorKind::NotFound) for a topic that is missing: then nothing is moved.
    async fn reset_offsets(
        &self,
        group: &Name,
        topics: &[Name],
        to: ResetTo,
        options: ResetOffsetsOptions,
    ) -> Result<Vec<PartitionReset>>;

    /// Sets the committed offsets of a group, partition by partition: for a plan that was made before, which
    /// [`reset_offsets`](Self::reset_offsets) would compute anew. The group need not exist. Default:
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while the group has members, [`NotFound`](crate::ErrorKind::NotFound) for
    /// a missing partition, [`Invalid`](crate::ErrorKind::Invalid) for an offset outside of the log: then nothing is set.
    async fn alter_offsets(&self, group: &Name, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        let _ = offsets;
        let what = format!("alter offsets of group {group:?}: this transport cannot set single offsets");
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    /// Deletes a group with all its committed offsets.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while it has members, [`NotFound`](crate::ErrorKind::NotFound).
    async fn delete_group(&self, group: &Name) -> Result<()>;

    /// Returns the health of the broker.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if nothing answers.
    async fn health(&self) -> Result<Health>;

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
}

/// The desired configuration of a topic.
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
    /// The topic's name.
    pub name: Name,
    /// The number of partitions. Default: 1.
    pub partitions: u32,
    /// The replication factor; `None` is the broker's default.
    pub replication: Option<u16>,
    /// The retention time of records; `None` is the broker's default.
    pub retention: Option<Duration>,
    /// The retained bytes per partition; `None` is the broker's default.
    pub retention_bytes: Option<u64>,
    /// The cleanup policy of old records; `None` is the broker's default.
    pub cleanup: Option<Cleanup>,
    /// The size limit of a record in bytes; `None` is the broker's default.
    pub max_record_bytes: Option<u64>,
    /// Other settings, by the broker's own names.
    pub settings: BTreeMap<String, String>,
}

/// The cleanup policy of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cleanup {
    /// Deletes records by age or size.
    Delete,
    /// Keeps only the last record of each key.
    Compact,
    /// Compacts, and deletes by age or size.
    CompactAndDelete,
}

impl Topic {
    /// Creates the topic `name` with one partition and the broker's defaults.
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

    /// Sets the number of partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the number of brokers that hold each partition.
    #[must_use]
    pub fn with_replication(mut self, replication: u16) -> Self {
        self.replication = Some(replication);
        self
    }

    /// Sets how long records are kept; [`Duration::MAX`] means forever.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets how many bytes are kept per partition.
    #[must_use]
    pub fn with_retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// Sets the cleanup policy.
    #[must_use]
    pub fn with_cleanup(mut self, cleanup: Cleanup) -> Self {
        self.cleanup = Some(cleanup);
        self
    }

    /// Sets the size limit of a record in bytes.
    #[must_use]
    pub fn with_max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// Sets a setting by the broker's own name.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }
}

/// The current state of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The topic's name.
    pub name: Name,
    /// The partitions, by number.
    pub partitions: Vec<PartitionDescription>,
    /// The settings that the broker reports.
    pub settings: BTreeMap<String, String>,
}

impl TopicDescription {
    /// Creates a description with these partitions and no settings.
    pub fn new(name: impl Into<Name>, partitions: Vec<PartitionDescription>) -> Self {
        Self { name: name.into(), partitions, settings: BTreeMap::new() }
    }
}

/// The current state of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// The partition's number.
    pub partition: u32,
    /// The oldest offset in the log.
    pub start: u64,
    /// The offset of the next record.
    pub end: u64,
    /// The leading broker; `None` if there is none now.
    pub leader: Option<i32>,
    /// All brokers assigned to hold the partition.
    pub replicas: Vec<i32>,
    /// The replicas that are in sync.
    pub in_sync: Vec<i32>,
}

impl PartitionDescription {
    /// Creates a partition whose log holds `start..end`.
    pub fn new(partition: u32, start: u64, end: u64) -> Self {
        Self { partition, start, end, ..Self::default() }
    }

    /// Returns whether no broker leads the partition now, though some hold it: `start` and `end` are then unknown.
    pub fn is_offline(&self) -> bool {
        self.leader.is_none() && !self.replicas.is_empty()
    }
}

/// The health of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Health {
    /// The brokers that answer, with number and address.
    pub brokers: Vec<(i32, String)>,
    /// The controller's number, if there is a controller now.
    pub controller: Option<i32>,
    /// The problems found, one line each; empty if there are none.
    pub problems: Vec<String>,
}

impl Health {
    /// Returns whether there are no problems.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }
}
