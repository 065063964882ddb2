//! The suites of an idempotency store, of a dead-letter store and of an audit sink, on sled, over restarts too.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::tempdir;
use tidings_conformance::{Setup, Suites};
use tidings_core::{Error, ErrorKind, EventRef, IdempotencyStore, Result, Timestamp};
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
    let config = SledConfig::new(directory).with_max_reopen_wait(SledConfig::MIN_REOPEN_WAIT);
    SledStore::open_with(config.with_clock(clock).with_retention(retention)).await
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
        .with_outage(outage)
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

/// Opens a copy of the store's files, as a killed process leaves them, then closes and opens it once more.
async fn reopen(store: Arc<SledStore>, clocks: Clocks) -> Result<SledStore> {
    let copied = store.path().with_file_name(Uuid::now_v7().to_string());
    // After an answer, the writer is idle for seconds.
    store.size().await?;
    copy(store.path(), &copied).map_err(|e| Error::caused_by(ErrorKind::Failed, "copy the directory", e))?;
    let clock = clocks.lock().unwrap()[store.path()].clone();
    clocks.lock().unwrap().insert(copied.clone(), clock);
    drop(store);
    let store = open(copied.clone(), Arc::clone(&clocks), SledConfig::DEFAULT_RETENTION).await?;
    store.close().await;
    open(copied, clocks, SledConfig::DEFAULT_RETENTION).await
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target)? } else { fs::copy(path, target).map(drop)? }
    }
    Ok(())
}

/// Breaks the disk: replaces a directory, which each commit lists and opening needs, by a file.
async fn outage(store: Arc<SledStore>, down: bool) -> Result<()> {
    let failed = |e| Error::caused_by(ErrorKind::Failed, "break the directory", e);
    for table in fs::read_dir(store.path()).map_err(failed)?.map(|entry| entry.unwrap().path()) {
        let (directory, away) = (table.join("sled/blobs"), table.join("sled/away"));
        if down && directory.is_dir() {
            fs::rename(&directory, away).and_then(|()| fs::write(directory, "")).map_err(failed)?;
        } else if !down && away.is_dir() {
            fs::remove_file(&directory).and_then(|()| fs::rename(away, directory)).map_err(failed)?;
        }
    }
    // The store notices the failure when a commit fails.
    while down && let Ok(lease) = store.acquire_lease(&"outage".into(), LIFETIME).await {
        drop(store.claim(&lease, &[EventRef::new(Uuid::now_v7(), "outage")]).await);
    }
    Ok(())
}

fn main() -> ExitCode {
    let root = tempdir().unwrap();
    Suites::new()
        .with_idempotency(setup(root.path()))
        .with_dead_letters(small(root.path()))
        .with_audit(setup(root.path()))
        .run()
}
