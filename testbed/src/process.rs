//! Child processes that never outlive their parent, and signals to them.

use crate::error::{Context, Error, Result};
use rustix::process::{Pid, Signal};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Interval between checks of a condition.
const POLL: Duration = Duration::from_millis(20);

/// How long a process may take to end after a signal.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the command, prints its process id, and ends it when standard input closes, which happens however the
/// parent ends: even a `kill -9` of a test leaves no server behind. `$1` is the signal to end it with, `$2` its log.
const SUPERVISOR: &str = r#"
exec 3<&0
signal=$1 log=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 3<&- &
child=$!
( cat <&3 >/dev/null
  kill -"$signal" $child; kill -CONT $child
  for i in 1 2 3 4 5; do kill -0 $child || exit; sleep 1; done
  kill -KILL $child ) >/dev/null 2>&1 &
watch=$!
exec 3<&-
echo $child
exec >/dev/null 2>&1
wait $child
kill -KILL $watch
"#;

/// Removes a folder when standard input closes. It retries for some seconds, as servers may still be ending in there.
const SWEEPER: &str = r#"
cat >/dev/null
for i in 1 2 3 4 5 6 7 8; do rm -rf "$1" && [ ! -e "$1" ] && exit; sleep 1; done
"#;

/// How a process is ended after its owner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndBy {
    /// SIGKILL: for processes that leave nothing behind.
    Kill,
    /// SIGQUIT: Postgres's immediate shutdown, which also removes its backends and shared memory.
    Quit,
}

/// A running server process.
#[derive(Debug)]
pub(crate) struct Supervised {
    supervisor: Child,
    // Closing it ends the process.
    stdin: Option<ChildStdin>,
    pid: Pid,
    end_by: EndBy,
}

impl Supervised {
    /// Runs `command` (program and arguments) with its output appended to `log`.
    pub(crate) fn spawn(command: &[String], log: &Path, end_by: EndBy) -> Result<Self> {
        let signal = match end_by {
            EndBy::Kill => "KILL",
            EndBy::Quit => "QUIT",
        };
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "tidings-testbed", signal])
            .arg(log)
            .args(command)
            // Ctrl-C is for the program under test, not for its broker.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start a supervisor with sh")?;
        let stdin = supervisor.stdin.take();
        let stdout = supervisor.stdout.take().ok_or_else(|| Error::failed("the supervisor has no output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("read a server's process id")?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::failed(format!("expected a process id, got {line:?}")))?;
        Ok(Self { supervisor, stdin, pid, end_by })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns whether the process has not ended. A paused process is running.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.supervisor.try_wait(), Ok(None))
    }

    /// Sends `signal` to the process only.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.pid, signal)
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<()> {
        wait_until(timeout, || !self.is_running())
            .then_some(())
            .ok_or_else(|| Error::failed(format!("process {} did not end within {timeout:?}", self.pid.as_raw_pid())))
    }

    /// Ends the process and waits for its end.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.is_running() {
            let signal = if self.end_by == EndBy::Kill { Signal::KILL } else { Signal::QUIT };
            let _gone = self.signal(signal);
            let _gone = self.signal(Signal::CONT);
        }
        self.wait(END_TIMEOUT)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _late = self.end();
    }
}

/// A folder that is removed when it is dropped, and also when this process is killed.
#[derive(Debug)]
pub(crate) struct ServerDir {
    path: PathBuf,
    sweeper: Child,
}

impl ServerDir {
    /// Creates a folder whose name starts with `tidings-` and `prefix`.
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("tidings-{prefix}-")).tempdir();
        let path = dir.context("make a folder for a server")?.keep();
        let sweeper = Command::new("sh")
            .args(["-c", SWEEPER, "tidings-testbed"])
            .arg(&path)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start a sweeper with sh")?;
        Ok(Self { path, sweeper })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ServerDir {
    fn drop(&mut self) {
        let _swept_below = fs::remove_dir_all(&self.path);
        drop(self.sweeper.stdin.take());
        let _ended = self.sweeper.wait();
    }
}

/// Sends `signal` to one process.
pub(crate) fn signal_process(pid: Pid, signal: Signal) -> Result<()> {
    rustix::process::kill_process(pid, signal)
        .map_err(|e| Error::io(format!("send {signal:?} to process {}", pid.as_raw_pid()), e.into()))
}

/// Waits until `condition` is true or `timeout` has passed; returns whether it became true. It blocks its thread.
pub(crate) fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Runs `command` to completion and returns its output, or an error with its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().context(format!("run {program}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::failed(format!("{program} ended with {}: {}{}", output.status, stderr.trim(), stdout.trim())))
}

/// Returns the last `lines` lines of a log, for an error.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Finds a program in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
