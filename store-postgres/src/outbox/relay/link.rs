//! A relay's connection: it owns shards for as long as its session lives, and reads and deletes their records.
//!
//! Ownership of shards is a set of session-level advisory locks: they end with the session, so a
//! relay that crashes loses them without any clean-up. Whatever breaks the session ends the
//! ownership too, therefore a link is never used after an error.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tidings_core::{Error, ErrorKind, Result};
use tokio::time::timeout;
use uuid::Uuid;

use super::flight::Fetched;
use crate::error::{failed, failed_write};
use crate::outbox::delayed::{MOVE, NEXT};
use crate::outbox::failed::record;
use crate::outbox::lag::{OutboxLag, lag, read};
use crate::outbox::lane::{PRESENCE_LOCK, SHARDS, lock_class, shard_lock};
use crate::sql_names::SqlNames;
use crate::wire::escape;
use crate::{PostgresStore, RelayConfig};

/// Plans must not change with the size of a table that is empty at one moment and full at the next.
const SETTINGS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off";
/// A frozen relay holds its locks for as long as its session lives, so the server ends idle sessions.
const LEASE: &str = "SELECT set_config('idle_session_timeout', $1, false)
    WHERE current_setting('server_version_num')::integer >= 140000";
/// Shared by all relays, so that they can be counted.
const PRESENCE: &str = "SELECT pg_try_advisory_lock_shared($1, $2)";
/// Relays that hold the presence lock now.
const COUNT: &str = "SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1 AND objid::bigint = $2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// Tries locks until the wanted number is taken.
const TAKE: &str =
    "SELECT t.lock FROM unnest($2::integer[]) AS t (lock) WHERE pg_try_advisory_lock($1, t.lock) LIMIT $3";
/// Gives shards up, for relays that have fewer.
const GIVE: &str = "SELECT pg_advisory_unlock($1, g.lock) FROM unnest($2::integer[]) AS g (lock)";

/// The oldest records of each shard, without lanes that are busy here or held back, up to limits of records in total
/// and of bytes (exceeded by at most one record). A lane lies within a shard and is cut off only at its end, so it
/// stays in order.
const FETCH: &str = "
SELECT f.id, f.shard, f.lane, f.topic, f.partition, f.record_time, f.key, f.value, f.headers
FROM (
    SELECT c.*, sum(c.size) OVER (ORDER BY c.id ROWS UNBOUNDED PRECEDING) - c.size AS size_before
    FROM (
        SELECT r.* FROM unnest($1::smallint[]) AS s (shard) CROSS JOIN LATERAL (
            SELECT o.*, 64 + octet_length(o.headers) + coalesce(octet_length(o.key), 0)
                + coalesce(octet_length(o.value), 0) AS size
            FROM tidings.outbox o
            WHERE o.shard = s.shard AND o.lane <> ALL ($2::bigint[])
            AND NOT EXISTS (SELECT FROM tidings.outbox_failed h WHERE h.lane = o.lane AND NOT h.parked)
            ORDER BY o.id LIMIT $3
        ) r
        ORDER BY r.id LIMIT $4
    ) c
) f
WHERE f.size_before < $5::bigint
ORDER BY f.id";

/// Deletes published records by primary key.
const DELETE: &str = "DELETE FROM tidings.outbox o USING unnest($1::smallint[], $2::bigint[]) AS d (shard, id)
    WHERE o.shard = d.shard AND o.id = d.id";

/// Moves refused records out of the outbox in one statement, so that none is in both tables or in
/// neither.
const REFUSE: &str = "
WITH gone AS (
    DELETE FROM tidings.outbox o
    USING unnest($1::smallint[], $2::bigint[], $3::text[], $4::text[]) AS f (shard, id, kind, error)
    WHERE o.shard = f.shard AND o.id = f.id
    RETURNING o.*, f.kind, f.error
)
INSERT INTO tidings.outbox_failed (
    id, lane, created_at, record_time, partition, shard, parked, error_kind, error, topic, key, value, headers
)
SELECT id, lane, created_at, record_time, partition, shard, $5, kind, error, topic, key, value, headers FROM gone
ON CONFLICT (id) DO NOTHING";

/// Announces a relay that waits for notifications; writers notify only if there is one.
const SLEEP: &str = "INSERT INTO tidings.outbox_sleepers AS s (relay, since) VALUES ($1, clock_timestamp())
    ON CONFLICT (relay) DO UPDATE SET since = excluded.since";
/// Withdraws the announcement: a busy relay needs no notification, which costs each writer a lock.
const RISE: &str = "DELETE FROM tidings.outbox_sleepers WHERE relay = $1";
/// Removes relays that crashed while asleep. Live ones renew their entry regularly.
const BURY_SLEEPERS: &str =
    "DELETE FROM tidings.outbox_sleepers WHERE since < clock_timestamp() - 10 * $1::bigint * interval '1 second'";

/// A record that the broker refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) shard: i16,
    /// Number in the outbox, which it keeps.
    pub(super) id: i64,
    pub(super) kind: ErrorKind,
    pub(super) error: String,
}

/// Limits of a fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Records of one shard, so that none fills the whole fetch.
    pub(super) per_shard: usize,
}

/// The connection. Unusable after an error, because its session's locks are unknown.
#[derive(Debug)]
pub(super) struct Link {
    connection: PgConnection,
    names: SqlNames,
    relay: Uuid,
    /// How long to wait for a silent server.
    limit: Duration,
    shards: BTreeSet<i16>,
}

impl Link {
    /// Connects and prepares the session: plans, lease and presence. It owns no shard yet.
    pub(super) async fn open(store: &PostgresStore, relay: Uuid) -> Result<Self> {
        let options = store.pool().connect_options();
        let limit = store.config().answer_within;
        let silent = |_| Error::new(ErrorKind::Unavailable, "connect the relay to Postgres: no answer in time");
        let connected = timeout(store.config().acquire_timeout, options.connect()).await.map_err(silent)?;
        let connection = connected.map_err(|e| failed("connect the relay to Postgres", e))?;
        let names = store.names().clone();
        let mut link = Self { connection, names, relay, limit, shards: BTreeSet::new() };
        let class = lock_class(&link.names);
        let doing = "prepare the relay's session";
        timed(limit, doing, sqlx::raw_sql(AssertSqlSafe(SETTINGS)).execute(&mut link.connection)).await?;
        let lease = sqlx::query(LEASE).bind(RelayConfig::LEASE.as_millis().to_string());
        timed(limit, doing, lease.execute(&mut link.connection)).await?;
        let presence = sqlx::query(PRESENCE).bind(class).bind(PRESENCE_LOCK);
        timed(limit, doing, presence.execute(&mut link.connection)).await?;
        let sleepers = i64::try_from(RelayConfig::LEASE.as_secs()).unwrap_or(i64::MAX);
        let sleepers = sqlx::query(link.names.fill(BURY_SLEEPERS)).bind(sleepers);
        timed(limit, doing, sleepers.execute(&mut link.connection)).await?;
        Ok(link)
    }

    /// Returns the number of shards that it owns.
    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Takes unowned shards, or gives some up, towards an equal share among all relays. Shards in `busy` have records
    /// with the publisher: another relay must not publish the next ones before these are deleted.
    ///
    /// Only one step is made per call; relays that start or end together settle within a few.
    pub(super) async fn balance(&mut self, busy: &BTreeSet<i16>) -> Result<()> {
        let (doing, class) = ("share the outbox among relays", lock_class(&self.names));
        let count = sqlx::query_scalar(COUNT).bind(i64::from(class)).bind(i64::from(PRESENCE_LOCK));
        let relays: i64 = timed(self.limit, doing, count.fetch_one(&mut self.connection)).await?;
        let share = (SHARDS as usize).div_ceil(usize::try_from(relays).unwrap_or(1).max(1));
        if self.shards.len() < share {
            let free: Vec<i32> = (0..SHARDS).filter(|shard| !self.shards.contains(shard)).map(shard_lock).collect();
            let want = i64::try_from(share - self.shards.len()).unwrap_or(i64::MAX);
            let take = sqlx::query_scalar(TAKE).bind(class).bind(free).bind(want);
            let taken: Vec<i32> = timed(self.limit, doing, take.fetch_all(&mut self.connection)).await?;
            self.shards.extend((0..SHARDS).filter(|shard| taken.contains(&shard_lock(*shard))));
        } else if self.shards.len() > share {
            let excess = self.shards.len() - share;
            let given: Vec<i16> = self.shards.difference(busy).copied().take(excess).collect();
            let locks: Vec<i32> = given.iter().copied().map(shard_lock).collect();
            let give = sqlx::query(GIVE).bind(class).bind(locks);
            timed(self.limit, doing, give.execute(&mut self.connection)).await?;
            self.shards.retain(|shard| !given.contains(shard));
        }
        Ok(())
    }

    /// Records to publish next, without those of the lanes in `busy`.
    pub(super) async fn fetch(&mut self, busy: &[i64], room: Room) -> Result<Vec<Fetched>> {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let query = sqlx::query(self.names.fill(FETCH)).bind(self.shards()).bind(busy);
        let query = query.bind(number(room.per_shard)).bind(number(room.records)).bind(number(room.bytes));
        let doing = "read the outbox";
        let rows = timed(self.limit, doing, query.fetch_all(&mut self.connection)).await?;
        rows.iter().map(fetched).collect()
    }

    /// Returns how long it takes until the first delayed record of its shards is due; zero if it is.
    pub(super) async fn next_due(&mut self) -> Result<Option<Duration>> {
        let query = sqlx::query_scalar(self.names.fill(NEXT)).bind(self.shards());
        let next = query.fetch_one(&mut self.connection);
        let next: Option<i64> = timed(self.limit, "read the delayed events of the outbox", next).await?;
        Ok(next.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
    }

    /// Moves delayed records of its shards that are due to the outbox, up to a number per shard, and returns how many.
    pub(super) async fn promote(&mut self, per_shard: i64) -> Result<u64> {
        let query =
            sqlx::query(self.names.fill(MOVE)).bind(lock_class(&self.names)).bind(self.shards()).bind(per_shard);
        let done = timed(self.limit, "move delayed events that are due", query.execute(&mut self.connection)).await?;
        Ok(done.rows_affected())
    }

    fn shards(&self) -> Vec<i16> {
        self.shards.iter().copied().collect()
    }

    /// Deletes records that the broker holds, and keeps refused ones aside.
    ///
    /// # Errors
    /// [`Indeterminate`](ErrorKind::Indeterminate) if the answer was lost. Deleting again is
    /// harmless.
    pub(super) async fn settle(&mut self, held: &[(i16, i64)], refused: &[Refusal], park: bool) -> Result<()> {
        if !held.is_empty() {
            let (shards, ids): (Vec<i16>, Vec<i64>) = held.iter().copied().unzip();
            let query = sqlx::query(self.names.fill(DELETE)).bind(shards).bind(ids);
            timed(self.limit, "delete from the outbox", query.execute(&mut self.connection)).await?;
        }
        if !refused.is_empty() {
            let (shards, ids): (Vec<i16>, Vec<i64>) = refused.iter().map(|r| (r.shard, r.id)).unzip();
            let (kinds, errors): (Vec<_>, Vec<_>) = refused.iter().map(|r| (r.kind.as_str(), escape(&r.error))).unzip();
            let query = sqlx::query(self.names.fill(REFUSE)).bind(shards).bind(ids).bind(kinds).bind(errors).bind(park);
            timed(self.limit, "set refused records aside", query.execute(&mut self.connection)).await?;
        }
        Ok(())
    }

    /// Enables or disables notifications.
    pub(super) async fn sleep(&mut self, asleep: bool) -> Result<()> {
        let query = sqlx::query(self.names.fill(if asleep { SLEEP } else { RISE })).bind(self.relay);
        timed(self.limit, "listen for notifications", query.execute(&mut self.connection)).await.map(drop)
    }

    pub(super) async fn lag(&mut self) -> Result<OutboxLag> {
        timed(self.limit, "measure the outbox's lag", lag(&mut self.connection, &self.names)).await
    }

    /// Ends the session, and with it all its locks.
    pub(super) async fn close(self) {
        let _gone = timeout(self.limit, self.connection.close()).await;
    }
}

/// Bounds a statement by the time a silent server is waited for; afterwards the link is broken.
async fn timed<T>(limit: Duration, doing: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(limit, work).await {
        Ok(answer) => answer.map_err(|e| failed_write(doing, e)),
        Err(_) => Err(Error::new(ErrorKind::Indeterminate, format!("{doing}: no answer in time"))),
    }
}

/// Reads a row of the outbox.
fn fetched(row: &PgRow) -> Result<Fetched> {
    Ok(Fetched {
        id: read(row.try_get("id"))?,
        shard: read(row.try_get("shard"))?,
        lane: read(row.try_get("lane"))?,
        record: record(row)?,
    })
}
