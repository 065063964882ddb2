//! Tests of the facade and of its examples as programs, on real servers. They are in `tests/`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names the directory of built examples. `cargo xtask test` sets it, as it builds them with the tests.
pub const EXAMPLES_VARIABLE: &str = "TIDINGS_EXAMPLES";

/// Returns a command that runs the interview platform with all features; its options follow.
///
/// Without [`EXAMPLES_VARIABLE`] it goes through cargo, as a run of single tests builds no examples.
pub fn interview_platform() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = match std::env::var_os(EXAMPLES_VARIABLE) {
        Some(directory) => Command::new(PathBuf::from(directory).join("interview_platform")),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["run", "--quiet", "--package=tidings", "--all-features", "--example=interview_platform", "--"]);
            cargo
        }
    };
    command.current_dir(root);
    command
}

/// The time in which a server on this host answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks an HTTP server on this host, and returns the code and the body of its answer. Blocks its thread.
///
/// # Errors
/// If the server cannot be reached, or does not answer in time.
pub fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    // By this version the body is not in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((code, body.to_owned()))
}

/// The guides whose code names sqlx or an SDK: they are tested with this package.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/guides/opentelemetry.md")]
    struct OpenTelemetry;
    #[doc = include_str!("../../docs/guides/postgres.md")]
    struct Postgres;
}
