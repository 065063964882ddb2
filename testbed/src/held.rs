//! Servers that outlive the command that started them, for interactive use.
//!
//! A separate process, the holder, owns the servers as a test would, records their addresses in a file, and holds a
//! lock for its lifetime: so `status` cannot be misled by a reused process id, and ending the holder ends its
//! servers.

use crate::{
    error::{Context, Error, Result},
    kafka::install::cache_dir,
    process::{signal_process, wait_until},
};
use rustix::process::{Pid, Signal};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// The first start downloads the broker's jars.
const START_TIMEOUT: Duration = Duration::from_secs(300);
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// A server, or a cluster, of which there is at most one per workspace.
#[derive(Debug, Clone)]
pub struct Held {
    name: String,
}

impl Held {
    /// Refers to the server of this name, without starting it.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Returns the server's URL, if it runs.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn url(&self) -> Result<Option<String>> {
        Ok(if self.is_held()? { fs::read_to_string(self.file("url")).ok() } else { None })
    }

    /// Returns the path of the holder's log.
    pub fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// Starts this program again with `args` as the holder, unless one runs, and waits until it is ready. Returns the
    /// server's URL.
    ///
    /// # Errors
    /// If the server did not start; the error has the holder's messages.
    pub fn up(&self, args: &[String]) -> Result<String> {
        if let Some(url) = self.url()? {
            return Ok(url);
        }
        let _stale = fs::remove_file(self.file("url"));
        let program = std::env::current_exe().context("find this program")?;
        let log = File::create(self.log()).at(&self.log())?;
        let errors = log.try_clone().at(&self.log())?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut holder = command.spawn().context("start a holder")?;
        let mut died = false;
        let up = wait_until(START_TIMEOUT, || {
            died = !matches!(holder.try_wait(), Ok(None));
            died || self.file("url").exists()
        });
        match self.url()? {
            Some(url) if up && !died => Ok(url),
            _ => Err(Error::failed(format!("{} did not come up: {}", self.name, self.messages()))),
        }
    }

    /// Ends the holder and with it the server; returns whether there was one.
    ///
    /// # Errors
    /// If it does not end.
    pub fn down(&self) -> Result<bool> {
        if !self.is_held()? {
            return Ok(false);
        }
        let text = fs::read_to_string(self.file("pid")).at(&self.file("pid"))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::failed(format!("{}: no process id", self.file("pid").display())))?;
        signal_process(pid, Signal::TERM)?;
        let ended = wait_until(END_TIMEOUT, || self.is_held().is_ok_and(|held| !held));
        ended.then_some(true).ok_or_else(|| Error::failed(format!("{} did not end", self.name)))
    }

    /// Takes the lock, in the holder, before the server is started.
    ///
    /// # Errors
    /// If another process holds it.
    pub fn claim(&self) -> Result<Claim> {
        let lock = self.lock_file()?;
        lock.try_lock().map_err(|_| Error::failed(format!("{} is held by another process", self.name)))?;
        fs::write(self.file("pid"), std::process::id().to_string()).at(&self.file("pid"))?;
        Ok(Claim { held: self.clone(), _lock: lock })
    }

    fn messages(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default().trim().to_owned()
    }

    fn is_held(&self) -> Result<bool> {
        Ok(self.lock_file()?.try_lock().is_err())
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.file("lock");
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).at(dir)?;
        }
        File::options().create(true).append(true).open(&path).at(&path)
    }

    fn file(&self, ending: &str) -> PathBuf {
        cache_dir().join("held").join(format!("{}.{ending}", self.name))
    }
}

/// The holder's lock.
#[derive(Debug)]
pub struct Claim {
    held: Held,
    _lock: File,
}

impl Claim {
    /// Records the server's URL, and keeps this process running until it is ended from outside.
    ///
    /// # Errors
    /// If the URL cannot be written.
    pub fn hold(self, url: &str) -> Result<()> {
        let (new, file) = (self.held.file("url.new"), self.held.file("url"));
        fs::write(&new, url).at(&new)?;
        // Atomically: readers that wait for the file always see all of it.
        fs::rename(&new, &file).at(&file)?;
        loop {
            thread::park();
        }
    }
}
