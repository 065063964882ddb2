//! How far the relays are behind.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tidings_core::Result;

use super::Outbox;
use crate::error::failed;
use crate::names::Names;

/// Records are counted up to here, so that looking at a lag costs little however large it is.
pub const MAX_COUNTED_LAG: u64 = 1_000_000;

/// What waits in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxLag {
    /// Records to be published, held ones included, counted up to [`MAX_COUNTED_LAG`].
    pub waiting: u64,
    /// How long the oldest of them has waited, by the server's clock.
    pub oldest: Option<Duration>,
    /// Records that the broker refused and that hold back their key.
    pub holding: u64,
    /// Records that the broker refused and that were put aside.
    pub parked: u64,
}

/// The oldest of a shard is the first by its ids, near enough: one look per shard.
const LAG: &str = "
SELECT
    (SELECT count(*) FROM (SELECT FROM tidings.outbox LIMIT $1) counted) AS waiting,
    (
        SELECT (extract(epoch FROM clock_timestamp() - min(first.created_at)) * 1000)::bigint
        FROM generate_series(0, 63) AS s (shard) CROSS JOIN LATERAL (
            SELECT o.created_at FROM tidings.outbox o WHERE o.shard = s.shard ORDER BY o.id LIMIT 1
        ) first
    ) AS oldest_ms,
    (SELECT count(*) FROM tidings.outbox_failed WHERE NOT parked) AS holding,
    (SELECT count(*) FROM tidings.outbox_failed WHERE parked) AS parked";

impl Outbox {
    /// What waits to be published, of all services that write to it.
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable).
    pub async fn lag(&self) -> Result<OutboxLag> {
        let mut connection = self.store.acquire("look at the outbox").await?;
        let work = self.store.bounded(lag(&mut connection, self.store.names())).await;
        self.store.judge("look at the outbox", &mut connection, work)
    }
}

pub(super) async fn lag(connection: &mut PgConnection, names: &Names) -> sqlx::Result<OutboxLag> {
    let limit = i64::try_from(MAX_COUNTED_LAG).unwrap_or(i64::MAX);
    let row = sqlx::query(names.fill(LAG)).bind(limit).fetch_one(connection).await?;
    let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let oldest = row.try_get::<Option<i64>, _>("oldest_ms")?;
    Ok(OutboxLag {
        waiting: count("waiting")?,
        // Two transactions can look at the clock in another order than they come to write.
        oldest: oldest.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
        holding: count("holding")?,
        parked: count("parked")?,
    })
}

/// For rows of tables of the outbox.
pub(super) fn read<T>(answer: sqlx::Result<T>) -> Result<T> {
    answer.map_err(|e| failed("read the outbox", e))
}
