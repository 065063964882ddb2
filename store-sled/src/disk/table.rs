//! A sled database with additional syncs and a proof of completeness.
//!
//! sled alone gives neither durability nor a complaint about lost data: its flush does not reach
//! the disk, and a damaged log is cut off silently (docs/design/0003-sled-durability.md). So each
//! commit syncs sled's log itself, each batch carries a seal (number of entries, sum of their
//! digests), and opening reads everything and compares. A witness file next to it remembers the
//! last commit.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tidings_core::{ErrorKind, Timestamp};

use super::files::{create_directory, list, sync_tree};
use super::snapshots;
use super::witness::Witness;
use crate::error::{Broken, Result, guarded};

/// Key of a table's seal. All other keys begin with another letter.
const SEAL_KEY: &[u8] = b"m";
const DATABASE: &str = "sled";
const WITNESS: &str = "witness";

/// Maximum keys and bytes of one sled batch (a single change may be larger). Replaced or removed values count too,
/// because sled rewrites their pages. The resulting writes, up to twelve times as large because sled rewrites whole
/// pages, must stay below a segment of sled's log (512 KiB): sled treats data accepted by the operating system as
/// durable and then reuses the previous segment, and there must be at most one such step between two of our syncs.
const BATCH_KEYS: usize = 500;
/// Bytes of keys and values of a batch; see [`BATCH_KEYS`].
const BATCH_BYTES: usize = 40 << 10;

/// How long to wait for sled's lock. After a database is dropped, sled's IO threads may keep its file open until they
/// have been scheduled.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const UNLOCK_RETRY: Duration = Duration::from_millis(2);

/// The seal, written within each batch: the number of the batch, and the resulting content of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seal {
    sequence: u64,
    entries: u64,
    /// Wrapping sum of the digests of all entries, which needs no order and can be updated in
    /// place.
    sum: u64,
    /// The store's time at the commit; never goes back.
    time: Timestamp,
}

impl Seal {
    fn to_bytes(self) -> Vec<u8> {
        let parts = [self.sequence, self.entries, self.sum, self.time.millis().cast_unsigned()];
        parts.iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// Parses a seal; `None` for any other length.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (parts, []) = bytes.as_chunks::<8>() else { return None };
        let [sequence, entries, sum, time] = *<&[[u8; 8]; 4]>::try_from(parts).ok()?;
        Some(Self {
            sequence: u64::from_be_bytes(sequence),
            entries: u64::from_be_bytes(entries),
            sum: u64::from_be_bytes(sum),
            time: Timestamp::from_millis(i64::from_be_bytes(time)),
        })
    }

    /// Accounts for an entry that is added.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(digest(key, value));
    }

    /// Accounts for an entry that is removed or replaced.
    fn take(&mut self, key: &[u8], value: &[u8]) {
        self.entries = self.entries.saturating_sub(1);
        self.sum = self.sum.wrapping_sub(digest(key, value));
    }
}

/// FNV-1a: std's hasher may change from one release to the next, and this is stored.
fn digest(key: &[u8], value: &[u8]) -> u64 {
    let parts = key.iter().chain(&[0xff]).chain(value);
    parts.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A change of a key, with its previous value.
struct Change {
    key: Vec<u8>,
    old: Option<sled::IVec>,
    new: Option<Vec<u8>>,
}

impl Change {
    /// Bytes that the change makes sled rewrite.
    fn weight(&self) -> usize {
        let (old, new) = (self.old.as_ref().map_or(0, |old| old.len()), self.new.as_ref().map_or(0, Vec::len));
        self.key.len() + old.max(new)
    }
}

/// A sled database, written in batches that are atomic and durable.
pub(crate) struct Table {
    path: PathBuf,
    database: sled::Db,
    /// A separate handle of sled's log, because sled offers no sync that reaches the disk.
    log: File,
    /// Directory of sled's files for large values.
    blobs: PathBuf,
    witness: Witness,
    seal: Seal,
    /// Changes that are not committed; `None` removes the key.
    staged: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// Staged keys in the order of their first staging: if they are split into several batches, earlier ones become
    /// durable first.
    order: Vec<Vec<u8>>,
    #[cfg(test)]
    cut: Option<Cut>,
}

/// For tests: how a commit is split into batches, and how many of them reach the disk.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) keys: usize,
    pub(crate) batches: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // sled's own `Debug` prints the whole content.
        f.debug_struct("Table").field("path", &self.path).field("seal", &self.seal).finish_non_exhaustive()
    }
}

impl Table {
    /// Creates an empty table, sealed and synced with its directory.
    pub(crate) fn create(path: &Path, cache: u64, now: Timestamp) -> Result<Self> {
        create_directory(path)?;
        let mut table = Self::start(path, cache, true)?;
        table.commit_batch(Vec::new(), now)?;
        table.witness.sync()?;
        sync_tree(path)?;
        Ok(table)
    }

    /// Opens a table and reads all of it to verify that nothing is missing.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if an acknowledged commit, or an entry of it, is missing;
    /// also if sled panics, which a damaged file makes it do.
    pub(crate) fn open(path: &Path, cache: u64) -> Result<Self> {
        let log = path.join(DATABASE).join("db");
        if !log.is_file() {
            return Err(Broken::corrupt(&log, "is missing"));
        }
        guarded("open a table", ErrorKind::Corrupt, || {
            let snapshots = path.join(DATABASE);
            snapshots::put_in_order(&snapshots)?;
            let mut table = Self::start(path, cache, false)?;
            // sled has just replaced its snapshot, and syncs neither its name nor the removal of the previous one. An
            // old snapshot that reappears after a power cut would point into reused segments.
            sync_tree(path)?;
            table.verify()?;
            snapshots::forget_damaged(&snapshots)?;
            Ok(table)
        })
    }

    /// Opens the parts, without verifying anything.
    fn start(path: &Path, cache: u64, new: bool) -> Result<Self> {
        let (witness, seen) = Witness::open(&path.join(WITNESS), new)?;
        let directory = path.join(DATABASE);
        let database = open_database(&directory, cache)?;
        let log_path = directory.join("db");
        // Writable, because some systems sync only writable handles.
        let log = File::options().write(true).open(&log_path).map_err(|e| Broken::io("open", &log_path, &e))?;
        let seal = Seal { sequence: seen, ..Seal::default() };
        let blobs = directory.join("blobs");
        Ok(Self {
            path: path.to_path_buf(),
            database,
            log,
            blobs,
            witness,
            seal,
            staged: HashMap::new(),
            order: Vec::new(),
            #[cfg(test)]
            cut: None,
        })
    }

    /// The seal may be ahead of the witness, whose last note a power cut can lose, but never
    /// behind.
    fn verify(&mut self) -> Result<()> {
        let stored = self.read(SEAL_KEY)?.as_deref().and_then(Seal::from_bytes);
        let stored = stored.ok_or_else(|| Broken::corrupt(&self.path, "the seal is missing"))?;
        if stored.sequence < self.seal.sequence {
            let (has, had) = (stored.sequence, self.seal.sequence);
            return Err(Broken::corrupt(&self.path, &format!("ends at commit {has}, but {had} was acknowledged")));
        }
        let mut found = Seal { sequence: stored.sequence, time: stored.time, ..Seal::default() };
        for item in self.database.iter() {
            let (key, value) = item.map_err(|e| Broken::sled("read", &self.path, &e))?;
            if *key != *SEAL_KEY {
                found.add(&key, &value);
            }
        }
        if found != stored {
            let (has, had) = (found.entries, stored.entries);
            let what = format!("holds {has} entries that are not the {had} that were written");
            return Err(Broken::corrupt(&self.path, &what));
        }
        self.seal = stored;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the latest time of a commit.
    pub(crate) fn time(&self) -> Timestamp {
        self.seal.time
    }

    /// Returns the number of entries without staged ones.
    pub(crate) fn entries(&self) -> u64 {
        self.seal.entries
    }

    /// Reads a committed value.
    fn read(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.database.get(key).map_err(|e| Broken::sled("read", &self.path, &e))
    }

    /// Returns the value of a key, including staged changes.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.staged.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => Ok(self.read(key)?.map(|value| value.to_vec())),
        }
    }

    /// Changes a key with the next [`commit`](Self::commit). A key that is staged already keeps its place.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        match self.staged.get_mut(&key) {
            Some(staged) => *staged = value,
            None => {
                self.order.push(key.clone());
                self.staged.insert(key, value);
            }
        }
    }

    /// Returns committed entries from `from` on whose keys begin with `prefix`.
    ///
    /// Staged changes are not included.
    pub(crate) fn scan(
        &self,
        prefix: Vec<u8>,
        from: Vec<u8>,
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec)>> {
        let items = self.database.range(from..);
        items
            .map(|item| item.map_err(|e| Broken::sled("read", &self.path, &e)))
            .take_while(move |item| item.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
    }

    /// Returns the last committed entry whose key begins with `prefix`.
    pub(crate) fn last(&self, prefix: &[u8]) -> Result<Option<(sled::IVec, sled::IVec)>> {
        self.database.scan_prefix(prefix).next_back().transpose().map_err(|e| Broken::sled("read", &self.path, &e))
    }

    /// Writes staged changes in the order of their staging, and returns once they are on disk. This may take several
    /// batches: after a failure or a crash, any number of the first ones may be durable.
    ///
    /// # Errors
    /// The table must not be used afterwards: sled's memory and its disk may differ.
    pub(crate) fn commit(&mut self, time: Timestamp) -> Result<()> {
        let mut staged = std::mem::take(&mut self.staged);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for key in std::mem::take(&mut self.order) {
            let Some(new) = staged.remove(&key) else { continue };
            let change = Change { old: self.read(&key)?, key, new };
            if batch.len() == self.batch_keys() || (!batch.is_empty() && bytes + change.weight() > BATCH_BYTES) {
                self.commit_batch(std::mem::take(&mut batch), time)?;
                bytes = 0;
            }
            bytes += change.weight();
            batch.push(change);
        }
        if batch.is_empty() { Ok(()) } else { self.commit_batch(batch, time) }
    }

    fn batch_keys(&self) -> usize {
        #[cfg(test)]
        if let Some(cut) = self.cut {
            return cut.keys;
        }
        BATCH_KEYS
    }

    #[cfg(test)]
    pub(crate) fn cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    /// Stores the time alone.
    pub(crate) fn mark(&mut self, time: Timestamp) -> Result<()> {
        self.commit_batch(Vec::new(), time)?;
        self.witness.sync()
    }

    /// Applies changes and their seal as one atomic batch, syncs, and notes the commit.
    fn commit_batch(&mut self, changes: Vec<Change>, time: Timestamp) -> Result<()> {
        #[cfg(test)]
        if let Some(cut) = &mut self.cut {
            let full = || Broken::new(ErrorKind::Unavailable, "no space left on device");
            cut.batches = cut.batches.checked_sub(1).ok_or_else(full)?;
        }
        let mut seal = self.seal;
        let mut batch = sled::Batch::default();
        for Change { key, old, new } in changes {
            if let Some(old) = &old {
                seal.take(&key, old);
            }
            match new {
                Some(new) => {
                    seal.add(&key, &new);
                    batch.insert(key, new);
                }
                None if old.is_some() => batch.remove(key),
                None => {}
            }
        }
        seal.sequence += 1;
        seal.time = seal.time.max(time);
        batch.insert(SEAL_KEY, seal.to_bytes());
        self.database.apply_batch(batch).map_err(|e| Broken::sled("write", &self.path, &e))?;
        self.sync()?;
        self.seal = seal;
        self.witness.note(seal.sequence)
    }

    /// Makes everything that sled has written durable.
    fn sync(&self) -> Result<()> {
        self.database.flush().map_err(|e| Broken::sled("flush", &self.path, &e))?;
        self.log.sync_all().map_err(|e| Broken::io("sync the log of", &self.path, &e))?;
        // Values that are too large for sled's log become files, which sled does not sync. Our values are small, but
        // a page of them, or those of another version, may not be.
        if list(&self.blobs)?.is_empty() { Ok(()) } else { sync_tree(&self.blobs) }
    }

    /// Returns the bytes on disk.
    pub(crate) fn size_on_disk(&self) -> Result<u64> {
        self.database.size_on_disk().map_err(|e| Broken::sled("measure", &self.path, &e))
    }

    /// Syncs and closes the table.
    pub(crate) fn close(self) -> Result<()> {
        self.witness.sync()?;
        drop(self.database);
        Ok(())
    }
}

/// Opens sled, waiting for its lock: the store's own lock is held, so sled's previous owner is only still closing.
fn open_database(directory: &Path, cache: u64) -> Result<sled::Db> {
    let give_up = Instant::now() + UNLOCK_PATIENCE;
    loop {
        let config = sled::Config::new().path(directory).cache_capacity(cache).flush_every_ms(None);
        match config.open().map_err(|e| Broken::sled("open", directory, &e)) {
            Err(locked) if locked.kind == ErrorKind::Conflict && Instant::now() < give_up => {
                thread::sleep(UNLOCK_RETRY)
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: u64 = 1 << 20;

    #[test]
    fn the_digest_that_is_stored_never_changes() {
        assert_eq!(digest(b"key", b"value"), 0xbb0e456a454af676);
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
    }

    #[test]
    fn a_batch_that_is_full_to_the_byte_or_the_key_is_written_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, Timestamp::from_millis(1)).unwrap();
        for (count, size, batches) in [(20_u32, 4_096, 2), (20, 4_097, 3), (1_000, 8, 2), (1_001, 9, 3)] {
            let before = table.seal.sequence;
            for i in 0..count {
                table.put([i.to_be_bytes(), (size as u32).to_be_bytes()].concat(), Some(vec![7; size - 8]));
            }
            table.commit(Timestamp::from_millis(1)).unwrap();
            assert_eq!(table.seal.sequence - before, batches, "{count} of {size} bytes");
        }
    }

    #[test]
    fn what_is_committed_is_there_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        let mut table = Table::create(&path, CACHE, Timestamp::from_millis(1)).unwrap();
        for i in 0..2_500_u32 {
            table.put(i.to_be_bytes().to_vec(), Some(vec![1; 20]));
        }
        table.commit(Timestamp::from_millis(7)).unwrap();
        table.put(vec![0, 0, 0, 5], None);
        table.commit(Timestamp::from_millis(8)).unwrap();
        table.close().unwrap();
        let table = Table::open(&path, CACHE).unwrap();
        assert_eq!((table.entries(), table.time().millis()), (2_499, 8));
        assert_eq!(table.get(&[0, 0, 0, 5]).unwrap(), None);
        assert_eq!(table.get(&[0, 0, 0, 6]).unwrap(), Some(vec![1; 20]));
    }

    #[test]
    fn no_batch_is_above_its_bound_whether_it_writes_replaces_or_removes() {
        let directory = tempfile::tempdir().unwrap();
        let mut table = Table::create(&directory.path().join("table"), CACHE, Timestamp::from_millis(1)).unwrap();
        // Nine of them fit, and there are ten times as many.
        let size = BATCH_BYTES / 9 - 4;
        for value in [Some(vec![1; size - 1]), Some(vec![2]), Some(vec![3; size]), None, None] {
            let (old, before) = (table.entries(), table.seal.sequence);
            for i in 0..90_u32 {
                table.put(i.to_be_bytes().to_vec(), value.clone());
            }
            table.commit(Timestamp::from_millis(1)).unwrap();
            let weighs = old > 0 || value.is_some();
            assert_eq!(table.seal.sequence - before, if weighs { 10 } else { 1 }, "{:?}", value.map(|v| v.len()));
        }
    }

    #[test]
    fn opening_waits_for_the_lock_of_what_is_being_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        Table::create(&path, CACHE, Timestamp::from_millis(1)).unwrap().close().unwrap();
        let log = File::open(path.join("sled/db")).unwrap();
        log.lock().unwrap();
        let (opened, opening) = std::sync::mpsc::channel();
        thread::spawn(move || opened.send(Table::open(&path, CACHE).map(|table| table.entries())));
        assert!(opening.recv_timeout(UNLOCK_RETRY * 10).is_err(), "it is locked still");
        drop(log);
        assert_eq!(opening.recv().unwrap().unwrap(), 0);
    }

    #[test]
    fn a_table_whose_end_is_cut_off_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table");
        let mut table = Table::create(&path, CACHE, Timestamp::from_millis(1)).unwrap();
        for i in 0..100_u32 {
            table.put(i.to_be_bytes().to_vec(), Some(vec![1; 20]));
            table.commit(Timestamp::from_millis(1)).unwrap();
        }
        table.close().unwrap();
        let log = File::options().write(true).open(path.join("sled/db")).unwrap();
        log.set_len(log.metadata().unwrap().len() / 2).unwrap();
        let error = Table::open(&path, CACHE).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
    }
}
