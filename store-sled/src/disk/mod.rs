//! The store's directory: generations of events, each dropped whole when it is too old, and the dead letters.
//!
//! The directory holds a lock, a manifest, one table per generation (`events-<number>`), a table of
//! letters, and parts set aside as damaged. Changes go to the newest generation; a lookup asks the
//! newest first, so a newer entry replaces an older one without touching it.
//!
//! The order of steps is chosen so that a crash between any two of them leaves a store that opens:
//! a table is created before the manifest names it, and the manifest forgets a table before it is
//! removed.

mod files;
mod generation;
mod index;
mod manifest;
mod snapshots;
mod table;
mod witness;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidings_core::audit::StoredAudit;
use tidings_core::{Error, ErrorKind, Timestamp};

use self::files::{create_directory, list, lock, sync_directory};
use self::generation::Generation;
pub(crate) use self::index::Index;
use self::manifest::Manifest;
#[cfg(test)]
pub(crate) use self::table::Cut;
pub(crate) use self::table::Table;
use crate::audit::{Trail, TrailPage};
use crate::codec::{EventKey, NameId, State};
use crate::config::{OnDamage, SledConfig};
use crate::dead_letters::Letters;
use crate::error::{Broken, Result};
use crate::store::Damage;

/// Names in the directory; they are stored and must not change.
const LOCK: &str = "lock";
const LETTERS: &str = "letters";
const GENERATION: &str = "events-";
const DROPPED: &str = "dropped-";
const DAMAGED: &str = "damaged-";

/// Guard of the directory's lock.
///
/// It outlives the open directory: a store that breaks is closed and reopened under the same lock.
#[derive(Debug)]
pub(crate) struct DirectoryLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

impl DirectoryLock {
    /// Creates the directory if it is missing, and locks it.
    pub(crate) fn take(config: &SledConfig) -> Result<Self> {
        create_directory(&config.path)?;
        lock(&config.path.join(LOCK)).map(Self)
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    cache: u64,
    manifest: Manifest,
    /// The oldest first; never empty. The newest entry of an event counts.
    generations: Vec<Generation>,
    pub(crate) letters: Letters,
    /// In the table of the letters.
    trail: Trail,
    damages: Vec<Damage>,
}

impl Disk {
    /// Opens a directory and verifies all of it; a new one gets a manifest and its first
    /// generation.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) for a damaged part, unless the policy sets it aside.
    pub(crate) fn open(config: &SledConfig, now: Timestamp) -> Result<Self> {
        let mut opening = Opening { config, now, damages: Vec::new() };
        let manifest = opening.manifest()?;
        let generations = opening.generations(&manifest)?;
        let mut letters = Letters::start(opening.letters(manifest.next == 0)?)?;
        let trail = Trail::start(letters.table_mut())?;
        let damages = opening.damages;
        let (directory, cache) = (config.path.clone(), config.cache_of_each());
        let mut disk = Self { directory, cache, manifest, generations, letters, trail, damages };
        if disk.generations.is_empty() {
            disk.begin_generation(now)?;
        } else {
            disk.write_manifest(now)?;
        }
        Ok(disk)
    }

    /// Returns the damaged parts that were set aside on opening.
    pub(crate) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Returns the latest time ever stored.
    ///
    /// It is the beginning of the store's time after a restart.
    pub(crate) fn time(&self) -> Timestamp {
        let tables = self.generations.iter().map(|g| g.table.time());
        tables.fold(self.manifest.time().max(self.letters.table().time()), Timestamp::max)
    }

    /// Returns the number of a scope that has one.
    pub(crate) fn number_of(&self, name: &str) -> Option<NameId> {
        self.manifest.number_of(name)
    }

    /// Returns the number of `name`, assigning one if needed; `None` if there are too many names.
    ///
    /// The manifest is written at once: a number must be durable before events carry it.
    pub(crate) fn number_for(&mut self, name: &str, now: Timestamp) -> Result<Option<NameId>> {
        if let Some(number) = self.manifest.number_of(name) {
            return Ok(Some(number));
        }
        let number = self.manifest.add_name(name);
        if number.is_some() {
            self.write_manifest(now)?;
        }
        Ok(number)
    }

    /// Returns the state of an event.
    ///
    /// The newest generation that knows the event decides.
    pub(crate) fn get(&self, key: EventKey) -> Option<State> {
        self.generations.iter().rev().find_map(|generation| generation.index().get(key))
    }

    /// Changes the state of an event, with the next commit.
    pub(crate) fn put(&mut self, key: EventKey, state: State) {
        self.current().set(key, Some(state));
    }

    /// Forgets an event, with the next commit: in all generations, otherwise an older entry would count again.
    pub(crate) fn forget(&mut self, key: EventKey) {
        for generation in self.generations.iter_mut().filter(|generation| generation.index().get(key).is_some()) {
            generation.set(key, None);
        }
    }

    /// Returns the index of the generation at `place` (the newest is 0); `None` if it does not exist.
    pub(crate) fn index(&self, place: usize) -> Option<&Index> {
        self.generations.iter().rev().nth(place).map(Generation::index)
    }

    /// Makes all changes durable, the oldest generation first: if an event is forgotten in only some of them after a
    /// crash, its newest entry still counts. New states go only to the newest generation.
    pub(crate) fn commit(&mut self, now: Timestamp) -> Result<()> {
        for generation in &mut self.generations {
            generation.commit(now)?;
        }
        self.letters.commit(now)
    }

    /// Appends audit records, with the next commit; after one that is refused, later ones of its chain are too.
    pub(crate) fn append_audit(
        &mut self,
        records: &[StoredAudit],
        now: Timestamp,
        max_records: u64,
    ) -> Result<Vec<tidings_core::Result<()>>> {
        let (mut answers, mut refused) = (Vec::with_capacity(records.len()), BTreeSet::new());
        for record in records {
            if refused.contains(&record.chain) {
                let text = "append: an earlier audit record of the chain is not stored";
                answers.push(Err(Error::new(ErrorKind::Unavailable, text)));
                continue;
            }
            let answer = self.trail.append(self.letters.table_mut(), record, now, max_records)?;
            if answer.is_err() {
                refused.insert(&record.chain);
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Reads audit records from a number on.
    pub(crate) fn read_audit(&self, from: u64, limit: usize) -> Result<TrailPage> {
        self.trail.page(self.letters.table(), from, limit)
    }

    /// Deletes audit records of before a time, up to a bound: see [`Trail::purge`].
    pub(crate) fn purge_audit(&mut self, before: Timestamp) -> Result<(u64, bool)> {
        self.trail.purge(self.letters.table_mut(), before)
    }

    /// Stores the time, so that it can't go back over a restart.
    pub(crate) fn mark(&mut self, now: Timestamp) -> Result<()> {
        self.current().table.mark(now)
    }

    /// Whether the current generation has lasted for its part of the retention.
    pub(crate) fn is_due(&self, config: &SledConfig, now: Timestamp) -> bool {
        self.generations.last().is_none_or(|g| g.began.saturating_add(config.part()) <= now)
    }

    /// Whether `key` has an entry in the generations that [`turn`](Self::turn) would drop now.
    pub(crate) fn is_expiring(&self, key: EventKey, config: &SledConfig, now: Timestamp) -> bool {
        let expired = &self.generations[..self.expired(config, now)];
        expired.iter().any(|generation| generation.index().get(key).is_some())
    }

    /// Begins a generation, and drops those whose youngest entry is older than the retention.
    ///
    /// Call it with everything committed: live claims in expiring generations must have been copied
    /// to the current one.
    pub(crate) fn turn(&mut self, config: &SledConfig, now: Timestamp) -> Result<()> {
        let expired = self.expired(config, now);
        if self.current().table.entries() == 0 {
            // An empty generation begins later instead of leaving an empty one behind.
            self.current().began = now;
            self.write_manifest(now)?;
        } else {
            self.begin_generation(now)?;
        }
        if expired > 0 {
            let dropped: Vec<_> = self.generations.drain(..expired).collect();
            self.write_manifest(now)?;
            dropped.into_iter().try_for_each(|generation| self.drop_generation(generation))?;
        }
        Ok(())
    }

    /// Returns whether [`turn`](Self::turn) would drop a generation now.
    pub(crate) fn has_expired(&self, config: &SledConfig, now: Timestamp) -> bool {
        self.expired(config, now) > 0
    }

    /// Returns how many generations, the oldest first, have expired: each ended when the next one began.
    fn expired(&self, config: &SledConfig, now: Timestamp) -> usize {
        let ends = self.generations.windows(2).map(|pair| pair[1].began);
        ends.take_while(|end| end.saturating_add(config.retention) <= now).count()
    }

    /// Closes and removes a generation that the manifest no longer names.
    fn drop_generation(&self, generation: Generation) -> Result<()> {
        let path = generation.table.path().to_path_buf();
        tracing::info!(
            generation = generation.number,
            "the oldest part of the store is past its retention; it is deleted"
        );
        generation.table.close()?;
        remove(&path)
    }

    /// Creates a generation, and makes it the current one by writing the manifest.
    fn begin_generation(&mut self, now: Timestamp) -> Result<()> {
        let number = self.manifest.next;
        self.manifest.next += 1;
        let path = self.directory.join(generation_name(number));
        let generation = Generation::create(number, &path, self.cache, now)?;
        sync_directory(&self.directory)?;
        self.generations.push(generation);
        self.write_manifest(now)
    }

    /// Writes the manifest with the present generations.
    fn write_manifest(&mut self, now: Timestamp) -> Result<()> {
        self.manifest.generations = self.generations.iter().map(|g| (g.number, g.began.millis())).collect();
        self.manifest.write(&self.directory, now)
    }

    /// Returns the newest generation, which takes all new states.
    fn current(&mut self) -> &mut Generation {
        self.generations.last_mut().expect("an open directory has a generation")
    }

    /// Returns the number of events and the bytes on disk.
    pub(crate) fn size(&self) -> Result<(u64, u64)> {
        let entries = self.generations.iter().map(|g| g.index().len() as u64).sum();
        let bytes = self.generations.iter().map(|g| g.table.size_on_disk()).sum::<Result<u64>>()?;
        Ok((entries, bytes + self.letters.table().size_on_disk()?))
    }

    /// Closes all tables; the lock is the caller's.
    pub(crate) fn close(self) -> Result<()> {
        self.generations.into_iter().try_for_each(|g| g.table.close())?;
        self.letters.close()
    }
}

fn generation_name(number: u64) -> String {
    format!("{GENERATION}{number:08}")
}

/// Removes a directory so that a crash half-way leaves nothing that looks complete.
///
/// It is renamed first, by one atomic step; a leftover under that name is removed when the store is
/// opened.
fn remove(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let doomed = path.with_file_name(format!("{DROPPED}{name}"));
    fs::rename(path, &doomed).map_err(|e| Broken::io("rename", path, &e))?;
    fs::remove_dir_all(&doomed).map_err(|e| Broken::io("remove", &doomed, &e))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Opens the parts of a directory, and applies the user's policy to damaged ones.
struct Opening<'a> {
    config: &'a SledConfig,
    now: Timestamp,
    damages: Vec<Damage>,
}

impl Opening<'_> {
    /// Reads the manifest, or writes the first one in an empty directory.
    fn manifest(&mut self) -> Result<Manifest> {
        let directory = &self.config.path;
        let parts: Vec<_> = list(directory)?.into_iter().filter(|path| is_part(path)).collect();
        let damage = match Manifest::read(directory) {
            Ok(Some(manifest)) => return Ok(manifest),
            // Written before anything else: parts without a manifest are foreign data.
            Ok(None) if parts.is_empty() => return self.first_manifest(),
            Ok(None) => Broken::corrupt(&directory.join("manifest"), "is missing"),
            Err(damage) => damage,
        };
        self.set_aside(&parts, damage)?;
        self.first_manifest()
    }

    fn first_manifest(&self) -> Result<Manifest> {
        let mut manifest = Manifest::new();
        manifest.write(&self.config.path, self.now)?;
        Ok(manifest)
    }

    /// Opens the generations that the manifest names.
    fn generations(&mut self, manifest: &Manifest) -> Result<Vec<Generation>> {
        self.remove_leftovers(manifest)?;
        let mut open = Vec::new();
        for &(number, began) in &manifest.generations {
            let path = self.config.path.join(generation_name(number));
            match Generation::open(number, Timestamp::from_millis(began), &path, self.config.cache_of_each()) {
                Ok(generation) => open.push(generation),
                Err(damage) => self.set_aside(&[path], damage)?,
            }
        }
        Ok(open)
    }

    /// Opens the table of letters. In a new store a leftover is removed: it was never acknowledged.
    fn letters(&mut self, new: bool) -> Result<Table> {
        let path = self.config.path.join(LETTERS);
        let cache = self.config.cache_of_each();
        if !new {
            match Table::open(&path, cache) {
                Ok(table) => return Ok(table),
                Err(damage) => self.set_aside(std::slice::from_ref(&path), damage)?,
            }
        } else if path.exists() {
            remove(&path)?;
        }
        let table = Table::create(&path, cache, self.now)?;
        sync_directory(&self.config.path)?;
        Ok(table)
    }

    /// Removes directories that a crash left half-created or half-removed: they were never acknowledged or are not
    /// needed any more.
    fn remove_leftovers(&self, manifest: &Manifest) -> Result<()> {
        for path in list(&self.config.path)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let known = |number: u64| manifest.generations.iter().any(|(known, _)| *known == number);
            let number = name.strip_prefix(GENERATION).and_then(|n| n.parse().ok());
            if name.starts_with(DROPPED) {
                fs::remove_dir_all(&path).map_err(|e| Broken::io("remove", &path, &e))?;
            } else if number.is_some_and(|number| !known(number)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Moves damaged parts aside if the policy allows it, otherwise fails.
    ///
    /// # Errors
    /// The damage itself, if it is not of the content or the policy refuses.
    fn set_aside(&mut self, parts: &[PathBuf], damage: Broken) -> Result<()> {
        if damage.kind != ErrorKind::Corrupt || self.config.on_damage == OnDamage::Refuse {
            return Err(damage);
        }
        let to = self.config.path.join(format!("{DAMAGED}{}", self.now.millis()));
        create_directory(&to)?;
        for part in parts.iter().filter(|part| part.exists()) {
            let target = free_name(&to, part);
            fs::rename(part, &target).map_err(|e| Broken::io("set aside", part, &e))?;
        }
        sync_directory(&to)?;
        sync_directory(&self.config.path)?;
        tracing::error!(
            %damage,
            set_aside = %to.display(),
            "the store is damaged; it continues without the damaged part, whose events may be handled again"
        );
        self.damages.push(Damage::new(to, damage.to_string(), self.now));
        Ok(())
    }
}

/// Returns a free name for `part` in `directory`: two parts may be set aside within one millisecond.
fn free_name(directory: &Path, part: &Path) -> PathBuf {
    let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut target = directory.join(&name);
    let mut more = 1;
    while target.exists() {
        target = directory.join(format!("{name}.{more}"));
        more += 1;
    }
    target
}

/// Returns whether a path belongs to the store; the lock and parts set aside do not count.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == LETTERS || name.starts_with(GENERATION) || name == "manifest"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::History;
    use uuid::Uuid;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let paths = list(directory).unwrap();
        let mut names: Vec<_> =
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn generations_begin_and_expire_at_their_times() {
        let (directory, at) = (tempfile::tempdir().unwrap(), Timestamp::from_millis);
        let config = SledConfig::new(directory.path()).with_retention(Duration::from_secs(7));
        let [first, second] = [Uuid::now_v7(), Uuid::now_v7()].map(|id| EventKey { scope: 0, id });
        let parts = |numbers: [&str; 2]| numbers.map(|number| format!("events-0000000{number}"));
        let mut disk = Disk::open(&config, at(0)).unwrap();
        assert!(!disk.is_due(&config, at(999)) && disk.is_due(&config, at(1_000)));
        // An empty generation is restarted, not replaced.
        disk.turn(&config, at(1_000)).unwrap();
        assert_eq!(names(directory.path()), ["events-00000000", "letters", "manifest"]);
        assert!(!disk.is_due(&config, at(1_999)));
        disk.put(first, State::Done(at(1_500)));
        disk.commit(at(1_500)).unwrap();
        disk.turn(&config, at(2_000)).unwrap();
        assert_eq!(names(directory.path())[..2], parts(["0", "1"]));
        assert!(!disk.has_expired(&config, at(8_999)) && disk.has_expired(&config, at(9_000)));
        assert!(!disk.is_expiring(first, &config, at(8_999)) && disk.is_expiring(first, &config, at(9_000)));
        disk.put(second, State::Done(at(2_500)));
        disk.commit(at(2_500)).unwrap();
        assert!(!disk.is_expiring(second, &config, at(9_000)));
        let (events, bytes) = disk.size().unwrap();
        let tables: u64 = disk.generations.iter().map(|g| g.table.size_on_disk().unwrap()).sum();
        assert_eq!((events, bytes), (2, tables + disk.letters.table().size_on_disk().unwrap()));
        disk.turn(&config, at(9_000)).unwrap();
        for _ in 0..2 {
            assert_eq!(
                names(directory.path()),
                [&parts(["1", "2"])[..], &["letters".into(), "manifest".into()]].concat()
            );
            assert_eq!((disk.get(first), disk.get(second)), (None, Some(State::Done(at(2_500)))));
            assert_eq!(disk.time(), at(9_000));
            disk.close().unwrap();
            disk = Disk::open(&config, at(0)).unwrap();
        }
    }

    #[test]
    fn what_a_crash_left_is_removed_and_what_is_foreign_stays() {
        let directory = tempfile::tempdir().unwrap();
        let config = SledConfig::new(directory.path());
        Disk::open(&config, Timestamp::from_millis(1)).unwrap().close().unwrap();
        for name in ["dropped-events-00000007", "events-00000009", "events-mine", "mine"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Disk::open(&config, Timestamp::from_millis(1)).unwrap().close().unwrap();
        assert_eq!(names(directory.path()), ["events-00000000", "events-mine", "letters", "manifest", "mine"]);
    }

    #[test]
    fn parts_that_are_set_aside_at_once_replace_each_other_never() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["letters", "letters.1", "letters.2"] {
            let free = free_name(directory.path(), Path::new("store/letters"));
            assert_eq!(free, directory.path().join(name));
            fs::create_dir(free).unwrap();
        }
        let are_parts = ["letters", "manifest", "events-00000003"].map(|name| is_part(Path::new(name)));
        let are_none =
            ["lock", "damaged-7", "dropped-events-00000003", "letters.1"].map(|name| is_part(Path::new(name)));
        assert_eq!((are_parts, are_none), ([true; 3], [false; 4]));
    }

    #[test]
    fn a_forgetting_cut_off_between_generations_brings_no_older_entry_back() {
        let (first, second) = (Timestamp::from_millis(1), Timestamp::from_millis(9_000));
        for broken in 0..2 {
            let directory = tempfile::tempdir().unwrap();
            let config = SledConfig::new(directory.path()).with_retention(Duration::from_secs(10));
            let mut disk = Disk::open(&config, first).unwrap();
            let key = EventKey { scope: 0, id: Uuid::now_v7() };
            disk.put(key, State::Claimed(Uuid::now_v7(), History::default()));
            disk.commit(first).unwrap();
            disk.turn(&config, second).unwrap();
            let done = State::Done(second);
            disk.put(key, done);
            disk.commit(second).unwrap();
            disk.forget(key);
            disk.generations[broken].table.cut(Cut { keys: 500, batches: 0 });
            disk.commit(second).unwrap_err();
            drop(disk);
            let disk = Disk::open(&config, second).unwrap();
            assert_eq!(disk.get(key), Some(done), "broken: {broken}");
        }
    }
}
