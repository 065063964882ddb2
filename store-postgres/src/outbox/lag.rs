//! Lag of the outbox.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tidings_core::Result;

use super::Outbox;
use crate::error::failed;
use crate::sql_names::SqlNames;

impl OutboxLag {
    /// Records are counted up to this number, so that reading the lag stays cheap.
    pub const MAX_COUNTED: u64 = 1_000_000;
}

/// Lag of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxLag {
    /// Number of records to be published, including held ones and delayed ones that are due, counted up to
    /// [`OutboxLag::MAX_COUNTED`].
    pub waiting: u64,
    /// Age of the oldest waiting record by the server's clock; the age of a delayed one counts from its due time.
    pub oldest: Option<Duration>,
    /// Number of records that the broker refused and that hold back their key.
    pub holding: u64,
    /// Number of records that the broker refused and that were parked.
    pub parked: u64,
    /// Number of delayed records that are not due yet, counted up to [`OutboxLag::MAX_COUNTED`]. They are not lag.
    pub delayed: u64,
}

/// The oldest record of a shard is approximately the first by id: one lookup per shard.
const LAG: &str = "
SELECT
    (SELECT count(*) FROM (SELECT FROM tidings.outbox LIMIT $1) counted) + (
        SELECT count(*) FROM (
            SELECT FROM generate_series(0, 63) AS s (shard) CROSS JOIN LATERAL (
                SELECT FROM tidings.outbox_delayed d
                WHERE d.shard = s.shard AND d.not_before <= statement_timestamp()
            ) due LIMIT $1
        ) counted
    ) AS waiting,
    (
        SELECT count(*) FROM (
            SELECT FROM generate_series(0, 63) AS s (shard) CROSS JOIN LATERAL (
                SELECT FROM tidings.outbox_delayed d
                WHERE d.shard = s.shard AND d.not_before > statement_timestamp()
            ) later LIMIT $1
        ) counted
    ) AS delayed,
    (
        SELECT (extract(epoch FROM clock_timestamp() - min(first.since)) * 1000)::bigint
        FROM generate_series(0, 63) AS s (shard) CROSS JOIN LATERAL (
            (SELECT o.created_at AS since FROM tidings.outbox o WHERE o.shard = s.shard ORDER BY o.id LIMIT 1)
            UNION ALL
            (
                SELECT d.not_before FROM tidings.outbox_delayed d
                WHERE d.shard = s.shard AND d.not_before <= statement_timestamp() ORDER BY d.not_before LIMIT 1
            )
        ) first
    ) AS oldest_ms,
    (SELECT count(*) FROM tidings.outbox_failed WHERE NOT parked) AS holding,
    (SELECT count(*) FROM tidings.outbox_failed WHERE parked) AS parked";

impl Outbox {
    /// Returns the lag of the outbox, across all services that write to it.
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable).
    pub async fn lag(&self) -> Result<OutboxLag> {
        let mut connection = self.store.acquire("measure the outbox").await?;
        let work = self.store.bounded(lag(&mut connection, self.store.names())).await;
        self.store.judge("measure the outbox", &mut connection, work)
    }
}

/// Reads the lag on a given connection, for a relay that has its own.
pub(super) async fn lag(connection: &mut PgConnection, names: &SqlNames) -> sqlx::Result<OutboxLag> {
    let limit = i64::try_from(OutboxLag::MAX_COUNTED).unwrap_or(i64::MAX);
    let row = sqlx::query(names.fill(LAG)).bind(limit).fetch_one(connection).await?;
    let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let oldest = row.try_get::<Option<i64>, _>("oldest_ms")?;
    Ok(OutboxLag {
        waiting: count("waiting")?,
        // Transactions may read the clock in another order than they write.
        oldest: oldest.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
        holding: count("holding")?,
        parked: count("parked")?,
        delayed: count("delayed")?,
    })
}

/// Maps an error of reading an outbox row.
pub(super) fn read<T>(answer: sqlx::Result<T>) -> Result<T> {
    answer.map_err(|e| failed("read the outbox", e))
}
