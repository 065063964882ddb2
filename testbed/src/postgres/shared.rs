//! The server shared by all test processes.

use super::{Postgres, options::PostgresOptions};
use crate::{
    blocking::blocking,
    error::{Error, Result},
    process::{find_program, run},
};
use std::{
    env,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::Command,
};

/// Variable with the URL of an existing server, for tests that work with any server. Its user must be allowed to
/// create databases.
pub const POSTGRES_VARIABLE: &str = "TIDINGS_POSTGRES";

/// The server shared by all test processes: each test uses a database of its own, and must not stop the server.
#[derive(Debug, Clone)]
pub struct SharedPostgres {
    url: String,
}

impl SharedPostgres {
    /// Returns the URL of its main database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// [Unavailable](Error::is_unavailable) without psql; failed if the server refuses.
    pub async fn fresh_database(&self) -> Result<String> {
        let url = self.url.clone();
        blocking(move || fresh_database(&find_psql()?, &url)).await
    }
}

impl Postgres {
    /// Returns the server in [`POSTGRES_VARIABLE`], which `cargo xtask test` sets; otherwise one that this process
    /// starts once and keeps until it ends.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn shared() -> Result<SharedPostgres> {
        static STARTED: tokio::sync::OnceCell<Postgres> = tokio::sync::OnceCell::const_new();
        if let Ok(url) = env::var(POSTGRES_VARIABLE) {
            return Ok(SharedPostgres { url });
        }
        let postgres = STARTED.get_or_try_init(|| Self::start(PostgresOptions::new())).await?;
        Ok(SharedPostgres { url: postgres.url() })
    }
}

fn find_psql() -> Result<PathBuf> {
    if let Some(psql) = find_program("psql") {
        return Ok(psql);
    }
    Ok(super::install::Install::find()?.program("psql"))
}

pub(crate) fn fresh_database(psql_program: &Path, url: &str) -> Result<String> {
    let name = format!("test_{:016x}", RandomState::new().hash_one(url));
    psql(psql_program, url, &format!("CREATE DATABASE {name}"))?;
    with_database(url, &name)
}

pub(crate) fn psql(program: &Path, url: &str, sql: &str) -> Result<String> {
    run(Command::new(program).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url]))
        .map(|rows| rows.trim_end().to_owned())
}

/// Returns the URL with another database.
fn with_database(url: &str, name: &str) -> Result<String> {
    let bad = || Error::failed(format!("{POSTGRES_VARIABLE}: expected postgres://user:password@host:port/database"));
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let authority = place.split_once('/').map_or(place, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_the_rest_kept() {
        assert_eq!(with_database("postgres://u:p@h:1/a?x=y", "b").unwrap(), "postgres://u:p@h:1/b?x=y");
        assert_eq!(with_database("postgresql://u@h", "b").unwrap(), "postgresql://u@h/b");
        assert!(with_database("host=h", "b").is_err());
    }
}
