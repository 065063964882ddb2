//! The house rules that neither rustfmt nor clippy knows.

use std::fs;
use std::process::Command;

use crate::Result;
use crate::circles;
use crate::process::output;
use crate::workspace::root;

/// Lines of a Rust file before its unit tests.
const FILE_LIMIT: usize = 400;
/// Lines of one doc comment; what is longer lives in `src/docs/*.md` and is included.
const DOC_LIMIT: usize = 40;
/// A workspace of its own, which links C.
const PEERS: &str = "benches/peers";

/// Checks every file that git knows or would add.
pub(crate) fn run() -> Result {
    let mut command = Command::new("git");
    command.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let mut found = Vec::new();
    for path in output(&mut command)?.lines() {
        // Files that are not text (test data, pictures) or were just deleted are not checked.
        if let Ok(text) = fs::read_to_string(root().join(path)) {
            found.extend(violations(path, &text));
        }
    }
    found.extend(circles::found()?);
    if found.is_empty() { Ok(()) } else { Err(format!("house rules:\n{}", found.join("\n")).into()) }
}

/// The violations in a file, as `path:line: sentence`.
fn violations(path: &str, text: &str) -> Vec<String> {
    if is_data(path) {
        return Vec::new();
    }
    let mut found: Vec<(usize, String)> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            found.push((i + 1, "trailing space".into()));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        found.push((text.lines().count(), "a file ends with one line feed".into()));
    }
    if path.ends_with(".rs") {
        found.extend(rust(text));
    } else if path.ends_with(".md") {
        found.extend(prose(text));
    } else if path.ends_with("Cargo.toml") && !path.starts_with(PEERS) && text.contains("[package]") {
        // Cargo lets a package forget the workspace's lints in silence.
        if !text.contains("[lints]\nworkspace = true\n") {
            found.push((1, "a package inherits the workspace's lints".into()));
        }
    }
    found.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")).collect()
}

/// Files whose every byte has a meaning or that a program writes.
fn is_data(path: &str) -> bool {
    [".lock", ".stderr", ".ndjson", ".json", ".svg", ".pem", ".patch"].iter().any(|end| path.ends_with(end))
        || path.starts_with("LICENSE")
}

fn rust(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut doc = 0;
    let mut before_tests = None;
    for (i, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if line == "#[cfg(test)]" && before_tests.is_none() {
            before_tests = Some(i);
        }
        doc = if code.starts_with("///") || code.starts_with("//!") { doc + 1 } else { 0 };
        if doc == DOC_LIMIT + 1 {
            found.push((i + 1, format!("a doc comment over {DOC_LIMIT} lines lives in src/docs/*.md")));
        }
        if code.starts_with("pub use") && code.trim_end_matches(';').ends_with("::*") {
            found.push((i + 1, "no glob re-exports".into()));
        }
        if code.starts_with("//") && code.contains(concat!("TO", "DO")) && !code.contains('#') {
            found.push((i + 1, concat!("a TO", "DO names its issue").into()));
        }
    }
    let length = before_tests.unwrap_or_else(|| text.lines().count());
    if length > FILE_LIMIT {
        found.push((length, format!("{length} lines before the tests, {FILE_LIMIT} at most: split it")));
    }
    found
}

/// A version in prose is wrong after the next release.
fn prose(text: &str) -> Vec<(usize, String)> {
    let pinned = |line: &&str| line.trim_start().starts_with("tidings") && line.contains("= \"0.");
    let lines = text.lines().enumerate().filter(|(_, line)| pinned(line));
    lines.map(|(i, _)| (i + 1, "no version numbers in prose: `cargo add tidings`".to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tidy_file_is_left_alone() {
        assert_eq!(violations("a.rs", "//! A.\n\nuse std::fs;\n"), [""; 0]);
    }

    #[test]
    fn each_rule_names_its_place() {
        assert_eq!(violations("a.toml", "a = 1 \n"), ["a.toml:1: trailing space"]);
        assert_eq!(violations("a.md", "text"), ["a.md:1: a file ends with one line feed"]);
        assert_eq!(violations("a.rs", "pub use b::*;\n"), ["a.rs:1: no glob re-exports"]);
        assert_eq!(violations("a.rs", concat!("// TO", "DO: all\n")), [concat!("a.rs:1: a TO", "DO names its issue")]);
        assert_eq!(
            violations("a/Cargo.toml", "[package]\nname = \"a\"\n"),
            ["a/Cargo.toml:1: a package inherits the workspace's lints"]
        );
        assert_eq!(
            violations("a.md", "tidings = \"0.1\"\n"),
            ["a.md:1: no version numbers in prose: `cargo add tidings`"]
        );
    }

    #[test]
    fn long_files_and_long_docs_are_found_but_tests_may_be_long() {
        let long = "fn f() {}\n".repeat(FILE_LIMIT + 1);
        assert_eq!(violations("a.rs", &long).len(), 1);
        assert_eq!(violations("a.rs", &format!("fn f() {{}}\n#[cfg(test)]\n{long}")).len(), 0);
        let doc = "/// Why.\n".repeat(DOC_LIMIT + 5);
        assert_eq!(violations("a.rs", &doc), ["a.rs:41: a doc comment over 40 lines lives in src/docs/*.md"]);
    }
}
