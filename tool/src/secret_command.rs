//! Secrets from commands, such as a keyring's: `secret-tool lookup service tidings`, `pass show kafka/ops`.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidings_core::Secret;

use crate::exit::Failure;

/// Time limit of a command, which may prompt the user for the keyring's password.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of its output, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Runs a command in the shell, and returns the first line of its standard output. Standard input and error are
/// inherited.
///
/// No error repeats the command or its output, which may be confidential.
pub(crate) fn secret(key: &str, command: &str, limit: Duration) -> Result<Secret, Failure> {
    let fail = |why: &str| {
        Failure::failed(format!("read the secret by the context's {key}: {why}"))
            .with_hint("run the command by hand, or see `tidings context show`")
    };
    let mut child = shell(command).stdout(Stdio::piped()).spawn().map_err(|e| fail(&format!("start it: {e}")))?;
    let Some(out) = child.stdout.take() else { return Err(fail("it has no output")) };
    let (sender, receiver) = mpsc::channel();
    // The thread ends with the command, which closes its output, unless a child process of it keeps the output open.
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = out.take(MAX_BYTES).read_to_end(&mut text).map(|_| text);
        // After the time limit there is no receiver.
        drop(sender.send(read));
    });
    let Ok(read) = receiver.recv_timeout(limit) else {
        end(&mut child);
        return Err(fail(&format!("it did not end within {}", humantime::format_duration(limit))));
    };
    let text = read.map_err(|e| fail(&e.to_string()))?;
    if text.len() as u64 == MAX_BYTES {
        end(&mut child);
        return Err(fail("its output is larger than 64 KiB"));
    }
    let status = child.wait().map_err(|e| fail(&e.to_string()))?;
    if !status.success() {
        return Err(fail(&format!("it failed: {status}")));
    }
    first_line(text).ok_or_else(|| fail("the first line of its output is empty or not UTF-8"))
}

/// Returns the first line; `None` if it is empty or not UTF-8.
fn first_line(text: Vec<u8>) -> Option<Secret> {
    let text = String::from_utf8(text).ok()?;
    text.lines().next().filter(|line| !line.is_empty()).map(Secret::new)
}

/// Kills a command after its time limit.
fn end(child: &mut Child) {
    // It may have ended by itself.
    drop(child.kill());
    drop(child.wait());
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
        secret("password_command", command, Duration::from_secs(10)).map_err(|failure| {
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
    fn a_command_that_fails_is_named_without_its_output() {
        assert!(run("echo s3cr3t; exit 3").unwrap_err().contains("it failed"));
        assert!(run("true").unwrap_err().contains("is empty"));
        assert!(run("no-such-program-at-all-s3cr3t 2> /dev/null").unwrap_err().contains("it failed"));
        assert!(run("yes s3cr3t").unwrap_err().contains("larger than 64 KiB"));
    }

    #[test]
    fn a_command_that_hangs_is_ended_in_time() {
        let late = secret("token_command", "exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(late.to_string().contains("did not end within 50ms"), "{late}");
    }
}
