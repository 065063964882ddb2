//! Dead letters in a table: searching, redriving and discarding them, with an audit trail.

mod act;
mod bury;
mod close;
mod filter;
mod redrive;
mod row;

use std::time::Duration;

use tidings_core::{Error, ErrorKind, LetterId, Name, Result};

pub use self::act::{Act, ActFilter, ActKind};
pub use self::filter::{LetterFilter, LetterState};
pub use self::redrive::{RedriveOptions, RedriveReport};
pub use self::row::{Closed, Letter};
use crate::PostgresStore;
use crate::retention::Pace;
use crate::wire::escape;

/// Operations on the dead letters of a [`PostgresStore`], returned by [`PostgresStore::letters`].
///
/// Each change names its operator and writes an [`Act`] in the same transaction.
#[derive(Debug, Clone)]
pub struct Letters {
    store: PostgresStore,
}

/// Closes the letters with these numbers and records the acts. Letters are locked in ascending order, as everywhere.
const DISCARD: &str = "
WITH locked AS MATERIALIZED (
    SELECT l.number FROM tidings.letters l WHERE l.number = ANY ($1) AND l.closed_at IS NULL
    AND (l.leased_until IS NULL OR l.leased_until <= clock_timestamp())
    ORDER BY l.number FOR UPDATE
), closed AS (
    UPDATE tidings.letters l SET closed_at = clock_timestamp(), closed_how = 'discarded'
    FROM locked WHERE l.number = locked.number
    RETURNING l.service, l.topic, l.partition, l.record_offset
), noted AS (
    INSERT INTO tidings.acts (act, who, why, service, topic, partition, record_offset)
    SELECT 'discarded', $2, $3, c.service, c.topic, c.partition, c.record_offset FROM closed c
    RETURNING id
)
SELECT count(*) FROM noted";

/// Steps of a purge are short, so that they do not block other calls.
const PURGE: &str = "
DELETE FROM tidings.letters WHERE number IN (
    SELECT number FROM tidings.letters
    WHERE closed_at < clock_timestamp() - $1::bigint * interval '1 millisecond'
    AND ($3::text[] IS NULL OR service = ANY ($3))
    ORDER BY closed_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)";

/// Acts on open letters are kept regardless of their age.
const PURGE_ACTS: &str = "
DELETE FROM tidings.acts WHERE id IN (
    SELECT a.id FROM tidings.acts a
    WHERE a.acted_at < clock_timestamp() - $1::bigint * interval '1 millisecond'
    AND NOT EXISTS (
        SELECT FROM tidings.letters l
        WHERE l.service = a.service AND l.topic = a.topic AND l.partition = a.partition
        AND l.record_offset = a.record_offset AND l.closed_at IS NULL
    )
    ORDER BY a.id LIMIT $2
    FOR UPDATE OF a SKIP LOCKED
)";

/// Upper limit of an age, because the server's dates are limited.
const OLDEST: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Number of letters that one step of [`Letters::discard`] closes.
const DISCARD_STEP: usize = 500;

impl PostgresStore {
    /// Returns the operations on the store's dead letters.
    pub fn letters(&self) -> Letters {
        Letters { store: self.clone() }
    }
}

impl Letters {
    /// Returns a page of the letters that match `filter`, in the order of burying.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn find(&self, filter: &LetterFilter) -> Result<Vec<Letter>> {
        let rows = filter.select(self.store.names(), row::COLUMNS, " ORDER BY l.number", true);
        let rows = self.store.fetch("list letters", rows).await?;
        rows.iter().map(row::letter).collect()
    }

    /// Returns the number of letters that match `filter`, without its paging.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn count(&self, filter: &LetterFilter) -> Result<u64> {
        let query = filter.select(self.store.names(), "count(*)", "", false);
        let rows = self.store.fetch("count letters", query).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row::get(row, 0))?;
        Ok(count.unsigned_abs())
    }

    /// Returns a letter, open or closed; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn show(&self, id: &LetterId) -> Result<Option<Letter>> {
        let filter = LetterFilter::default().with_ids([id.clone()]).with_state(LetterState::Any);
        Ok(self.find(&filter).await?.pop())
    }

    /// Discards all letters that match `filter` (without its paging) and returns how many it closed. Letters leased
    /// by a redrive stay open. It works in steps: a dropped or failed call may have closed some letters.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): no reason is given. [`Unavailable`](ErrorKind::Unavailable).
    pub async fn discard(&self, filter: &LetterFilter, by: &str, reason: &str) -> Result<u64> {
        if reason.trim().is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "discard letters: a reason must be given"));
        }
        let mut filter = filter.clone().with_state(LetterState::Open);
        (filter.after, filter.limit) = (None, Some(DISCARD_STEP));
        let mut discarded = 0;
        loop {
            let query = filter.select(self.store.names(), "l.number", " ORDER BY l.number", true);
            let rows = self.store.fetch("discard letters: find them", query).await?;
            let numbers: Vec<i64> = rows.iter().map(|row| row::get(row, 0)).collect::<Result<_>>()?;
            let Some(last) = numbers.last().copied() else { return Ok(discarded) };
            let query = sqlx::query_scalar(self.store.names().fill(DISCARD));
            let query = query.bind(numbers).bind(escape(by)).bind(escape(reason));
            let mut connection = self.store.acquire("discard letters").await?;
            let work = self.store.bounded(query.fetch_one(&mut *connection)).await;
            let closed: i64 = self.store.judge("discard letters", &mut connection, work)?;
            discarded += closed.unsigned_abs();
            filter.behind = Some(last);
        }
    }

    /// Returns the acts on letters and outbox records that match `filter`, the latest first.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>> {
        let rows = self.store.fetch("list acts", filter.select(self.store.names())).await?;
        rows.iter().map(act::read).collect()
    }

    /// Deletes letters that have been closed for `age` or longer, in small steps, and returns how many. A letter that
    /// is buried again afterwards is a new letter, so `age` should exceed the time a service may rewind. Acts are
    /// kept. The store also purges by itself after [`PostgresConfig::retention`](crate::PostgresConfig::retention).
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn purge(&self, age: Duration) -> Result<u64> {
        self.store.purge_letters(age, None, Pace::Full).await
    }

    /// Deletes acts that are `age` or older, except acts on open letters, in small steps, and returns how many. The
    /// store never does so by itself: its owner decides how long to keep the audit trail.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn purge_acts(&self, age: Duration) -> Result<u64> {
        let age = milliseconds(age);
        let sql = self.store.names().fill(PURGE_ACTS);
        let query = |step| sqlx::query(sql.clone()).bind(age).bind(step);
        self.store.delete_in_steps("purge acts", Pace::Full, query).await
    }
}

fn milliseconds(age: Duration) -> i64 {
    i64::try_from(age.min(OLDEST).as_millis()).unwrap_or(i64::MAX)
}

impl PostgresStore {
    /// Deletes closed letters of these services, or of all.
    pub(crate) async fn purge_letters(&self, age: Duration, services: Option<&[Name]>, pace: Pace) -> Result<u64> {
        let age = milliseconds(age);
        let services: Option<Vec<String>> = services.map(|names| names.iter().map(|name| escape(name)).collect());
        let sql = self.names().fill(PURGE);
        let query = |step| sqlx::query(sql.clone()).bind(age).bind(step).bind(services.clone());
        self.delete_in_steps("purge letters", pace, query).await
    }
}
