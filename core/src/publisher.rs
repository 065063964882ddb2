//! The trait of what puts records into a broker.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Guarantees, Position, Record, Result};

/// Puts records into a broker.
///
/// # Contract
/// - **P1** Outcome `i` is record `i`'s; one record's failure is not its neighbour's.
/// - **P2** `Ok` means that the broker holds the record by the configured durability. [`ErrorKind::Unknown`] means that it
///   may or may not (a timeout, a dropped future): such a record is never reported as failed.
/// - **P3** The same key goes to the same partition (unless the record names one) while the number of partitions stays,
///   by Java's murmur2, so equal to Java's and KafkaJS 2's. Records of one key are stored in the order of the calls' first
///   polls, also of calls that wait at the bound. That holds among records that end `Ok`: after one that does not, later
///   ones of its key may already be there, so whoever must not reorder has one unanswered batch per key.
/// - **P4** Memory is bounded in unanswered records and bytes: at the bound `publish` waits. A single record larger than
///   the bound is let through alone. After [`close`](Self::close) every publish ends as [`ErrorKind::Closed`].
/// - **P5** Null values (tombstones), empty keys, duplicate and null headers survive byte for byte.
///
/// [`ErrorKind::Unknown`]: crate::ErrorKind::Unknown
/// [`ErrorKind::Closed`]: crate::ErrorKind::Closed
#[async_trait]
pub trait Publisher: Debug + Send + Sync + 'static {
    /// Publishes `records`, in order per key, and waits for the broker's answers.
    ///
    /// Dropping the future may still publish any of the records, never a part of one.
    ///
    /// # Errors
    /// Per record: [`NotFound`](crate::ErrorKind::NotFound) for a missing topic or partition,
    /// [`TooLarge`](crate::ErrorKind::TooLarge), [`Denied`](crate::ErrorKind::Denied),
    /// [`Invalid`](crate::ErrorKind::Invalid), [`Unavailable`](crate::ErrorKind::Unavailable) if it surely is not stored,
    /// [`Unknown`](crate::ErrorKind::Unknown) if that is open, [`Closed`](crate::ErrorKind::Closed).
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>>;

    /// Publishes one record, and waits for the broker's answer: [`publish`](Self::publish) of a list of one, which is what
    /// it does if it is not provided. A backend provides it where a list costs more than the record.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish), for this record.
    async fn publish_one(&self, record: Record) -> Result<Position> {
        let mut answers = self.publish(vec![record]).await;
        // P1 wants one; that there is none says nothing of the record.
        answers.pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Unknown, "publish: the publisher gave no answer")))
    }

    /// Refuses new records, waits at most `deadline` for the answers to those under way, and gives up its resources.
    /// Closing twice is one close. Cancel-safe.
    ///
    /// # Errors
    /// [`Unknown`](crate::ErrorKind::Unknown) if the deadline passed with records unanswered.
    async fn close(&self, deadline: Duration) -> Result<()>;

    /// Which clauses it keeps.
    fn guarantees(&self) -> Guarantees;
}
