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
use crate::mutant_scores::Score;
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
        suites: &["--test", "conformance"],
        all: &["tidings-sled"],
    },
    Room {
        name: "store-postgres",
        package: "tidings-postgres",
        files: "store-postgres/src/**/*.rs",
        suites: &["--test", "conformance"],
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
    let suites = options.measure(&tree, &servers, true, options.picked(&tree)?.as_deref())?;
    println!("\n{}", suites.report(&options.title("suites")));
    if !options.suites {
        let rest = options.measure(&tree, &servers, false, Some(&suites.missed))?;
        let score = suites.passed_on(rest);
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
    part: Part,
}

/// The part of a room's bugs that is planted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Whole,
    /// `K/N`, round-robin.
    Shard(String),
    /// A random choice out of all.
    Sample {
        count: usize,
        seed: u64,
    },
}

impl Part {
    /// Returns its name for a report.
    fn title(&self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::Shard(shard) => format!(", shard {shard}"),
            Self::Sample { count, seed } => format!(", sample of {count}, seed {seed}"),
        }
    }

    /// Returns its name for a directory.
    fn directory(&self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::Shard(shard) => shard.replace('/', "-of-"),
            Self::Sample { count, seed } => format!("sample-{count}-seed-{seed}"),
        }
    }
}

/// Returns `count` of `names`, chosen by `seed` alone.
fn sample(mut names: Vec<String>, count: usize, seed: u64) -> Vec<String> {
    // SplitMix64: the same names for the same seed, on any machine and with any release of a library.
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut chosen = Vec::new();
    while chosen.len() < count && !names.is_empty() {
        let at = usize::try_from(random() % names.len() as u64).unwrap_or_default();
        chosen.push(names.swap_remove(at));
    }
    chosen
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let rooms: Vec<_> = ROOMS.iter().map(|room| room.name).collect();
        let usage = format!(
            "cargo xtask soak mutants ROOM [suites|all] [--shard K/N | --sample COUNT [--seed NUMBER]], where ROOM is {}",
            rooms.join(", ")
        );
        let mut args = args.iter().map(String::as_str);
        let name = args.next().ok_or_else(|| usage.clone())?;
        let room = ROOMS.iter().find(|room| room.name == name).ok_or_else(|| format!("no room {name:?}: {usage}"))?;
        let mut options = Self { room, suites: true, part: Part::Whole };
        let mut chosen = 1;
        while let Some(arg) = args.next() {
            let number = |value: Option<&str>, what| value.and_then(|v| v.parse().ok()).ok_or(what);
            match arg {
                "suites" => options.suites = true,
                "all" => options.suites = false,
                "--shard" => {
                    options.part = Part::Shard(args.next().ok_or("--shard needs K/N, such as 0/8")?.to_owned())
                }
                "--sample" => {
                    let count = number(args.next(), "--sample needs a number of bugs, such as 80")?;
                    options.part = Part::Sample { count: usize::try_from(count)?, seed: chosen };
                }
                "--seed" => {
                    chosen = number(args.next(), "--seed needs a number")?;
                    if let Part::Sample { seed, .. } = &mut options.part {
                        *seed = chosen;
                    }
                }
                other => return Err(format!("unknown argument {other:?}: {usage}").into()),
            }
        }
        Ok(options)
    }

    fn title(&self, tests: &str) -> String {
        format!("{}, {tests}{}", self.room.name, self.part.title())
    }

    /// Returns the directory of the results: one per room, tests and part, so that parts do not overwrite each other.
    fn directory(&self, tests: &str) -> PathBuf {
        target_directory().join("mutants").join(self.room.name).join(tests).join(self.part.directory())
    }

    /// Returns the names of all bugs of the room.
    fn names(&self, tree: &Path) -> Result<Vec<String>> {
        let mut list = cargo(["mutants", "--list", "--all-features", "--colors=never"]);
        list.args(["--package", self.room.package, "--file", self.room.files]).current_dir(tree);
        Ok(output(&mut list)?.lines().map(str::to_owned).collect())
    }

    /// Returns the bugs of a sample; `None` for a shard, which cargo-mutants takes itself.
    fn picked(&self, tree: &Path) -> Result<Option<Vec<String>>> {
        let Part::Sample { count, seed } = self.part else { return Ok(None) };
        let names = self.names(tree)?;
        println!("{count} of {} bugs, by seed {seed}", names.len());
        Ok(Some(sample(names, count, seed)))
    }

    /// Plants bugs, and again those that only a deadline has shown, because the machine may have been busy.
    fn measure(&self, tree: &Path, servers: &Servers, suites: bool, only: Option<&[String]>) -> Result<Score> {
        let results = self.directory(if suites { "suites" } else { "all" });
        let mut score = self.plant(tree, servers, suites, only, &results)?;
        if score.by_time.is_empty() {
            return Ok(score);
        }
        let again = std::mem::take(&mut score.by_time);
        println!("\nagain, because only a deadline has shown them: {}", again.len());
        Ok(score.and(self.plant(tree, servers, suites, Some(&again), &results.join("again"))?))
    }

    /// Plants the part's bugs, or `only` some, and runs the suites or all tests on each.
    fn plant(
        &self,
        tree: &Path,
        servers: &Servers,
        suites: bool,
        only: Option<&[String]>,
        results: &Path,
    ) -> Result<Score> {
        if only.is_some_and(<[String]>::is_empty) {
            return Ok(Score::default());
        }
        drop(fs::remove_dir_all(results.join("mutants.out")));
        fs::create_dir_all(results.join("mutants.out"))?;
        let mut command = self.command(tree, results, suites);
        match only {
            Some(only) => {
                let others = self.names(tree)?.into_iter().filter(|name| !only.contains(name));
                let others: String = others.map(|name| format!("{name}\n")).collect();
                fs::write(results.join("mutants.out").join(LEFT_OUT), others)?;
                command.arg("--iterate");
            }
            None => {
                // Round-robin, so that one shard is a sample of all files.
                let shard = if let Part::Shard(shard) = &self.part { shard } else { "0/1" };
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
        let options = parse("engine --seed 7 --sample 60").expect("it parses");
        assert_eq!(options.part, Part::Sample { count: 60, seed: 7 });
        assert!(options.directory("suites").ends_with("mutants/engine/suites/sample-60-seed-7"));
        assert_eq!(parse("engine --sample 60 --seed 7").expect("it parses").part, options.part);
        for (wrong, says) in [
            ("", "ROOM"),
            ("kitchen", "no room"),
            ("engine --shard", "K/N"),
            ("engine --sample most", "number"),
            ("engine most", "most"),
        ] {
            assert!(parse(wrong).is_err_and(|e| e.to_string().contains(says)), "{wrong:?}");
        }
    }

    #[test]
    fn a_sample_is_the_same_for_its_seed_and_names_each_bug_once() {
        let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let chosen = sample(names.clone(), 40, 1);
        assert_eq!(chosen, sample(names.clone(), 40, 1));
        assert_ne!(chosen, sample(names.clone(), 40, 2));
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 40);
        assert_eq!(sample(names, 200, 1).len(), 100);
    }
}
