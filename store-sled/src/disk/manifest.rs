//! The manifest, which lists the expected content of the directory.
//!
//! It is replaced atomically: a draft is written and synced, then renamed over it. A generation
//! exists if the manifest names it. One that it does not name was never acknowledged or is already
//! dropped, and is removed when the store is opened.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidings_core::Timestamp;

use super::files::sync_directory;
use crate::codec::NameId;
use crate::error::{Broken, Result};

const FILE: &str = "manifest";
/// A draft that a crash left is overwritten by the next one.
const DRAFT: &str = "manifest.new";
/// Version of all stored forms; another one is refused rather than misread.
const FORMAT: u16 = 2;

/// Maximum number of numbered scopes.
const MAX_NAMES: usize = NameId::MAX as usize;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u16,
    /// The store's time when this was written, in milliseconds.
    time: i64,
    /// The number that the next generation gets.
    pub(crate) next: u64,
    /// Number and start in milliseconds of each generation, the oldest first.
    pub(crate) generations: Vec<(u64, i64)>,
    /// Names by number: a name's number is its index.
    names: Vec<String>,
}

impl Manifest {
    /// Creates a manifest without generations.
    pub(crate) fn new() -> Self {
        // Number 0 is the empty name.
        Self { format: FORMAT, time: i64::MIN, next: 0, generations: Vec::new(), names: vec![String::new()] }
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Corrupt`](tidings_core::ErrorKind::Corrupt) if its checksum or its version is wrong.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Broken::io("read", &path, &e)),
        };
        let damaged = || Broken::corrupt(&path, "is damaged");
        let (body, crc) = bytes.split_last_chunk().ok_or_else(damaged)?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(damaged());
        }
        let manifest: Self = postcard::from_bytes(body).map_err(|_| damaged())?;
        if manifest.format == FORMAT {
            Ok(Some(manifest))
        } else {
            Err(Broken::corrupt(&path, "is of another version"))
        }
    }

    /// Replaces the file durably and atomically.
    ///
    /// Its time never goes back, whatever `now` is.
    pub(crate) fn write(&mut self, directory: &Path, now: Timestamp) -> Result<()> {
        self.time = self.time.max(now.millis());
        let draft = directory.join(DRAFT);
        let failed = |e| Broken::io("write", &draft, &e);
        let mut bytes = postcard::to_stdvec(self).map_err(|e| failed(std::io::Error::other(e)))?;
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        let mut file = File::create(&draft).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&draft, directory.join(FILE)).map_err(failed)?;
        sync_directory(directory)
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.time)
    }

    /// Returns the number of a name. A scan is enough: a store has few scopes.
    pub(crate) fn number_of(&self, name: &str) -> Option<NameId> {
        let place = self.names.iter().position(|n| n == name)?;
        NameId::try_from(place).ok()
    }

    /// Assigns a number to `name`; `None` if there are too many. The manifest must be written afterwards.
    pub(crate) fn add_name(&mut self, name: &str) -> Option<NameId> {
        if self.names.len() >= MAX_NAMES {
            return None;
        }
        self.names.push(name.to_owned());
        NameId::try_from(self.names.len() - 1).ok()
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::ErrorKind;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_its_time_never_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Manifest::read(directory.path()).unwrap().is_none());
        let mut manifest = Manifest::new();
        manifest.generations = vec![(3, -1), (4, 9)];
        assert_eq!((manifest.add_name("a"), manifest.add_name("b")), (Some(1), Some(2)));
        manifest.write(directory.path(), Timestamp::from_millis(7)).unwrap();
        manifest.write(directory.path(), Timestamp::from_millis(5)).unwrap();
        let read = Manifest::read(directory.path()).unwrap().unwrap();
        assert_eq!((read.time().millis(), &read.generations), (7, &vec![(3, -1), (4, 9)]));
        assert_eq!(["", "a", "b", "c"].map(|name| read.number_of(name)), [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn a_changed_byte_or_another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut manifest = Manifest::new();
        manifest.write(directory.path(), Timestamp::from_millis(7)).unwrap();
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(Manifest::read(directory.path()).unwrap_err().kind, ErrorKind::Corrupt, "byte {place}");
        }
        manifest.format += 1;
        manifest.write(directory.path(), Timestamp::from_millis(7)).unwrap();
        let error = Manifest::read(directory.path()).unwrap_err();
        assert!(error.kind == ErrorKind::Corrupt && error.to_string().contains("another version"), "{error}");
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).unwrap();
        assert_ne!(Manifest::read(directory.path()).unwrap_err().kind, ErrorKind::Corrupt);
    }

    #[test]
    fn names_are_numbered_up_to_a_bound() {
        let mut manifest = Manifest::new();
        for number in 1..NameId::MAX {
            assert_eq!(manifest.add_name(&number.to_string()), Some(number));
        }
        assert_eq!(manifest.add_name("one more"), None);
        assert_eq!(manifest.number_of("one more"), None);
    }
}
