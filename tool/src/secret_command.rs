//! Secrets from commands, such as a keyring's: `secret-tool lookup service tidings`, `pass show kafka/ops`.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tidings_core::Secret;

use crate::exit::Failure;

/// Time limit of all commands of a target, which may prompt the user for the keyring's password.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a command is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Maximum size of a command's output, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The time limit of a target's commands, and the one that runs.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    until: Instant,
    length: Duration,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    child: Option<Child>,
    /// Whether the command leads its own process group, which is killed with it at the time limit.
    in_group: bool,
    /// Whether no command may be started any more.
    is_over: bool,
}

impl Limit {
    /// Creates a limit that ends after `length`, and after a minute at most.
    pub(crate) fn new(length: Duration) -> Self {
        let length = length.min(LIMIT);
        let length = length - Duration::from_nanos(u64::from(length.subsec_nanos()) % 1_000_000);
        let running = Running { in_group: !has_terminal(), ..Running::default() };
        Self { until: Instant::now() + length, length, running: Arc::new(Mutex::new(running)) }
    }

    /// Returns a guard that kills the command when it is dropped.
    pub(crate) fn end_on_drop(&self) -> EndOnDrop {
        EndOnDrop(self.clone())
    }

    /// Starts a command; returns its output, or `None` if the limit has ended.
    fn start(&self, command: &str) -> std::io::Result<Option<ChildStdout>> {
        let mut running = self.lock();
        if running.is_over {
            return Ok(None);
        }
        let mut shell = shell(command);
        if running.in_group {
            in_group(&mut shell);
        }
        let mut child = shell.stdin(input()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take();
        running.child = Some(child);
        Ok(out)
    }

    /// Returns the status of the command if it has ended. An error if it was killed.
    fn status(&self) -> std::io::Result<Option<ExitStatus>> {
        let mut running = self.lock();
        running.child.as_mut().map_or_else(|| Err(std::io::Error::other("it was killed")), Child::try_wait)
    }

    /// Kills the command with the processes of its group, and waits for its end. Processes that a command left behind
    /// when it ended by itself, such as an agent, keep running.
    fn end(&self) {
        let mut running = self.lock();
        if let Some(mut child) = running.child.take() {
            let has_ended = matches!(child.try_wait(), Ok(Some(_)));
            if running.in_group && !has_ended {
                kill_group(child.id());
            }
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the command of a limit when it is dropped, and starts no other.
#[derive(Debug)]
pub(crate) struct EndOnDrop(Limit);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.end();
    }
}

/// Runs a command in the shell, and returns the first line of its standard output, once it has ended. Blocks the thread.
///
/// The command inherits standard error, and standard input if that is a terminal: else it is the data of the verb.
/// No error repeats the command or its output, which may be confidential.
pub(crate) fn secret(key: &str, command: &str, limit: &Limit) -> Result<Secret, Failure> {
    let read = run(command, limit);
    limit.end();
    read.map_err(|why| {
        Failure::failed(format!("read the secret by the context's {key}: {why}"))
            .with_hint("run the command by hand, or see `tidings context show`")
    })
}

fn run(command: &str, limit: &Limit) -> Result<Secret, String> {
    let out = limit.start(command).map_err(|e| format!("start it: {e}"))?.ok_or("it was not started in time")?;
    let (sender, receiver) = mpsc::channel();
    // The thread ends with the command, which closes its output, unless a child process of it keeps the output open.
    thread::spawn(move || read_line(out, &sender));
    let mut line = None;
    loop {
        // The status comes first: a line that is sent before the command ends is then seen.
        let status = limit.status().map_err(|e| e.to_string())?;
        for read in receiver.try_iter() {
            line = Some(read?);
        }
        match (status, line.take()) {
            (Some(status), _) if !status.success() => return Err(format!("it failed: {status}")),
            (Some(_), Some(read)) => {
                return first_line(read).ok_or_else(|| "the first line of its output is empty or not UTF-8".to_owned());
            }
            (_, read) => line = read,
        }
        if Instant::now() >= limit.until {
            return Err(format!("it did not end within {}", humantime::format_duration(limit.length)));
        }
        thread::sleep(POLL);
    }
}

/// Sends the first line, and reads the rest, so that the command can write it.
fn read_line(out: ChildStdout, sender: &mpsc::Sender<Result<Vec<u8>, String>>) {
    let (mut out, mut line) = (BufReader::new(out.take(MAX_BYTES)), Vec::new());
    let read = out.read_until(b'\n', &mut line).map(|_| line).map_err(|e| e.to_string());
    // After the time limit there is no receiver.
    drop(sender.send(read));
    drop(std::io::copy(&mut out, &mut std::io::sink()));
    if out.get_ref().limit() == 0 {
        drop(sender.send(Err("its output is larger than 64 KiB".to_owned())));
    }
}

/// Returns the standard input of a command: a pipe or a file is the verb's.
fn input() -> Stdio {
    if std::io::stdin().is_terminal() { Stdio::inherit() } else { Stdio::null() }
}

/// Returns the first line; `None` if it is empty or not UTF-8.
fn first_line(text: Vec<u8>) -> Option<Secret> {
    let text = String::from_utf8(text).ok()?;
    text.lines().next().filter(|line| !line.is_empty()).map(Secret::new)
}

/// Returns whether the command can prompt at a terminal. It then stays in the terminal's foreground process group,
/// since any other group is stopped when it reads from the terminal; Ctrl-C ends it with its child processes.
fn has_terminal() -> bool {
    cfg!(unix) && std::fs::File::open("/dev/tty").is_ok()
}

/// Makes a command the leader of its own process group.
fn in_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

/// Kills the processes of a group that a command leads.
fn kill_group(id: u32) {
    if cfg!(unix) {
        // The shell's built-in `kill`: the program may not be installed.
        let mut kill = shell(&format!("kill -s KILL -- -{id}"));
        drop(kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

fn shell(command: &str) -> Command {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut shell = Command::new(shell);
    shell.args([flag, command]);
    shell
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(command: &str) -> Result<Secret, String> {
        secret("password_command", command, &Limit::new(Duration::from_secs(10))).map_err(|failure| {
            let line = failure.to_string();
            assert!(!line.contains("s3cr3t") && line.contains("password_command"), "{line}");
            line
        })
    }

    #[test]
    fn the_first_line_of_the_output_is_the_secret() {
        assert_eq!(run("printf 's3cr3t pass\\nuser: ops\\n'").unwrap().expose(), "s3cr3t pass");
        assert_eq!(run("printf s3cr3t").unwrap().expose(), "s3cr3t");
    }

    #[test]
    fn a_command_does_not_read_the_data_of_the_verb() {
        assert_eq!(run("cat; echo s3cr3t").unwrap().expose(), "s3cr3t");
    }

    #[test]
    fn a_command_that_fails_is_named_without_its_output() {
        assert!(run("echo s3cr3t; exit 3").unwrap_err().contains("it failed"));
        assert!(run("true").unwrap_err().contains("is empty"));
        assert!(run("no-such-program-at-all-s3cr3t 2> /dev/null").unwrap_err().contains("it failed"));
        assert!(run("yes s3cr3t").unwrap_err().contains("larger than 64 KiB"));
    }

    #[test]
    fn a_command_that_hangs_is_ended_in_time() {
        let late = secret("token_command", "exec sleep 600", &Limit::new(Duration::from_millis(50))).unwrap_err();
        assert!(late.to_string().contains("did not end within 50ms"), "{late}");
    }

    #[test]
    fn the_children_of_a_command_that_hangs_are_ended_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let limit = Limit::new(Duration::from_secs(30));
        limit.lock().in_group = true;
        let command = format!("sleep 600 > {} & wait", pipe.display());
        assert!(limit.start(&command).unwrap().is_some());
        // Opening blocks until the child process opens the pipe, which is closed when that ends.
        let mut pipe = std::fs::File::open(&pipe).unwrap();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(std::io::copy(&mut pipe, &mut std::io::sink())));
        limit.end();
        assert!(ended.recv_timeout(Duration::from_secs(10)).is_ok(), "a child process is still running");
    }

    #[test]
    fn a_command_that_closes_its_output_and_goes_on_is_ended_in_time() {
        let limit = Limit::new(Duration::from_millis(50));
        let late = secret("token_command", "echo s3cr3t; exec >&-; exec sleep 600", &limit).unwrap_err();
        assert!(late.to_string().contains("did not end within 50ms"), "{late}");
        assert!(limit.lock().child.is_none(), "it is reaped");
    }

    #[test]
    fn a_process_that_keeps_the_output_open_is_not_waited_for() {
        assert_eq!(run("sleep 20 2> /dev/null & echo s3cr3t").unwrap().expose(), "s3cr3t");
    }

    #[test]
    fn a_command_ends_when_its_limit_is_dropped() {
        let limit = Limit::new(Duration::from_secs(30));
        let guard = limit.end_on_drop();
        assert!(limit.start("exec sleep 600").unwrap().is_some());
        drop(guard);
        assert!(limit.status().is_err() && limit.start("true").unwrap().is_none());
    }
}
