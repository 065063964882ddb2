//! Directories that are not as they were left: cut off, garbled, with leftovers, in use, or not writable.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other test programs use the rest")]
mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{TempDir, tempdir};
use tidings_core::{Claim, ErrorKind, EventRef, IdempotencyStore, Result};
use tidings_sled::{OnDamage, SledConfig, SledStore};

use crate::common::{claim, fresh, granted, lease};

/// A store with done events, closed.
async fn written() -> (TempDir, Vec<EventRef>) {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let one = lease(&store).await;
    let events: Vec<_> = (0..3_000).map(|_| fresh()).collect();
    for part in events.chunks(500) {
        store.claim(&one, part).await.unwrap();
        store.complete(&one, part).await.unwrap();
    }
    store.close().await;
    (directory, events)
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("events-00000000/sled/db")
}

async fn open_setting_aside(path: &Path) -> Result<SledStore> {
    SledStore::open_with(SledConfig::new(path).with_on_damage(OnDamage::SetAside)).await
}

/// Refused, and again refused: the first attempt must not hide the damage from the second. Then set aside, and reported.
async fn assert_noticed(directory: &Path, event: &EventRef) {
    for _ in 0..2 {
        let error = SledStore::open(directory).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report());
    }
    let store = open_setting_aside(directory).await.unwrap();
    let damages = store.damages();
    assert_eq!(damages.len(), 1, "{damages:?}");
    assert!(damages[0].set_aside.is_dir());
    let one = lease(&store).await;
    assert_eq!(claim(&store, &one, event).await, granted(0, 0));
    store.close().await;
    let store = SledStore::open(directory).await.unwrap();
    assert_eq!(store.damages(), []);
}

#[tokio::test]
async fn a_truncated_log_is_noticed_wherever_it_ends() {
    for percent in [0, 10, 50, 90, 99] {
        let (directory, events) = written().await;
        let log = File::options().write(true).open(log_of(directory.path())).unwrap();
        log.set_len(log.metadata().unwrap().len() * percent / 100).unwrap();
        assert_noticed(directory.path(), &events[2_999]).await;
    }
}

#[tokio::test]
async fn a_garbled_log_never_loses_done_events_silently() {
    for percent in [0, 5, 20, 40, 60, 80, 95] {
        let (directory, events) = written().await;
        let mut log = File::options().write(true).open(log_of(directory.path())).unwrap();
        let length = log.metadata().unwrap().len();
        log.seek(SeekFrom::Start(length * percent / 100)).unwrap();
        log.write_all(&[0x5a; 64]).unwrap();
        drop(log);
        match SledStore::open(directory.path()).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.report()),
            // The garbled place held nothing that still counts: then all must be there.
            Ok(store) => {
                let one = lease(&store).await;
                let claims = store.claim(&one, &events).await.unwrap();
                assert!(claims.iter().all(|claim| *claim == Claim::Done), "garbled at {percent} %");
            }
        }
    }
}

#[tokio::test]
async fn a_missing_part_is_noticed() {
    let (directory, events) = written().await;
    fs::remove_dir_all(directory.path().join("events-00000000")).unwrap();
    assert_noticed(directory.path(), &events[0]).await;
}

#[tokio::test]
async fn a_missing_or_garbled_manifest_is_noticed() {
    let (directory, events) = written().await;
    fs::remove_file(directory.path().join("manifest")).unwrap();
    assert_noticed(directory.path(), &events[0]).await;
    let (directory, events) = written().await;
    fs::write(directory.path().join("manifest"), "no").unwrap();
    assert_noticed(directory.path(), &events[0]).await;
}

#[tokio::test]
async fn an_older_copy_of_the_log_is_noticed() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let one = lease(&store).await;
    store.claim(&one, &[fresh()]).await.unwrap();
    let copy = fs::read(log_of(directory.path())).unwrap();
    let event = fresh();
    store.claim(&one, std::slice::from_ref(&event)).await.unwrap();
    store.complete(&one, std::slice::from_ref(&event)).await.unwrap();
    store.close().await;
    fs::write(log_of(directory.path()), copy).unwrap();
    assert_noticed(directory.path(), &event).await;
}

/// All of `events` are still done, and the store has nothing to report.
async fn assert_whole(directory: &Path, events: &[EventRef]) {
    let store = SledStore::open(directory).await.unwrap();
    let one = lease(&store).await;
    let claims = store.claim(&one, events).await.unwrap();
    assert!(claims.iter().all(|claim| *claim == Claim::Done));
    assert_eq!(store.damages(), []);
    store.close().await;
}

fn snapshots_of(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("events-00000000/sled")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().contains("snap.")).collect()
}

/// A closed store with done events, of which sled has made a snapshot: it does when it opens what was there before.
async fn written_with_snapshot() -> (TempDir, Vec<EventRef>) {
    let (directory, events) = written().await;
    assert_whole(directory.path(), &events).await;
    assert_eq!(snapshots_of(directory.path()).len(), 1);
    (directory, events)
}

#[tokio::test]
async fn leftover_snapshots_and_drafts_do_no_harm() {
    // Without and with a snapshot of sled's own, which would be older or newer than the leftovers.
    for (directory, events) in [written().await, written_with_snapshot().await] {
        let sled = directory.path().join("events-00000000/sled");
        fs::write(sled.join("snap.0000000000000001"), "one that a later one has replaced").unwrap();
        fs::write(sled.join("snap.7FFFFFFFFFFFFFFE"), "one that never was").unwrap();
        fs::write(sled.join("snap.7FFFFFFFFFFFFFFF.generating"), "half").unwrap();
        fs::write(directory.path().join("manifest.new"), "half").unwrap();
        fs::create_dir(directory.path().join("dropped-events-00000007")).unwrap();
        fs::create_dir(directory.path().join("events-00000099")).unwrap();
        assert_whole(directory.path(), &events).await;
        assert!(!directory.path().join("dropped-events-00000007").exists());
        assert_eq!(snapshots_of(directory.path()).len(), 1, "the leftovers are gone");
        assert_whole(directory.path(), &events).await;
    }
}

#[tokio::test]
async fn a_damaged_snapshot_loses_nothing_that_the_log_holds() {
    let (directory, events) = written_with_snapshot().await;
    for cut_off in [false, true] {
        let snapshot = snapshots_of(directory.path()).remove(0);
        let mut content = fs::read(&snapshot).unwrap();
        content[3] ^= 1;
        content.truncate(if cut_off { content.len() / 2 } else { content.len() });
        fs::write(&snapshot, content).unwrap();
        assert_whole(directory.path(), &events).await;
    }
}

#[tokio::test]
async fn a_log_that_lost_something_beside_a_damaged_snapshot_is_noticed() {
    let (directory, events) = written_with_snapshot().await;
    let snapshot = snapshots_of(directory.path()).remove(0);
    fs::write(&snapshot, "damaged").unwrap();
    let log = File::options().write(true).open(log_of(directory.path())).unwrap();
    log.set_len(log.metadata().unwrap().len() / 2).unwrap();
    assert_noticed(directory.path(), &events[0]).await;
}

#[tokio::test]
async fn a_second_opener_is_told_that_it_is_open() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let error = SledStore::open(directory.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.report().contains("already open"), "{}", error.report());
    let one = lease(&store).await;
    assert_eq!(claim(&store, &one, &fresh()).await, granted(0, 0));
}

#[tokio::test]
async fn a_path_that_is_a_file_is_refused() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SledStore::open(&file).await.unwrap_err();
    assert!(!error.report().is_empty());
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{}", error.report());
}
