//! Dead letters in a table, with an audit trail.

mod act;
mod bury;
mod close;
mod filter;
mod row;

use std::time::Duration;

use tidings_core::{Name, Result};

pub use self::act::{Act, ActFilter, ActKind};
use crate::PostgresStore;
use crate::retention::Pace;
use crate::wire::escape;

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

impl PostgresStore {
    /// Returns the acts on letters and outbox records that match `filter`, the latest first.
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable).
    pub async fn acts(&self, filter: &ActFilter) -> Result<Vec<Act>> {
        let rows = self.fetch("list acts", filter.select(self.names())).await?;
        rows.iter().map(act::read).collect()
    }

    /// Deletes letters that have been closed for `age` or longer, in small steps, and returns how many. A letter that
    /// is buried again afterwards is a new letter, so `age` should exceed the time a service may rewind. Acts are
    /// kept. The store also purges by itself after [`PostgresConfig::retention`](crate::PostgresConfig::retention).
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable).
    pub async fn purge_closed_letters(&self, age: Duration) -> Result<u64> {
        self.purge_letters(age, None, Pace::Full).await
    }

    /// Deletes acts that are `age` or older, except acts on open letters, in small steps, and returns how many. The
    /// store never does so by itself: its owner decides how long to keep the audit trail.
    ///
    /// # Errors
    /// [`Unavailable`](tidings_core::ErrorKind::Unavailable).
    pub async fn purge_acts(&self, age: Duration) -> Result<u64> {
        let age = milliseconds(age);
        let sql = self.names().fill(PURGE_ACTS);
        let query = |step| sqlx::query(sql.clone()).bind(age).bind(step);
        self.delete_in_steps("purge acts", Pace::Full, query).await
    }
}

pub(crate) fn milliseconds(age: Duration) -> i64 {
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
