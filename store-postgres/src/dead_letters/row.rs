//! Letters as rows.

use bytes::Bytes;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, Row, Type};
use tidings_core::{
    DeadLetter, ErrorKind, LetterId, Resolution, ResolutionKind, Result, StoredRecord, Timestamp, TopicPartition,
};

use crate::error::failed;
use crate::sql_names::SqlNames;
use crate::wire::{headers_from_bytes, unescape};

/// Returns the columns that [`letter`] reads. Its acts tell who closed or parked a letter, and why.
pub(super) fn columns(names: &SqlNames) -> String {
    let act = |column: &str| {
        let acts = names.full("acts");
        format!(
            "CASE WHEN l.closed_at IS NOT NULL OR l.parked_at IS NOT NULL THEN (
                SELECT a.{column} FROM {acts} a
                WHERE a.service = l.service AND a.topic = l.topic AND a.partition = l.partition
                AND a.record_offset = l.record_offset AND a.act = coalesce(l.closed_how, 'parked')
                ORDER BY a.id DESC LIMIT 1
            ) END AS resolved_{column}"
        )
    };
    format!(
        "l.service, l.topic, l.partition, l.record_offset, l.record_time, l.key, l.value, l.headers, l.handler,
        l.error_kind, l.error, l.attempts, l.failed_at, l.closed_how, l.closed_at IS NOT NULL AS closed,
        (extract(epoch FROM coalesce(l.closed_at, l.parked_at)) * 1000)::bigint AS resolved_ms, {}, {}",
        act("who"),
        act("why")
    )
}

pub(super) fn get<'r, T, I>(row: &'r PgRow, at: I) -> Result<T>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
    I: sqlx::ColumnIndex<PgRow>,
{
    row.try_get(at).map_err(|e| failed("read a letter from its table", e))
}

pub(super) fn letter(row: &PgRow) -> Result<DeadLetter> {
    let text = |column: &str| get::<&str, _>(row, column).map(unescape);
    let id = id(row)?;
    let mut record = StoredRecord::new(id.offset, Timestamp::from_millis(get(row, "record_time")?));
    record.key = get::<Option<Vec<u8>>, _>(row, "key")?.map(Bytes::from);
    record.value = get::<Option<Vec<u8>>, _>(row, "value")?.map(Bytes::from);
    record.headers = headers_from_bytes(get(row, "headers")?)?;
    let mut letter = DeadLetter::new(id.service, id.origin, record, ErrorKind::from_name(get(row, "error_kind")?))
        .with_handler(text("handler")?)
        .with_error(text("error")?)
        .with_attempts(u32::try_from(get::<i64, _>(row, "attempts")?).unwrap_or(u32::MAX))
        .with_failed_at(Timestamp::from_millis(get(row, "failed_at")?));
    letter.resolution = resolution(row)?;
    Ok(letter)
}

fn resolution(row: &PgRow) -> Result<Option<Resolution>> {
    let Some(at) = get::<Option<i64>, _>(row, "resolved_ms")? else { return Ok(None) };
    let kind = match get(row, "closed")? {
        // A way of closing that another version knows counts as a discard.
        true => get::<Option<&str>, _>(row, "closed_how")?
            .and_then(ResolutionKind::from_name)
            .unwrap_or(ResolutionKind::Discarded),
        false => ResolutionKind::Parked,
    };
    let text = |column: &str| get::<Option<&str>, _>(row, column).map(|text| text.map(unescape).unwrap_or_default());
    let resolution = Resolution::new(kind, text("resolved_who")?).with_reason(text("resolved_why")?);
    Ok(Some(resolution.with_at(Timestamp::from_millis(at))))
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
