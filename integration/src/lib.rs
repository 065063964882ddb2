//! Tests of the facade and of its examples as programs, on real servers. They are in `tests/`.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The guides whose code names sqlx or an SDK: they are tested with this package.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/guides/opentelemetry.md")]
    struct OpenTelemetry;
    #[doc = include_str!("../../docs/guides/postgres.md")]
    struct Postgres;
}
