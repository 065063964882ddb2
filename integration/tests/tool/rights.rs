//! On a Kafka that checks access, each command works with the rights that the guide lists, and is denied without them.

use std::path::Path;
use std::time::Duration;

use tidings::dead_letter::DeadLetter;
use tidings::record::{StoredRecord, Timestamp, TopicPartition};
use tidings::tool::Exit;
use tidings::{ErrorKind, Record, Topic};
use tokio::time::timeout;

use crate::rig::{Rig, Run, TestResult, fresh};

const GUIDE: &str = include_str!("../../../docs/guides/command.md");
/// How long a broker may take to apply entries.
const LIMIT: Duration = Duration::from_secs(20);

/// The verbs after which the next row needs another topic.
const LAST: [&str; 5] =
    ["topic delete", "group delete", "dead-letter discard", "dead-letter redrive", "dead-letter park"];

/// A row of the guide's table.
struct Row {
    commands: Vec<String>,
    rights: Vec<String>,
}

/// Returns the texts in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> TestResult<Vec<Row>> {
    let section = GUIDE.split("\n## Rights on Kafka\n").nth(1).ok_or("no such section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').collect::<Vec<_>>());
    let row = |cells: Vec<&str>| Row { commands: quoted(cells[1]), rights: quoted(cells[2]) };
    Ok(cells.map(row).collect())
}

/// Runs each row of the table as `bob`, on a rig of an admin: no command succeeds without rights, and all succeed
/// with the rights of the row.
pub(crate) async fn each_command_needs_the_rights_of_the_guide(
    rig: &mut Rig,
    admin: &[(String, String)],
    bob: &[(String, String)],
) -> TestResult {
    let rows = rows()?;
    assert!(rows.len() > 10, "{}", rows.len());
    let directory = tempfile::tempdir()?;
    let file = exported(rig, &directory.path().join("events.jsonl")).await?;
    let (mut wrong, mut name) = (Vec::new(), prepared(rig).await?);
    for row in &rows {
        let word = |word: &str| if word == "orders.jsonl" { file.clone() } else { word.replace("orders", &name) };
        let named = |text: &str| text.split(' ').map(word).collect::<Vec<_>>();
        bob.clone_into(&mut rig.variables);
        for command in row.commands.iter().filter(|_| !row.rights.is_empty()) {
            let run = run(rig, &named(command)).await;
            if run.exit == Exit::Ok && run.out.contains(&name) && !run.err.contains("not begun") {
                wrong.push(format!("{command}: done without a right: {run:?}"));
            }
        }
        admin.clone_into(&mut rig.variables);
        for right in &row.rights {
            let create = ["acl", "create", "--principal", "User:bob", "--execute", "--operation"].map(str::to_owned);
            let made = run(rig, &[&create[..], &named(right)].concat()).await;
            assert_eq!(made.exit, Exit::Ok, "{right}: {made:?}");
        }
        bob.clone_into(&mut rig.variables);
        for command in &row.commands {
            if let Err(last) = until_allowed(rig, &named(command)).await {
                wrong.push(format!("{command}: {:?} do not suffice: {last}", row.rights));
            }
        }
        admin.clone_into(&mut rig.variables);
        rig.ok(&["acl", "delete", "--principal", "User:bob", "--execute"]).await;
        if row.commands.iter().any(|command| LAST.iter().any(|verb| command.starts_with(verb))) {
            name = prepared(rig).await?;
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

async fn run(rig: &Rig, words: &[String]) -> Run {
    rig.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Runs a command until it succeeds: brokers apply entries a moment after they acknowledge them.
async fn until_allowed(rig: &Rig, words: &[String]) -> Result<(), String> {
    let mut last = String::new();
    let tries = async {
        loop {
            let run = run(rig, words).await;
            match run.exit {
                Exit::Ok => return,
                _ => last = format!("{run:?}"),
            }
            tokio::task::yield_now().await;
        }
    };

    timeout(LIMIT, tries).await.map_err(|_| last)
}

/// Writes a file of one event, for the commands that read one; returns its path.
async fn exported(rig: &Rig, file: &Path) -> TestResult<String> {
    let (topic, file) = (prepared(rig).await?, file.display().to_string());
    rig.ok(&["event", "export", &topic, "--file", &file]).await;
    Ok(file)
}

/// Creates the resources that the rows name: a topic with an event and a letter, and a group that has committed.
async fn prepared(rig: &Rig) -> TestResult<String> {
    let name = fresh("rights");
    let admin = rig.transport.admin().await?;
    tidings::admin::ensure_topics(&*admin, &[Topic::new(name.as_str())]).await?;
    for answer in rig.transport.publisher().await?.publish(vec![Record::new(name.as_str(), "v").with_key("k")]).await {
        answer?;
    }
    let record = StoredRecord::new(0, Timestamp::from_millis(1_000)).with_key("k").with_value("v");
    let letter = DeadLetter::new("shop", TopicPartition::new(name.as_str(), 0), record, ErrorKind::Failed);
    for answer in rig.transport.dead_letters().await?.bury(vec![letter]).await {
        answer?;
    }
    crate::groups::idle(rig, &format!("{name}-group"), &name, 1).await?;
    Ok(name)
}
