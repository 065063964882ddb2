//! Runs tests in parallel: cargo-nextest runs each test in its own process. The doc tests, which nextest does not know,
//! and the programs that its default filter leaves out run at the same time. Such programs of one package run one after
//! the other, except those that the package declares as independent:
//!
//! ```toml
//! [package.metadata.tidings]
//! independent-tests = ["conformance"]
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::Result;
use crate::junit;
use crate::process::{cargo, output, picks_packages, run as run_command};
use crate::report::Report;
use crate::test::{Variables, arguments, set};
use crate::workspace::{Package, list, packages, root, target_directory, text};

/// Arguments that pick targets, so that there are no doc tests among what is picked.
const PICKS_TARGETS: [&str; 10] = [
    "--lib",
    "--bin",
    "--bins",
    "--test",
    "--tests",
    "--example",
    "--examples",
    "--bench",
    "--benches",
    "--all-targets",
];

/// Whether cargo-nextest is there, and knows what `args` ask for.
pub(crate) fn is_possible(args: &[String]) -> bool {
    let mut version = cargo(["nextest", "--version"]);
    let installed = version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    installed && !args.iter().any(|arg| arg == "--doc")
}

/// Runs `suites`, and the rest of what `args` pick, and sums it up in `report`.
pub(crate) fn run(suites: &[Suite], args: &[String], variables: &Variables, report: &mut Report) -> Result {
    let lanes = lanes(suites, args, variables)?;
    let (nextest, lanes) = thread::scope(|scope| {
        let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(|| run_in_turn(lane))).collect();
        (by_nextest(args, variables), lanes.into_iter().map(|lane| lane.join()).collect::<Vec<_>>())
    });
    junit::read(&fs::read_to_string(junit_file())?, report);
    let mut failed: Vec<String> = nextest.err().iter().map(ToString::to_string).collect();
    for lane in lanes {
        let done = lane.map_err(|_| "a thread that runs test programs panicked")??;
        for (name, run) in done {
            run.printed.lines().for_each(|line| report.read(line));
            failed.extend((!run.passed).then_some(name));
        }
    }
    for suite in suites {
        suite.ignored(report)?;
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// Commands to run one after the other, with their names.
type Lane = Vec<(String, Command)>;

/// Runs next to nextest: of each package the programs that nextest leaves out, and the doc tests.
fn lanes(suites: &[Suite], args: &[String], variables: &Variables) -> Result<Vec<Lane>> {
    let filters: Vec<&String> = args.iter().skip_while(|arg| *arg != "--").skip(1).collect();
    let packages = packages()?;
    let mut lanes = BTreeMap::<&str, Lane>::new();
    for suite in suites.iter().filter(|suite| suite.whole) {
        let mut command = suite.command();
        set(command.args(&filters), variables);
        let lane = if suite.is_independent(&packages) { &suite.id } else { &suite.package };
        lanes.entry(lane).or_default().push((suite.id.clone(), command));
    }
    if let Some(mut command) = doc_tests(args)? {
        set(&mut command, variables);
        lanes.insert("", vec![("doc-tests".to_owned(), command)]);
    }
    Ok(lanes.into_values().collect())
}

/// A program that has ended.
struct Run {
    printed: String,
    passed: bool,
}

/// Runs each of `lane` to its end, and prints what it printed.
fn run_in_turn(lane: Lane) -> Result<Vec<(String, Run)>> {
    let mut done = Vec::new();
    for (name, mut command) in lane {
        let run = captured(&mut command, &name)?;
        println!("\n---- {name} ----\n{}", run.printed);
        done.push((name, run));
    }
    Ok(done)
}

/// A test program.
#[derive(Debug, PartialEq)]
pub(crate) struct Suite {
    id: String,
    package: String,
    path: PathBuf,
    directory: PathBuf,
    /// Whether nextest leaves it out by its default filter.
    whole: bool,
    /// Tests that run on demand only.
    ignored: Vec<String>,
}

/// Builds what `args` pick, and lists its test programs.
pub(crate) fn suites(args: &[String]) -> Result<Vec<Suite>> {
    let mut command = cargo(["nextest", "list", "--message-format=json"]);
    command.args(arguments(args).iter().filter(|arg| *arg != "--no-fail-fast")).current_dir(root());
    let listed: Value = serde_json::from_str(&output(&mut command)?)?;
    Ok(listed["rust-suites"].as_object().into_iter().flat_map(|suites| suites.values()).map(suite).collect())
}

/// The suite that `cargo nextest list` describes by `value`.
fn suite(value: &Value) -> Suite {
    let cases = value["testcases"].as_object();
    let ignored = cases.into_iter().flatten().filter(|(_, case)| {
        // One that runs after all (by `-- --ignored`) or that a filter leaves out has another reason, or none.
        case["ignored"] == true && case["filter-match"]["reason"] == "ignored"
    });
    Suite {
        id: text(&value["binary-id"]),
        package: text(&value["package-name"]),
        path: PathBuf::from(text(&value["binary-path"])),
        directory: PathBuf::from(text(&value["cwd"])),
        whole: value["status"] == "skipped-default-filter",
        ignored: ignored.map(|(name, _)| name.clone()).collect(),
    }
}

impl Suite {
    /// Returns whether its package declares it as independent of the other programs.
    fn is_independent(&self, packages: &[Package]) -> bool {
        let name = self.id.rsplit("::").next().unwrap_or_default();
        let package = packages.iter().find(|package| package.name == self.package);
        package.is_some_and(|package| list(&package.settings["independent-tests"]).iter().any(|test| test == name))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory).stdin(Stdio::null());
        command
    }

    /// Reports why its ignored tests did not run: the harness prints the reason when such a test is named.
    fn ignored(&self, report: &mut Report) -> Result {
        for name in &self.ignored {
            let printed = output(self.command().args(["--exact", name]))?;
            printed.lines().for_each(|line| report.read(line));
        }
        Ok(())
    }
}

fn by_nextest(args: &[String], variables: &Variables) -> Result {
    // That of an earlier run would be read, should this one end before it writes its own.
    if junit_file().exists() {
        fs::remove_file(junit_file())?;
    }
    let mut command = cargo(["nextest", "run", "--no-tests=pass"]);
    set(command.args(arguments(args)).current_dir(root()), variables);
    run_command(&mut command)
}

fn junit_file() -> PathBuf {
    target_directory().join("nextest/default/junit.xml")
}

/// The command for the doc tests of what `args` pick; `None` if there are none.
fn doc_tests(args: &[String]) -> Result<Option<Command>> {
    let packages = packages()?;
    let is_picked = |name: &str| !picks_packages(args) || args.iter().any(|arg| arg.ends_with(name));
    let libraries = packages.iter().filter(|package| package.has_doc_tests() && is_picked(&package.name));
    if picks_targets(args) || libraries.count() == 0 {
        return Ok(None);
    }
    let mut command = cargo(["test", "--doc"]);
    command.args(arguments(args)).current_dir(root());
    Ok(Some(command))
}

fn picks_targets(args: &[String]) -> bool {
    let name = |arg: &str| arg.split('=').next().is_some_and(|name| PICKS_TARGETS.contains(&name));
    args.iter().take_while(|arg| *arg != "--").any(|arg| name(arg))
}

/// Runs `command` to its end, with all that it prints in one file, as that of several programs would mix.
fn captured(command: &mut Command, name: &str) -> Result<Run> {
    let directory = target_directory().join("xtask");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}.log", name.replace(':', "-")));
    let file = File::create(&path)?;
    let status = command.stdout(file.try_clone()?).stderr(file).status()?;
    Ok(Run { printed: String::from_utf8_lossy(&fs::read(&path)?).into_owned(), passed: status.success() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_suite_that_the_default_filter_skips_runs_as_a_whole() {
        let common = json!({ "binary-id": "a::b", "binary-path": "/t/b", "cwd": "/a", "testcases": {} });
        let with_status = |status: &str| {
            let mut value = common.clone();
            value["status"] = json!(status);
            suite(&value).whole
        };
        assert!(with_status("skipped-default-filter"));
        assert!(!with_status("listed"));
    }

    #[test]
    fn programs_of_a_package_run_in_turn_and_packages_side_by_side() {
        let suites = ["a::x", "b::x", "a::y"].map(|id| {
            suite(&json!({
                "binary-id": id, "package-name": id[..1], "binary-path": id, "cwd": "/", "status": "skipped-default-filter",
            }))
        });
        let args = ["--tests", "--", "fetch"].map(String::from);
        let lanes = lanes(&suites, &args, &[]).expect("cargo describes this workspace");
        let names = |lane: &Lane| lane.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(lanes.iter().map(names).collect::<Vec<_>>(), ["a::x a::y", "b::x"]);
        assert!(lanes.iter().flatten().all(|(_, command)| command.get_args().eq(["fetch"])));
    }

    #[test]
    fn an_independent_program_has_a_lane_of_its_own() {
        let settings = json!({ "independent-tests": ["x"] });
        let package = crate::workspace::package(&json!({ "name": "a", "metadata": { "tidings": settings } }));
        let is_independent = |id: &str| {
            suite(&json!({ "binary-id": id, "package-name": id[..1] })).is_independent(std::slice::from_ref(&package))
        };
        assert!(is_independent("a::x"));
        assert!(!is_independent("a::y"));
        assert!(!is_independent("b::x"));
    }

    #[test]
    fn only_what_is_ignored_for_being_so_is_asked_for_its_reason() {
        let case = |ignored: bool, reason: &str| json!({ "ignored": ignored, "filter-match": { "reason": reason } });
        let suite = suite(&json!({ "testcases": {
            "long": case(true, "ignored"),
            "other": case(true, "string"),
            "short": case(false, ""),
        } }));
        assert_eq!(suite.ignored, ["long"]);
    }

    #[test]
    fn who_picks_targets_wants_no_doc_tests() {
        let picks = |text: &str| picks_targets(&text.split_whitespace().map(String::from).collect::<Vec<_>>());
        assert!(picks("-p tidings-core --test codec"));
        assert!(picks("--test=codec"));
        assert!(!picks("-p tidings-core -- --test"));
    }
}
