//! `cargo xtask test`: every test there is, and plain words about those that could not run.

use std::collections::BTreeMap;
use std::env;

use crate::Result;
use crate::process::{cargo, picks_packages, tee};
use crate::servers::Servers;
use crate::workspace::{Package, packages, root, target_directory};

/// Names the directory of built examples for the tests of integration/.
const EXAMPLES: &str = "TIDINGS_EXAMPLES";

/// Runs all tests, beside the servers that can be started. `args` go to `cargo test`.
pub(crate) fn run(args: &[String]) -> Result {
    run_with(args, &[])
}

/// [`run`], with more variables for the tests.
pub(crate) fn run_with(args: &[String], variables: &[(String, String)]) -> Result {
    let servers = if need_servers(args, &packages()?) { Servers::start()? } else { Servers::default() };
    let required = env::var_os("REQUIRE_BROKERS").is_some_and(|value| value == "1");
    let mut command = cargo(["test"]);
    command.args(arguments(args)).current_dir(root());
    command.envs(servers.variables.iter().chain(variables).map(|(name, value)| (name, value)));
    if args.is_empty() {
        // All examples are built with all tests: the tests that run one need not ask cargo.
        command.env(EXAMPLES, target_directory().join("debug/examples"));
    }
    let mut report = Report::default();
    let result = tee(&mut command, |line| report.read(line));
    println!("\n{}", report.text(&servers.missing));
    if required && !servers.missing.is_empty() {
        return Err(format!("REQUIRE_BROKERS is set, but there is no {}", servers.missing.join("; no ")).into());
    }
    result
}

/// Whether any test that `args` pick can use a server: a start costs seconds.
fn need_servers(args: &[String], packages: &[Package]) -> bool {
    let is_picked = |package: &&Package| args.iter().any(|arg| arg.ends_with(&package.name));
    !picks_packages(args) || packages.iter().filter(is_picked).any(|package| package.uses_testbed)
}

/// The arguments for `cargo test`: the whole workspace, unless the caller picks packages.
fn arguments(args: &[String]) -> Vec<String> {
    let mut all = vec!["--all-features".to_owned(), "--no-fail-fast".to_owned()];
    if !picks_packages(args) {
        all.push("--workspace".to_owned());
    }
    all.extend_from_slice(args);
    all
}

/// The sum of many `test result:` lines, and the reasons of ignored tests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u64,
    failed: u64,
    ignored: BTreeMap<String, u64>,
    failures: Vec<String>,
    /// What failed tests said, without backtraces.
    said: Vec<String>,
    /// Within what a program tells of its failed tests.
    telling: bool,
}

/// So many lines of failed tests are told once more at the end, where they are found.
const TOLD_AGAIN: usize = 200;

impl Report {
    /// Reads a line that a test program printed.
    pub(crate) fn read(&mut self, line: &str) {
        if line.starts_with("---- ") {
            self.telling = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.telling = false;
        }
        if self.telling && !line.is_empty() && !is_backtrace(line) && self.said.len() < TOLD_AGAIN {
            self.said.push(line.to_owned());
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            if let Some(reason) = verdict.strip_prefix("ignored") {
                let reason = reason.trim_start_matches([',', ' ']);
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                *self.ignored.entry(reason.to_owned()).or_default() += 1;
            } else if verdict.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        }
    }

    /// What to tell at the end; `missing` are servers that did not run.
    pub(crate) fn text(&self, missing: &[String]) -> String {
        let mut lines = vec![format!("{} tests passed, {} failed", self.passed, self.failed)];
        lines.extend(self.failures.iter().map(|name| format!("  failed: {name}")));
        lines.extend(self.said.iter().map(|line| format!("    {line}")));
        lines.extend(missing.iter().map(|why| format!("  not started: {why}")));
        lines.extend(self.ignored.iter().map(|(reason, n)| format!("  not run, {n} tests: {reason}")));
        if missing.is_empty() && self.ignored.is_empty() {
            lines.push("  all that there are did run".to_owned());
        }
        lines.join("\n")
    }
}

/// Whether it is of a backtrace: `  12: some::function`, or the line below it, `  at some/file.rs`.
fn is_backtrace(line: &str) -> bool {
    let text = line.trim_start();
    let numbered = text.split_once(": ").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    text.len() < line.len() && (numbered || text.starts_with("at ")) || line == "stack backtrace:"
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> u64 {
    counts.split(['.', ';']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::package;

    #[test]
    fn results_are_summed_and_reasons_counted() {
        let mut report = Report::default();
        for line in [
            "test a::b ... ok",
            "test c ... ignored, no broker answers at TIDINGS_KAFKA",
            "test d ... ignored, no broker answers at TIDINGS_KAFKA",
            "test e ... ignored",
            "test f ... FAILED",
            "test result: ok. 3 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            report.read(line);
        }
        assert_eq!(
            report.text(&["Kafka: no java found".into()]),
            "4 tests passed, 1 failed\n  failed: f\n  not started: Kafka: no java found\n  \
             not run, 2 tests: no broker answers at TIDINGS_KAFKA\n  not run, 1 tests: no reason given"
        );
    }

    #[test]
    fn what_failed_tests_said_is_told_again_without_backtraces() {
        let mut report = Report::default();
        for line in [
            "test f ... FAILED",
            "failures:",
            "",
            "---- f stdout ----",
            "thread 'f' panicked at tests/f.rs:1:2:",
            "  left: 1",
            "stack backtrace:",
            "   0: core::panicking::panic_fmt",
            "             at /rustc/panicking.rs:80:14",
            "failures:",
            "    f",
            "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            report.read(line);
        }
        assert_eq!(
            report.text(&[]),
            "0 tests passed, 1 failed\n  failed: f\n    ---- f stdout ----\n    thread 'f' panicked at \
             tests/f.rs:1:2:\n      left: 1\n  all that there are did run"
        );
    }

    #[test]
    fn servers_are_started_for_tests_that_can_use_them() {
        let describe = |name: &str, needs: &str| package(&json!({ "name": name, "dependencies": [{ "name": needs }] }));
        let packages = [describe("tidings-core", "bytes"), describe("tidings-kafka", "tidings-testbed")];
        let need = |text: &str| need_servers(&text.split_whitespace().map(String::from).collect::<Vec<_>>(), &packages);
        assert!(need(""));
        assert!(need("-p tidings-kafka"));
        assert!(need("--package=tidings-kafka -- fetch"));
        assert!(!need("-p tidings-core"));
    }

    #[test]
    fn a_picked_package_is_tested_alone() {
        let args = |text: &str| arguments(&text.split_whitespace().map(String::from).collect::<Vec<_>>());
        assert!(args("").contains(&"--workspace".to_owned()));
        assert!(args("-- -p").contains(&"--workspace".to_owned()));
        assert!(!args("-p tidings-core").contains(&"--workspace".to_owned()));
    }
}
