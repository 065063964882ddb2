//! Records that the broker refused: listing, retrying and discarding them.

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tidings_core::{Error, ErrorKind, Record, Result, Timestamp};

use super::lag::read;
use super::{Outbox, lane};
use crate::error::failed_write;
use crate::wire::{escape, headers_from_bytes, unescape};

impl Outbox {
    /// Default number of records that [`Outbox::failed`] returns.
    pub const DEFAULT_FAILED_PAGE: usize = 1_000;
}

/// A record of the outbox that the broker refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedRecord {
    /// Number in the outbox, used to retry or discard the record.
    pub id: i64,
    /// The record.
    pub record: Record,
    /// The kind of the broker's error.
    pub kind: ErrorKind,
    /// The broker's error.
    pub error: String,
    /// Time of the refusal, by the server's clock.
    pub failed_at: Timestamp,
    /// Whether the record is parked; otherwise it holds back its key.
    pub parked: bool,
}

const LIST: &str = "
SELECT id, topic, partition, record_time, key, value, headers, error_kind, error, parked,
    (extract(epoch FROM failed_at) * 1000)::bigint AS failed_ms
FROM tidings.outbox_failed WHERE id > $1 ORDER BY id LIMIT $2";

/// Restores records to their old positions, before the records that they held back, which become visible with them.
/// Rows are locked in ascending order so that two operators cannot deadlock.
const RETRY: &str = "
WITH locked AS MATERIALIZED (
    SELECT id FROM tidings.outbox_failed WHERE id = ANY ($1) ORDER BY id FOR UPDATE
), back AS (
    DELETE FROM tidings.outbox_failed WHERE id IN (SELECT id FROM locked)
    RETURNING id, lane, created_at, record_time, partition, shard, topic, key, value, headers
), noted AS (
    INSERT INTO tidings.acts (act, who, why, outbox_id) SELECT 'outbox-retried', $2, '', id FROM back
), told AS MATERIALIZED (
    SELECT pg_notify($3, '')
)
INSERT INTO tidings.outbox (id, lane, created_at, record_time, partition, shard, topic, key, value, headers)
OVERRIDING SYSTEM VALUE SELECT * FROM back WHERE (SELECT count(*) FROM told) >= 0";

const DISCARD: &str = "
WITH locked AS MATERIALIZED (
    SELECT id FROM tidings.outbox_failed WHERE id = ANY ($1) ORDER BY id FOR UPDATE
), gone AS (
    DELETE FROM tidings.outbox_failed WHERE id IN (SELECT id FROM locked) RETURNING id
), told AS MATERIALIZED (
    SELECT pg_notify($4, '')
)
INSERT INTO tidings.acts (act, who, why, outbox_id)
SELECT 'outbox-discarded', $2, $3, id FROM gone WHERE (SELECT count(*) FROM told) >= 0";

impl Outbox {
    /// Returns records that the broker refused, ordered by id, starting after `after`.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn failed(&self, after: Option<i64>, limit: Option<usize>) -> Result<Vec<FailedRecord>> {
        let limit = i64::try_from(limit.unwrap_or(Outbox::DEFAULT_FAILED_PAGE)).unwrap_or(i64::MAX);
        let query = sqlx::query(self.store.names().fill(LIST)).bind(after.unwrap_or(0)).bind(limit);
        let rows = read(query.fetch_all(self.store.pool()).await)?;
        rows.iter().map(failed_record).collect()
    }

    /// Makes relays publish these records again, each before the records that it held back, and returns how many
    /// there were. A parked record comes after the records of its key that were published in the meantime.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable), and [`Indeterminate`](ErrorKind::Indeterminate) if the answer was
    /// lost: a repeat is harmless.
    pub async fn retry(&self, ids: &[i64], by: &str) -> Result<u64> {
        let names = self.store.names();
        let query = sqlx::query(names.fill(RETRY)).bind(ids).bind(escape(by)).bind(lane::channel(names));
        let done = query.execute(self.store.pool()).await;
        done.map(|done| done.rows_affected()).map_err(|e| failed_write("retry records of the outbox", e))
    }

    /// Discards these records: they are never published and no longer hold back their keys. Returns how many there
    /// were.
    ///
    /// # Errors
    /// As [`retry`](Self::retry), and [`Invalid`](ErrorKind::Invalid) without a reason.
    pub async fn discard(&self, ids: &[i64], by: &str, reason: &str) -> Result<u64> {
        if reason.trim().is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "discard records of the outbox: a reason must be given"));
        }
        let names = self.store.names();
        let query = sqlx::query(names.fill(DISCARD)).bind(ids).bind(escape(by)).bind(escape(reason));
        let done = query.bind(lane::channel(names)).execute(self.store.pool()).await;
        done.map(|done| done.rows_affected()).map_err(|e| failed_write("discard records of the outbox", e))
    }
}

fn failed_record(row: &PgRow) -> Result<FailedRecord> {
    Ok(FailedRecord {
        id: read(row.try_get("id"))?,
        record: record(row)?,
        kind: ErrorKind::from_name(read(row.try_get("error_kind"))?),
        error: unescape(read(row.try_get("error"))?),
        failed_at: Timestamp::from_millis(read(row.try_get("failed_ms"))?),
        parked: read(row.try_get("parked"))?,
    })
}

/// Reads the record from a row of either table.
pub(super) fn record(row: &PgRow) -> Result<Record> {
    let mut record = Record::tombstone(read(row.try_get::<&str, _>("topic"))?);
    record.partition = read(row.try_get::<Option<i64>, _>("partition"))?.and_then(|p| u32::try_from(p).ok());
    record.timestamp = read(row.try_get::<Option<i64>, _>("record_time"))?.map(Timestamp::from_millis);
    record.key = read(row.try_get::<Option<Vec<u8>>, _>("key"))?.map(Bytes::from);
    record.value = read(row.try_get::<Option<Vec<u8>>, _>("value"))?.map(Bytes::from);
    record.headers = headers_from_bytes(read(row.try_get("headers"))?)?;
    Ok(record)
}
