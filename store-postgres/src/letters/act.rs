//! What operators did.

use sqlx::QueryBuilder;
use sqlx::postgres::{PgRow, Postgres};
use tidings_core::{DEFAULT_PAGE, LetterId, Result, Timestamp};

use super::row::{get, id, to_column};
use crate::names::Names;
use crate::wire::{escape, unescape};

/// Something that an operator did: a line of the audit trail, of which the store deletes nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Act {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// What.
    pub kind: ActKind,
    /// Who.
    pub by: String,
    /// Why: the reason given, or the error of what did not work.
    pub why: String,
    /// The letter that it was done with.
    pub letter: Option<LetterId>,
    /// The record of the outbox that it was done with.
    pub outbox: Option<i64>,
}

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActKind {
    /// A letter was published to its topic again, and closed.
    Redriven,
    /// A letter could not be published, and stays open.
    RedriveFailed,
    /// A letter was closed because it is not wanted.
    Discarded,
    /// A letter was closed in a way that this version does not know.
    Closed,
    /// A record of the outbox is to be published again.
    OutboxRetried,
    /// A record of the outbox is never to be published.
    OutboxDiscarded,
}

impl ActKind {
    const ALL: [Self; 6] = [
        Self::Redriven,
        Self::RedriveFailed,
        Self::Discarded,
        Self::Closed,
        Self::OutboxRetried,
        Self::OutboxDiscarded,
    ];

    /// Its stable name, as in the table: `"redriven"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::RedriveFailed => "redrive-failed",
            Self::Discarded => "discarded",
            Self::Closed => "closed",
            Self::OutboxRetried => "outbox-retried",
            Self::OutboxDiscarded => "outbox-discarded",
        }
    }
}

/// Which acts are wanted. Empty, it wants all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ActFilter {
    /// With this letter.
    pub letter: Option<LetterId>,
    /// Of this operator.
    pub by: Option<String>,
    /// Of this kind.
    pub kind: Option<ActKind>,
    /// At most so many, the latest: [`DEFAULT_PAGE`] if none is given.
    pub limit: Option<usize>,
}

impl ActFilter {
    /// Only with this letter.
    #[must_use]
    pub fn with_letter(mut self, letter: LetterId) -> Self {
        self.letter = Some(letter);
        self
    }

    /// Only of this operator.
    #[must_use]
    pub fn with_by(mut self, by: impl Into<String>) -> Self {
        self.by = Some(by.into());
        self
    }

    /// Only of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ActKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// At most so many.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    pub(super) fn select(&self, names: &Names) -> QueryBuilder<Postgres> {
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
        let limit = self.limit.unwrap_or(DEFAULT_PAGE);
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
