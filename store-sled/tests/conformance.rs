//! The suites of an idempotency store and of a dead-letter store, on sled, over restarts too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tempfile::tempdir;
use tidings_conformance::{Setup, Suites};
use tidings_core::Result;
use tidings_sled::SledStore;
use uuid::Uuid;

/// Opens a store in a new directory below `root` for each case.
fn setup(root: &Path) -> Setup<SledStore> {
    let root = root.to_path_buf();
    let open = move || {
        let directory = root.join(Uuid::now_v7().to_string());
        async move { SledStore::open(directory).await }
    };
    Setup::new("sled", open).with_reopen(reopen).with_lifetime(Duration::from_secs(1))
}

async fn reopen(store: Arc<SledStore>) -> Result<SledStore> {
    let path = store.path().to_path_buf();
    store.close().await;
    SledStore::open(path).await
}

fn main() -> ExitCode {
    let root = tempdir().unwrap();
    Suites::new().with_idempotency(setup(root.path())).with_dead_letters(setup(root.path())).run()
}
