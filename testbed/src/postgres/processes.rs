//! The processes of a server: Postgres has one per session.

use crate::{
    error::{Error, Result},
    process::signal_process,
};
use rustix::process::{Pid, Signal};
use std::fs;

/// A client session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backend {
    /// Process id, as in `pg_backend_pid()`.
    pub pid: i32,
    /// The process title: user, database, address and what it does (`postgres: tidings db 127.0.0.1(40112) idle`).
    pub title: String,
}

/// Titles of processes that are not client sessions.
const BACKGROUND: [&str; 9] = [
    "checkpointer",
    "background writer",
    "walwriter",
    "autovacuum",
    "logical replication",
    "startup",
    "archiver",
    "stats collector",
    "io worker",
];

pub(crate) fn backends(server: Pid) -> Vec<Backend> {
    let titled = children(server).into_iter().filter_map(|pid| {
        let title = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_pid())).ok()?;
        let title = title.trim_end_matches(['\0', ' ']).to_owned();
        let role = title.strip_prefix("postgres: ")?;
        let session = !BACKGROUND.iter().any(|name| role.starts_with(name));
        session.then_some(Backend { pid: pid.as_raw_pid(), title })
    });
    titled.collect()
}

pub(crate) fn signal_backend(server: Pid, pid: i32, signal: Signal) -> Result<()> {
    // Never another process that happens to have the same id.
    match children(server).into_iter().find(|child| child.as_raw_pid() == pid) {
        Some(child) => signal_process(child, signal),
        None => Err(Error::failed(format!("process {pid} is no session of this server"))),
    }
}

/// Pauses the server first, so that it starts no more children meanwhile.
pub(crate) fn pause(server: Pid) -> Result<()> {
    signal_process(server, Signal::STOP)?;
    for child in children(server) {
        let _ended = signal_process(child, Signal::STOP);
    }
    Ok(())
}

pub(crate) fn resume(server: Pid) -> Result<()> {
    for child in children(server) {
        let _ended = signal_process(child, Signal::CONT);
    }
    signal_process(server, Signal::CONT)
}

fn children(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(parent.as_raw_pid())).filter_map(Pid::from_raw).collect()
}

/// Returns the fourth field of `stat`; the second, a name in parentheses, may contain anything.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
