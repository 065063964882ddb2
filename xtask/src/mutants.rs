//! `cargo xtask soak mutants`: bugs that cargo-mutants plants, and which tests see them.
//!
//! A mutant that no test fails on is a missing case, or code that does nothing. The published suites alone say whether
//! an outsider's backend with the bug would pass; all tests say whether the bug could land here. The scores, and the
//! reason for each survivor, are in docs/mutants.md.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::process::{cargo, output, shown};
use crate::servers::Servers;
use crate::workspace::{root, target_directory};

/// The seeds that the simulation runs for each mutant of the engine.
const SEEDS: &str = "300";
/// The least time that the tests of a mutant may take, in seconds: on a busy machine the suites take many times theirs.
const MINIMUM_TIMEOUT: &str = "120";
/// The exit codes of cargo-mutants for a run that ended: all caught, some missed, some timed out.
const ENDED: [i32; 3] = [0, 2, 3];
/// The list of mutants that an iteration of cargo-mutants leaves out.
const LEFT_OUT: &str = "previously_caught.txt";

/// A part of the workspace in which bugs are planted.
struct Room {
    name: &'static str,
    package: &'static str,
    /// The sources, as a glob.
    files: &'static str,
    /// The arguments of `cargo test` for the published suites alone; for the engine, for its unit tests and simulation.
    suites: &'static [&'static str],
    /// The packages whose tests run next. Others see bugs here as well: a score without them is the least that holds.
    all: &'static [&'static str],
}

const ROOMS: [Room; 4] = [
    Room {
        name: "transport-memory",
        package: "tidings-memory",
        files: "transport-memory/src/**/*.rs",
        suites: &["--test", "conformance"],
        all: &["tidings-memory"],
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
/// With `all`, the suites run first, and all tests only for what survived them.
///
/// # Errors
/// Wrong arguments, a missing cargo-mutants, or tests that fail without any bug.
pub(crate) fn run(args: &[String]) -> Result {
    let options = Options::parse(args)?;
    let servers = if options.room.name == "store-postgres" { Servers::start(false)? } else { Servers::default() };
    let base = target_directory().join("mutants");
    fs::create_dir_all(&base)?;
    let lock = File::create(base.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err("another run of `soak mutants` uses target/mutants".into()),
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    let tree = base.join("tree");
    copy_sources(&tree)?;
    let suites = options.plant(&tree, &servers, true, None)?;
    println!("\n{}", suites.report(&options.title("suites")));
    if !options.suites {
        let rest = options.plant(&tree, &servers, false, Some(&suites.missed))?;
        let score = suites.and(rest);
        println!("\n{}", score.report(&options.title("all")));
    }
    Ok(())
}

/// Makes `tree` a copy of the workspace's sources, in which bugs are planted.
///
/// The copy is always at the same place, so that a run builds only what has changed since the last one.
fn copy_sources(tree: &Path) -> Result {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let names: BTreeSet<PathBuf> =
        output(&mut git)?.split('\0').filter(|name| !name.is_empty()).map(Into::into).collect();
    let list = tree.join("target").join("sources");
    let before = fs::read_to_string(&list).unwrap_or_default();
    for gone in before.lines().filter(|name| !names.contains(Path::new(name))) {
        drop(fs::remove_file(tree.join(gone)));
    }
    for name in names.iter().filter(|name| root().join(name).is_file()) {
        let (from, to) = (fs::read(root().join(name))?, tree.join(name));
        // A file that did not change keeps its time, so that cargo does not build it again.
        if fs::read(&to).is_ok_and(|there| there == from) {
            continue;
        }
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&to, from)?;
    }
    fs::create_dir_all(tree.join("target"))?;
    let names: String = names.iter().map(|name| format!("{}\n", name.display())).collect();
    fs::write(list, names).map_err(Into::into)
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

    fn title(&self, tests: &str) -> String {
        let shard = self.shard.as_ref().map(|shard| format!(", shard {shard}")).unwrap_or_default();
        format!("{}, {tests}{shard}", self.room.name)
    }

    /// Returns the directory of the results: one per room, tests and shard, so that shards do not overwrite each other.
    fn directory(&self, tests: &str) -> PathBuf {
        let shard = self.shard.as_deref().unwrap_or("whole").replace('/', "-of-");
        target_directory().join("mutants").join(self.room.name).join(tests).join(shard)
    }

    /// Plants the shard's bugs, or `only` some, and runs the suites or all tests on each.
    fn plant(&self, tree: &Path, servers: &Servers, suites: bool, only: Option<&[String]>) -> Result<Score> {
        let results = self.directory(if suites { "suites" } else { "all" });
        if only.is_some_and(<[String]>::is_empty) {
            return Ok(Score::default());
        }
        drop(fs::remove_dir_all(results.join("mutants.out")));
        fs::create_dir_all(results.join("mutants.out"))?;
        let mut command = self.command(tree, &results, suites);
        match only {
            Some(only) => {
                let mut list = cargo(["mutants", "--list", "--all-features", "--colors=never"]);
                list.args(["--package", self.room.package, "--file", self.room.files]).current_dir(tree);
                let others = output(&mut list)?;
                let others = others.lines().filter(|name| !only.iter().any(|kept| kept == name));
                let others: String = others.map(|name| format!("{name}\n")).collect();
                fs::write(results.join("mutants.out").join(LEFT_OUT), others)?;
                command.arg("--iterate");
            }
            None => {
                // Round-robin, so that one shard is a sample of all files.
                let shard = self.shard.as_deref().unwrap_or("0/1");
                command.args(["--shard", shard, "--sharding", "round-robin"]);
            }
        }
        if suites {
            command.arg("--").args(self.room.suites);
        }
        command.envs(servers.variables.iter().map(|(name, value)| (name, value)));
        println!("$ {}", shown(&command));
        let status = command.status().map_err(|e| format!("start cargo-mutants: {e}"))?;
        if !status.code().is_some_and(|code| ENDED.contains(&code)) {
            let install = "`cargo install --locked cargo-mutants` installs it";
            return Err(format!("cargo mutants ended with {status}; {install}").into());
        }
        Score::read(&results.join("mutants.out"))
    }

    fn command(&self, tree: &Path, results: &Path, suites: bool) -> Command {
        let mut command = cargo(["mutants", "--in-place", "--all-features", "--shuffle", "--colors=never"]);
        command.args(["--package", self.room.package, "--file", self.room.files]);
        command.args(["--no-times", "--cap-lints=true", "--minimum-test-timeout", MINIMUM_TIMEOUT]);
        command.arg("--output").arg(results);
        let packages = if suites { &[self.room.package][..] } else { self.room.all };
        for package in packages {
            command.args(["--test-package", package]);
        }
        // A build without debug information links sooner; a suite that has failed need not go on.
        command.env("CARGO_PROFILE_DEV_DEBUG", "false").env("TIDINGS_FAIL_FAST", "1").env_remove("CARGO_TARGET_DIR");
        command.env("TIDINGS_SEEDS", SEEDS).stdin(Stdio::null()).current_dir(tree);
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

    /// Adds what other tests caught of this run's survivors.
    fn and(self, rest: Self) -> Self {
        Self {
            caught: self.caught + rest.caught,
            missed: rest.missed,
            timed_out: self.timed_out + rest.timed_out,
            unviable: self.unviable + rest.unviable,
        }
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
        assert_eq!(options.title("all"), "store-sled, all, shard 1/8");
        assert!(options.directory("all").ends_with("mutants/store-sled/all/1-of-8"));
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

    #[test]
    fn all_tests_catch_some_of_what_the_suites_missed() {
        let missed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let suites = Score { caught: 7, missed: missed(&["a", "b", "c"]), timed_out: 0, unviable: 2 };
        let rest = Score { caught: 2, missed: missed(&["b"]), timed_out: 0, unviable: 0 };
        assert_eq!(suites.and(rest), Score { caught: 9, missed: missed(&["b"]), timed_out: 0, unviable: 2 });
    }
}
