//! Running cargo and other programs.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};

use crate::Result;

/// The number of lines on the standard error of a failed program that its error repeats.
const REPEATED: usize = 60;

/// A `cargo` command, by the same cargo that runs this program.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).stdin(Stdio::null());
    // Set for this program by `cargo run`; inherited, they would make build scripts of other packages look changed.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether arguments for cargo say which packages are meant; what follows `--` is not cargo's.
pub(crate) fn picks_packages(args: &[String]) -> bool {
    let picks = |arg: &String| arg.starts_with("-p") || arg.starts_with("--package") || arg == "--workspace";
    args.iter().take_while(|arg| *arg != "--").any(picks)
}

/// Runs `command` with its output going where ours goes.
///
/// # Errors
/// When it can't be started or does not end with success.
pub(crate) fn run(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    let status = command.status().map_err(|e| format!("could not start {}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command)).into()) }
}

/// Runs `command` as [`run`] does, and repeats the end of its standard error in the error: a CI system may keep less
/// than the output of later commands. Not for commands that leave processes running, which keep the pipe open.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_gate(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    if io::stderr().is_terminal() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child =
        command.stderr(Stdio::piped()).spawn().map_err(|e| format!("could not start {}: {e}", shown(command)))?;
    let mut last = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        each_line(stderr, |line| {
            eprint!("{line}");
            last.push_back(line.trim_end().to_owned());
            last.drain(..last.len().saturating_sub(REPEATED));
        })?;
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let said = last.iter().map(|line| format!("\n    {line}")).collect::<String>();
    Err(format!("{} ended with {status}{said}", shown(command)).into())
}

/// Runs `command` and shows its output only if it fails.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_quietly(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    let output = command.output().map_err(|e| format!("could not start {}: {e}", shown(command)))?;
    if output.status.success() {
        return Ok(());
    }
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Err(format!("{} ended with {}", shown(command), output.status).into())
}

/// Runs `command` and returns what it wrote to its standard output.
///
/// # Errors
/// When it can't be started, does not end with success, or writes something else than UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|e| format!("could not start {}: {e}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", shown(command), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `command`, passes its standard output on line by line, and shows each line to `look`.
///
/// # Errors
/// As [`run`].
pub(crate) fn tee(command: &mut Command, mut look: impl FnMut(&str)) -> Result {
    println!("$ {}", shown(command));
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = child.stdout.take() {
        each_line(stdout, |line| {
            print!("{line}");
            look(line.trim_end());
        })?;
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command)).into()) }
}

/// Shows each line of `from`, with its end, to `look`.
fn each_line(from: impl Read, mut look: impl FnMut(&str)) -> Result {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    // By bytes: a program may print anything.
    while lines.read_until(b'\n', &mut line)? > 0 {
        look(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or(&program).to_owned();
    command.get_args().fold(program, |line, arg| format!("{line} {}", arg.to_string_lossy()))
}
