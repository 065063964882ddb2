//! Running cargo and other programs.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::Result;

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
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        // By bytes: a test may print anything.
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            look(text.trim_end());
            line.clear();
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command)).into()) }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or(&program).to_owned();
    command.get_args().fold(program, |line, arg| format!("{line} {}", arg.to_string_lossy()))
}
