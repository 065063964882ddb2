//! Transactions: the [`Transactor`] trait, which publishes records and commits offsets together or not at all.
//!
//! A broker hides the records of an open transaction from readers of committed records. A commit shows all of them, and
//! commits offsets of a group at the same time; an abort shows none. A program that reads, transforms and publishes in
//! transactions neither loses nor repeats a result. The design is Kafka's (KIP-98, KIP-447).

use std::fmt::{self, Debug, Formatter};
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Guarantees, Name, Position, Record, Result, TopicPartition};

/// Publishes records in transactions, one at a time.
///
/// Opened by [`Transport::transactor`](crate::Transport::transactor). The first [`publish`](Self::publish) after a
/// commit or an abort begins a transaction, and so does a [`commit`](Self::commit) with offsets.
///
/// # Contract
/// - **X1** After a `commit` that ends `Ok`, committed readers see all records of the transaction, and the group's
///   offsets are those of the commit. After any other result they see none of its records, and the offsets are as
///   before; after [`Indeterminate`](crate::ErrorKind::Indeterminate), one or the other, never a part. If a record is
///   not stored, the transaction has failed: `commit` aborts it.
/// - **X2** Consumers and log readers that read committed records yield no record of an open or aborted transaction.
///   Records behind an open one wait for its end, so the order of a partition is the order of its log. The gaps of
///   aborted records are counted as read.
/// - **X3** Opening a transactor ends the earlier one of the same id: its open transaction is aborted, and all its later
///   calls end as [`Fenced`](crate::ErrorKind::Fenced). A commit of the earlier one that is under way completes first.
/// - **X4** Offsets are refused if one of their partitions is no longer the member's: the transaction is then aborted as
///   a whole, the `commit` ends as [`Conflict`](crate::ErrorKind::Conflict), and the transactor continues.
/// - **X5** A transaction that is open for longer than [`timeout`](TransactorOptions::timeout) is aborted by the broker,
///   even if its process is gone, and delays no reader for much longer. A later `commit` of it does not end `Ok`.
///
/// P1 to P5 hold for the records of a transaction as for those of a [`Publisher`](crate::Publisher), where `Ok` means
/// that the record is stored in the open transaction.
///
/// ```
/// use std::sync::Arc;
/// use tidings_core::{Record, Result, Transactor, Transport, TransactorOptions};
///
/// /// Publishes an order and its lines: readers see all of them or none.
/// async fn import(transport: &dyn Transport, records: Vec<Record>) -> Result<()> {
///     let transactor = transport.transactor(TransactorOptions::new("order-import-1")).await?;
///     for answer in transactor.publish(records).await {
///         if let Err(error) = answer {
///             transactor.abort().await?;
///             return Err(error);
///         }
///     }
///     transactor.commit(None).await
/// }
/// ```
#[async_trait]
pub trait Transactor: Debug + Send + Sync + 'static {
    /// Publishes `records` in the open transaction, in order per key, and waits for the broker's answers. Calls may
    /// overlap.
    ///
    /// Dropping the future may still publish any of the records, in the same transaction.
    ///
    /// # Errors
    /// Per record, those of [`Publisher::publish`](crate::Publisher::publish). After any of them the transaction can
    /// only be aborted. [`Fenced`](crate::ErrorKind::Fenced) if another transactor has the id (X3).
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>>;

    /// Commits the transaction: all records of earlier calls of `publish` become visible, and the offsets are
    /// committed.
    ///
    /// Waits for the answers to these records first, and repeats a request whose answer was lost. Does nothing without
    /// records and offsets.
    ///
    /// # Errors
    /// In all cases but [`Indeterminate`](crate::ErrorKind::Indeterminate) the transaction is aborted. A new one can
    /// publish the same records after:
    /// [`Conflict`](crate::ErrorKind::Conflict) if the offsets were refused (X4), the error of a record that was not
    /// stored, [`Unavailable`](crate::ErrorKind::Unavailable), [`Denied`](crate::ErrorKind::Denied).
    /// [`Fenced`](crate::ErrorKind::Fenced) and [`Closed`](crate::ErrorKind::Closed) are final.
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate): the end is unknown, and the transactor is closed. Open
    /// another one of the same id, which waits for that end. The group's committed offset then shows whether it was a
    /// commit; without offsets, only the records show it.
    ///
    /// # Cancel safety
    /// A dropped future may still commit. The next call waits for the outcome; if it is a `commit`, it returns that
    /// outcome.
    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()>;

    /// Aborts the transaction: no reader of committed records sees its records. Does nothing if none is open.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced), [`Closed`](crate::ErrorKind::Closed);
    /// [`Conflict`](crate::ErrorKind::Conflict) if an earlier `commit` whose future was dropped has committed it;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the broker could not be reached: it aborts the transaction
    /// after the timeout at the latest (X5), and the next transaction of this transactor waits for that.
    ///
    /// # Cancel safety
    /// A dropped future still aborts.
    async fn abort(&self) -> Result<()>;

    /// Aborts the open transaction and releases its resources, within `deadline`. Afterwards every call ends as
    /// [`Closed`](crate::ErrorKind::Closed). Idempotent and cancel-safe.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the open transaction could not be aborted in time: the broker
    /// aborts it after its timeout (X5).
    async fn close(&self, deadline: Duration) -> Result<()>;

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
}

/// Options of a [`Transactor`].
///
/// ```
/// use std::time::Duration;
/// use tidings_core::TransactorOptions;
///
/// let options = TransactorOptions::new("importer-1").with_timeout(Duration::from_secs(10));
/// assert_eq!(options.id, "importer-1");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactorOptions {
    /// The id, Kafka's `transactional.id`. Keep it over restarts, and use different ids for processes that run at the
    /// same time (X3).
    pub id: Name,
    /// The time after which the broker aborts an open transaction (X5). Default:
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT). Brokers have a maximum, for Kafka 15 minutes.
    pub timeout: Duration,
}

impl TransactorOptions {
    /// The default of [`timeout`](Self::timeout), as Kafka's: one minute.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

    /// Creates options of a transactor with this id.
    pub fn new(id: impl Into<Name>) -> Self {
        Self { id: id.into(), timeout: Self::DEFAULT_TIMEOUT }
    }

    /// Sets the time after which the broker aborts an open transaction.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Checks the options, for implementations.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an empty id and a timeout below a millisecond.
    pub fn check(&self) -> Result<()> {
        let name = match (self.id.is_empty(), self.timeout.as_millis()) {
            (true, _) => "id is empty",
            (_, 0) => "timeout is below a millisecond",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Invalid, format!("open a transactor: its {name}")))
    }
}

/// The offsets that a transaction commits for a member of a group, as
/// [`Consumer::transaction_offsets`](crate::Consumer::transaction_offsets) returns them.
///
/// They carry the membership, so that the broker can refuse those of a member that was replaced (KIP-447).
#[non_exhaustive]
pub struct TransactionOffsets {
    /// The group.
    pub group: Name,
    /// The member's id in its group.
    pub member_id: String,
    /// The generation of the group, or the epoch of the member, in which it owned the partitions.
    pub generation: i32,
    /// The instance id of a static member.
    pub instance_id: Option<String>,
    /// Per partition the next offset to read.
    pub offsets: Vec<TransactionOffset>,
    on_commit: Option<Box<dyn FnOnce() + Send>>,
}

/// The next offset to read of a partition, with the metadata to commit with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The next offset to read.
    pub next_offset: u64,
    /// The metadata that is stored: the caller's, and possibly additions of the transport.
    pub metadata: Option<String>,
}

impl TransactionOffset {
    /// Creates the offset of a partition.
    pub fn new(partition: TopicPartition, next_offset: u64, metadata: Option<String>) -> Self {
        Self { partition, next_offset, metadata }
    }
}

impl TransactionOffsets {
    /// Creates the offsets of a member, for implementations of [`Consumer`](crate::Consumer).
    pub fn new(
        group: impl Into<Name>,
        member_id: impl Into<String>,
        generation: i32,
        offsets: Vec<TransactionOffset>,
    ) -> Self {
        let (group, member_id) = (group.into(), member_id.into());
        Self { group, member_id, generation, instance_id: None, offsets, on_commit: None }
    }

    /// Sets the instance id of a static member.
    #[must_use]
    pub fn with_instance_id(mut self, id: Option<String>) -> Self {
        self.instance_id = id;
        self
    }

    /// Sets a function that the transactor calls after the offsets are committed, to notify the consumer.
    #[must_use]
    pub fn with_on_commit(mut self, on_commit: impl FnOnce() + Send + 'static) -> Self {
        self.on_commit = Some(Box::new(on_commit));
        self
    }

    /// Reports that the offsets are committed, for implementations of [`Transactor`].
    pub fn committed(self) {
        if let Some(on_commit) = self.on_commit {
            on_commit();
        }
    }
}

impl Debug for TransactionOffsets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionOffsets")
            .field("group", &self.group)
            .field("member_id", &self.member_id)
            .field("generation", &self.generation)
            .field("instance_id", &self.instance_id)
            .field("offsets", &self.offsets)
            .finish_non_exhaustive()
    }
}
