//! The operators' audit trail.

use sqlx::QueryBuilder;
use sqlx::postgres::{PgRow, Postgres};
use tidings_core::{LetterId, LetterQuery, Result, Timestamp};

use super::row::{get, id, to_column};
use crate::sql_names::SqlNames;
use crate::wire::{escape, unescape};

/// An entry of the audit trail of operators. The store never deletes entries by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Act {
    /// Time of the act by the server's clock.
    pub at: Timestamp,
    /// The kind of act.
    pub kind: ActKind,
    /// The operator.
    pub by: String,
    /// The reason given, or the error of a failed act.
    pub why: String,
    /// The letter concerned.
    pub letter: Option<LetterId>,
    /// The outbox record concerned.
    pub outbox: Option<i64>,
}

/// Kind of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActKind {
    /// A letter was published to its topic again, and closed.
    Redriven,
    /// A letter could not be published, and stays open.
    RedriveFailed,
    /// A letter was discarded.
    Discarded,
    /// A letter was parked.
    Parked,
    /// A letter was closed in a way unknown to this version.
    Closed,
    /// An outbox record was scheduled to be published again.
    OutboxRetried,
    /// An outbox record was discarded and will never be published.
    OutboxDiscarded,
}

impl ActKind {
    const ALL: [Self; 7] = [
        Self::Redriven,
        Self::RedriveFailed,
        Self::Discarded,
        Self::Parked,
        Self::Closed,
        Self::OutboxRetried,
        Self::OutboxDiscarded,
    ];

    /// Returns the stable name, as stored in the table: `"redriven"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::RedriveFailed => "redrive-failed",
            Self::Discarded => "discarded",
            Self::Parked => "parked",
            Self::Closed => "closed",
            Self::OutboxRetried => "outbox-retried",
            Self::OutboxDiscarded => "outbox-discarded",
        }
    }
}

/// Selects acts. The default filter matches all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ActFilter {
    /// The letter concerned.
    pub letter: Option<LetterId>,
    /// The operator.
    pub by: Option<String>,
    /// The kind of act.
    pub kind: Option<ActKind>,
    /// Maximum number of acts, the latest first: [`LetterQuery::DEFAULT_PAGE`] if `None`.
    pub limit: Option<usize>,
}

impl ActFilter {
    /// Matches only acts on this letter.
    #[must_use]
    pub fn with_letter(mut self, letter: LetterId) -> Self {
        self.letter = Some(letter);
        self
    }

    /// Matches only acts of this operator.
    #[must_use]
    pub fn with_by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    /// Matches only acts of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ActKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Limits the number of acts.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(super) fn select(&self, names: &SqlNames) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(
            "SELECT a.act, a.who, a.why, a.service, a.topic, a.partition, a.record_offset, a.outbox_id,
            (extract(epoch FROM a.acted_at) * 1000)::bigint AS acted_ms FROM ",
        );
        sql.push(names.full("acts")).push(" a WHERE true");
        if let Some(letter) = &self.letter {
            sql.push(" AND a.service = ").push_bind(escape(&letter.service));
            sql.push(" AND a.topic = ").push_bind(escape(&letter.origin.topic));
            sql.push(" AND a.partition = ").push_bind(i64::from(letter.origin.partition));
            sql.push(" AND a.record_offset = ").push_bind(to_column(letter.offset));
        }
        if let Some(by) = &self.by {
            sql.push(" AND a.who = ").push_bind(escape(by));
        }
        if let Some(kind) = self.kind {
            sql.push(" AND a.act = ").push_bind(kind.as_str());
        }
        let limit = self.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        sql.push(" ORDER BY a.id DESC LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        sql
    }
}

pub(super) fn read(row: &PgRow) -> Result<Act> {
    let name: &str = get(row, "act")?;
    let letter = get::<Option<&str>, _>(row, "service")?.is_some();
    Ok(Act {
        at: Timestamp::from_millis(get(row, "acted_ms")?),
        kind: ActKind::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(ActKind::Closed),
        by: unescape(get(row, "who")?),
        why: unescape(get(row, "why")?),
        letter: if letter { Some(id(row)?) } else { None },
        outbox: get(row, "outbox_id")?,
    })
}
