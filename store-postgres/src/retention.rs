//! Background retention of done events with their remaining claims, and of closed letters.
//!
//! One task per store deletes old rows in small transactions, with pauses, so that it never
//! competes with claims. Any number of instances may do so at once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use tidings_core::{Error, Name, Result};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::store::{Inner, PostgresStore};

/// Maximum interval between purges; a fraction of the retention if that is shorter.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3_600);
/// Lower bound, for retentions of seconds.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// Fraction of the retention between two purges.
const PARTS: u32 = 7;
/// Delay of the first purge, early for the sake of short-lived processes.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// Maximum number of names remembered; rows of further names are purged by other instances, or by an operator.
const MOST_NAMES: usize = 10_000;

/// Pace of a purge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// One step after the other: the caller waits for it.
    Full,
    /// Pauses after each step for as long as the step took.
    Half,
}

impl Pace {
    /// Pauses after a step that took `worked`.
    pub(crate) async fn rest(self, worked: Duration) {
        if matches!(self, Self::Half) {
            sleep(worked).await;
        }
    }
}

/// Scopes and services whose rows this process has written. Other processes purge theirs after their own retention.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Scopes for which this process has registered a lease.
    scopes: Mutex<BTreeSet<Name>>,
    /// Services for which it has buried letters.
    services: Mutex<BTreeSet<Name>>,
}

impl Known {
    pub(crate) fn add_scope(&self, scope: &Name) {
        add(&self.scopes, scope);
    }

    pub(crate) fn add_service(&self, service: &Name) {
        add(&self.services, service);
    }

    fn scopes(&self) -> Vec<Name> {
        lock(&self.scopes).iter().cloned().collect()
    }

    /// Returns the services, including scopes: a scope is a service's name by default.
    fn services(&self) -> Vec<Name> {
        lock(&self.services).union(&lock(&self.scopes)).cloned().collect()
    }
}

fn lock(names: &Mutex<BTreeSet<Name>>) -> MutexGuard<'_, BTreeSet<Name>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a name, up to a bound.
fn add(names: &Mutex<BTreeSet<Name>>, name: &Name) {
    let mut names = lock(names);
    if names.len() < MOST_NAMES && !names.contains(name) {
        names.insert(name.clone());
    }
}

/// Ends the task when the last clone of its store is dropped.
#[derive(Debug)]
pub(crate) struct Keeper(AbortHandle);

impl Keeper {
    pub(crate) fn start(store: Weak<Inner>, retention: Duration) -> Self {
        Self(tokio::spawn(keep(store, retention)).abort_handle())
    }

    pub(crate) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// It holds the store only while it works: a store that nothing else uses ends.
async fn keep(store: Weak<Inner>, retention: Duration) {
    let interval = (retention / PARTS).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
    let mut wait = interval.min(FIRST_LOOK);
    loop {
        // Jitter, so that instances started together do not purge together.
        sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        wait = interval;
        let Some(store) = store.upgrade().map(PostgresStore::from_inner) else { return };
        if store.pool().is_closed() {
            return;
        }
        match store.forget_old(retention).await {
            Ok((0, 0)) => {}
            Ok((events, letters)) => {
                tracing::debug!(events, letters, "deleted done events and closed letters past their retention")
            }
            Err(error) => tracing::warn!(
                error = error.report(),
                again_in = ?interval,
                "cannot delete done events and closed letters past their retention; the attempt is repeated"
            ),
        }
    }
}

impl PostgresStore {
    /// Runs a statement that deletes at most a given number of rows, each time in a separate transaction, until no
    /// rows are left.
    ///
    /// A step that deletes fewer rows than it may is the last.
    ///
    /// # Cancel safety
    /// Safe: completed steps stay done.
    pub(crate) async fn delete_in_steps<'q>(
        &self,
        doing: &str,
        pace: Pace,
        query: impl Fn(i64) -> Query<'q, Postgres, PgArguments>,
    ) -> Result<u64> {
        let step = i64::from(self.config().purge_batch);
        let mut deleted = 0;
        loop {
            let started = Instant::now();
            let mut connection = self.acquire(doing).await?;
            let answered = self.bounded(query(step).execute(&mut *connection)).await;
            let rows = self.judge(doing, &mut connection, answered)?.rows_affected();
            // The connection is free for other calls during the pause.
            drop(connection);
            deleted += rows;
            if rows < step.unsigned_abs() {
                return Ok(deleted);
            }
            pace.rest(started.elapsed()).await;
        }
    }

    /// Deletes rows older than `retention`. Several instances may do so concurrently: each skips rows that another is
    /// deleting. Returns how many events and letters were deleted.
    async fn forget_old(&self, retention: Duration) -> Result<(u64, u64)> {
        // Rows carry the server's time, so only one clock is involved.
        let before = self.server_time().await?.saturating_sub(retention);
        let (mut events, mut failed) = (0, Vec::new());
        for scope in self.known().scopes() {
            // Rows of one scope that cannot be deleted keep neither other scopes nor letters.
            match self.purge_scope(&scope, before, Pace::Half).await {
                Ok(purged) => events += purged,
                Err(error) => failed.push((scope, error)),
            }
        }
        let letters = self.purge_letters(retention, Some(&self.known().services()), Pace::Half).await?;
        let more = failed.len().saturating_sub(1);
        match failed.into_iter().next() {
            None => Ok((events, letters)),
            Some((scope, error)) => {
                let what = format!("purge the scope {scope}; {more} more scopes failed, all others are purged");
                Err(Error::caused_by(error.kind(), what, error))
            }
        }
    }
}
