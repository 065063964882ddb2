//! The Postgres installed on this machine, and the user that may run it.

use crate::{
    error::{Error, Result},
    process::find_program,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

/// Where distributions install the versions of Postgres.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Postgres refuses to run as root: users that may run it instead.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The programs of a Postgres installation.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    bin: PathBuf,
    run_as: Option<User>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl User {
    pub(super) const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl Install {
    /// Finds the newest installed version.
    pub(crate) fn find() -> Result<Self> {
        let missing = || Error::unavailable(format!("no Postgres: initdb is neither in {VERSIONS}/*/bin nor in PATH"));
        let bin = newest_version().or_else(in_path).ok_or_else(missing)?;
        Ok(Self { bin, run_as: other_than_root()? })
    }

    /// Returns the command that runs a program as the user who may run a server.
    pub(crate) fn command(&self, program: &str, args: &[String]) -> Vec<String> {
        let mut command = Vec::new();
        if let Some(User { uid, gid }) = self.run_as {
            command.push("setpriv".to_owned());
            command.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        command.push(self.program(program).display().to_string());
        command.extend(args.iter().cloned());
        command
    }

    /// Returns the user who runs servers, if it differs from the current one.
    pub(super) fn user(&self) -> Option<User> {
        self.run_as
    }

    /// Returns the path of a program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Changes the owner of a file or folder to the user who runs the server.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        let Some(User { uid, gid }) = self.run_as else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(|e| Error::io(format!("give {} to user {uid}", path.display()), e))
    }
}

fn newest_version() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let bin = path.join("bin");
        bin.join("initdb").is_file().then_some((number, bin))
    });
    versions.max().map(|(_, bin)| bin)
}

fn in_path() -> Option<PathBuf> {
    Some(find_program("initdb")?.parent()?.to_owned())
}

fn other_than_root() -> Result<Option<User>> {
    let own = fs::metadata("/proc/self").map_err(|e| Error::io("read /proc/self", e))?.uid();
    if own != 0 {
        return Ok(None);
    }
    if find_program("setpriv").is_none() {
        return Err(Error::unavailable("Postgres refuses to run as root, and there is no setpriv to be another user"));
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = USERS.into_iter().find_map(|name| user(&passwd, name));
    user.map(Some)
        .ok_or_else(|| Error::unavailable(format!("Postgres refuses to run as root, and none of {USERS:?} exists")))
}

fn user(passwd: &str, name: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:9:9::/:/bin/sh\npostgres:x:101:104:a:/:/bin/sh\n";
        assert_eq!(user(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(user(passwd, "nobody"), None);
    }
}
