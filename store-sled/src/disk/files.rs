//! File system helpers: syncs, locks, dated names.
//!
//! A rename, a creation or a removal is durable only once its directory is synced; without that, a
//! power cut may bring the old name back. Each helper here that changes names ends with that sync.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use tidings_core::{ErrorKind, Timestamp};

use crate::error::{Broken, Result};

/// Makes creations, renames and removals in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    // Windows can't open a directory as a file, and needs no such sync.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| Broken::io("sync the directory", directory, &e))
}

/// Makes every file below `directory` and its name durable.
///
/// Files first, then the directory that names them.
pub(crate) fn sync_tree(directory: &Path) -> Result<()> {
    for entry in list(directory)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            File::open(&entry).and_then(|f| f.sync_all()).map_err(|e| Broken::io("sync", &entry, &e))?;
        }
    }
    sync_directory(directory)
}

/// Returns the paths in `directory`.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Broken::io("list", directory, &e);
    fs::read_dir(directory).map_err(failed)?.map(|entry| entry.map(|e| e.path()).map_err(failed)).collect()
}

/// Creates `directory` and its missing parents, durably.
///
/// Parents are created first, each synced into its own parent.
pub(crate) fn create_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_directory(parent)?;
        fs::create_dir(directory).map_err(|e| Broken::io("create", directory, &e))?;
        return sync_directory(parent);
    }
    fs::create_dir(directory).map_err(|e| Broken::io("create", directory, &e))
}

/// Takes the store's own lock. sled locks its files too, but only on some systems, after it has modified the
/// directory, and with a generic error.
///
/// It ends with the process, however that ends.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict) if another handle holds it.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|e| Broken::io("open", path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Broken::new(ErrorKind::Conflict, format!("{} is locked: the store is already open", path.display())))
        }
        Err(TryLockError::Error(e)) => Err(Broken::io("lock", path, &e)),
    }
}

/// Formats a time for the name of a directory: `20260131T235959Z`.
///
/// UTC, without characters that some file systems refuse.
pub(crate) fn dated(time: Timestamp) -> String {
    let seconds = time.millis().div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

/// The date of a day counted from 1970-01-01, by Howard Hinnant's `civil_from_days`: years begin in March, so that the
/// leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_name_is_the_time_in_utc() {
        assert_eq!(dated(Timestamp::from_millis(0)), "19700101T000000Z");
        assert_eq!(dated(Timestamp::from_millis(951_782_399_999)), "20000228T235959Z");
        assert_eq!(dated(Timestamp::from_millis(951_782_400_000)), "20000229T000000Z");
        assert_eq!(dated(Timestamp::from_millis(1_798_761_599_000)), "20261231T235959Z");
    }
}
