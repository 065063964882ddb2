//! Redriving letters to their topics.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{AssertSqlSafe, QueryBuilder, Transaction};
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, Guarantees, Leased, LetterId, LetterLease,
    LetterQuery, Name, Publisher, Resolution, Result, redrive,
};
use tokio::sync::Mutex;

use super::Letters;
use super::close::close;
use super::filter::{LetterFilter, LetterState};
use super::row::{COLUMNS, Ids, get, id, letter, to_column};
use crate::error::{failed, failed_write};
use crate::sql_names::SqlNames;
use crate::wire::escape;

impl RedriveOptions {
    /// Default of [`RedriveOptions::batch`].
    pub const DEFAULT_BATCH: usize = 100;

    /// Maximum number of refusals in a [`RedriveReport`]; a run ends when it is reached.
    pub const MAX_REPORTED_REFUSALS: usize = 1_000;

    /// How long the broker may take to answer for one batch. After that the server releases the batch's letters.
    pub const IDLE_LIMIT: Duration = Duration::from_secs(120);
}

/// Options of a redrive.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedriveOptions {
    /// Reason recorded in the audit trail; may be empty.
    pub reason: String,
    /// Maximum number of letters per second; `None`, the default, means as fast as the broker accepts them.
    pub per_second: Option<u32>,
    /// Number of letters per transaction: [`RedriveOptions::DEFAULT_BATCH`]. A crash repeats at most this many.
    pub batch: usize,
}

impl Default for RedriveOptions {
    fn default() -> Self {
        Self { reason: String::new(), per_second: None, batch: RedriveOptions::DEFAULT_BATCH }
    }
}

impl RedriveOptions {
    /// Sets the reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Limits the number of letters per second.
    #[must_use]
    pub fn with_per_second(mut self, letters: u32) -> Self {
        self.per_second = Some(letters);
        self
    }

    /// Sets the number of letters per transaction.
    #[must_use]
    pub fn with_batch(mut self, letters: usize) -> Self {
        self.batch = letters;
        self
    }
}

/// Result of a redrive.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Letters that were published to their topics again and closed.
    pub redriven: u64,
    /// Letters that the broker refused, and later letters with the same key: they stay open.
    pub refused: Vec<(LetterId, Error)>,
}

/// Stores of one name redrive one batch at a time: otherwise two operators could publish letters of one key
/// concurrently.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";

/// Letters with the numbers `$1`, in ascending order like every statement that locks several. Skips letters that are
/// already closed or leased by another redrive.
const LOCK_LETTERS: &str = "WHERE l.number = ANY ($1) AND l.closed_at IS NULL
    AND (l.leased_until IS NULL OR l.leased_until <= clock_timestamp())
    ORDER BY l.number FOR UPDATE OF l";

const NOTE_FAILED: &str = "
INSERT INTO tidings.acts (act, who, why, service, topic, partition, record_offset)
SELECT 'redrive-failed', $1, f.why, f.service, f.topic, f.partition, f.record_offset
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
    AS f (why, service, topic, partition, record_offset)";

impl Letters {
    /// Publishes the open letters that match `filter` (without its paging) to their topics again, and closes each one
    /// once the broker holds it. Letters of one topic and key are published one at a time, by partition and offset;
    /// if one is refused, the later ones of its key stay open. `by` names the operator.
    ///
    /// A letter is redriven once, even by two concurrent operators; letters leased by core's [`redrive`] are skipped.
    /// If the process crashes, the database fails or the future is dropped between publishing and closing, the batch
    /// stays open; redriving it again publishes repeats with the same event ids.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Indeterminate`](ErrorKind::Indeterminate): the broker or the
    /// database failed, and completed batches stay done; or another operator's batch takes too long.
    pub async fn redrive(
        &self,
        publisher: &dyn Publisher,
        filter: &LetterFilter,
        by: &str,
        options: &RedriveOptions,
    ) -> Result<RedriveReport> {
        let mut filter = filter.clone().with_state(LetterState::Open);
        (filter.after, filter.limit) = (None, None);
        let most = options.per_second.map_or(usize::MAX, |rate| rate.max(1) as usize);
        let mut run = Run { filter, by, reason: &options.reason, behind: None, held: HashSet::new() };
        let mut report = RedriveReport::default();
        loop {
            let started = Instant::now();
            let batch = run.batch(self, publisher, options.batch.clamp(1, most), &mut report).await?;
            if batch == 0 || report.refused.len() >= RedriveOptions::MAX_REPORTED_REFUSALS {
                return Ok(report);
            }
            if let Some(rate) = options.per_second {
                let due = Duration::from_secs_f64(batch as f64 / f64::from(rate.max(1)));
                tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
            }
        }
    }
}

/// One call of [`Letters::redrive`].
struct Run<'a> {
    filter: LetterFilter,
    by: &'a str,
    reason: &'a str,
    /// The last letter seen; each letter is tried once.
    behind: Option<LetterId>,
    /// Keys with a refused letter.
    held: HashSet<(Name, Bytes)>,
}

impl Run<'_> {
    /// Number of letters processed.
    async fn batch(
        &mut self,
        letters: &Letters,
        publisher: &dyn Publisher,
        size: usize,
        report: &mut RedriveReport,
    ) -> Result<usize> {
        let store = &letters.store;
        // A read after waiting for a lock must see what was committed in the meantime.
        let begun = store.pool().begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await;
        let mut transaction = begun.map_err(|e| failed("redrive letters", e))?;
        let Some(Batch { looked_at: count, open }) = self.lock(&mut transaction, store.names(), size).await? else {
            return Ok(0);
        };
        let (behind, open): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|l| key(l).is_some_and(|k| self.held.contains(&k)));
        let within = Within {
            transaction: Mutex::new(transaction),
            names: store.names().clone(),
            reason: self.reason.into(),
            broken: Mutex::default(),
        };
        let answers = redrive(&within, publisher, &open, self.by).await;
        if let Some(error) = within.broken.into_inner() {
            return Err(Error::caused_by(
                ErrorKind::Indeterminate,
                "redrive letters: they are published, and still open",
                error,
            ));
        }
        let mut transaction = within.transaction.into_inner();
        let mut redriven = 0;
        let mut refused: Vec<_> = behind.iter().map(|l| (l.id(), held())).collect();
        let mut down = None;
        for (letter, answer) in open.iter().zip(answers) {
            match answer {
                Ok(()) => redriven += 1,
                Err(error) => {
                    self.held.extend(key(letter));
                    if error.is_infrastructure() && error.to_string() != HELD {
                        down = Some(Error::new(error.kind(), error.report()));
                    }
                    refused.push((letter.id(), error));
                }
            }
        }
        self.note(&mut transaction, store.names(), &refused).await?;
        transaction
            .commit()
            .await
            .map_err(|e| failed_write("redrive letters: they are published, and may be open", e))?;
        report.redriven += redriven;
        report.refused.extend(refused);
        down.map_or(Ok(count), Err)
    }

    /// Locks the next open letters until the transaction ends, so that no other call closes, leases or redrives them;
    /// `None` after the last.
    async fn lock(
        &mut self,
        transaction: &mut Transaction<'static, Postgres>,
        names: &SqlNames,
        size: usize,
    ) -> Result<Option<Batch>> {
        let wrong = |e| failed("redrive letters: another redrive may be under way", e);
        let idle =
            format!("SET LOCAL idle_in_transaction_session_timeout = {}", RedriveOptions::IDLE_LIMIT.as_millis());
        sqlx::query(AssertSqlSafe(idle)).execute(&mut **transaction).await.map_err(wrong)?;
        let lock = sqlx::query(names.fill(LOCK)).bind(format!("{}.redrive", names.full("letters")));
        lock.execute(&mut **transaction).await.map_err(wrong)?;
        let found: Vec<PgRow> = self.next(names, size).build().fetch_all(&mut **transaction).await.map_err(wrong)?;
        let Some(last) = found.last() else { return Ok(None) };
        self.behind = Some(id(last)?);
        let numbers: Vec<i64> = found.iter().map(|row| get(row, "number")).collect::<Result<_>>()?;
        let query = format!("SELECT {COLUMNS} FROM tidings.letters l {LOCK_LETTERS}");
        let rows = sqlx::query(names.fill(&query)).bind(&numbers).fetch_all(&mut **transaction).await.map_err(wrong)?;
        let letters: Result<Vec<_>> = rows.iter().map(|row| letter(row).map(|letter| letter.letter)).collect();
        let mut open = letters?;
        open.sort_by_cached_key(DeadLetter::id);
        Ok(Some(Batch { looked_at: numbers.len(), open }))
    }

    /// Builds the query of the next letters, by service, topic, partition and offset.
    fn next(&self, names: &SqlNames, size: usize) -> QueryBuilder<Postgres> {
        let columns = "l.number, l.service, l.topic, l.partition, l.record_offset";
        let mut sql = self.filter.select(names, columns, "", false);
        if let Some(last) = &self.behind {
            sql.push(" AND (l.service, l.topic, l.partition, l.record_offset) > (").push_bind(escape(&last.service));
            sql.push(", ").push_bind(escape(&last.origin.topic)).push(", ").push_bind(i64::from(last.origin.partition));
            sql.push(", ").push_bind(to_column(last.offset)).push(")");
        }
        sql.push(" ORDER BY l.service, l.topic, l.partition, l.record_offset LIMIT ");
        sql.push_bind(i64::try_from(size).unwrap_or(i64::MAX));
        sql
    }

    async fn note(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
        names: &SqlNames,
        refused: &[(LetterId, Error)],
    ) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let ids: Ids = refused.iter().map(|(id, _)| id).collect();
        let why: Vec<String> = refused.iter().map(|(_, error)| escape(&error.report())).collect();
        let query = sqlx::query(names.fill(NOTE_FAILED)).bind(escape(self.by)).bind(why);
        let query = query.bind(ids.services).bind(ids.topics).bind(ids.partitions).bind(ids.offsets);
        let done = query.execute(&mut **transaction).await;
        done.map(drop).map_err(|e| failed_write("redrive letters: note which were refused", e))
    }
}

/// Letters of one transaction.
struct Batch {
    looked_at: usize,
    open: Vec<DeadLetter>,
}

/// Same text as core's `redrive` for a letter after a failed one of its key.
const HELD: &str = "redrive: an earlier letter of its key failed";

fn held() -> Error {
    Error::new(ErrorKind::Unavailable, HELD)
}

fn key(letter: &DeadLetter) -> Option<(Name, Bytes)> {
    letter.record.key.clone().map(|key| (letter.origin.topic.clone(), key))
}

/// The store within the transaction that locked the letters: letters closed by core's `redrive` commit with it.
#[derive(Debug)]
struct Within {
    transaction: Mutex<Transaction<'static, Postgres>>,
    names: SqlNames,
    reason: String,
    /// Why letters could not be closed; the whole transaction is rolled back.
    broken: Mutex<Option<sqlx::Error>>,
}

#[async_trait]
impl DeadLetterSink for Within {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        letters.iter().map(|_| Err(unsupported())).collect()
    }

    async fn check(&self, _: &[Name]) -> Result<()> {
        Err(unsupported())
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::all()
    }
}

#[async_trait]
impl DeadLetterStore for Within {
    async fn list(&self, _: &LetterQuery) -> Result<Vec<DeadLetter>> {
        Err(unsupported())
    }

    /// Row locks make the letters this redrive's until its transaction ends.
    async fn lease(&self, letters: &[LetterId], _: &LetterLease) -> Result<Vec<Leased>> {
        match &*self.broken.lock().await {
            None => Ok(vec![Leased::Granted; letters.len()]),
            Some(_) => Err(Error::new(ErrorKind::Unavailable, "the transaction of the redrive is broken")),
        }
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        let mut transaction = self.transaction.lock().await;
        // Locked letters have no lease.
        let closed = close(&mut transaction, &self.names, letters, None, resolution, &self.reason).await;
        match closed {
            Ok(closed) => Ok(closed),
            Err(error) => {
                let answer = Error::new(ErrorKind::Unavailable, "close letters");
                *self.broken.lock().await = Some(error);
                Err(answer)
            }
        }
    }
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "a transaction of a redrive only closes letters")
}
