//! The guide's commands work as they stand there.

use crate::groups::idle;
use crate::rig::{Rig, TestResult, fresh};
use tidings::tool::Exit;

const GUIDE: &str = include_str!("../../../docs/guides/command.md");

pub(crate) async fn the_commands_of_the_guide_work(rig: Rig) -> TestResult {
    let (topic, directory) = (fresh("guide"), tempfile::tempdir()?);
    let blocks = GUIDE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands: Vec<&str> = blocks.flat_map(str::lines).filter(|line| line.starts_with("tidings ")).collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let words = words(command).into_iter().skip(1).map(|word| {
            let word = word.replace("orders", &topic);
            let is_file = [".json", ".ndjson", ".toml"].iter().any(|end| word.ends_with(end));
            if is_file { directory.path().join(word).display().to_string() } else { word }
        });
        let words: Vec<String> = words.collect();
        let run = rig.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(run.exit, Exit::Ok, "{command}: {run:?}");
    }
    Ok(())
}

/// Each row of the table of Kafka's own tools, on a topic with a group.
pub(crate) async fn the_commands_in_place_of_kafkas_tools_work(rig: Rig) -> TestResult {
    let (topic, directory) = (fresh("instead"), tempfile::tempdir()?);
    let events = directory.path().join("orders.ndjson").display().to_string();
    std::fs::write(&events, format!("{{\"topic\":\"{topic}\",\"key\":\"k\",\"value\":\"v\"}}\n"))?;
    let rows: Vec<&str> = GUIDE.lines().filter_map(|line| line.strip_prefix("| `kafka-")).collect();
    assert!(rows.len() > 20, "{rows:?}");
    let mut has_group = false;
    for row in rows {
        let command = row.split("| `tidings ").nth(1).and_then(|rest| rest.split('`').next()).ok_or(row)?;
        if command.starts_with("group") && !has_group {
            idle(&rig, &format!("{topic}-group"), &topic, 1).await?;
            has_group = true;
        }
        let words = words(command).into_iter().map(|word| match word.as_str() {
            "orders.ndjson" => events.clone(),
            _ => word.replace("orders", &topic),
        });
        let words: Vec<String> = words.collect();
        let run = rig.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(run.exit, Exit::Ok, "{command}: {run:?}");
        assert!(!run.out.is_empty(), "{command} prints its data: {run:?}");
    }
    Ok(())
}

/// Splits a command as a shell does, as far as the guide needs it: single quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}
