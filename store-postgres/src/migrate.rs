//! Migrations of the tables, in numbered steps.
//!
//! A migration's text never changes once it was released, and each is recorded, so that any number
//! of instances and versions agree on the state of the tables. A program refuses tables that a
//! newer one has migrated: it does not know what they mean.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tidings_core::{Error, ErrorKind, Result};

use crate::error::failed;
use crate::sql_names::{Done, SqlNames};

/// A migration. Once released, its text never changes; changes come with a later number.
#[derive(Debug, Clone, Copy)]
struct Migration {
    /// Stored in the table of migrations; gaps leave room for steps of other parts.
    number: i32,
    name: &'static str,
    /// Statements with our placeholders for names.
    sql: &'static str,
}

/// All migrations, by number. Each is run once, in this order, even if a later one was applied before.
const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "idempotency", sql: include_str!("../migrations/0001_idempotency.sql") },
    Migration { number: 2, name: "functions", sql: FUNCTIONS },
    Migration { number: 3, name: "release", sql: include_str!("../migrations/0003_release.sql") },
    Migration { number: 10, name: "letters", sql: include_str!("../migrations/0010_letters.sql") },
    Migration { number: 11, name: "outbox", sql: include_str!("../migrations/0011_outbox.sql") },
    Migration { number: 12, name: "leases", sql: include_str!("../migrations/0012_leases.sql") },
    Migration { number: 13, name: "parked_letters", sql: include_str!("../migrations/0013_parked_letters.sql") },
    Migration { number: 20, name: "audit", sql: include_str!("../migrations/0020_audit.sql") },
    Migration { number: 21, name: "directory", sql: include_str!("../migrations/0021_directory.sql") },
    Migration { number: 22, name: "delayed_events", sql: include_str!("../migrations/0022_delayed_events.sql") },
];

/// Functions that read and write done events; created once per table of done events.
pub(crate) const FUNCTIONS: &str = include_str!("../migrations/0002_functions.sql");

const SCHEMA_EXISTS: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
const TABLE_EXISTS: &str = "SELECT to_regclass($1) IS NOT NULL";
/// The table of applied migrations.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS tidings.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";
const APPLIED: &str = "SELECT number FROM tidings.migrations ORDER BY number";
const RECORD: &str = "INSERT INTO tidings.migrations (number, name) VALUES ($1, $2)";
/// Advisory lock held to the end of the transaction. Stores with different names do not wait for one another.
pub(crate) const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";

/// Migrates the tables to this version, or checks that they are up to date.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict): a newer version has migrated the tables. [`NotFound`](ErrorKind::NotFound):
/// something is missing and `run` is not set. [`Denied`](ErrorKind::Denied): the user may not create it.
pub(crate) async fn migrate(connection: &mut PgConnection, names: &SqlNames, run: bool, limit: Duration) -> Result<()> {
    // Usually nothing is missing, and then no lock is needed.
    let missing = missing(applied(connection, names).await?)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !run {
        let list: Vec<_> = missing.iter().map(|step| format!("{:04}_{}", step.number, step.name)).collect();
        let what = format!("migrations are missing in the schema {:?}: {}", names.schema(), list.join(", "));
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    let migrated = tokio::time::timeout(limit, run_missing(connection, names, limit));
    migrated.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "migrate: no answer in time")))
}

/// Returns the numbers of the applied migrations.
async fn applied(connection: &mut PgConnection, names: &SqlNames) -> Result<Vec<i32>> {
    let doing = "read which migrations were run";
    let exists = sqlx::query_scalar(TABLE_EXISTS).bind(names.full("migrations"));
    if !exists.fetch_one(&mut *connection).await.map_err(|e| failed(doing, e))? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(names.fill(APPLIED)).fetch_all(connection).await.map_err(|e| failed(doing, e))?;
    rows.iter().map(|row| row.try_get(0).map_err(|e| failed(doing, e))).collect()
}

/// # Errors
/// [`Conflict`](ErrorKind::Conflict) if a number is higher than all that this program knows.
fn missing(applied: Vec<i32>) -> Result<Vec<Migration>> {
    let newest = MIGRATIONS.iter().map(|step| step.number).max().unwrap_or_default();
    if let Some(newer) = applied.iter().find(|number| **number > newest) {
        let what = format!("its tables are at migration {newer}, but this program knows migrations up to {newest}");
        return Err(Error::new(ErrorKind::Conflict, what));
    }
    Ok(MIGRATIONS.iter().filter(|step| !applied.contains(&step.number)).copied().collect())
}

/// Runs the missing migrations in one transaction: either all or none.
///
/// The lock is held until the commit: other instances wait, and then find nothing missing.
async fn run_missing(connection: &mut PgConnection, names: &SqlNames, limit: Duration) -> Result<()> {
    let doing = "migrate";
    let mut transaction = connection.begin().await.map_err(|e| failed(doing, e))?;
    let limit = limit.as_millis();
    let settings = format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}");
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    let lock = sqlx::query(LOCK).bind(names.full("migrations"));
    lock.execute(&mut *transaction).await.map_err(|e| failed("migrate: wait for another migration", e))?;
    create_schema(&mut transaction, names).await?;
    sqlx::query(names.fill(CREATE_TABLE)).execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    // The previous owner of the lock may have run them.
    for step in missing(applied(&mut transaction, names).await?)? {
        let doing = format!("run the migration {:04}_{}", step.number, step.name);
        sqlx::raw_sql(names.fill_done(step.sql, &Done::default()))
            .execute(&mut *transaction)
            .await
            .map_err(|e| failed(&doing, e))?;
        let record = sqlx::query(names.fill(RECORD)).bind(step.number).bind(step.name);
        record.execute(&mut *transaction).await.map_err(|e| failed(&doing, e))?;
    }
    transaction.commit().await.map_err(|e| failed(doing, e))
}

/// Creates the schema unless it exists: a user without the right to create schemas can be given one.
async fn create_schema(connection: &mut PgConnection, names: &SqlNames) -> Result<()> {
    let doing = format!("create the schema {:?}", names.schema());
    let exists = sqlx::query_scalar(SCHEMA_EXISTS).bind(names.schema());
    if exists.fetch_one(&mut *connection).await.map_err(|e| failed(&doing, e))? {
        return Ok(());
    }
    let create = format!("CREATE SCHEMA \"{}\"", names.schema());
    sqlx::query(AssertSqlSafe(create)).execute(connection).await.map(drop).map_err(|e| failed(&doing, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_in_order_and_each_is_there_once() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.number < b.number));
    }

    #[test]
    fn tables_of_a_newer_program_are_refused() {
        let newest = MIGRATIONS.last().unwrap().number;
        assert_eq!(missing(vec![newest + 1]).unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn what_is_missing_below_the_newest_is_run_too() {
        let without_first: Vec<_> = MIGRATIONS.iter().skip(1).map(|step| step.number).collect();
        assert_eq!(missing(without_first).unwrap()[0].number, MIGRATIONS[0].number);
    }
}
