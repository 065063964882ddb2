//! A table of done events shared with other services.
//!
//! The table belongs to other services, so it is only checked, never changed; our functions for it
//! live in our schema, named after it. Their text is compared by a fingerprint, so that a newer
//! version replaces them.

use std::collections::BTreeMap;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use tidings_core::{Error, ErrorKind, Result};
use tokio::time::timeout;

use crate::config::PostgresConfig;
use crate::error::failed;
use crate::migrate::{FUNCTIONS, LOCK};
use crate::sql_names::{Done, SqlNames};

/// Finds the table's SQL name, resolved as in our statements.
const TABLE: &str = "SELECT format('%I.%I', n.nspname, c.relname) AS name, c.oid::bigint AS oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
const COLUMNS: &str = "SELECT a.attname::text AS name, t.typname::text AS type,
        CASE WHEN t.typname = 'varchar' AND a.atttypmod > 4 THEN a.atttypmod - 4 END AS longest,
        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped";
/// Whether a unique index covers exactly these two columns, in any order, without a condition.
const UNIQUE: &str = "SELECT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
        AND i.indimmediate AND i.indnkeyatts = 2 AND (
            SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a
            WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::smallint[])
        ) = ARRAY['event_id', 'service_name']
    )";
/// Whether our functions for the table have this text.
const FOUND: &str = "SELECT obj_description(to_regproc($1), 'pg_proc') = $2";

/// Columns that we use, with their accepted types.
const USED: [(&str, &[&str]); 4] = [
    ("event_id", &["uuid"]),
    ("event_type", &["varchar", "text"]),
    ("service_name", &["varchar", "text"]),
    ("processed_at", &["timestamp"]),
];

#[derive(Debug)]
struct Column {
    /// Name of its type.
    kind: String,
    /// Its length in characters, if it is limited.
    longest: Option<i32>,
    /// Whether an insert must give a value.
    required: bool,
}

/// Checks the table and creates its functions.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound): there is no such table. [`Invalid`](ErrorKind::Invalid): the table is not as
/// required; the message names it and the column.
pub(crate) async fn prepare_shared(
    connection: &mut PgConnection,
    names: &SqlNames,
    table: &str,
    config: &PostgresConfig,
) -> Result<Done> {
    let doing = format!("look at the table {table}");
    let found = sqlx::query(TABLE).bind(table).fetch_optional(&mut *connection).await.map_err(|e| failed(&doing, e))?;
    let missing = || Error::new(ErrorKind::NotFound, format!("open the store: there is no table {table}"));
    let found = found.ok_or_else(missing)?;
    let name: String = found.try_get("name").map_err(|e| failed(&doing, e))?;
    let oid: i64 = found.try_get("oid").map_err(|e| failed(&doing, e))?;
    let columns = columns(connection, oid).await.map_err(|e| failed(&doing, e))?;
    check(&name, &columns)?;
    let unique = sqlx::query_scalar(UNIQUE).bind(oid).fetch_one(&mut *connection).await;
    if !unique.map_err(|e| failed(&doing, e))? {
        let what = format!("open the store: {name} has no unique index on event_id and service_name");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let longest = |column: &str| columns.get(column)?.longest.and_then(|longest| usize::try_from(longest).ok());
    let (longest_scope, longest_type) = (longest("service_name"), longest("event_type"));
    let done = Done { table: Some(name), longest_scope, longest_type };
    let made = timeout(config.migration_timeout, make_functions(connection, names, &done, config));
    made.await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "create the functions: no answer in time")))?;
    Ok(done)
}

/// Returns the columns by name.
async fn columns(connection: &mut PgConnection, oid: i64) -> sqlx::Result<BTreeMap<String, Column>> {
    let rows = sqlx::query(COLUMNS).bind(oid).fetch_all(connection).await?;
    let column = |row: &sqlx::postgres::PgRow| {
        let column =
            Column { kind: row.try_get("type")?, longest: row.try_get("longest")?, required: row.try_get("required")? };
        Ok((row.try_get("name")?, column))
    };
    rows.iter().map(column).collect()
}

/// # Errors
/// [`Invalid`](ErrorKind::Invalid): a column is missing, has another type, or must be given a value
/// that only its owner knows.
fn check(table: &str, columns: &BTreeMap<String, Column>) -> Result<()> {
    let wrong = |what: String| Err(Error::new(ErrorKind::Invalid, format!("open the store: {what}")));
    for (name, kinds) in USED {
        match columns.get(name) {
            None => return wrong(format!("{table} has no column {name}")),
            Some(column) if !kinds.contains(&column.kind.as_str()) => {
                return wrong(format!(
                    "the column {name} of {table} is {}, it must be {}",
                    column.kind,
                    kinds.join(" or ")
                ));
            }
            Some(_) => {}
        }
    }
    let unknown = |name: &str| USED.iter().all(|(used, _)| *used != name);
    match columns.iter().find(|(name, column)| column.required && unknown(name)) {
        Some((name, _)) => wrong(format!("the column {name} of {table} has no default, and the store does not set it")),
        None => Ok(()),
    }
}

/// Creates the functions if they are missing or have an earlier text.
async fn make_functions(
    connection: &mut PgConnection,
    names: &SqlNames,
    done: &Done,
    config: &PostgresConfig,
) -> Result<()> {
    let doing = "create the functions for a shared table";
    let text = names.fill_done(FUNCTIONS, done);
    let settle = names.full(&format!("settle{}", done.suffix()));
    let mark = mark(text.as_str());
    if is_made(connection, &settle, &mark).await.map_err(|e| failed(doing, e))? {
        return Ok(());
    }
    if !config.migrate {
        let what = format!("open the store: the function {settle} is missing or old, and migrations may not be run");
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    let mut transaction = connection.begin().await.map_err(|e| failed(doing, e))?;
    let limit = config.migration_timeout.as_millis();
    let settings = format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}");
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    let lock = sqlx::query(LOCK).bind(names.full("migrations"));
    lock.execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    sqlx::raw_sql(text).execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    let comment = AssertSqlSafe(format!("COMMENT ON FUNCTION {settle} IS '{mark}'"));
    sqlx::query(comment).execute(&mut *transaction).await.map_err(|e| failed(doing, e))?;
    transaction.commit().await.map_err(|e| failed(doing, e))
}

/// Checks whether the functions exist with this fingerprint.
async fn is_made(connection: &mut PgConnection, function: &str, mark: &str) -> sqlx::Result<bool> {
    let made: Option<bool> = sqlx::query_scalar(FOUND).bind(function).bind(mark).fetch_one(connection).await?;
    Ok(made.unwrap_or(false))
}

/// Returns a fingerprint of `text`.
///
/// It is the comment of a function, where operators see whose it is.
fn mark(text: &str) -> String {
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes());
    format!("tidings {id}")
}
