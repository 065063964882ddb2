//! Filters for dead letters.

use sqlx::QueryBuilder;
use sqlx::postgres::Postgres;
use tidings_core::{ErrorKind, LetterId, LetterQuery, Name, Timestamp};

use super::row::{Ids, to_column};
use crate::sql_names::SqlNames;
use crate::wire::escape;

/// Selects dead letters that match all given conditions. The default filter matches every open letter.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LetterFilter {
    /// Matches any of these ids, no letter if empty, and all letters if `None`.
    pub ids: Option<Vec<LetterId>>,
    /// The service that gave the record up.
    pub service: Option<Name>,
    /// The original topic.
    pub topic: Option<Name>,
    /// The event type; matches only records whose event type could be read.
    pub event_type: Option<String>,
    /// The kind of the error.
    pub kind: Option<ErrorKind>,
    /// Text contained in the error.
    pub error: Option<String>,
    /// Time at or after which the record was given up.
    pub since: Option<Timestamp>,
    /// Time before which the record was given up.
    pub until: Option<Timestamp>,
    /// The letter's state: [`LetterState::Open`] by default.
    pub state: LetterState,
    /// Matches only letters after this one in the order of burying: the next page.
    pub after: Option<LetterId>,
    /// Maximum number of letters: [`LetterQuery::DEFAULT_PAGE`] if `None`.
    pub limit: Option<usize>,
    /// Like `after`, by number.
    pub(super) behind: Option<i64>,
}

/// State of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LetterState {
    /// The letter is neither redriven nor discarded.
    #[default]
    Open,
    /// The letter was redriven or discarded.
    Closed,
    /// Open and closed letters.
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
    /// Matches only these ids; no letter if there are none.
    #[must_use]
    pub fn with_ids(mut self, ids: impl IntoIterator<Item = LetterId>) -> Self {
        self.ids = Some(ids.into_iter().collect());
        self
    }

    /// Matches only letters of this service.
    #[must_use]
    pub fn with_service(mut self, service: impl Into<Name>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Matches only letters of this original topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Matches only letters of this event type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Matches only letters of this error kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Matches only letters whose error contains this text, case-sensitively.
    #[must_use]
    pub fn with_error(mut self, text: impl Into<String>) -> Self {
        self.error = Some(text.into());
        self
    }

    /// Matches only letters given up at or after `since` and before `until`.
    #[must_use]
    pub fn with_times(mut self, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        (self.since, self.until) = (since, until);
        self
    }

    /// Matches only letters in this state.
    #[must_use]
    pub fn with_state(mut self, state: LetterState) -> Self {
        self.state = state;
        self
    }

    /// Returns the page that follows `letter`.
    #[must_use]
    pub fn with_after(mut self, letter: LetterId) -> Self {
        self.after = Some(letter);
        self
    }

    /// Limits the number of letters.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Builds `SELECT columns FROM letters AS l` with the filter's conditions, followed by `tail`; `after` and
    /// `limit` apply if `paged`.
    pub(super) fn select(&self, names: &SqlNames, columns: &str, tail: &str, paged: bool) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(columns).push(" FROM ").push(names.full("letters")).push(" l WHERE true");
        self.conditions(&mut sql);
        if let Some(behind) = self.behind {
            sql.push(" AND l.number > ").push_bind(behind);
        }
        if let Some(after) = self.after.as_ref().filter(|_| paged) {
            // An unknown letter sorts before all others.
            sql.push(" AND l.number > coalesce((SELECT a.number FROM ").push(names.full("letters"));
            sql.push(" a WHERE a.service = ").push_bind(escape(&after.service));
            sql.push(" AND a.topic = ").push_bind(escape(&after.origin.topic));
            sql.push(" AND a.partition = ").push_bind(i64::from(after.origin.partition));
            sql.push(" AND a.record_offset = ").push_bind(to_column(after.offset)).push("), 0)");
        }
        sql.push(tail);
        if paged {
            let limit = self.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
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
        if let Some(ids) = &self.ids {
            let ids: Ids = ids.iter().collect();
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
