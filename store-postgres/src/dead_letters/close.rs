//! Leasing and closing letters. Every statement that locks several letters does so in ascending order of their
//! numbers to avoid deadlocks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::PgRow;
use tidings_core::{Leased, LetterId, LetterLease, Resolution, Result};

use super::row::{Ids, get, id};
use crate::PostgresStore;
use crate::idempotency::microseconds;
use crate::wire::escape;

/// Builds a statement that locks the open or parked letters among `$1` to `$4` that meet a condition, each once and in
/// ascending order of their numbers, and goes on with them as `locked`.
macro_rules! with_locked {
    ($condition:literal, $statement:literal) => {
        concat!(
            "
WITH locked AS MATERIALIZED (
    SELECT l.number
    FROM tidings.letters l JOIN (
        SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
    ) AS asked (service, topic, partition, record_offset) USING (service, topic, partition, record_offset)
    WHERE l.closed_at IS NULL AND ",
            $condition,
            "
    ORDER BY l.number FOR UPDATE OF l
)",
            $statement
        )
    };
}

/// Closes open letters of the lease `$8`, or letters without a lease, and records the act.
const RESOLVE: &str = with_locked!(
    "CASE
        WHEN $8::uuid IS NULL THEN l.leased_until IS NULL OR l.leased_until <= clock_timestamp()
        ELSE l.leased_by = $8::uuid
    END",
    ", closed AS (
    UPDATE tidings.letters l
    SET closed_at = clock_timestamp(), closed_how = $5, leased_by = NULL, leased_until = NULL
    FROM locked WHERE l.number = locked.number
    RETURNING l.service, l.topic, l.partition, l.record_offset
), noted AS (
    INSERT INTO tidings.acts (act, who, why, service, topic, partition, record_offset)
    SELECT $5, $6, $7, c.service, c.topic, c.partition, c.record_offset FROM closed c
)
SELECT service, topic, partition, record_offset FROM closed"
);

/// Parks letters that are open and not leased, and records the act.
const PARK: &str = with_locked!(
    "l.parked_at IS NULL AND (l.leased_until IS NULL OR l.leased_until <= clock_timestamp())",
    ", parked AS (
    UPDATE tidings.letters l SET parked_at = clock_timestamp()
    FROM locked WHERE l.number = locked.number
    RETURNING l.service, l.topic, l.partition, l.record_offset
), noted AS (
    INSERT INTO tidings.acts (act, who, why, service, topic, partition, record_offset)
    SELECT 'parked', $5, $6, p.service, p.topic, p.partition, p.record_offset FROM parked p
)
SELECT service, topic, partition, record_offset FROM parked"
);

const NOTE_REFUSED: &str = "
INSERT INTO tidings.acts (act, who, why, service, topic, partition, record_offset)
SELECT 'redrive-failed', $1, f.why, f.service, f.topic, f.partition, f.record_offset
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
    AS f (why, service, topic, partition, record_offset)";

/// Leases open letters and returns the state of each requested letter. A locked letter is in use: it is reported as
/// held without waiting.
const LEASE: &str = "
WITH asked AS MATERIALIZED (
    SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
        AS u (service, topic, partition, record_offset)
), locked AS MATERIALIZED (
    SELECT l.number FROM tidings.letters l JOIN asked USING (service, topic, partition, record_offset)
    WHERE l.closed_at IS NULL
    AND (l.leased_until IS NULL OR l.leased_by = $5 OR l.leased_until <= clock_timestamp())
    ORDER BY l.number FOR UPDATE OF l SKIP LOCKED
), leased AS (
    UPDATE tidings.letters l
    SET leased_by = $5, leased_until = clock_timestamp() + $6::bigint * interval '1 microsecond'
    FROM locked WHERE l.number = locked.number
    RETURNING l.number
)
SELECT l.service, l.topic, l.partition, l.record_offset, l.closed_at IS NOT NULL AS closed,
    EXISTS (SELECT FROM leased WHERE leased.number = l.number) AS granted,
    coalesce(greatest(0, extract(epoch FROM l.leased_until - clock_timestamp()) * 1000000), 0)::bigint AS at_most
FROM tidings.letters l JOIN asked USING (service, topic, partition, record_offset)";

const END_LEASE: &str = with_locked!(
    "l.leased_by = $5",
    "
UPDATE tidings.letters l SET leased_by = NULL, leased_until = NULL FROM locked WHERE l.number = locked.number"
);

impl PostgresStore {
    pub(super) async fn resolve_letters(
        &self,
        letters: &[LetterId],
        lease: Option<&LetterLease>,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Ids = letters.iter().collect();
        let (by, why) = (escape(&resolution.by), escape(&resolution.reason));
        let sql = if resolution.kind.closes() { RESOLVE } else { PARK };
        let query = sqlx::query(self.names().fill(sql)).bind(ids.services).bind(ids.topics).bind(ids.partitions);
        let query = query.bind(ids.offsets);
        let query = if resolution.kind.closes() {
            query.bind(resolution.kind.as_str()).bind(by).bind(why).bind(lease.map(|lease| lease.id))
        } else {
            query.bind(by).bind(why)
        };
        let doing = "close letters";
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.fetch_all(&mut *connection)).await;
        let rows = self.judge(doing, &mut connection, work)?;
        let mut closed = rows.iter().map(id).collect::<Result<HashSet<LetterId>>>()?;
        // A duplicate in one call is closed once.
        Ok(letters.iter().map(|letter| closed.remove(letter)).collect())
    }

    pub(super) async fn note_refused_letters(&self, refused: &[(LetterId, String)], by: &str) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let ids: Ids = refused.iter().map(|(id, _)| id).collect();
        let why: Vec<String> = refused.iter().map(|(_, why)| escape(why)).collect();
        let query = sqlx::query(self.names().fill(NOTE_REFUSED)).bind(escape(by)).bind(why);
        let query = query.bind(ids.services).bind(ids.topics).bind(ids.partitions).bind(ids.offsets);
        let doing = "note which letters were refused";
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.execute(&mut *connection)).await;
        self.judge(doing, &mut connection, work).map(drop)
    }

    pub(super) async fn lease_letters(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let doing = "lease letters";
        let ids: Ids = letters.iter().collect();
        let query = sqlx::query(self.names().fill(LEASE)).bind(ids.services).bind(ids.topics).bind(ids.partitions);
        let query = query.bind(ids.offsets).bind(lease.id).bind(microseconds(lease.ttl.min(LetterLease::MAX_TTL)));
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.fetch_all(&mut *connection)).await;
        let rows = self.judge(doing, &mut connection, work)?;
        let found: HashMap<LetterId, Leased> = rows.iter().map(leased).collect::<Result<_>>()?;
        Ok(letters.iter().map(|id| found.get(id).copied().unwrap_or(Leased::Closed)).collect())
    }

    pub(super) async fn end_lease_of_letters(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let doing = "end a lease of letters";
        let ids: Ids = letters.iter().collect();
        let query = sqlx::query(self.names().fill(END_LEASE)).bind(ids.services).bind(ids.topics).bind(ids.partitions);
        let query = query.bind(ids.offsets).bind(lease.id);
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.execute(&mut *connection)).await;
        self.judge(doing, &mut connection, work).map(drop)
    }
}

fn leased(row: &PgRow) -> Result<(LetterId, Leased)> {
    let at_most: i64 = get(row, "at_most")?;
    let answer = match (get(row, "granted")?, get(row, "closed")?) {
        (true, _) => Leased::Granted,
        (false, true) => Leased::Closed,
        (false, false) => Leased::Held { at_most: Duration::from_micros(at_most.max(0).cast_unsigned()) },
    };
    Ok((id(row)?, answer))
}
