//! `cargo xtask soak mutants`: bugs that cargo-mutants plants, and which tests see them.
//!
//! A mutant that no test fails on is a missing case, or code that does nothing. The published suites alone say whether
//! an outsider's backend with the bug would pass; all tests say whether the bug could land here. The scores, and the
//! reason for each survivor, are in docs/mutants.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::process::{cargo, shown};
use crate::servers::Servers;
use crate::workspace::{root, target_directory};

/// The seeds that the simulation runs for each mutant of the engine.
const SEEDS: &str = "300";
/// The least time that the tests of a mutant may take, in seconds: on a busy machine the suites take many times theirs.
const MINIMUM_TIMEOUT: &str = "120";
/// The exit codes of cargo-mutants for a run that ended: all caught, some missed, some timed out.
const ENDED: [i32; 3] = [0, 2, 3];

/// A part of the workspace in which bugs are planted.
struct Room {
    name: &'static str,
    package: &'static str,
    /// The sources, as a glob.
    files: &'static str,
    /// The arguments of `cargo test` for the published suites alone; for the engine, for its unit tests and simulation.
    suites: &'static [&'static str],
    /// The packages whose tests are all the tests that see a bug here.
    all: &'static [&'static str],
}

const ROOMS: [Room; 4] = [
    Room {
        name: "transport-memory",
        package: "tidings-memory",
        files: "transport-memory/src/**/*.rs",
        suites: &["--test", "conformance"],
        all: &["tidings-memory", "tidings-testkit", "tidings-service"],
    },
    Room {
        name: "store-sled",
        package: "tidings-sled",
        files: "store-sled/src/**/*.rs",
        suites: &["--test", "conformance", "--test", "dead_letters"],
        all: &["tidings-sled"],
    },
    Room {
        name: "store-postgres",
        package: "tidings-postgres",
        files: "store-postgres/src/**/*.rs",
        suites: &["--test", "conformance", "--test", "dead_letters"],
        all: &["tidings-postgres"],
    },
    Room {
        name: "engine",
        package: "tidings-service",
        files: "service/src/engine/**/*.rs",
        suites: &["--lib", "--test", "simulation"],
        all: &["tidings-service"],
    },
];

/// Plants bugs in a room, and prints how many the tests caught and which survived.
///
/// # Errors
/// Wrong arguments, a missing cargo-mutants, or tests that fail without any bug.
pub(crate) fn run(args: &[String]) -> Result {
    let options = Options::parse(args)?;
    let servers = if options.room.name == "store-postgres" { Servers::start(false)? } else { Servers::default() };
    let output = options.directory();
    fs::create_dir_all(&output)?;
    let mut command = options.command(&output);
    command.envs(servers.variables.iter().map(|(name, value)| (name, value)));
    println!("$ {}", shown(&command));
    let status = command.status().map_err(|e| format!("start cargo-mutants: {e}"))?;
    if !status.code().is_some_and(|code| ENDED.contains(&code)) {
        return Err(
            format!("cargo mutants ended with {status}; `cargo install --locked cargo-mutants` installs it").into()
        );
    }
    let score = Score::read(&output.join("mutants.out"))?;
    println!("\n{}", score.report(&options.title()));
    Ok(())
}

struct Options {
    room: &'static Room,
    /// Whether only the published suites run.
    suites: bool,
    shard: Option<String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let rooms: Vec<_> = ROOMS.iter().map(|room| room.name).collect();
        let usage =
            format!("cargo xtask soak mutants ROOM [suites|all] [--shard K/N], where ROOM is {}", rooms.join(", "));
        let mut args = args.iter().map(String::as_str);
        let name = args.next().ok_or_else(|| usage.clone())?;
        let room = ROOMS.iter().find(|room| room.name == name).ok_or_else(|| format!("no room {name:?}: {usage}"))?;
        let mut options = Self { room, suites: true, shard: None };
        while let Some(arg) = args.next() {
            match arg {
                "suites" => options.suites = true,
                "all" => options.suites = false,
                "--shard" => options.shard = Some(args.next().ok_or("--shard needs K/N, such as 0/8")?.to_owned()),
                other => return Err(format!("unknown argument {other:?}: {usage}").into()),
            }
        }
        Ok(options)
    }

    fn tests(&self) -> &'static str {
        if self.suites { "suites" } else { "all" }
    }

    fn title(&self) -> String {
        let shard = self.shard.as_ref().map(|shard| format!(", shard {shard}")).unwrap_or_default();
        format!("{}, {}{shard}", self.room.name, self.tests())
    }

    /// Returns the directory of the results: one per room, tests and shard, so that shards do not overwrite each other.
    fn directory(&self) -> PathBuf {
        let shard = self.shard.as_deref().unwrap_or("whole").replace('/', "-of-");
        target_directory().join("mutants").join(self.room.name).join(self.tests()).join(shard)
    }

    fn command(&self, output: &Path) -> Command {
        let mut command = cargo(["mutants", "--all-features", "--no-shuffle", "--colors=never", "--no-times"]);
        command.args(["--package", self.room.package, "--file", self.room.files]);
        command.args(["--minimum-test-timeout", MINIMUM_TIMEOUT, "--cap-lints=true", "--output"]).arg(output);
        if let Some(shard) = &self.shard {
            // Round-robin, so that one shard is a sample of all files.
            command.args(["--shard", shard, "--sharding", "round-robin"]);
        }
        let packages = if self.suites { &[self.room.package][..] } else { self.room.all };
        for package in packages {
            command.args(["--test-package", package]);
        }
        if self.suites {
            command.arg("--").args(self.room.suites);
        }
        command.env("TIDINGS_SEEDS", SEEDS).stdin(Stdio::null()).current_dir(root());
        command
    }
}

/// The results of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Score {
    caught: usize,
    missed: Vec<String>,
    /// The tests did not end: the bug would be seen.
    timed_out: usize,
    /// Bugs that do not compile, which count for nothing.
    unviable: usize,
}

impl Score {
    /// Reads the lists that cargo-mutants wrote. A list that is absent is empty.
    fn read(directory: &Path) -> Result<Self> {
        let lines = |name: &str| -> Result<Vec<String>> {
            let path = directory.join(name);
            if !path.exists() {
                return Ok(Vec::new());
            }
            Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
        };
        Ok(Self {
            caught: lines("caught.txt")?.len(),
            missed: lines("missed.txt")?,
            timed_out: lines("timeout.txt")?.len(),
            unviable: lines("unviable.txt")?.len(),
        })
    }

    fn viable(&self) -> usize {
        self.caught + self.missed.len() + self.timed_out
    }

    fn report(&self, title: &str) -> String {
        let (seen, viable) = (self.caught + self.timed_out, self.viable());
        #[expect(clippy::cast_precision_loss, reason = "a percentage of some hundreds")]
        let percent = if viable == 0 { 100.0 } else { 100.0 * seen as f64 / viable as f64 };
        let survivors: String = self.missed.iter().map(|missed| format!("\nsurvived: {missed}")).collect();
        format!("{title}: {seen} of {viable} seen, {percent:.1} % ({} do not compile){survivors}", self.unviable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_room_its_tests_and_a_shard_are_read() {
        let options = parse("store-sled all --shard 1/8").expect("it parses");
        assert_eq!(options.title(), "store-sled, all, shard 1/8");
        assert!(options.directory().ends_with("mutants/store-sled/all/1-of-8"));
        for (wrong, says) in [("", "ROOM"), ("kitchen", "no room"), ("engine --shard", "K/N"), ("engine most", "most")]
        {
            assert!(parse(wrong).is_err_and(|e| e.to_string().contains(says)), "{wrong:?}");
        }
    }

    #[test]
    fn bugs_that_do_not_compile_count_for_nothing_and_those_that_hang_are_seen() {
        let score = Score { caught: 16, missed: vec!["src/a.rs:1: b".into()], timed_out: 1, unviable: 5 };
        let report = score.report("engine, suites");
        assert_eq!(report, "engine, suites: 17 of 18 seen, 94.4 % (5 do not compile)\nsurvived: src/a.rs:1: b");
    }
}
