//! Dead letters: records that could not be handled, kept with why.

mod lease;
mod packed;
mod redrive;
mod topics;
mod wire;

use std::fmt::Debug;

use async_trait::async_trait;

pub use self::lease::{Leased, LetterLease, REDRIVE_LEASE};
pub use self::redrive::redrive;
pub use self::topics::{DEAD_LETTER_SUFFIX, DeadLetterTopics, dead_letter_topic};
pub use self::wire::{MAX_PLAIN_HEADERS, Redriven, header_names, is_dead_letter_header};
use crate::{ErrorKind, Guarantees, Name, Result, StoredRecord, Timestamp, TopicPartition};

/// Takes dead letters.
///
/// # Contract
/// - **D1** `Ok` means that the letter is durable.
/// - **D2** The original topic, partition, offset, timestamp, key, value and headers are kept byte for byte, beside why:
///   error kind and text (bounded), attempts, handler, service, time.
/// - **D3** A letter's identity is (service, topic, partition, offset): buried twice, it is listed and redriven once. A record
///   of another time under a known identity is of a topic that was made anew, and no repeat: its letter is a new one, or
///   [`Conflict`](ErrorKind::Conflict) while that of the old record is open.
#[async_trait]
pub trait DeadLetterSink: Debug + Send + Sync + 'static {
    /// Buries `letters`; answer `i` is letter `i`'s. A dropped future may still have buried any of them.
    ///
    /// # Errors
    /// Per letter, those of [`Publisher::publish`](crate::Publisher::publish).
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>>;

    /// Whether letters of records from `topics` could be buried: asked when a service starts, not at its first poison
    /// record.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Denied`](ErrorKind::Denied) or [`Unavailable`](ErrorKind::Unavailable), naming
    /// what is missing.
    async fn check(&self, topics: &[Name]) -> Result<()>;

    /// Which clauses it keeps.
    fn guarantees(&self) -> Guarantees;
}

/// A sink whose letters can be worked with: listed, taken back to their topics, discarded.
///
/// # Contract
/// - **D4** One letter, one redrive: a letter that is granted to a [`LetterLease`] is granted to no other, and closed by no
///   [`resolve`](Self::resolve), until it is given back or the lease's ttl has passed on the store's own clock. What took it
///   over meanwhile is never closed by the old lease. A closed letter is never granted.
#[async_trait]
pub trait DeadLetterStore: DeadLetterSink {
    /// Letters that are neither redriven nor discarded, in the order of burying.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>>;

    /// Closes letters: they were redriven, or are not wanted. Answer `i` is letter `i`'s; `false`: it was closed before,
    /// was never there, or a redrive has leased it.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>>;

    /// Leases open letters to a redrive, before it publishes them; answer `i` is letter `i`'s. A letter that the lease has
    /// already is granted again, for another ttl. A dropped call's letters are free again after the ttl.
    ///
    /// The default grants every letter and remembers nothing: a store that keeps it disclaims D4.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let _unknown = lease;
        Ok(vec![Leased::Granted; letters.len()])
    }

    /// Closes letters that the lease has. Answer `i` is letter `i`'s; `false`: it was closed before, or another lease has
    /// taken it over. A lease whose ttl has passed closes what was not taken over.
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

    /// Gives back letters that were not published, so that any redrive may lease them at once. Letters that the lease does
    /// not have stay as they are.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): they are then free after the lease's ttl.
    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        let _unknown = (letters, lease);
        Ok(())
    }
}

/// A letter's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct LetterId {
    /// The service that could not handle it.
    pub service: Name,
    /// Where the record lies.
    pub origin: TopicPartition,
    /// Its offset there.
    pub offset: u64,
}

impl LetterId {
    /// The letter of `service` about the record at `offset` of `origin`.
    pub fn new(service: impl Into<Name>, origin: TopicPartition, offset: u64) -> Self {
        Self { service: service.into(), origin, offset }
    }
}

/// How a letter was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution {
    /// It was published to its topic again, by this person or program.
    Redriven {
        /// Who did it.
        by: String,
    },
    /// It is not wanted.
    Discarded {
        /// Who did it.
        by: String,
        /// Why.
        reason: String,
    },
}

/// Which letters are wanted. Empty, it wants all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterQuery {
    /// Of this service.
    pub service: Option<Name>,
    /// Of this original topic.
    pub topic: Option<Name>,
    /// Of this error kind.
    pub kind: Option<ErrorKind>,
    /// Buried at this time or later.
    pub since: Option<Timestamp>,
    /// Buried before this time.
    pub until: Option<Timestamp>,
    /// Behind this letter, in the order of burying: the next page.
    pub after: Option<LetterId>,
    /// At most so many: [`DEFAULT_PAGE`] if none is given.
    pub limit: Option<usize>,
}

/// How many letters a page has where [`LetterQuery::limit`] is not given.
pub const DEFAULT_PAGE: usize = 1_000;

impl LetterQuery {
    /// Whether `letter` is wanted, paging aside.
    pub fn wants(&self, letter: &DeadLetter) -> bool {
        self.service.as_ref().is_none_or(|s| *s == letter.service)
            && self.topic.as_ref().is_none_or(|t| *t == letter.origin.topic)
            && self.kind.is_none_or(|k| k == letter.kind)
            && self.since.is_none_or(|t| letter.failed_at >= t)
            && self.until.is_none_or(|t| letter.failed_at < t)
    }

    /// Only of this service.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Name>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Only of this original topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only of this error kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// The page behind `letter`.
    #[must_use]
    pub fn with_after(mut self, letter: LetterId) -> Self {
        self.after = Some(letter);
        self
    }

    /// At most so many.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// The longest error text that a letter keeps, in bytes.
pub const MAX_ERROR_TEXT: usize = 4 << 10;

/// A record that could not be handled, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The service that could not handle it.
    pub service: Name,
    /// The handler's stable name; empty if it came to none.
    pub handler: Name,
    /// Where the record lies.
    pub origin: TopicPartition,
    /// The record, byte for byte.
    pub record: StoredRecord,
    /// The kind of the last error.
    pub kind: ErrorKind,
    /// The last error with its sources, cut to [`MAX_ERROR_TEXT`].
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub failed_at: Timestamp,
}

impl DeadLetter {
    /// A letter of `service` about a record that was given up now.
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

    /// Given up by this handler.
    #[must_use]
    pub fn with_handler(mut self, handler: impl Into<Name>) -> Self {
        self.handler = handler.into();
        self
    }

    /// Because of this error, cut to [`MAX_ERROR_TEXT`].
    #[must_use]
    pub fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = error.into();
        let cut = self.error.floor_char_boundary(MAX_ERROR_TEXT);
        self.error.truncate(cut);
        self
    }

    /// After so many attempts.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Given up at this time.
    #[must_use]
    pub fn with_failed_at(mut self, time: Timestamp) -> Self {
        self.failed_at = time;
        self
    }

    /// The letter's identity.
    pub fn id(&self) -> LetterId {
        LetterId { service: self.service.clone(), origin: self.origin.clone(), offset: self.record.offset }
    }
}
