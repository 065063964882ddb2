//! The guide's commands work as they stand there.

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
