//! Which letters are wanted.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use tidings_core::{DEFAULT_PAGE, ErrorKind, LetterId, LetterQuery, Name, Timestamp};

use super::row::{Ids, to_column};
use crate::names::Names;
use crate::wire::escape;

/// Which letters are wanted: those that all given conditions are true of. Empty, it wants all that are open.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterFilter {
    /// One of these. Empty: any.
    pub ids: Vec<LetterId>,
    /// Of this service.
    pub service: Option<Name>,
    /// Of this original topic.
    pub topic: Option<Name>,
    /// Of this event type, where the record could be read so far.
    pub event_type: Option<String>,
    /// Of this error kind.
    pub kind: Option<ErrorKind>,
    /// With this text somewhere in the error.
    pub error: Option<String>,
    /// Given up at this time or later.
    pub since: Option<Timestamp>,
    /// Given up before this time.
    pub until: Option<Timestamp>,
    /// Open or closed: [`LetterState::Open`] by default.
    pub state: LetterState,
    /// Behind this letter, in the order of burying: the next page.
    pub after: Option<LetterId>,
    /// At most so many: [`DEFAULT_PAGE`] if none is given.
    pub limit: Option<usize>,
    /// As `after`, by number.
    pub(super) behind: Option<i64>,
}

/// Whether a letter is worked off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LetterState {
    /// Neither redriven nor discarded.
    #[default]
    Open,
    /// Redriven or discarded.
    Closed,
    /// All.
    Any,
}

impl From<&LetterQuery> for LetterFilter {
    fn from(query: &LetterQuery) -> Self {
        Self {
            service: query.service.clone(),
            topic: query.topic.clone(),
            kind: query.kind,
            since: query.since,
            until: query.until,
            after: query.after.clone(),
            limit: query.limit,
            ..Self::default()
        }
    }
}

impl LetterFilter {
    /// Only these.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IntoIterator<Item = LetterId>) -> Self {
        self.ids = ids.into_iter().collect();
        self
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

    /// Only of this event type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only of this error kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only with this text somewhere in the error, upper and lower case told apart.
    #[must_use]
    pub fn with_error(mut self, text: impl Into<String>) -> Self {
        self.error = Some(text.into());
        self
    }

    /// Only those given up from `since` on and before `until`.
    #[must_use]
    pub fn with_times(mut self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        (self.since, self.until) = (since, until);
        self
    }

    /// Only in this state.
    #[must_use]
    pub fn with_state(mut self, state: LetterState) -> Self {
        self.state = state;
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

    /// `SELECT columns FROM letters AS l` that are wanted, then `tail`; paged by `after` and `limit` if asked for.
    pub(super) fn select(&self, names: &Names, columns: &str, tail: &str, paged: bool) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(columns).push(" FROM ").push(names.full("letters")).push(" l WHERE true");
        self.conditions(&mut sql);
        if let Some(behind) = self.behind {
            sql.push(" AND l.number > ").push_bind(behind);
        }
        if let Some(after) = self.after.as_ref().filter(|_| paged) {
            // A letter that was never there is before all.
            sql.push(" AND l.number > coalesce((SELECT a.number FROM ").push(names.full("letters"));
            sql.push(" a WHERE a.service = ").push_bind(escape(&after.service));
            sql.push(" AND a.topic = ").push_bind(escape(&after.origin.topic));
            sql.push(" AND a.partition = ").push_bind(i64::from(after.origin.partition));
            sql.push(" AND a.record_offset = ").push_bind(to_column(after.offset)).push("), 0)");
        }
        sql.push(tail);
        if paged {
            let limit = self.limit.unwrap_or(DEFAULT_PAGE);
            sql.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        sql
    }

    pub(super) fn conditions(&self, sql: &mut QueryBuilder<Postgres>) {
        match self.state {
            LetterState::Open => sql.push(" AND l.closed_at IS NULL"),
            LetterState::Closed => sql.push(" AND l.closed_at IS NOT NULL"),
            LetterState::Any => sql,
        };
        if !self.ids.is_empty() {
            let ids: Ids = self.ids.iter().collect();
            sql.push(" AND (l.service, l.topic, l.partition, l.record_offset) IN (SELECT * FROM unnest(");
            sql.push_bind(ids.services).push(", ").push_bind(ids.topics).push(", ");
            sql.push_bind(ids.partitions).push(", ").push_bind(ids.offsets).push("))");
        }
        if let Some(service) = &self.service {
            sql.push(" AND l.service = ").push_bind(escape(service));
        }
        if let Some(topic) = &self.topic {
            sql.push(" AND l.topic = ").push_bind(escape(topic));
        }
        if let Some(event_type) = &self.event_type {
            sql.push(" AND l.event_type = ").push_bind(escape(event_type));
        }
        if let Some(kind) = self.kind {
            sql.push(" AND l.error_kind = ").push_bind(kind.as_str());
        }
        if let Some(text) = &self.error {
            sql.push(" AND strpos(l.error, ").push_bind(escape(text)).push(") > 0");
        }
        if let Some(since) = self.since {
            sql.push(" AND l.failed_at >= ").push_bind(since.millis());
        }
        if let Some(until) = self.until {
            sql.push(" AND l.failed_at < ").push_bind(until.millis());
        }
    }
}
