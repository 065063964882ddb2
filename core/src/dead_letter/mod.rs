//! Dead letters: records that could not be handled, stored with the cause.

mod lease;
mod packed;
mod redrive;
mod topics;
mod wire;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::lease::{Leased, LetterLease, REDRIVE_LEASE};
pub use self::redrive::redrive;
pub use self::topics::{DEAD_LETTER_SUFFIX, DeadLetterTopics, dead_letter_topic};
pub use self::wire::{MAX_PLAIN_HEADERS, Redriven, header_names, is_dead_letter_header};
use crate::{ErrorKind, Guarantees, Name, Result, StoredRecord, Timestamp, TopicPartition};

/// Stores dead letters.
///
/// # Contract
/// - **D1** `Ok` means that the letter is durable.
/// - **D2** The original topic, partition, offset, timestamp, key, value and headers are kept byte for byte, together
///   with the cause: error kind and text (bounded), attempts, handler, service, time.
/// - **D3** A letter's identity is (service, topic, partition, offset): buried twice, it is listed and redriven once.
///   A record of another time under a known identity belongs to a topic that was recreated, and is no repeat: its
///   letter is a new one, or [`Conflict`](ErrorKind::Conflict) while that of the old record is open.
#[async_trait]
pub trait DeadLetterSink: Debug + Send + Sync + 'static {
    /// Buries `letters`; answer `i` is letter `i`'s. Dropping the future may still bury any of them.
    ///
    /// # Errors
    /// Per letter, those of [`Publisher::publish`](crate::Publisher::publish).
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>>;

    /// Checks that letters of records from `topics` can be buried. Called when a service starts, not at its first
    /// poison record.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Denied`](ErrorKind::Denied) or [`Unavailable`](ErrorKind::Unavailable),
    /// with what is missing.
    async fn check(&self, topics: &[Name]) -> Result<()>;

    /// Returns the clauses that this sink keeps.
    fn guarantees(&self) -> Guarantees;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: DeadLetterSink + ?Sized> DeadLetterSink for Arc<S> {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        (**self).bury(letters).await
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        (**self).check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        (**self).guarantees()
    }
}

/// A sink whose letters can be listed, redriven and discarded.
///
/// # Contract
/// - **D4** One letter, one redrive: a letter that is granted to a [`LetterLease`] is granted to no other, and closed
///   by no [`resolve`](Self::resolve), until it is given back or the lease's ttl has passed on the store's own clock.
///   A letter that another lease took over meanwhile is never closed by the old lease. A closed letter is never
///   granted.
#[async_trait]
pub trait DeadLetterStore: DeadLetterSink {
    /// Lists the letters that are neither redriven nor discarded, in the order of burying.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>>;

    /// Closes letters that were redriven or are not needed any more.
    ///
    /// Answer `i` is letter `i`'s; `false` means that it was closed before, never existed, or is leased by a redrive.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>>;

    /// Leases open letters to a redrive before it publishes them; answer `i` is letter `i`'s.
    ///
    /// A letter that the lease already has is granted again, for another ttl. The letters of a dropped call are free
    /// again after the ttl.
    ///
    /// The default grants every letter and stores nothing: a store that keeps it disclaims D4.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let _unknown = lease;
        Ok(vec![Leased::Granted; letters.len()])
    }

    /// Closes letters that the lease has.
    ///
    /// Answer `i` is letter `i`'s; `false` means that it was closed before, or that another lease has taken it over.
    /// A lease whose ttl has passed closes the letters that were not taken over.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        let _unknown = lease;
        self.resolve(letters, resolution).await
    }

    /// Releases letters that were not published, so that any redrive may lease them at once.
    ///
    /// Letters that the lease does not have are not affected.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the letters are then free after the lease's ttl.
    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        let _unknown = (letters, lease);
        Ok(())
    }
}

/// The identity of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct LetterId {
    /// The service that could not handle it.
    pub service: Name,
    /// The topic and partition of the record.
    pub origin: TopicPartition,
    /// The record's offset.
    pub offset: u64,
}

impl LetterId {
    /// Creates the identity of the letter of `service` about the record at `offset` of `origin`.
    pub fn new(service: impl Into<Name>, origin: TopicPartition, offset: u64) -> Self {
        Self { service: service.into(), origin, offset }
    }
}

/// The way in which a letter was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution {
    /// It was published to its topic again.
    Redriven {
        /// The person or program that redrove it.
        by: String,
    },
    /// It is not needed any more.
    Discarded {
        /// The person or program that discarded it.
        by: String,
        /// The reason for discarding it.
        reason: String,
    },
}

/// A filter and page of letters. The default selects all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterQuery {
    /// Selects letters of this service.
    pub service: Option<Name>,
    /// Selects letters of this original topic.
    pub topic: Option<Name>,
    /// Selects letters of this error kind.
    pub kind: Option<ErrorKind>,
    /// Selects letters buried at this time or later.
    pub since: Option<Timestamp>,
    /// Selects letters buried before this time.
    pub until: Option<Timestamp>,
    /// Selects letters after this one, in the order of burying: the next page.
    pub after: Option<LetterId>,
    /// The number of letters to return at most. Default: [`LetterQuery::DEFAULT_PAGE`].
    pub limit: Option<usize>,
}

impl LetterQuery {
    /// The default of [`LetterQuery::limit`].
    pub const DEFAULT_PAGE: usize = 1_000;
}

impl LetterQuery {
    /// Returns whether `letter` is selected, regardless of paging.
    pub fn wants(&self, letter: &DeadLetter) -> bool {
        self.service.as_ref().is_none_or(|s| *s == letter.service)
            && self.topic.as_ref().is_none_or(|t| *t == letter.origin.topic)
            && self.kind.is_none_or(|k| k == letter.kind)
            && self.since.is_none_or(|t| letter.failed_at >= t)
            && self.until.is_none_or(|t| letter.failed_at < t)
    }

    /// Selects letters of this service.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Name>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Selects letters of this original topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Selects letters of this error kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Selects the page after `letter`.
    #[must_use]
    pub fn with_after(mut self, letter: LetterId) -> Self {
        self.after = Some(letter);
        self
    }

    /// Sets the number of letters to return at most.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

impl DeadLetter {
    /// The limit in bytes of the error text in a letter.
    pub const MAX_ERROR_TEXT: usize = 4 << 10;
}

/// A record that could not be handled, and the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The service that could not handle it.
    pub service: Name,
    /// The handler's stable name; empty if no handler was reached.
    pub handler: Name,
    /// The topic and partition of the record.
    pub origin: TopicPartition,
    /// The record, byte for byte.
    pub record: StoredRecord,
    /// The kind of the last error.
    pub kind: ErrorKind,
    /// The last error with its sources, truncated to [`DeadLetter::MAX_ERROR_TEXT`].
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time of the final failure.
    pub failed_at: Timestamp,
}

impl DeadLetter {
    /// Creates a letter of `service` about a record whose handling failed now.
    pub fn new(service: impl Into<Name>, origin: TopicPartition, record: StoredRecord, kind: ErrorKind) -> Self {
        Self {
            service: service.into(),
            handler: Name::default(),
            origin,
            record,
            kind,
            error: String::new(),
            attempts: 0,
            failed_at: Timestamp::now(),
        }
    }

    /// Sets the handler that failed.
    #[must_use]
    pub fn with_handler(mut self, handler: impl Into<Name>) -> Self {
        self.handler = handler.into();
        self
    }

    /// Sets the error text, truncated to [`DeadLetter::MAX_ERROR_TEXT`].
    #[must_use]
    pub fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = error.into();
        let cut = self.error.floor_char_boundary(DeadLetter::MAX_ERROR_TEXT);
        self.error.truncate(cut);
        self
    }

    /// Sets the number of attempts.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the time of the final failure.
    #[must_use]
    pub fn with_failed_at(mut self, time: Timestamp) -> Self {
        self.failed_at = time;
        self
    }

    /// Returns the letter's identity.
    pub fn id(&self) -> LetterId {
        LetterId { service: self.service.clone(), origin: self.origin.clone(), offset: self.record.offset }
    }
}
