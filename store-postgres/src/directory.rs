//! The directory of running instances in a table.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tidings_core::directory::{Directory, DirectoryEntry};
use tidings_core::{Name, Result, StoredRecord, Timestamp, async_trait};

use crate::PostgresStore;
use crate::error::failed;
use crate::idempotency::microseconds;
use crate::wire::{escape, headers_from_bytes, headers_to_bytes};

/// Writes an entry, and deletes entries that expired a day ago: of instances that ended without removing theirs.
const PUT: &str = "
WITH forgotten AS (
    DELETE FROM tidings.directory WHERE (service, instance) IN (
        SELECT service, instance FROM tidings.directory
        WHERE valid_until < clock_timestamp() - interval '1 day' AND (service, instance) <> ($1, $2)
        LIMIT 100 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO tidings.directory AS d (service, instance, valid_until, state, headers)
VALUES ($1, $2, clock_timestamp() + $3::bigint * interval '1 microsecond', $4, $5)
ON CONFLICT (service, instance) DO UPDATE
SET valid_until = excluded.valid_until, state = excluded.state, headers = excluded.headers";

const REMOVE: &str = "DELETE FROM tidings.directory WHERE service = $1 AND instance = $2";
/// An instance's clock may differ from the reader's: the server's says how long an entry is still valid.
const ENTRIES: &str = "
SELECT state, headers, (extract(epoch FROM valid_until - clock_timestamp()) * 1000)::bigint AS left_ms
FROM tidings.directory ORDER BY service, instance LIMIT 100000";

#[async_trait]
impl Directory for PostgresStore {
    async fn put(&self, entry: &DirectoryEntry) -> Result<()> {
        let record = entry.to_record(Name::default());
        let query = sqlx::query(self.names().fill(PUT)).bind(escape(&entry.service)).bind(escape(&entry.instance));
        let query = query.bind(microseconds(entry.ttl)).bind(escape(&entry.state));
        let query = query.bind(headers_to_bytes(&record.headers));
        let doing = "write a directory entry";
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.execute(&mut *connection)).await;
        self.judge(doing, &mut connection, work).map(drop)
    }

    async fn remove(&self, service: &Name, instance: &str) -> Result<()> {
        let query = sqlx::query(self.names().fill(REMOVE)).bind(escape(service)).bind(escape(instance));
        let doing = "remove a directory entry";
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.execute(&mut *connection)).await;
        self.judge(doing, &mut connection, work).map(drop)
    }

    /// The times of refreshing are those by which an entry expires when it does on the server's clock.
    async fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        let doing = "read the directory";
        let query = sqlx::query(self.names().fill(ENTRIES));
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.fetch_all(&mut *connection)).await;
        let rows = self.judge(doing, &mut connection, work)?;
        let now = Timestamp::now();
        rows.iter().map(|row| entry(row, now)).collect()
    }
}

fn entry(row: &PgRow, now: Timestamp) -> Result<DirectoryEntry> {
    let doing = "read the directory";
    let state: String = row.try_get("state").map_err(|e| failed(doing, e))?;
    let headers: Vec<u8> = row.try_get("headers").map_err(|e| failed(doing, e))?;
    let left: i64 = row.try_get("left_ms").map_err(|e| failed(doing, e))?;
    let record = StoredRecord::new(0, now).with_value(crate::wire::unescape(&state));
    let mut entry = DirectoryEntry::from_record(&record.with_headers(headers_from_bytes(headers)?))?;
    let until = now.millis().saturating_add(left);
    entry.refreshed = Timestamp::from_millis(until).saturating_sub(entry.ttl);
    Ok(entry)
}
