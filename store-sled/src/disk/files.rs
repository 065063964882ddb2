//! File system helpers: syncs and locks.
//!
//! A rename, a creation or a removal is durable only once its directory is synced; without that, a
//! power cut may bring the old name back. Each helper here that changes names ends with that sync.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use tidings_core::ErrorKind;

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
