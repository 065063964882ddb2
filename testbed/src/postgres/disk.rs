//! A disk that fills up: a file system in memory, visible only to the server and removed with it.

use super::install::{Install, User};
use crate::{
    error::{Context, Error, Result},
    process::run,
};
use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

/// Run in a mount namespace, where `$1` is the folder and `$2` its options; the rest is the command.
const MOUNT: &str = r#"mount -t tmpfs -o "$2" tmpfs "$1" && shift 2 && exec "$@""#;

/// Wraps `command` with a file system of this many MiB at `path`, for the user who runs the server.
pub(super) fn on_small_disk(install: &Install, path: &Path, mebibytes: u32, command: &[String]) -> Result<Vec<String>> {
    let own = fs::metadata("/proc/self").context("read /proc/self")?;
    let mut wrapped = vec!["unshare".to_owned(), "--mount".to_owned()];
    let (user, mut inner) = match install.user() {
        Some(user) => (user, Vec::new()),
        // In a user namespace every user is root, but the server must not be.
        None => {
            wrapped.extend(["--user", "--map-root-user"].map(str::to_owned));
            let back = [format!("--map-user={}", own.uid()), format!("--map-group={}", own.gid())];
            (User::ROOT, ["unshare".to_owned(), "--user".to_owned()].into_iter().chain(back).collect())
        }
    };
    let options = format!("size={mebibytes}m,mode=700,uid={},gid={}", user.uid, user.gid);
    wrapped.extend(["sh", "-c", MOUNT, "sh"].map(str::to_owned));
    wrapped.extend([path.display().to_string(), options]);
    wrapped.append(&mut inner);
    let probe = run(Command::new(&wrapped[0]).args(&wrapped[1..]).arg("true"));
    probe.map_err(|error| Error::forbidden(format!("this machine lets us mount no file system: {error}")))?;
    wrapped.extend(command.iter().cloned());
    Ok(wrapped)
}
