//! The command as a process: interrupts, and the steps applied before them.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tidings::dead_letter::DeadLetter;
use tidings::record::{Name, StoredRecord, Timestamp, TopicPartition};
use tidings::{ErrorKind, Record, Topic};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::{OWN, Rig, TestResult, fresh};
use crate::topics::create;

/// With this variable, the program is the command `tidings`.
pub(crate) const AS_TOOL: &str = "TIDINGS_TEST_AS_TOOL";
/// Time limit of a process.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts the command on a target that another process can reach; `None` for one that it cannot.
pub(crate) fn start(rig: &Rig, arguments: &[&str]) -> TestResult<Option<Child>> {
    if rig.variables[0].1 == OWN {
        return Ok(None);
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env(AS_TOOL, "1").envs(rig.variables.iter().cloned()).kill_on_drop(true);
    Ok(Some(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
}

/// Sends Ctrl-C.
async fn interrupt(child: &Child) -> TestResult {
    let id = child.id().ok_or("the process has ended")?.to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await?.success());
    Ok(())
}

/// Waits for the end; returns the exit code, and the rest of the outputs.
pub(crate) async fn ended(mut child: Child) -> TestResult<(Option<i32>, String, String)> {
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let out = async { if let Some(from) = &mut stdout { from.read_to_string(&mut out).await } else { Ok(0) } };
        let err = async { if let Some(from) = &mut stderr { from.read_to_string(&mut err).await } else { Ok(0) } };
        tokio::try_join!(out, err)?;
        child.wait().await
    };
    let status: ExitStatus = timeout(LIMIT, read).await??;
    Ok((status.code(), out, err))
}

pub(crate) async fn a_watch_refreshes_until_it_is_interrupted(rig: Rig) -> TestResult {
    let topic = fresh("watched");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let watch = ["topic", "describe", &*topic, "-o", "jsonl", "--watch=100ms"];
    let Some(mut child) = start(&rig, &watch)? else { return Ok(()) };
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    for _ in 0..2 {
        let line = timeout(LIMIT, lines.next_line()).await??.ok_or("it has ended")?;
        assert!(line.contains(&topic), "{line}");
    }
    interrupt(&child).await?;
    let rest = async {
        while lines.next_line().await?.is_some() {}
        Ok::<_, std::io::Error>(())
    };
    timeout(LIMIT, rest).await??;
    let (code, _, err) = ended(child).await?;
    assert_eq!((code, err.as_str()), (Some(0), ""), "the code of the last round");
    Ok(())
}

/// Buries letters of a new topic; returns its name.
async fn buried(rig: &mut Rig, count: u64) -> TestResult<String> {
    let topic = fresh("interrupted");
    tidings::admin::ensure_topics(&*rig.transport.admin().await?, &[Topic::new(topic.as_str())]).await?;
    let letter = |offset: u64| {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1_000)).with_key("k").with_value("v");
        DeadLetter::new("shop", TopicPartition::new(topic.as_str(), 0), record, ErrorKind::Failed)
    };
    for answer in rig.transport.dead_letters().await?.bury((0..count).map(letter).collect()).await {
        answer?;
    }
    rig.open_letters(&topic).await?;
    Ok(topic)
}

pub(crate) async fn an_interrupted_redrive_reports_what_was_applied(mut rig: Rig) -> TestResult {
    const ALL: u64 = 200;
    let topic = buried(&mut rig, ALL).await?;
    let redrive = ["dead-letter", "redrive", "--topic", &*topic, "--rate", "20/s", "--execute"];
    let Some(child) = start(&rig, &redrive)? else { return Ok(()) };
    let redriven = async || -> TestResult<u64> {
        let admin = rig.transport.admin().await?;
        let described = admin.describe_topics(&[Name::from(topic.as_str())]).await?.remove(0)?;
        Ok(described.partitions.iter().map(|partition| partition.end).sum())
    };
    let some = async {
        while redriven().await? < 3 {
            tokio::task::yield_now().await;
        }
        TestResult::Ok(())
    };
    timeout(LIMIT, some).await??;
    interrupt(&child).await?;
    let (code, out, err) = ended(child).await?;
    assert_eq!(code, Some(3), "done in part: {out}{err}");
    let count = redriven().await?;
    assert!((3..ALL).contains(&count), "{count} of {ALL}");
    assert!(err.contains(&format!("Redriven {count} of {ALL}")), "{err}");
    let open = rig.json(&["dead-letter", "count", "--topic", &topic], tidings::tool::Exit::Ok).await?;
    assert_eq!(open["letters"], ALL - count, "the others stay: {open}");
    Ok(())
}

pub(crate) async fn an_interrupted_discard_reports_what_was_applied(rig: Rig) -> TestResult {
    interrupted_resolution(rig, "discard", "Discarded").await
}

pub(crate) async fn an_interrupted_park_reports_what_was_applied(rig: Rig) -> TestResult {
    interrupted_resolution(rig, "park", "Parked").await
}

/// Interrupts `verb`, which reports `done` of the letters.
async fn interrupted_resolution(mut rig: Rig, verb: &str, done: &str) -> TestResult {
    const ALL: u64 = 3_000;
    let topic = buried(&mut rig, ALL).await?;
    let resolve = ["dead-letter", verb, "--topic", &*topic, "--reason", "a test", "--execute"];
    let Some(child) = start(&rig, &resolve)? else { return Ok(()) };
    let states = [tidings::dead_letter::dead_letter_state_topic(&topic)];
    let some = async {
        let admin = rig.transport.admin().await?;
        loop {
            let described = admin.describe_topics(&states).await?.remove(0)?;
            if described.partitions.iter().any(|partition| partition.end > 0) {
                return TestResult::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, some).await??;
    interrupt(&child).await?;
    let (code, out, err) = ended(child).await?;
    assert_eq!(code, Some(3), "done in part: {out}{err}");
    let open = rig.json(&["dead-letter", "count", "--topic", &topic], tidings::tool::Exit::Ok).await?;
    let count = ALL - open["letters"].as_u64().ok_or("a number")?;
    assert!((1..ALL).contains(&count), "{count} of {ALL}");
    assert!(err.contains(&format!("{done} {count} of {ALL}.")), "{err}");
    assert!(out.contains("letters stay") && out.contains("the run was interrupted"), "{out}");
    Ok(())
}

pub(crate) async fn an_interrupted_export_reports_its_events(rig: Rig) -> TestResult {
    const ALL: usize = 6_000;
    let topic = fresh("long");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let value = "v".repeat(2_000);
    let records = || (0..ALL / 10).map(|_| Record::new(topic.as_str(), value.clone())).collect();
    for _ in 0..10 {
        for answer in rig.transport.publisher().await?.publish(records()).await {
            answer?;
        }
    }
    let Some(mut child) = start(&rig, &["event", "export", &topic, "--file", "-"])? else { return Ok(()) };
    // The pipe is full before the end, so the interrupt comes in the middle.
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    assert!(timeout(LIMIT, lines.next_line()).await??.is_some());
    interrupt(&child).await?;
    let mut read = 1;
    let rest = async {
        while lines.next_line().await?.is_some() {
            read += 1;
        }
        Ok::<_, std::io::Error>(())
    };
    timeout(LIMIT, rest).await??;
    let (code, _, err) = ended(child).await?;
    assert_eq!(code, Some(3), "done in part: {err}");
    assert!(read < ALL && err.contains(&format!("Interrupted: - has the first {read} events.")), "{read}: {err}");
    Ok(())
}
