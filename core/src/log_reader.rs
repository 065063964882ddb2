//! Reading by position: the [`LogReader`] trait, which reads a partition's log without a consumer group.
//!
//! A tail, an export, an audit or a directory needs records at offsets of its own choice and must leave no trace. So a
//! reader is stateless: each call names its position, and nothing on the broker changes.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Guarantees, RecordBatch, Result, SeekTo, TopicPartition, Unreadable};

/// Reads records by position, outside consumer groups.
///
/// All methods take `&self` and may be pending at the same time, also for one partition.
///
/// # Contract
/// - **L1** Records come in offset order from the asked offset on, as a consumer of the same transport reads them:
///   byte for byte, without records of open or aborted transactions where the transport reads committed records only.
///   Reading again from [`Read::next_offset`] yields each record once; it counts gaps and may come with no record.
/// - **L2** Nothing on the broker changes: no group, no member, no commit, no topic. A missing topic or partition is
///   [`NotFound`](crate::ErrorKind::NotFound), with its name.
/// - **L3** An answer keeps the [limits](ReadLimits): at most `max_records` and `max_bytes`; a first record that is
///   larger comes alone. A read at the end of the log returns empty after `wait`, and at once if `wait` is zero; a
///   record published meanwhile ends the wait.
/// - **L4** From an offset below the log's start, reading begins at the oldest record left, and
///   [`Read::start_offset`] shows the loss. An offset beyond the end of the log is
///   [`Invalid`](crate::ErrorKind::Invalid): the log went back, for example because its topic was recreated.
/// - **L5** Bytes that cannot be read are reported once the records before them were returned, as
///   [`Read::unreadable`] with their offset and, if known, the offset behind them: a read from there continues. Other
///   partitions are not affected.
#[async_trait]
pub trait LogReader: Debug + Send + Sync + 'static {
    /// Returns the offset of a position on each partition; answer `i` is partition `i`'s.
    ///
    /// [`SeekTo::Latest`] is the offset of the next record that a read can return, [`SeekTo::Offset`] the nearest offset
    /// in the log.
    ///
    /// # Errors
    /// Per partition [`NotFound`](crate::ErrorKind::NotFound), [`Denied`](crate::ErrorKind::Denied),
    /// [`Unavailable`](crate::ErrorKind::Unavailable) while no broker leads it.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>>;

    /// Reads records of one partition from `offset` on, within `limits`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Denied`](crate::ErrorKind::Denied),
    /// [`Invalid`](crate::ErrorKind::Invalid) for an offset beyond the end (L4) or a limit of zero records or bytes,
    /// [`Unavailable`](crate::ErrorKind::Unavailable): read again from the same offset.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read>;

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
}

/// The bounds of one [`LogReader::read`].
///
/// ```
/// use std::time::Duration;
/// use tidings_core::ReadLimits;
///
/// let tail = ReadLimits::default().with_max_records(100).with_wait(Duration::from_secs(1));
/// assert_eq!((tail.max_records, tail.max_bytes), (100, ReadLimits::DEFAULT_MAX_BYTES));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLimits {
    /// The maximum number of records. Default: [`DEFAULT_MAX_RECORDS`](Self::DEFAULT_MAX_RECORDS).
    pub max_records: usize,
    /// The maximum bytes of the records ([`StoredRecord::size`](crate::StoredRecord::size)); a first record that is larger
    /// comes alone. Default:
    /// [`DEFAULT_MAX_BYTES`](Self::DEFAULT_MAX_BYTES).
    pub max_bytes: usize,
    /// The time to wait for a record if there is none at the offset. Default: zero.
    pub wait: Duration,
}

impl ReadLimits {
    /// Default of [`max_records`](Self::max_records).
    pub const DEFAULT_MAX_RECORDS: usize = 1_000;
    /// Default of [`max_bytes`](Self::max_bytes): 1 MiB.
    pub const DEFAULT_MAX_BYTES: usize = 1 << 20;

    /// Sets the maximum number of records.
    #[must_use]
    pub fn with_max_records(mut self, records: usize) -> Self {
        self.max_records = records;
        self
    }

    /// Sets the maximum bytes of the records.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the time to wait for a record.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Checks the limits, for implementations.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for zero records or bytes.
    pub fn check(&self) -> Result<()> {
        let name = match (self.max_records, self.max_bytes) {
            (0, _) => "max_records",
            (_, 0) => "max_bytes",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Invalid, format!("read: {name} is 0, expected 1 or more")))
    }
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_records: Self::DEFAULT_MAX_RECORDS, max_bytes: Self::DEFAULT_MAX_BYTES, wait: Duration::ZERO }
    }
}

/// Records of one partition read by position, and where reading continues.
///
/// ```
/// use tidings_core::{LogReader, ReadLimits, Result, SeekTo, TopicPartition};
///
/// /// Counts the records that a partition holds now; unreadable ones are skipped.
/// async fn count(reader: &dyn LogReader, partition: TopicPartition) -> Result<usize> {
///     let mut next = reader.offsets(&[partition.clone()], SeekTo::Earliest).await?.remove(0)?;
///     let end = reader.offsets(&[partition.clone()], SeekTo::Latest).await?.remove(0)?;
///     let mut count = 0;
///     while next < end {
///         let read = reader.read(&partition, next, ReadLimits::default()).await?;
///         count += read.batch.records().iter().filter(|record| record.offset < end).count();
///         next = match &read.unreadable {
///             Some(bad) => bad.next_offset.unwrap_or(bad.offset + 1),
///             None => read.next_offset,
///         };
///     }
///     Ok(count)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Read {
    /// The records, in offset order; may be empty.
    pub batch: RecordBatch,
    /// The offset after the records, beyond gaps such as compacted records and transaction markers: read on from here.
    /// It never lies beyond bytes that cannot be read.
    pub next_offset: u64,
    /// The oldest offset in the log. If it lies above the asked offset, the records between are no longer there.
    pub start_offset: u64,
    /// The end of the log: the offset of the next record that will be readable.
    pub end_offset: u64,
    /// The bytes at `next_offset`, if they cannot be read; its epoch is 0. Reading continues only from an offset beyond
    /// them.
    pub unreadable: Option<Unreadable>,
}

impl Read {
    /// Creates the answer to a read of a log that holds `start_offset..end_offset`.
    pub fn new(batch: RecordBatch, next_offset: u64, start_offset: u64, end_offset: u64) -> Self {
        Self { batch, next_offset, start_offset, end_offset, unreadable: None }
    }

    /// Sets the bytes at `next_offset` that cannot be read.
    #[must_use]
    pub fn with_unreadable(mut self, unreadable: Unreadable) -> Self {
        self.unreadable = Some(unreadable);
        self
    }

    /// Returns whether the end of the log, as it was at the time of the read, is reached.
    pub fn is_at_end(&self) -> bool {
        self.unreadable.is_none() && self.next_offset >= self.end_offset
    }
}
