//! The suites of an idempotency store, of a dead-letter store and of an audit sink, on sled, over restarts too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::tempdir;
use tidings_conformance::{Setup, Suites};
use tidings_core::{Result, Timestamp};
use tidings_sled::{Clock, SledConfig, SledStore, SystemClock};
use uuid::Uuid;

/// Far longer than a busy machine takes from a lease to its claims. That it ends is up to the clock that is set forth.
const LIFETIME: Duration = Duration::from_secs(60);

/// The system's clocks, and how far a case has set them forth.
#[derive(Debug, Clone, Default)]
struct Ahead(SystemClock, Arc<Mutex<Duration>>);

impl Clock for Ahead {
    fn wall(&self) -> Timestamp {
        self.0.wall().saturating_add(*self.1.lock().unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + *self.1.lock().unwrap()
    }
}

/// The clocks of the open stores, by directory.
type Clocks = Arc<Mutex<HashMap<PathBuf, Ahead>>>;

async fn open(directory: PathBuf, clocks: Clocks, retention: Duration) -> Result<SledStore> {
    let clock = clocks.lock().unwrap().entry(directory.clone()).or_default().clone();
    SledStore::open_with(SledConfig::new(directory).with_clock(clock).with_retention(retention)).await
}

/// Retention of the cases, by clocks that are advanced.
const RETENTION: Duration = Duration::from_secs(400);

/// Opens a store in a new directory below `root` for each case.
fn setup(root: &Path) -> Setup<SledStore> {
    let (root, clocks) = (root.to_path_buf(), Clocks::default());
    let (reopened, passing) = (Arc::clone(&clocks), Arc::clone(&clocks));
    let another =
        move |retention: Duration| open(root.join(Uuid::now_v7().to_string()), Arc::clone(&clocks), retention);
    let forgetful = another.clone();
    Setup::new("sled", move || another(SledConfig::DEFAULT_RETENTION))
        .with_retention(RETENTION, move || forgetful(RETENTION))
        .with_lifetime(LIFETIME)
        .with_reopen(move |store| reopen(store, Arc::clone(&reopened)))
        .with_passing_time(move |store, time| {
            *passing.lock().unwrap()[store.path()].1.lock().unwrap() += time;
            async { Ok(()) }
        })
}

/// Also opens stores with a small limit of letters.
fn small(root: &Path) -> Setup<SledStore> {
    let small = root.to_path_buf();
    setup(root).with_max_letters(4, move || {
        SledStore::open_with(SledConfig::new(small.join(Uuid::now_v7().to_string())).with_max_letters(4))
    })
}

async fn reopen(store: Arc<SledStore>, clocks: Clocks) -> Result<SledStore> {
    let path = store.path().to_path_buf();
    store.close().await;
    open(path, clocks, SledConfig::DEFAULT_RETENTION).await
}

fn main() -> ExitCode {
    let root = tempdir().unwrap();
    Suites::new()
        .with_idempotency(setup(root.path()))
        .with_dead_letters(small(root.path()))
        .with_audit(setup(root.path()))
        .run()
}
