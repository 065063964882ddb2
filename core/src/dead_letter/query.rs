//! Selection of letters.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{DeadLetter, LetterId};
use crate::{ErrorKind, Name, Timestamp};

/// The state of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LetterState {
    /// Neither redriven nor discarded nor parked.
    #[default]
    Open,
    /// Set aside.
    Parked,
    /// Redriven or discarded. Not every store keeps closed letters.
    Closed,
    /// In any state.
    Any,
}

/// Selects letters that match all given conditions, and one page of them. The default selects all open letters.
///
/// ```
/// use tidings_core::{DeadLetter, ErrorKind, LetterQuery, StoredRecord, Timestamp, TopicPartition};
///
/// let record = StoredRecord::new(7, Timestamp::now());
/// let letter = DeadLetter::new("billing", TopicPartition::new("orders", 0), record, ErrorKind::Failed)
///     .with_error("no such account");
/// assert!(LetterQuery::default().with_service("billing").with_error("account").wants(&letter));
/// assert!(!LetterQuery::default().with_topic("users").wants(&letter));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterQuery {
    /// Selects these letters; none if empty, and all if `None`.
    pub ids: Option<BTreeSet<LetterId>>,
    /// Selects letters of this service.
    pub service: Option<Name>,
    /// Selects letters of this original topic.
    pub topic: Option<Name>,
    /// Selects letters of this handler; those that reached no handler have an empty one.
    pub handler: Option<Name>,
    /// Selects letters of records with this key; records without a key have none, which is not the empty one.
    pub key: Option<Bytes>,
    /// Selects letters of events of this type, compared in full; a record whose type cannot be read has none.
    pub event_type: Option<String>,
    /// Selects letters of this error kind.
    pub kind: Option<ErrorKind>,
    /// Selects letters whose error contains this text, case-sensitively.
    pub error: Option<String>,
    /// Selects letters of failures at this time or later.
    pub since: Option<Timestamp>,
    /// Selects letters of failures before this time.
    pub until: Option<Timestamp>,
    /// Selects letters in this state. Default: open ones.
    pub state: LetterState,
    /// Selects letters after this one, in the order of listing: the next page. It may be closed or parked meanwhile.
    pub after: Option<LetterId>,
    /// The number of letters to return at most; none if 0. Default: [`LetterQuery::DEFAULT_PAGE`].
    pub limit: Option<usize>,
}

impl LetterQuery {
    /// The default of [`LetterQuery::limit`].
    pub const DEFAULT_PAGE: usize = 1_000;

    /// Returns whether `letter` is selected, regardless of paging.
    pub fn wants(&self, letter: &DeadLetter) -> bool {
        self.wants_state(letter)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id()))
            && self.service.as_ref().is_none_or(|s| *s == letter.service)
            && self.topic.as_ref().is_none_or(|t| *t == letter.origin.topic)
            && self.handler.as_ref().is_none_or(|h| *h == letter.handler)
            && self.key.as_ref().is_none_or(|key| letter.record.key.as_ref() == Some(key))
            && self.kind.is_none_or(|k| k == letter.kind)
            && self.since.is_none_or(|t| letter.failed_at >= t)
            && self.until.is_none_or(|t| letter.failed_at < t)
            && self.error.as_ref().is_none_or(|text| letter.error.contains(text))
            && self.event_type.as_ref().is_none_or(|wanted| letter.event_type().as_ref() == Some(wanted))
    }

    /// Returns whether the query selects by service, topic, partition, offset and state alone, regardless of paging: a
    /// store that knows these of its letters need read none to answer it.
    pub fn selects_by_place_alone(&self) -> bool {
        // In full, so that a new condition must be considered here.
        let Self {
            ids: _,
            service: _,
            topic: _,
            handler,
            key,
            event_type,
            kind,
            error,
            since,
            until,
            state: _,
            after: _,
            limit: _,
        } = self;
        handler.is_none()
            && key.is_none()
            && event_type.is_none()
            && kind.is_none()
            && error.is_none()
            && since.is_none()
            && until.is_none()
    }

    fn wants_state(&self, letter: &DeadLetter) -> bool {
        let closed = letter.resolution.as_ref().map(|resolution| resolution.kind.closes());
        match self.state {
            LetterState::Open => closed.is_none(),
            LetterState::Parked => closed == Some(false),
            LetterState::Closed => closed == Some(true),
            LetterState::Any => true,
        }
    }

    /// Selects these letters; none if there are none.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IntoIterator<Item = LetterId>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
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

    /// Selects letters of this handler.
    #[must_use]
    pub fn with_handler(mut self, handler: impl Into<Name>) -> Self {
        self.handler = Some(handler.into());
        self
    }

    /// Selects letters of records with this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Selects letters of events of this type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Selects letters of this error kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Selects letters whose error contains this text, case-sensitively.
    #[must_use]
    pub fn with_error(mut self, text: impl Into<String>) -> Self {
        self.error = Some(text.into());
        self
    }

    /// Selects letters of failures at or after `since` and before `until`.
    #[must_use]
    pub fn with_times(mut self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        (self.since, self.until) = (since, until);
        self
    }

    /// Selects letters in this state.
    #[must_use]
    pub fn with_state(mut self, state: LetterState) -> Self {
        self.state = state;
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
