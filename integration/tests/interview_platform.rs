//! The interview platform runs on poison and duplicates, and what its ledger says adds up.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tidings_integration::interview_platform;

/// No test waits longer for a program.
const DEADLINE: Duration = Duration::from_secs(120);

/// The example, with a store of its own.
fn platform(directory: &TempDir) -> Command {
    let mut command = interview_platform();
    command.arg(format!("--store=sled:{}", directory.path().join("store").display()));
    command
}

/// Returns its output, after its own checks have passed.
fn succeeded(run: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    assert!(out.contains("Checked: each event was settled once"), "{out}{err}");
    out.into_owned()
}

#[test]
fn each_event_is_settled_once_by_each_group() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("ledger.ndjson");
    let arguments = ["--limit", "3000", "--poison", "5", "--duplicate", "5", "--redrive", "--ledger"];
    let run = platform(&directory).args(arguments).arg(&path).output().expect("it starts");
    let out = succeeded(&run);
    assert!(!out.contains("earlier run"), "{out}");

    let ledger = std::fs::read_to_string(&path).expect("it wrote its ledger");
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
    assert!(out.contains(&format!("\n{} redriven, 0 refused", counts["dead-lettered"])), "{counts:?} {out}");
}

#[test]
fn a_second_run_handles_nothing_twice_and_says_so() {
    let directory = tempdir().expect("a directory");
    let run = |limit: &str| succeeded(&platform(&directory).args(["--limit", limit]).output().expect("it starts"));
    let first = run("300");
    assert!(first.contains("are remembered in") && !first.contains("earlier run"), "{first}");
    let second = run("300");
    assert!(second.contains("deliveries were handled by an earlier run"), "{second}");
    assert!(second.contains("All ") && second.contains("nothing was handled twice"), "{second}");
    let more = run("400");
    assert!(
        more.contains("as the store knows, and ") && more.contains(" were new: nothing was handled twice"),
        "{more}"
    );
}

/// The first Ctrl-C stops the input only.
#[cfg(unix)]
#[test]
fn what_is_published_is_finished_when_it_is_interrupted() {
    let directory = tempdir().expect("a directory");
    let path = directory.path().join("ledger.ndjson");
    let piped = Stdio::piped;
    let run = platform(&directory).arg("--ledger").arg(&path).stdout(piped()).stderr(piped()).spawn();
    let mut run = run.expect("it starts");
    let has_begun = |path: &Path| path.metadata().is_ok_and(|ledger| ledger.len() > 0);
    while !has_begun(&path) && run.try_wait().expect("it is ours").is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Cargo, if it was started by cargo, has become the example by now.
    let told = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill runs");
    assert!(told.success(), "it ended before it could be interrupted");
    let out = succeeded(&run.wait_with_output().expect("it ends"));
    assert!(out.contains("Interrupted after "), "{out}");
    assert!(out.contains("analytics-service-group"), "the table is there: {out}");
}

/// Lines of input: a registration, and an exam of the same student.
const LINES: &str = concat!(
    r#"{"id":1,"type":"student.registered","student":7,"module":"AAA","presentation":"2013J","day":-159,"nominal_date":"2013-04-25","payload":{}}"#,
    "\n",
    r#"{"id":2,"type":"assessment.exam.submitted","student":7,"module":"AAA","presentation":"2013J","day":230,"nominal_date":"2014-05-19","payload":{"assessment":9,"kind":"Exam","weight":100.0,"score":70.0}}"#,
    "\n",
);

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// The endpoint shows the load, whose events are new in each round of the input, until it is interrupted.
#[cfg(unix)]
#[test]
fn a_steady_load_is_shown_while_it_lasts() {
    let directory = tempdir().expect("a directory");
    let input = directory.path().join("input.ndjson");
    std::fs::write(&input, LINES).expect("it is written");
    let mut command = interview_platform();
    command.args(["--rate", "500", "--ops", "127.0.0.1:0", "--input"]).arg(&input);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut errors = BufReader::new(run.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let address = errors.find_map(|line| Some(line.strip_prefix("--ops: http://")?.split_once('/')?.0.to_owned()));
    let address = address.expect("it says where");

    let begun = Instant::now();
    let status = loop {
        let answer = get(&address, "/status");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status: Value = serde_json::from_str(body).expect("JSON");
        let analytics =
            status["services"].as_array().and_then(|all| all.iter().find(|s| s["service"] == "analytics-service"));
        let totals = analytics.expect("it runs")["totals"].clone();
        if totals["handled"].as_u64() > Some(100) {
            break totals;
        }
        assert!(begun.elapsed() < DEADLINE, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status["duplicates"], 0, "each round has its own events");
    assert!(get(&address, "/readyz").ends_with("\r\n\r\nok\n"));
    assert!(get(&address, "/metrics").contains("tidings_published_messages_total{publisher=\"user-service\"}"));

    let told = Command::new("kill").args(["-INT", &run.id().to_string()]).status().expect("kill runs");
    assert!(told.success(), "it ended before it could be interrupted");
    let ended = run.wait_with_output().expect("it ends");
    let out = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{out}{:?}", errors.collect::<Vec<_>>());
    assert!(out.contains("Interrupted after ") && out.contains("Counted, and not checked event by event"), "{out}");
}

#[test]
fn a_wrong_flag_is_named() {
    let directory = tempdir().expect("a directory");
    let run = platform(&directory).args(["--poison", "lots"]).output().expect("it starts");
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("'lots' for '--poison"));
}
