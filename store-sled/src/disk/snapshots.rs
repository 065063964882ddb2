//! sled's snapshots: copies of its log's content that speed up opening.
//!
//! sled opens the snapshot with the highest name, and fails if that one is damaged, even if its log is intact.
//! Refusing such a store, or setting its events aside, would lose intact data: the log is authoritative, and the seal
//! proves that it is complete.

use std::fs;
use std::path::Path;

use super::files::list;
use crate::error::{Broken, Result};

const SNAPSHOT: &str = "snap.";
/// A snapshot that sled had not finished when its process died.
const DRAFT: &str = ".generating";
const DAMAGED: &str = "damaged-";

/// Removes drafts and renames damaged snapshots, which prevent sled from opening. The latter stay next to the log
/// until [`forget_damaged`], in case the log is incomplete too.
pub(crate) fn put_in_order(directory: &Path) -> Result<()> {
    for path in list(directory)? {
        let name = name_of(&path);
        if !name.starts_with(SNAPSHOT) {
            continue;
        }
        if name.ends_with(DRAFT) {
            fs::remove_file(&path).map_err(|e| Broken::io("remove", &path, &e))?;
        } else if !is_whole(&fs::read(&path).map_err(|e| Broken::io("read", &path, &e))?) {
            tracing::warn!(snapshot = %path.display(), "a snapshot is damaged; the whole log is read instead");
            let aside = directory.join(format!("{DAMAGED}{name}"));
            fs::rename(&path, &aside).map_err(|e| Broken::io("set aside", &path, &e))?;
        }
    }
    Ok(())
}

/// Removes damaged snapshots, once the log is known to be complete.
pub(crate) fn forget_damaged(directory: &Path) -> Result<()> {
    let prefix = format!("{DAMAGED}{SNAPSHOT}");
    let damaged = list(directory)?.into_iter().filter(|path| name_of(path).starts_with(&prefix));
    damaged.into_iter().try_for_each(|path| fs::remove_file(&path).map_err(|e| Broken::io("remove", &path, &e)))
}

/// A snapshot ends in eight bytes of its length and four of its checksum.
fn is_whole(snapshot: &[u8]) -> bool {
    let Some((rest, crc)) = snapshot.split_last_chunk() else { return false };
    let Some((content, _length)) = rest.split_last_chunk::<8>() else { return false };
    !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*crc)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_go_and_damaged_snapshots_wait_aside_until_the_log_is_known_to_be_whole() {
        let directory = tempfile::tempdir().unwrap();
        let content = [b"content".as_slice(), &[0; 8]].concat();
        let whole = [content, crc32fast::hash(b"content").to_le_bytes().to_vec()].concat();
        for (name, bytes) in
            [("snap.1", &whole), ("snap.2", &vec![7; 30]), ("snap.3.generating", &whole), ("db", &vec![7; 30])]
        {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let names = || {
            let mut names: Vec<_> = list(directory.path()).unwrap().iter().map(|path| name_of(path)).collect();
            names.sort();
            names
        };
        put_in_order(directory.path()).unwrap();
        assert_eq!(names(), ["damaged-snap.2", "db", "snap.1"]);
        forget_damaged(directory.path()).unwrap();
        assert_eq!(names(), ["db", "snap.1"]);
    }

    #[test]
    fn what_sled_writes_is_whole_and_a_changed_byte_of_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        // The second round has content for a snapshot.
        for round in 0..2_u8 {
            let database = sled::Config::new().path(directory.path()).flush_every_ms(None).open().unwrap();
            database.insert([round], &[round]).unwrap();
        }
        let snapshots: Vec<_> =
            list(directory.path()).unwrap().into_iter().filter(|path| name_of(path).starts_with(SNAPSHOT)).collect();
        assert_eq!(snapshots.len(), 1);
        let content = fs::read(&snapshots[0]).unwrap();
        assert!(is_whole(&content));
        // sled does not use the length.
        for place in (0..content.len() - 12).chain(content.len() - 4..content.len()) {
            let mut damaged = content.clone();
            damaged[place] ^= 1;
            assert!(!is_whole(&damaged), "byte {place}");
        }
        assert!((0..content.len()).all(|length| !is_whole(&content[..length])));
    }
}
