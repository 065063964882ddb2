//! Letters as rows.

use bytes::Bytes;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, Row, Type};
use tidings_core::{DeadLetter, ErrorKind, LetterId, Result, StoredRecord, Timestamp, TopicPartition};
use uuid::Uuid;

use crate::error::failed;
use crate::wire::{headers_from_bytes, unescape};

/// Columns that [`letter`] reads.
pub(super) const COLUMNS: &str = "l.service, l.topic, l.partition, l.record_offset, l.record_time, l.key, l.value,
    l.headers, l.handler, l.error_kind, l.error, l.attempts, l.failed_at, l.event_id, l.event_type, l.closed_how,
    (extract(epoch FROM l.buried_at) * 1000)::bigint AS buried_ms,
    (extract(epoch FROM l.closed_at) * 1000)::bigint AS closed_ms";

/// A dead letter with its state in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Letter {
    /// The record and the reason why it could not be handled.
    pub letter: DeadLetter,
    /// The event's id, if it could be read.
    pub event_id: Option<Uuid>,
    /// The event's type, if it could be read.
    pub event_type: Option<String>,
    /// Time of burying, by the server's clock.
    pub buried_at: Timestamp,
    /// How the letter was closed; `None` while it is open. Its [acts](crate::Letters::acts) record the operator and
    /// the reason.
    pub closed: Option<Closed>,
}

/// How a letter was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// `redriven`, `discarded`, or `closed` if closed in a way unknown to this version.
    pub how: String,
    /// Time of closing, by the server's clock.
    pub at: Timestamp,
}

pub(super) fn get<'r, T, I>(row: &'r PgRow, at: I) -> Result<T>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
    I: sqlx::ColumnIndex<PgRow>,
{
    row.try_get(at).map_err(|e| failed("read a letter from its table", e))
}

pub(super) fn letter(row: &PgRow) -> Result<Letter> {
    let text = |column: &str| get::<&str, _>(row, column).map(unescape);
    let id = id(row)?;
    let mut record = StoredRecord::new(id.offset, Timestamp::from_millis(get(row, "record_time")?));
    record.key = get::<Option<Vec<u8>>, _>(row, "key")?.map(Bytes::from);
    record.value = get::<Option<Vec<u8>>, _>(row, "value")?.map(Bytes::from);
    record.headers = headers_from_bytes(get(row, "headers")?)?;
    let letter = DeadLetter::new(id.service, id.origin, record, ErrorKind::from_name(get(row, "error_kind")?))
        .with_handler(text("handler")?)
        .with_error(text("error")?)
        .with_attempts(u32::try_from(get::<i64, _>(row, "attempts")?).unwrap_or(u32::MAX))
        .with_failed_at(Timestamp::from_millis(get(row, "failed_at")?));
    let closed = get::<Option<i64>, _>(row, "closed_ms")?.map(Timestamp::from_millis);
    let how = get::<Option<&str>, _>(row, "closed_how")?.unwrap_or_default();
    Ok(Letter {
        letter,
        event_id: get(row, "event_id")?,
        event_type: get::<Option<&str>, _>(row, "event_type")?.map(unescape),
        buried_at: Timestamp::from_millis(get(row, "buried_ms")?),
        closed: closed.map(|at| Closed { how: how.to_owned(), at }),
    })
}

pub(super) fn id(row: &PgRow) -> Result<LetterId> {
    let text = |column: &str| get::<&str, _>(row, column).map(unescape);
    let partition = u32::try_from(get::<i64, _>(row, "partition")?).unwrap_or(u32::MAX);
    let origin = TopicPartition::new(text("topic")?, partition);
    Ok(LetterId::new(text("service")?, origin, from_column(get(row, "record_offset")?)))
}

/// Converts an offset to a column with the same bits. Below 2^63, as brokers' offsets are, the number is the same
/// too.
pub(super) fn to_column(offset: u64) -> i64 {
    offset.cast_signed()
}

pub(super) fn from_column(offset: i64) -> u64 {
    offset.cast_unsigned()
}

/// The columns of several identities, for `unnest`.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) services: Vec<String>,
    pub(super) topics: Vec<String>,
    pub(super) partitions: Vec<i64>,
    pub(super) offsets: Vec<i64>,
}

impl Ids {
    pub(super) fn push(&mut self, id: &LetterId) {
        self.services.push(crate::wire::escape(&id.service));
        self.topics.push(crate::wire::escape(&id.origin.topic));
        self.partitions.push(id.origin.partition.into());
        self.offsets.push(to_column(id.offset));
    }
}

impl<'a> FromIterator<&'a LetterId> for Ids {
    fn from_iter<I: IntoIterator<Item = &'a LetterId>>(ids: I) -> Self {
        let mut all = Self::default();
        ids.into_iter().for_each(|id| all.push(id));
        all
    }
}
