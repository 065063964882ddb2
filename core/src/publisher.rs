//! The trait of what puts records into a broker.

use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Guarantees, Position, Record, Result};

/// Puts records into a broker.
///
/// # Contract
/// - **P1** Outcome `i` is record `i`'s; one record's failure is not its neighbour's.
/// - **P2** `Ok` means that the broker holds the record by the configured durability. [`ErrorKind::Indeterminate`] means that it
///   may or may not (a timeout, a dropped future): such a record is never reported as failed.
/// - **P3** The same key goes to the same partition (unless the record names one) while the number of partitions stays,
///   by Java's murmur2, so equal to Java's and KafkaJS 2's. Records of one key are stored in the order of the calls' first
///   polls, also of calls that wait at the bound. That holds among records that end `Ok`: after one that does not, later
///   ones of its key may already be there, so whoever must not reorder has one unanswered batch per key.
/// - **P4** Memory is bounded in unanswered records and bytes: at the bound `publish` waits. A single record larger than
///   the bound is let through alone. After [`close`](Self::close) every publish ends as [`ErrorKind::Closed`].
/// - **P5** Null values (tombstones), empty keys, duplicate and null headers survive byte for byte.
///
/// [`ErrorKind::Indeterminate`]: crate::ErrorKind::Indeterminate
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
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate) if that is open, [`Closed`](crate::ErrorKind::Closed).
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>>;

    /// Begins to publish one record: what `publish_one` does when it is first polled, and what is left to wait for. As it is
    /// provided, that is [`publish`](Self::publish) of a list of one, which begins when it is polled. A backend provides it
    /// where a list, or a future in a box, costs more than the record.
    ///
    /// It is for backends and wrappers; others call `publish_one`, which is of `dyn Publisher`. Whoever calls it polls what
    /// is pending at once: P3's first poll may be that one.
    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            let mut answers = self.publish(vec![record]).await;
            // P1 wants one; that there is none says nothing of the record.
            answers
                .pop()
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "publish: the publisher gave no answer")))
        }))
    }

    /// Refuses new records, waits at most `deadline` for the answers to those under way, and gives up its resources.
    /// Closing twice is one close. Cancel-safe.
    ///
    /// # Errors
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate) if the deadline passed with records unanswered.
    async fn close(&self, deadline: Duration) -> Result<()>;

    /// Which clauses it keeps.
    fn guarantees(&self) -> Guarantees;
}

impl dyn Publisher {
    /// Publishes one record, and waits for the broker's answer: as [`publish`](Publisher::publish) of a list of one, without
    /// the list.
    ///
    /// Dropping the future may still publish the record.
    ///
    /// # Errors
    /// As of [`publish`](Publisher::publish), for this record.
    pub async fn publish_one(&self, record: Record) -> Result<Position> {
        match self.begin_one(record) {
            Begun::Answered(answer) => answer,
            Begun::Pending(answer) => answer.await,
        }
    }
}

/// What [`Publisher::begin_one`] gives. Whoever has one handles both.
#[must_use = "what is pending goes on only when it is polled"]
pub enum Begun<'a> {
    /// There is nothing to wait for.
    Answered(Result<Position>),
    /// To be polled at once, and waited for: its first poll may be what begins. Dropped, it may still publish the record.
    Pending(Pin<Box<dyn Future<Output = Result<Position>> + Send + 'a>>),
}

impl Debug for Begun<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(answer) => f.debug_tuple("Answered").field(answer).finish(),
            Self::Pending(_) => f.write_str("Pending(..)"),
        }
    }
}
