//! Publishing of records: the [`Publisher`] trait and its extension.
//!
//! A publisher takes batches, since a round trip to a broker is shared by all records of a call, and answers per
//! record, since each may fail alone. Calls overlap: a caller that needs order among calls relies on P3 for records of
//! one key, and waits for the answer where even a failure must not reorder.

use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;

use uuid::Uuid;

use crate::delayed::{not_cancelled, not_delayed};
use crate::{DelayedRecord, Error, ErrorKind, Guarantees, Position, Record, Result};

/// Publishes records to a broker.
///
/// # Contract
/// - **P1** Outcome `i` is record `i`'s; one record's failure is not its neighbour's.
/// - **P2** `Ok` means that the broker holds the record by the configured durability. [`ErrorKind::Indeterminate`]
///   means that it may or may not (a timeout, a dropped future): such a record is never reported as failed. However
///   often the publisher sends a record again, as after an outage, one that ends `Ok` is stored once, and one that
///   ends with any other error is never stored.
/// - **P3** The same key goes to the same partition (unless the record names one) while the number of partitions
///   stays, by Java's murmur2, and so equal to Java's and KafkaJS 2's. Records of one key are stored in the order of
///   the calls' first polls, including calls that wait at the bound. That holds among records that end `Ok`: after
///   one that does not, later ones of its key may already be stored, so a caller that must not reorder has one
///   unanswered batch per key. Records without a key are spread over all partitions.
/// - **P4** Memory is bounded in unanswered records and bytes: at the bound `publish` waits. A single record larger
///   than the bound is admitted alone. A loop of calls lets other tasks of its thread run. After
///   [`close`](Self::close) every publish ends as [`ErrorKind::Closed`].
/// - **P5** Null values (tombstones), empty keys, duplicate and null headers survive byte for byte, and timestamps to
///   the millisecond, also 0 and those before 1970.
///
/// [`ErrorKind::Indeterminate`]: crate::ErrorKind::Indeterminate
/// [`ErrorKind::Closed`]: crate::ErrorKind::Closed
#[async_trait]
pub trait Publisher: Debug + Send + Sync + 'static {
    /// Publishes `records`, in order per key, and waits for the broker's answers.
    ///
    /// Dropping the future may still publish any of the records, but never part of one.
    ///
    /// # Errors
    /// Per record: [`NotFound`](crate::ErrorKind::NotFound) for a missing topic or partition,
    /// [`TooLarge`](crate::ErrorKind::TooLarge), [`Denied`](crate::ErrorKind::Denied),
    /// [`Invalid`](crate::ErrorKind::Invalid), [`Unavailable`](crate::ErrorKind::Unavailable) if it is certainly not
    /// stored, [`Indeterminate`](crate::ErrorKind::Indeterminate) if it may be stored,
    /// [`Closed`](crate::ErrorKind::Closed).
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>>;

    /// Starts publishing one record; returns its result or a future of it.
    ///
    /// The provided method calls [`publish`](Self::publish) with a list of one, which begins when it is polled. A
    /// backend overrides it where a list or a boxed future costs more than the record, and a wrapper forwards it.
    /// Other callers use [`PublisherExt::publish_one`]. The caller must poll a pending future at once: P3's first poll
    /// may be that one.
    #[doc(hidden)]
    fn begin_one(&self, record: Record) -> Begun<'_> {
        Begun::Pending(Box::pin(async move {
            let mut answers = self.publish(vec![record]).await;
            // P1 requires one answer; its absence says nothing about the record.
            answers
                .pop()
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "publish: the publisher gave no answer")))
        }))
    }

    /// Accepts a record to be published when it is due, and never before. Default:
    /// [`Unsupported`](crate::ErrorKind::Unsupported), for a broker that cannot hold records back.
    ///
    /// `Ok` means that the record is held back, with the durability that the backend states. It takes its place in the
    /// order of its key when it is published, at least once: a backend may repeat it after a failure. Closing the
    /// publisher does not cancel it. The number and the size of delayed records are bounded.
    ///
    /// Dropping the future may still accept the record.
    ///
    /// # Errors
    /// Those of [`publish`](Self::publish), [`Unavailable`](crate::ErrorKind::Unavailable) at the bound,
    /// [`Invalid`](crate::ErrorKind::Invalid) for a time that the backend cannot represent, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn publish_delayed(&self, delayed: DelayedRecord) -> Result<()> {
        let _ = delayed;
        Err(not_delayed())
    }

    /// Cancels the delayed records with this id that are not published yet, and returns whether there were any.
    /// Default: [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// Dropping the future may still cancel them.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Closed`](crate::ErrorKind::Closed), and
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        let _ = id;
        Err(not_cancelled())
    }

    /// Refuses new records, waits at most `deadline` for the answers to those in flight, and releases its resources.
    ///
    /// Idempotent and cancel-safe.
    ///
    /// # Errors
    /// [`Indeterminate`](crate::ErrorKind::Indeterminate) if the deadline passed with records unanswered.
    async fn close(&self, deadline: Duration) -> Result<()>;

    /// Returns the clauses that this backend keeps.
    fn guarantees(&self) -> Guarantees;
}

/// Conveniences of every [`Publisher`], of a concrete type or of `dyn Publisher`.
///
/// ```
/// use std::time::Duration;
/// use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, PublisherExt, Record, Result, async_trait};
///
/// /// Answers as if each record were stored.
/// #[derive(Debug)]
/// struct Nowhere;
///
/// #[async_trait]
/// impl Publisher for Nowhere {
///     async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
///         (0..).zip(records).map(|(offset, _)| Ok(Position::new(0, offset))).collect()
///     }
///     async fn close(&self, _: Duration) -> Result<()> { Ok(()) }
///     fn guarantees(&self) -> Guarantees { Guarantees::all() }
/// }
///
/// let mut greeting = std::pin::pin!(Nowhere.publish_one(Record::new("greetings", "hello").with_key("u1")));
/// # let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// # let std::task::Poll::Ready(answer) = greeting.as_mut().poll(&mut cx) else { panic!() };
/// // let answer = greeting.await;
/// assert_eq!(answer?, Position::new(0, 0));
/// # use std::future::Future;
/// # Ok::<(), Error>(())
/// ```
pub trait PublisherExt: Publisher {
    /// Publishes one record and waits for the broker's answer, like [`publish`](Publisher::publish) with a list of
    /// one but without the list.
    ///
    /// Dropping the future may still publish the record.
    ///
    /// # Errors
    /// Those of [`publish`](Publisher::publish), for this record.
    fn publish_one(&self, record: Record) -> impl Future<Output = Result<Position>> + Send {
        async move {
            match self.begin_one(record) {
                Begun::Answered(answer) => answer,
                Begun::Pending(answer) => answer.await,
            }
        }
    }
}

impl<P: Publisher + ?Sized> PublisherExt for P {}

/// The result of `Publisher::begin_one`; callers must handle both variants.
#[doc(hidden)]
#[must_use = "a pending answer makes progress only when it is polled"]
pub enum Begun<'a> {
    /// The record is already answered.
    Answered(Result<Position>),
    /// The answer is pending. Poll it at once, since its first poll may start the call; dropped, it may still publish
    /// the record.
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
