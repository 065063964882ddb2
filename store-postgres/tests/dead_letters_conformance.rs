//! The suite of a dead-letter store, on a real server.

use std::process::ExitCode;
use std::sync::Arc;

use tidings_conformance::{Setup, dead_letters};
use tidings_core::{Error, ErrorKind, Result};
use tidings_postgres::PostgresStore;
use tidings_testbed::Postgres;
use tokio::sync::OnceCell;

/// The database of all cases: each has services of its own.
static DATABASE: OnceCell<String> = OnceCell::const_new();

async fn open() -> Result<PostgresStore> {
    let absent = |e| Error::caused_by(ErrorKind::Unavailable, "start Postgres", e);
    let fresh = async || Postgres::shared().await?.fresh_database().await;
    PostgresStore::connect(DATABASE.get_or_try_init(fresh).await.map_err(absent)?).await
}

async fn reopen(store: Arc<PostgresStore>) -> Result<PostgresStore> {
    store.close().await;
    open().await
}

fn main() -> ExitCode {
    dead_letters::run(Setup::new("postgres", open).with_reopen(reopen))
}
