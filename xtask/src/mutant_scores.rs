//! Scores of `cargo xtask soak mutants`, from the files of cargo-mutants.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Result;

/// Text of a case that the runner of the suites ended at its deadline.
const ENDED_BY_TIME: &str = "of real time";
/// The normal distribution's quantile for an interval of 95 %.
const Z: f64 = 1.96;

/// The results of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) caught: usize,
    pub(crate) missed: Vec<String>,
    /// Bugs caught only by a deadline: of the tests as a whole, or of the first failed case.
    pub(crate) by_time: Vec<String>,
    /// Bugs that do not compile, which are not counted.
    pub(crate) unviable: usize,
}

impl Score {
    /// Reads the lists that cargo-mutants wrote. A list that is absent is empty.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let lines = |name: &str| -> Result<Vec<String>> {
            let path = directory.join(name);
            if !path.exists() {
                return Ok(Vec::new());
            }
            Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
        };
        let mut by_time = lines("timeout.txt")?;
        let slow = slow_cases(directory)?;
        let (slow, caught): (Vec<_>, Vec<_>) = lines("caught.txt")?.into_iter().partition(|name| slow.contains(name));
        by_time.extend(slow);
        Ok(Self { caught: caught.len(), missed: lines("missed.txt")?, by_time, unviable: lines("unviable.txt")?.len() })
    }

    /// Adds the results of a later run on some of this one's bugs.
    pub(crate) fn and(self, rest: Self) -> Self {
        Self {
            caught: self.caught + rest.caught,
            missed: self.missed.into_iter().chain(rest.missed).collect(),
            by_time: self.by_time.into_iter().chain(rest.by_time).collect(),
            unviable: self.unviable + rest.unviable,
        }
    }

    /// Adds the results of other tests on the bugs that this run missed.
    pub(crate) fn passed_on(self, rest: Self) -> Self {
        Self { missed: Vec::new(), ..self }.and(rest)
    }

    pub(crate) fn report(&self, title: &str) -> String {
        let seen = self.caught + self.by_time.len();
        let viable = seen + self.missed.len();
        let (percent, low, high) = interval(seen, viable);
        let survivors: String = self.missed.iter().map(|missed| format!("\nsurvived: {missed}")).collect();
        let time = if self.by_time.is_empty() { String::new() } else { format!(", {} by time", self.by_time.len()) };
        format!(
            "{title}: {seen} of {viable} seen{time}, {percent:.1} % (95 %: {low:.0} to {high:.0}; {} do not compile)\
             {survivors}",
            self.unviable
        )
    }
}

/// Returns the share of `seen` in percent, and Wilson's interval of 95 % of what a run of all bugs would show.
#[expect(clippy::cast_precision_loss, reason = "percentages of some thousands")]
fn interval(seen: usize, viable: usize) -> (f64, f64, f64) {
    if viable == 0 {
        return (100.0, 0.0, 100.0);
    }
    let (n, share) = (viable as f64, seen as f64 / viable as f64);
    let weight = 1.0 + Z * Z / n;
    let center = (share + Z * Z / (2.0 * n)) / weight;
    let width = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / weight;
    (100.0 * share, 100.0 * (center - width), 100.0 * (center + width))
}

/// Returns the bugs whose failed cases have all been ended by the runner's deadline.
fn slow_cases(directory: &Path) -> Result<BTreeSet<String>> {
    let path = directory.join("outcomes.json");
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let all: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let mut slow = BTreeSet::new();
    for outcome in all["outcomes"].as_array().into_iter().flatten() {
        let (name, log) = (outcome["scenario"]["Mutant"]["name"].as_str(), outcome["log_path"].as_str());
        if let Some((name, log)) = name.zip(log)
            && outcome["summary"] == "CaughtMutant"
            && is_slow(&String::from_utf8_lossy(&fs::read(directory.join(log))?))
        {
            slow.insert(name.to_owned());
        }
    }
    Ok(slow)
}

/// Returns whether every failed case of a log was ended by the runner's deadline.
fn is_slow(log: &str) -> bool {
    let mut failures = log.lines().filter(|line| line.trim_start().starts_with("expected:")).peekable();
    failures.peek().is_some() && failures.all(|line| line.contains(ENDED_BY_TIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_that_do_not_compile_are_not_counted_and_hangs_are_seen() {
        let hangs = vec!["src/b.rs:1: c".into()];
        let score = Score { caught: 16, missed: vec!["src/a.rs:1: b".into()], by_time: hangs, unviable: 5 };
        let report = score.report("engine, suites");
        let expected = "engine, suites: 17 of 18 seen, 1 by time, 94.4 % (95 %: 74 to 99; 5 do not compile)";
        assert_eq!(report, format!("{expected}\nsurvived: src/a.rs:1: b"));
    }

    #[test]
    fn slow_cases_are_distinguished_from_failures() {
        let slow = "    expected: an end within 30s of real time\n";
        assert!(is_slow(slow) && is_slow(&slow.repeat(2)));
        assert!(!is_slow(&format!("{slow}  expected: success\n")) && !is_slow("assertion failed\n"));
    }

    #[test]
    fn all_tests_catch_some_bugs_that_the_suites_missed() {
        let missed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let suites = Score { caught: 7, missed: missed(&["a", "b", "c"]), by_time: missed(&["d"]), unviable: 2 };
        let rest = Score { caught: 2, missed: missed(&["b"]), by_time: Vec::new(), unviable: 0 };
        let both = Score { caught: 9, missed: missed(&["b"]), by_time: missed(&["d"]), unviable: 2 };
        assert_eq!(suites.passed_on(rest), both);
    }
}
