//! Audit records in a table that is only ever added to.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tidings_core::audit::{AuditHash, AuditPage, AuditPosition, AuditSink, StoredAudit};
use tidings_core::{Error, ErrorKind, Guarantees, Result, async_trait};

use crate::PostgresStore;
use crate::dead_letters::milliseconds;
use crate::error::failed;
use crate::retention::Pace;
use crate::wire::{escape, unescape};

const APPEND: &str = "SELECT tidings.append_audit($1, $2, $3, $4, $5)";
const READ: &str = "SELECT number, chain, seq, prev, hash, body FROM tidings.audit
    WHERE number > $1 ORDER BY number LIMIT $2";
/// Steps of a purge are short, so that they do not block appends.
const PURGE: &str = "
DELETE FROM tidings.audit WHERE number IN (
    SELECT number FROM tidings.audit
    WHERE stored_at < clock_timestamp() - $1::bigint * interval '1 millisecond'
    ORDER BY number LIMIT $2
)";

/// The most records of one statement.
const BATCH: usize = 500;
/// The most records of a page.
const PAGE: usize = 1_000;
/// The longest name of a chain, in bytes as stored: an index entry takes 2,704.
const MAX_CHAIN: usize = 1 << 10;

#[async_trait]
impl AuditSink for PostgresStore {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(records.len());
        for batch in records.chunks(BATCH) {
            // After a batch that failed, the later ones would leave a hole in their chains.
            let answered =
                if answers.iter().all(Result::is_ok) { self.append_batch(batch).await } else { Err(not_tried()) };
            match answered {
                Ok(answered) => answers.extend(answered),
                Err(error) => {
                    let error = Arc::new(error);
                    let each = |_| Err(Error::caused_by(error.kind(), "append an audit record", Arc::clone(&error)));
                    answers.extend(batch.iter().map(each));
                }
            }
        }
        answers
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        let unknown = |_| Error::new(ErrorKind::Undecodable, "read audit records: the position is of another sink");
        let after = after.map_or(Ok(0), |after| after.as_str().parse::<i64>().map_err(unknown))?;
        let limit = i64::try_from(limit.min(PAGE)).unwrap_or(i64::MAX);
        let doing = "read audit records";
        let query = sqlx::query(self.names().fill(READ)).bind(after).bind(limit);
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.fetch_all(&mut *connection)).await;
        let rows = self.judge(doing, &mut connection, work)?;
        let last = rows.last().map(|row| row.try_get("number").map_err(|e| failed(doing, e))).transpose()?;
        let records = rows.iter().map(stored).collect::<Result<_>>()?;
        Ok(AuditPage::new(records, AuditPosition::new(last.unwrap_or(after).to_string())))
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all().with_shared(true)
    }
}

impl PostgresStore {
    /// Deletes audit records that were stored `age` ago or earlier, the oldest first, in small steps, and returns how
    /// many. The store never does so by itself: its owner decides how long to keep the trail.
    ///
    /// What is left of a chain is verified from its oldest checkpoint.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn purge_audit(&self, age: Duration) -> Result<u64> {
        let (age, sql) = (milliseconds(age), self.names().fill(PURGE));
        let query = |step| sqlx::query(sql.clone()).bind(age).bind(step);
        self.delete_in_steps("purge audit records", Pace::Full, query).await
    }

    async fn append_batch(&self, records: &[StoredAudit]) -> Result<Vec<Result<()>>> {
        let doing = "append audit records";
        let chains: Vec<_> = records.iter().map(|record| escape(&record.chain)).collect();
        if chains.iter().any(|chain| chain.len() > MAX_CHAIN) {
            return Err(Error::new(ErrorKind::TooLarge, format!("{doing}: the name of a chain is too long")));
        }
        let seqs: Vec<_> = records.iter().map(|record| record.seq.cast_signed()).collect();
        let bytes = |of: fn(&StoredAudit) -> &[u8]| records.iter().map(of).collect::<Vec<_>>();
        let query = sqlx::query_scalar::<_, Vec<i16>>(self.names().fill(APPEND)).bind(chains).bind(seqs);
        let query = query.bind(bytes(|record| record.prev.as_bytes())).bind(bytes(|record| record.hash.as_bytes()));
        let query = query.bind(bytes(|record| &record.bytes));
        let mut connection = self.acquire(doing).await?;
        let work = self.bounded(query.fetch_one(&mut *connection)).await;
        let codes = self.judge(doing, &mut connection, work)?;
        let answer = |(code, record): (i16, &StoredAudit)| match code {
            0 => Ok(()),
            1 => Err(taken(record)),
            _ => Err(not_tried()),
        };
        Ok(codes.into_iter().zip(records).map(answer).collect())
    }
}

fn taken(record: &StoredAudit) -> Error {
    let text = format!("append the audit record {}@{}: another one has its number", record.chain, record.seq);
    Error::new(ErrorKind::Conflict, text)
}

fn not_tried() -> Error {
    Error::new(ErrorKind::Unavailable, "append: an earlier audit record is not stored")
}

fn stored(row: &PgRow) -> Result<StoredAudit> {
    let doing = "read audit records";
    let hash = |column: &str| {
        let bytes: &[u8] = row.try_get(column).map_err(|e| failed(doing, e))?;
        let damaged = |_| Error::new(ErrorKind::Corrupt, format!("{doing}: a hash in the column {column} is damaged"));
        bytes.try_into().map(AuditHash::new).map_err(damaged)
    };
    let chain: &str = row.try_get("chain").map_err(|e| failed(doing, e))?;
    let seq: i64 = row.try_get("seq").map_err(|e| failed(doing, e))?;
    let body: Vec<u8> = row.try_get("body").map_err(|e| failed(doing, e))?;
    Ok(StoredAudit::new(unescape(chain), seq.cast_unsigned(), hash("prev")?, hash("hash")?, body))
}
