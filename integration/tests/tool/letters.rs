//! `dead-letter`.

use serde_json::Value;
use tidings::dead_letter::DeadLetter;
use tidings::memory::MemoryTransport;
use tidings::record::{StoredRecord, Timestamp, TopicPartition};
use tidings::tool::Exit;
use tidings::{ErrorKind, Topic, Transport};

use crate::rig::{CANARY, Rig, TestResult, fresh};
use crate::topics::only_plans;

/// A topic with the letters of the service `shop`: each a key and an error, at the offsets 0, 1, and so on.
async fn buried(rig: &mut Rig, what: &str, letters: &[(&'static str, &str)]) -> TestResult<String> {
    let topic = fresh(what);
    tidings::admin::ensure_topics(&*rig.transport.admin().await?, &[Topic::new(topic.as_str())]).await?;
    bury(rig, &topic, 0, letters).await?;
    rig.open_letters(&topic).await?;
    Ok(topic)
}

async fn bury(rig: &Rig, topic: &str, first: u64, letters: &[(&'static str, &str)]) -> TestResult {
    let sink = rig.transport.dead_letters().await?;
    let letter = |(offset, (key, error)): (u64, &(&'static str, &str))| {
        let mut record = StoredRecord::new(offset, Timestamp::from_millis(1_000)).with_value(CANARY);
        record.key = Some((*key).into());
        DeadLetter::new("shop", TopicPartition::new(topic, 0), record, ErrorKind::Failed)
            .with_handler("score")
            .with_error(*error)
    };
    for answer in sink.bury((first..).zip(letters).map(letter).collect()).await {
        answer?;
    }
    Ok(())
}

async fn count(rig: &Rig, topic: &str, state: &str) -> TestResult<u64> {
    let counted = rig.json(&["dead-letter", "count", "--topic", topic, "--state", state], Exit::Ok).await?;
    Ok(counted["letters"].as_u64().ok_or("a number")?)
}

pub(crate) async fn letters_are_listed_counted_and_shown_without_their_payload(mut rig: Rig) -> TestResult {
    let letters = [("a", "no account 1"), ("b", "no account 2"), ("a", "down")];
    let topic = buried(&mut rig, "letters", &letters).await?;
    let listed = rig.json(&["dlq", "list", "--topic", &topic, "--key", "a", "--limit", "1"], Exit::Ok).await?;
    let first = listed["letters"][0]["id"].as_str().ok_or("an id")?;
    assert_eq!((first, &listed["more"]), (&*format!("shop/{topic}/0/0"), &Value::from(true)));
    let rest = ["dlq", "list", "--topic", &topic, "--key", "a", "--after", first];
    assert_eq!(rig.json(&rest, Exit::Ok).await?["letters"][0]["cause"], "down");
    let by = ["dead-letter", "count", "--topic", &topic, "--by", "service,cause"];
    let counted = rig.json(&by, Exit::Ok).await?;
    let group = &counted["groups"][0];
    assert_eq!(
        (&group["letters"], &group["cause"], &counted["letters"]),
        (&2.into(), &"no account #".into(), &3.into())
    );
    let table = rig.ok(&by).await;
    assert!(table.contains("no account #") && table.contains("CAUSE"), "{table}");
    let shown = rig.json(&["dead-letter", "show", first], Exit::Ok).await?;
    assert_eq!((&shown["error"], &shown["payload"]), (&"no account 1".into(), &Value::Null));
    let missing = rig.fails(&["dead-letter", "show", &format!("shop/{topic}/0/99")], Exit::Failed).await;
    assert!(missing.contains("/0/99 does not exist"), "{missing}");
    Ok(())
}

/// The target with damaged letters. Only the memory transport can inject this fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Damaged {
    Here,
    BehindHttp,
}

pub(crate) async fn letters_that_cannot_be_read_are_counted_apart(at: Damaged) -> TestResult {
    let memory = MemoryTransport::new();
    let mut rig = match at {
        Damaged::Here => Rig::in_memory(&memory),
        Damaged::BehindHttp => Rig::behind_http(&memory)?,
    };
    let topic = fresh("damaged");
    tidings::admin::ensure_topics(&*rig.transport.admin().await?, &[Topic::new(topic.as_str())]).await?;
    bury(&rig, &topic, 0, &[("a", "down"); 9]).await?;
    let dlq = TopicPartition::new(tidings::dead_letter::dead_letter_topic(&topic), 0);
    memory.faults().unreadable(&dlq, 2..5);
    rig.open_letters(&topic).await?;

    let count = ["dead-letter", "count", "--topic", &*topic];
    let counted = rig.json(&count, Exit::Ok).await?;
    assert_eq!((&counted["letters"], &counted["unreadable_records"]), (&6.into(), &3.into()), "{counted}");
    let cause = counted["unreadable"][0].as_str().unwrap_or_default();
    assert!(cause.contains("-dlq[0]: offsets 2 to 4 cannot be read"), "{counted}");
    let table = rig.run(&count).await;
    let row = table.out.lines().nth(1).unwrap_or_default();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["6", "3"], "{table:?}");
    assert!(table.err.contains("3 records cannot be read and are not counted"), "{table:?}");
    let grouped = rig.json(&[&count[..], &["--by", "service"]].concat(), Exit::Ok).await?;
    assert_eq!((&grouped["letters"], &grouped["unreadable_records"]), (&6.into(), &3.into()), "{grouped}");

    let check = ["check", "dead-letters", &*topic, "--warning", "100"];
    let checked = rig.json(&check, Exit::CheckFailed).await?;
    let message = checked["message"].as_str().unwrap_or_default();
    assert!(message.contains("3 records cannot be read"), "{checked}");
    assert_eq!((&checked["status"], &checked["values"][2]["value"]), (&"unknown".into(), &3.into()), "{checked}");
    let shown = rig.fails(&["dead-letter", "show", &format!("shop/{topic}/0/3")], Exit::Failed).await;
    assert!(shown.contains("which may be one that cannot be read"), "{shown}");
    Ok(())
}

pub(crate) async fn letters_are_redriven_as_planned(mut rig: Rig) -> TestResult {
    let topic = buried(&mut rig, "redriven", &[("a", "down 1"), ("b", "down 2"), ("a", "wrong")]).await?;
    let plan = only_plans(&rig, &topic, &["dead-letter", "redrive", "--topic", &topic]).await?;
    let planned: Vec<_> =
        plan["steps"].as_array().ok_or("steps")?.iter().map(|step| &step["step"]["letters"]).collect();
    assert_eq!(serde_json::to_string(&planned)?, "[[[0,0],[0,1]],[[0,2]]]", "{plan}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plan.json").display().to_string();
    rig.ok(&["dead-letter", "redrive", "--topic", &topic, "--error", "down", "--plan", &file]).await;
    // A letter that is buried later is no part of the plan.
    bury(&rig, &topic, 3, &[("c", "down 3")]).await?;
    let done = rig.run(&["dead-letter", "redrive", "--topic", &topic, "--from-plan", &file, "--execute"]).await;
    assert_eq!(done.exit, Exit::Ok, "{done:?}");
    assert!(done.err.contains("Redriven 2 of 2.") && done.err.contains("1 of 1 done."), "{done:?}");
    assert_eq!((count(&rig, &topic, "open").await?, count(&rig, &topic, "closed").await?), (2, 2));
    let again = ["dead-letter", "redrive", "--topic", &topic, "--from-plan", &file, "--execute"];
    let stale = rig.fails(&again, Exit::Failed).await;
    assert!(stale.contains("none of its 2 letters is open"), "{stale}");
    let described = rig.json(&["topic", "describe", &topic], Exit::Ok).await?;
    assert_eq!(described["topics"][0]["partitions"][0]["end"], 2, "{described}");
    Ok(())
}

pub(crate) async fn a_check_counts_the_letters_that_are_open(mut rig: Rig) -> TestResult {
    let topic = buried(&mut rig, "checked", &[("a", "down"), ("b", "wrong"), ("c", "wrong")]).await?;
    let check = ["check", "dead-letters", &*topic, "--warning", "2", "--critical", "3"];
    let all = rig.json(&check, Exit::CheckFailed).await?;
    assert_eq!((&all["status"], &all["values"][0]["value"]), (&"critical".into(), &3.into()), "{all}");
    let park = ["dead-letter", "park", "--topic", &*topic, "--error", "down", "--reason", "later", "--execute"];
    rig.ok(&park).await;
    let two = rig.json(&check, Exit::CheckFailed).await?;
    assert_eq!((&two["status"], &two["message"]), (&"warning".into(), &"2 open letters, 1 parked".into()), "{two}");
    rig.ok(&["dead-letter", "discard", "--topic", &topic, "--reason", "a test", "--execute"]).await;
    // The records are in the log as before.
    let none = rig.json(&check, Exit::Ok).await?;
    assert_eq!((&none["values"][0]["value"], &none["values"][1]["value"]), (&0.into(), &1.into()), "{none}");
    let missing = rig.json(&["check", "dead-letters", "no-such-topic-at-all"], Exit::CheckFailed).await?;
    assert!(missing["message"].as_str().is_some_and(|text| text.contains("no-such-topic-at-all")), "{missing}");
    Ok(())
}

pub(crate) async fn letters_are_parked_and_discarded_for_a_reason(mut rig: Rig) -> TestResult {
    let topic = buried(&mut rig, "resolved", &[("a", "down"), ("b", "wrong"), ("c", "wrong")]).await?;
    let wrong = ["--topic", &*topic, "--error", "wrong"];
    let discard = |rest: &[&'static str]| {
        [&["dead-letter", "discard"], rest].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let with = |verb: Vec<String>| verb.into_iter().chain(wrong.iter().map(|word| (*word).to_owned())).collect();
    let empty: Vec<String> = with(discard(&["--reason", " "]));
    let refused = rig.fails(&empty.iter().map(String::as_str).collect::<Vec<_>>(), Exit::Usage).await;
    assert!(refused.contains("--reason is empty"), "{refused}");
    let plan: Vec<String> = with(discard(&["--reason", "a test"]));
    only_plans(&rig, &topic, &plan.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let park = ["dead-letter", "park", "--topic", &topic, "--error", "down", "--reason", "until 2.4", "--execute"];
    rig.ok(&park).await;
    let execute: Vec<String> = with(discard(&["--reason", "a test", "--execute"]));
    rig.ok(&execute.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let states = [count(&rig, &topic, "open").await?, count(&rig, &topic, "parked").await?];
    assert_eq!((states, count(&rig, &topic, "closed").await?), ([0, 1], 2));
    let shown = rig.json(&["dead-letter", "show", &format!("shop/{topic}/0/1")], Exit::Ok).await?;
    assert_eq!((&shown["state"], &shown["reason"]), (&"discarded".into(), &"a test".into()), "{shown}");
    Ok(())
}
