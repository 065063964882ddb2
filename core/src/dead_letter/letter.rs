//! A dead letter, its identity, and what became of it.

use uuid::Uuid;

use crate::{Error, ErrorKind, Name, Result, StoredRecord, Timestamp, TopicPartition, codec};

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

/// The kind of a [`Resolution`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResolutionKind {
    /// The letter was published to its topic again: it is closed.
    Redriven,
    /// The letter is not needed any more: it is closed.
    Discarded,
    /// The letter is set aside: it is neither open nor closed.
    Parked,
}

impl ResolutionKind {
    /// Returns the stable name, as stored: `"redriven"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
            Self::Parked => "parked",
        }
    }

    /// Returns the kind of this name; `None` for an unknown one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Redriven, Self::Discarded, Self::Parked].into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns whether it closes a letter.
    pub const fn closes(self) -> bool {
        !matches!(self, Self::Parked)
    }
}

/// A decision about a letter: what became of it, who decided, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolution {
    /// The resolution of the letter.
    pub kind: ResolutionKind,
    /// The person or program that decided; empty where an older version did not store it. A store may cut it, and the
    /// reason, after 1 KiB.
    pub by: String,
    /// The reason; may be empty.
    pub reason: String,
    /// The time of the decision, or that of storing it where the store has its own clock.
    pub at: Timestamp,
}

impl Resolution {
    /// Creates a resolution of this kind by a person or program, made now and without a reason.
    pub fn new(kind: ResolutionKind, by: impl Into<String>) -> Self {
        Self { kind, by: by.into(), reason: String::new(), at: Timestamp::now() }
    }

    /// Checks that the resolution closes letters, as [`DeadLetterStore::resolve_leased`] requires.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for [`Parked`](ResolutionKind::Parked).
    ///
    /// [`DeadLetterStore::resolve_leased`]: crate::DeadLetterStore::resolve_leased
    pub fn check_closes(&self) -> Result<()> {
        if self.kind.closes() {
            return Ok(());
        }
        let text = "close leased letters: a lease closes letters and parks none; end the lease, then park them";
        Err(Error::new(ErrorKind::Invalid, text))
    }

    /// Closes a letter that `by` published to its topic again.
    pub fn redriven(by: impl Into<String>) -> Self {
        Self::new(ResolutionKind::Redriven, by)
    }

    /// Closes a letter that is not needed any more.
    pub fn discarded(by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(ResolutionKind::Discarded, by).with_reason(reason)
    }

    /// Sets a letter aside.
    pub fn parked(by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(ResolutionKind::Parked, by).with_reason(reason)
    }

    /// Sets the reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn with_at(mut self, at: Timestamp) -> Self {
        self.at = at;
        self
    }
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
    /// The resolution of the letter; `None` while it is open. Filled in by the store, not by the writer of the letter.
    pub resolution: Option<Resolution>,
}

impl DeadLetter {
    /// The limit in bytes of the error text in a letter.
    pub const MAX_ERROR_TEXT: usize = 4 << 10;

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
            resolution: None,
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
        let cut = self.error.floor_char_boundary(Self::MAX_ERROR_TEXT);
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

    /// Sets what became of the letter.
    #[must_use]
    pub fn with_resolution(mut self, resolution: Resolution) -> Self {
        self.resolution = Some(resolution);
        self
    }

    /// Returns the event's id; `None` if it cannot be read.
    pub fn event_id(&self) -> Option<Uuid> {
        codec::peek(&self.record).ok().map(|head| head.id)
    }

    /// Returns the event's type; `None` if it cannot be read.
    pub fn event_type(&self) -> Option<String> {
        codec::peek(&self.record).ok().map(|head| head.event_type.to_string())
    }
}
