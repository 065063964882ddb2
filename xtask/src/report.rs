//! A summary of the output of test programs: how many tests passed, which failed, which did not run, and why.

use std::collections::BTreeMap;

/// The sum of many `test result:` lines, and the reasons of ignored tests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u64,
    failed: u64,
    ignored: BTreeMap<String, u64>,
    failures: Vec<String>,
    /// The output of failed tests, without backtraces.
    said: Vec<String>,
    /// Within what a program tells of its failed tests.
    telling: bool,
}

/// The maximum number of lines of failed tests that are repeated at the end: of all of them, and of one test.
const TOLD_AGAIN: usize = 200;
const TOLD_OF_EACH: usize = 40;

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
                self.ignore(reason);
            } else if verdict.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        }
    }

    /// Counts a test that passed.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts a test that did not run, as what follows `ignored` says: `, reason` or, by libtest-mimic, ` (reason)`.
    pub(crate) fn ignore(&mut self, reason: &str) {
        let reason = reason.trim_start_matches([',', ' ']);
        let reason = reason.strip_prefix('(').and_then(|reason| reason.strip_suffix(')')).unwrap_or(reason);
        let reason = if reason.is_empty() { "no reason given" } else { reason };
        *self.ignored.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts a test that failed, with its output.
    pub(crate) fn fail(&mut self, name: &str, output: &str) {
        self.failed += 1;
        self.failures.push(name.to_owned());
        self.said.push(format!("---- {name} ----"));
        let lines = output.lines().filter(|line| !line.is_empty() && !is_backtrace(line));
        let room = TOLD_AGAIN.saturating_sub(self.said.len()).min(TOLD_OF_EACH);
        self.said.extend(lines.take(room).map(str::to_owned));
    }

    /// Returns the summary; `missing` are servers that did not run.
    pub(crate) fn text(&self, missing: &[String]) -> String {
        let mut lines = vec![format!("{} tests passed, {} failed", self.passed, self.failed)];
        lines.extend(self.failed_lines());
        lines.extend(missing.iter().map(|why| format!("  not started: {why}")));
        lines.extend(self.ignored.iter().map(|(reason, n)| format!("  not run, {n} tests: {reason}")));
        if missing.is_empty() && self.ignored.is_empty() {
            lines.push("  all that there are did run".to_owned());
        }
        lines.join("\n")
    }

    /// Returns the names and the output of the failed tests.
    pub(crate) fn failures(&self) -> String {
        self.failed_lines().collect::<Vec<_>>().join("\n")
    }

    fn failed_lines(&self) -> impl Iterator<Item = String> {
        let names = self.failures.iter().map(|name| format!("  failed: {name}"));
        names.chain(self.said.iter().map(|line| format!("    {line}")))
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
    use super::*;

    #[test]
    fn results_are_summed_and_reasons_counted() {
        let mut report = Report::default();
        for line in [
            "test a::b ... ok",
            "test c ... ignored, no broker answers at TIDINGS_KAFKA",
            "test d ... ignored, no broker answers at TIDINGS_KAFKA",
            "test e   ... ignored (no broker answers at TIDINGS_KAFKA)",
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
             not run, 3 tests: no broker answers at TIDINGS_KAFKA\n  not run, 1 tests: no reason given"
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
}
