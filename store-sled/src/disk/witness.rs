//! A small file next to each sled database that records its last acknowledged commit.
//!
//! When sled finds its log damaged, it truncates the log at the damage and opens the part before it, as if the rest
//! had never existed. The witness remembers the rest.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Broken, Result};

/// Bytes of a slot: the number of a commit and its checksum.
const SLOT: usize = 12;

/// It is two slots long, whatever the size of the table.
#[derive(Debug)]
pub(crate) struct Witness {
    path: PathBuf,
    file: File,
}

impl Witness {
    /// Opens the witness at `path` (creating it if `new`), and returns the last acknowledged commit.
    ///
    /// # Errors
    /// [`Corrupt`](tidings_core::ErrorKind::Corrupt) if the file is missing, or neither slot is
    /// valid.
    pub(crate) fn open(path: &Path, new: bool) -> Result<(Self, u64)> {
        let seen = if new { 0 } else { read(path)? };
        let file = OpenOptions::new().create(new).truncate(false).write(true).open(path);
        let file = file.map_err(|e| Broken::io("open", path, &e))?;
        Ok((Self { path: path.to_path_buf(), file }, seen))
    }

    /// Records that the commit `sequence` is durable. Not synced: the commit is durable already, so losing the note
    /// in a power cut only loses a check, and a sync per commit would halve the store's throughput.
    pub(crate) fn note(&mut self, sequence: u64) -> Result<()> {
        let mut slot = [0; SLOT];
        slot[..8].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32fast::hash(&slot[..8]);
        slot[8..].copy_from_slice(&crc.to_be_bytes());
        // Two slots in turn: a torn note leaves the one before.
        let offset = (sequence % 2) * SLOT as u64;
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(&slot));
        written.map_err(|e| Broken::io("write", &self.path, &e))
    }

    /// Makes the last note durable, when the table is created or closed.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Broken::io("sync", &self.path, &e))
    }
}

/// Returns the higher of the valid slots.
fn read(path: &Path) -> Result<u64> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Broken::corrupt(path, "is missing")),
        Err(e) => return Err(Broken::io("read", path, &e)),
    };
    let valid = bytes.chunks_exact(SLOT).filter_map(|slot| {
        let (sequence, crc) = (slot.first_chunk::<8>()?, slot.last_chunk::<4>()?);
        (crc32fast::hash(sequence) == u32::from_be_bytes(*crc)).then(|| u64::from_be_bytes(*sequence))
    });
    valid.max().ok_or_else(|| Broken::corrupt(path, "is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_leaves_the_one_before_in_the_other_slot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        let (mut witness, seen) = Witness::open(&path, true).unwrap();
        assert_eq!(seen, 0);
        for sequence in 1..=9_u64 {
            witness.note(sequence).unwrap();
            let whole = fs::read(&path).unwrap();
            assert_eq!((whole.len(), Witness::open(&path, false).unwrap().1), (2 * SLOT, sequence));
            let slot = whole.windows(8).position(|bytes| *bytes == sequence.to_be_bytes()).unwrap();
            let mut torn = whole.clone();
            torn[slot + 3] ^= 1;
            fs::write(&path, &torn).unwrap();
            let before = read(&path);
            assert_eq!(before.ok(), (sequence > 1).then(|| sequence - 1));
            fs::write(&path, whole).unwrap();
        }
    }

    #[test]
    fn a_missing_or_damaged_witness_is_damage_and_one_that_cannot_be_read_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        let kind = || read(&path).unwrap_err().kind;
        assert_eq!(kind(), tidings_core::ErrorKind::Corrupt);
        fs::write(&path, [7; 2 * SLOT]).unwrap();
        assert_eq!(kind(), tidings_core::ErrorKind::Corrupt);
        fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).unwrap();
        assert_ne!(kind(), tidings_core::ErrorKind::Corrupt);
    }

    #[test]
    fn the_last_note_is_read_back_and_a_torn_one_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        let (mut witness, _) = Witness::open(&path, true).unwrap();
        witness.note(1).unwrap();
        witness.note(2).unwrap();
        assert_eq!(read(&path).unwrap(), 2);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), 1);
    }
}
