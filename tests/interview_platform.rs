//! The interview platform runs on poison and duplicates, and what its ledger says adds up.
#![cfg(all(feature = "json", feature = "macros", feature = "memory"))]

use std::collections::{HashMap, HashSet};
use std::process::Command;

use serde_json::Value;

/// The example. By cargo, as a run of single tests does not build examples.
fn platform() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--example", "interview_platform", "--"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

#[test]
fn each_event_is_settled_once_by_each_group() {
    let path = std::env::temp_dir().join(format!("interview-platform-{}.ndjson", std::process::id()));
    let arguments = ["--limit", "3000", "--poison", "5", "--duplicate", "5", "--ledger"];
    let run = platform().args(arguments).arg(&path).output().expect("cargo runs");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));

    let ledger = std::fs::read_to_string(&path).expect("it wrote its ledger");
    std::fs::remove_file(&path).expect("the ledger is ours");
    let mut published = HashSet::new();
    let mut settled: HashMap<String, HashSet<String>> = HashMap::new();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for line in ledger.lines() {
        let line: Value = serde_json::from_str(line).expect("a line is an object");
        let place = format!("{}/{}@{}", line["topic"], line["partition"], line["offset"]);
        let what = line["what"].as_str().expect("a line says what happened");
        *counts.entry(what.to_owned()).or_default() += 1;
        match what {
            "published" => assert!(published.insert(place)),
            "retried" => {}
            _ => assert!(settled.entry(line["group"].to_string()).or_default().insert(place), "settled twice: {line}"),
        }
    }
    // The analytics group reads all topics.
    assert_eq!(settled["\"analytics-service-group\""], published);
    assert_eq!(settled.len(), 3);
    for what in ["handled", "duplicate", "skipped", "retried", "dead-lettered"] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "nothing was {what}: {counts:?}");
    }
}

#[test]
fn a_wrong_flag_is_named() {
    let run = platform().args(["--poison", "lots"]).output().expect("cargo runs");
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("--poison lots"));
}
