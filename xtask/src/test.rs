//! `cargo xtask test`: every test there is, and plain words about those that could not run.

use std::env;
use std::process::Command;

use crate::Result;
use crate::process::{cargo, picks_packages, tee};
use crate::report::Report;
use crate::servers::Servers;
use crate::side_by_side;
use crate::workspace::{Package, packages, root, target_directory};

/// Names the directory of built examples for the tests of integration/.
const EXAMPLES: &str = "TIDINGS_EXAMPLES";

/// Environment variables for tests.
pub(crate) type Variables = [(String, String)];

/// Runs all tests next to the servers that can be started: side by side where cargo-nextest is installed, else program by
/// program. `args` go to `cargo nextest run` or `cargo test`.
pub(crate) fn run(args: &[String]) -> Result {
    if !side_by_side::is_possible(args) {
        println!("cargo-nextest is not installed, or does not know these arguments: programs run one after the other");
        return run_one_by_one(args, &[]);
    }
    // The programs of the workspace are built with its tests, the testbed among them.
    let suites = side_by_side::suites(args)?;
    let how = |variables: &Variables, report: &mut Report| side_by_side::run(&suites, args, variables, report);
    with_servers(args, !picks_packages(args), how)
}

/// Runs tests by `cargo test`, one program after the other, with more variables for the tests.
pub(crate) fn run_one_by_one(args: &[String], variables: &Variables) -> Result {
    with_servers(args, false, |servers, report| one_by_one(args, &[servers, variables].concat(), report))
}

/// Runs tests by `how`, which gets the variables of the servers, and prints its report.
fn with_servers(args: &[String], is_built: bool, how: impl FnOnce(&Variables, &mut Report) -> Result) -> Result {
    let needed = need_servers(args, &packages()?);
    let servers = if needed { Servers::start(is_built)? } else { Servers::default() };
    let required = env::var_os("REQUIRE_BROKERS").is_some_and(|value| value == "1");
    let mut variables = servers.variables.clone();
    if args.is_empty() {
        // All examples are built with all tests: the tests that run one need not ask cargo.
        let examples = target_directory().join("debug/examples");
        variables.push((EXAMPLES.to_owned(), examples.to_string_lossy().into_owned()));
    }
    let mut report = Report::default();
    let result = how(&variables, &mut report);
    println!("\n{}", report.text(&servers.missing));
    if required && !servers.missing.is_empty() {
        return Err(format!("REQUIRE_BROKERS is set, but there is no {}", servers.missing.join("; no ")).into());
    }
    result.map_err(|failure| format!("{failure}\n{}", report.failures()).into())
}

fn one_by_one(args: &[String], variables: &Variables, report: &mut Report) -> Result {
    let mut command = cargo(["test"]);
    command.args(arguments(args)).current_dir(root());
    set(&mut command, variables);
    tee(&mut command, |line| report.read(line))
}

/// Sets `variables` for `command`.
pub(crate) fn set(command: &mut Command, variables: &Variables) {
    command.envs(variables.iter().map(|(name, value)| (name, value)));
}

/// Whether any test that `args` pick can use a server: a start costs seconds.
fn need_servers(args: &[String], packages: &[Package]) -> bool {
    let is_picked = |package: &&Package| args.iter().any(|arg| arg.ends_with(&package.name));
    !picks_packages(args) || packages.iter().filter(is_picked).any(|package| package.uses_testbed)
}

/// The arguments for cargo: the whole workspace, unless the caller picks packages.
pub(crate) fn arguments(args: &[String]) -> Vec<String> {
    let mut all = vec!["--all-features".to_owned(), "--no-fail-fast".to_owned()];
    if !picks_packages(args) {
        all.push("--workspace".to_owned());
    }
    all.extend_from_slice(args);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::package;

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
