//! `cargo xtask ci`: all gates. What no gate runs is deleted, as untested prose and config always rot.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{cargo, output, run_gate};
use crate::workspace::root;
use crate::{Result, api, examples, rooms, style, test};

type Step = (&'static str, fn() -> Result);

/// Cheap steps first; those that build share one target directory, one profile and, where they can, one set of features.
const STEPS: [Step; 11] = [
    ("fmt", fmt),
    ("style", style::run),
    ("rooms", rooms::run),
    ("dependencies", dependencies),
    ("clippy", clippy),
    ("rustdoc", rustdoc),
    ("api", api::run),
    ("features", features),
    ("msrv", msrv),
    ("tests", || test::run(&[])),
    ("examples", examples::run),
];

/// Runs every step, even after one that failed, then reports how long each took, which failed, and why.
pub(crate) fn run() -> Result {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for (name, step) in STEPS {
        println!("\n==== {name} ====");
        let begun = Instant::now();
        let result = step();
        done.push((name, begun.elapsed(), result.is_ok()));
        if let Err(failure) = result {
            println!("{name} FAILED: {failure}");
            failures.push(format!("{name}: {failure}"));
        }
    }
    println!("\n{}", table(&done));
    // Repeated at the end, since thousands of lines may have followed.
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join("\n")).into()) }
}

fn table(done: &[(&str, Duration, bool)]) -> String {
    let mut lines: Vec<String> = done
        .iter()
        .map(|(name, took, passed)| {
            format!("{name:<12}{:>8.1} s  {}", took.as_secs_f64(), if *passed { "ok" } else { "FAILED" })
        })
        .collect();
    let whole: Duration = done.iter().map(|(_, took, _)| *took).sum();
    lines.push(format!("{:<12}{:>8.1} s", "all", whole.as_secs_f64()));
    lines.join("\n")
}

fn fmt() -> Result {
    run_gate(cargo(["fmt", "--all", "--", "--check"]).current_dir(root()))
}

fn clippy() -> Result {
    let mut command = cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--all-features"]);
    run_gate(command.args(["--", "--deny=warnings"]).current_dir(root()))
}

fn rustdoc() -> Result {
    let mut command = cargo(["doc", "--quiet", "--workspace", "--all-features", "--no-deps"]);
    run_gate(command.env("RUSTDOCFLAGS", "--deny=warnings").current_dir(root()))
}

/// Checks licences, sources and arrows by deny.toml.
pub(crate) fn dependencies() -> Result {
    let mut command = cargo(["deny", "--locked", "check", "--allow=unused-wrapper", "bans", "licenses", "sources"]);
    run_gate(command.current_dir(root()))
}

/// Features only add items: each published crate builds without any, with each alone, and with all. So does what the README
/// runs first, with those that are on by default.
pub(crate) fn features() -> Result {
    // Clippy instead of check, as it can deny warnings in our crates alone: RUSTFLAGS would rebuild all others.
    let mut command = cargo(["hack", "clippy", "--quiet", "--locked", "--workspace", "--ignore-private"]);
    command.args(["--each-feature", "--keep-going", "--", "--deny=warnings"]);
    let each = run_gate(command.current_dir(root()));
    let mut command =
        cargo(["clippy", "--quiet", "--locked", "--package=tidings", "--examples", "--", "--deny=warnings"]);
    run_gate(command.current_dir(root()))?;
    each
}

/// The declared `rust-version` builds the workspace: by the toolchain in use if it is that version, else by that one.
fn msrv() -> Result {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let declared = declared_version(&manifest).ok_or("the workspace declares no rust-version")?;
    let used = output(Command::new("rustc").arg("--version").current_dir(root()))?;
    if used.split(' ').nth(1).is_some_and(|version| is_same_minor(version, declared)) {
        println!("the toolchain in use is the declared {declared}: the other steps are the check");
        return Ok(());
    }
    run_gate(Command::new("rustup").args(["toolchain", "install", "--profile=minimal", declared]))?;
    // A directory of its own: the artefacts of two compilers don't mix.
    let mut command = Command::new("rustup");
    command.args(["run", declared, "cargo", "check", "--quiet", "--workspace", "--all-features"]);
    command.args(["--target-dir=target/msrv"]).current_dir(root());
    run_gate(command.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC"))
}

fn declared_version(manifest: &str) -> Option<&str> {
    // The root package inherits its own from the workspace, in a line that names no version.
    let mut lines = manifest.lines().filter_map(|line| line.strip_prefix("rust-version = \""));
    lines.next()?.split('"').next()
}

fn is_same_minor(version: &str, declared: &str) -> bool {
    version.split('.').take(2).eq(declared.split('.').take(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declared_version_is_compared_by_its_minor() {
        let declared = declared_version(
            "[package]\nrust-version.workspace = true\n[workspace.package]\nrust-version = \"1.95\"\n",
        )
        .expect("declared above");
        assert!(is_same_minor("1.95.0", declared));
        assert!(!is_same_minor("1.96.0", declared));
    }

    #[test]
    fn the_table_names_what_failed() {
        let done = [("fmt", Duration::from_millis(1_250), true), ("tests", Duration::from_secs(60), false)];
        assert_eq!(table(&done), "fmt              1.2 s  ok\ntests           60.0 s  FAILED\nall             61.2 s");
    }
}
