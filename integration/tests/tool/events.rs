//! `event`.

use tidings::record::{Headers, Name};
use tidings::tool::Exit;
use tidings::{Record, Topic};

use crate::rig::{Rig, TestResult, fresh};
use crate::topics::{create, only_plans, publish};

async fn filled(rig: &Rig, what: &str) -> TestResult<String> {
    let topic = fresh(what);
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    publish(&rig.transport, &topic, &["a", "b", "c"]).await?;
    Ok(topic)
}

/// The values of the records of a topic, by its own verbs.
async fn values(rig: &Rig, topic: &str) -> TestResult<Vec<String>> {
    let lines = rig.ok(&["event", "tail", topic, "--from", "start", "--exit", "-o", "jsonl"]).await;
    let value = |line: &str| -> TestResult<String> {
        let event: serde_json::Value = serde_json::from_str(line)?;
        Ok(event["value"].as_str().unwrap_or_default().to_owned())
    };
    lines.lines().map(value).collect()
}

pub(crate) async fn events_are_tailed_got_counted_and_filtered(rig: Rig) -> TestResult {
    let topic = filled(&rig, "tailed").await?;
    assert_eq!(values(&rig, &topic).await?, ["a", "b", "c"]);
    let filtered = rig.ok(&["event", "tail", &topic, "--from", "start", "--exit", "--filter", "key=b"]).await;
    assert!(filtered.lines().count() == 1 && filtered.contains("value=b"), "{filtered}");
    let bare = rig.ok(&["event", "tail", &topic, "--from", "-1", "--exit", "--no-payload"]).await;
    assert!(bare.lines().count() == 1 && !bare.contains("value="), "{bare}");
    let limited = rig.ok(&["event", "tail", &topic, "--from", "start", "-n", "2", "-o", "yaml"]).await;
    assert_eq!(limited.matches("---\n").count(), 2, "{limited}");

    let got = rig.json(&["event", "get", &topic, "--offset", "1"], Exit::Ok).await?;
    assert_eq!((&got["events"][0]["offset"], &got["events"][0]["value"]), (&1.into(), &"b".into()));
    let none = rig.fails(&["event", "get", &topic, "--offset", "3"], Exit::Failed).await;
    assert!(none.contains("no event at offset 3"), "{none}");
    let counted = rig.json(&["event", "count", &topic], Exit::Ok).await?;
    assert_eq!((&counted["count"], &counted["exact"]), (&3.into(), &false.into()));
    let exact = rig.json(&["event", "count", &topic, "--filter", "value~a"], Exit::Ok).await?;
    assert_eq!((&exact["count"], &exact["exact"]), (&1.into(), &true.into()));
    let wrong = rig.fails(&["event", "count", &topic, "--filter", "vlaue=a"], Exit::Usage).await;
    assert!(wrong.contains("vlaue=a") && wrong.contains("header.NAME"), "{wrong}");
    Ok(())
}

pub(crate) async fn an_export_is_imported_byte_for_byte(rig: Rig) -> TestResult {
    let (topic, copy) = (filled(&rig, "exported").await?, fresh("imported"));
    let binary = Record::new(topic.as_str(), vec![0xff, 0]).with_headers(Headers::new().with("h", vec![0xfe]));
    rig.transport
        .publisher()
        .await?
        .publish(vec![binary, Record::tombstone(topic.as_str()).with_key("a")])
        .await
        .remove(1)?;
    create(&rig.transport, Topic::new(copy.as_str())).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("events.ndjson").display().to_string();
    let exported = rig.json(&["event", "export", &topic, "--file", &file], Exit::Ok).await?;
    assert_eq!(exported["events"], 5);
    let arguments = ["event", "import", &file, "--topic", &copy, "--keep-times"];
    let plan = only_plans(&rig, &copy, &arguments).await?;
    assert_eq!(plan["steps"][0]["step"]["events"][&copy], 5, "{plan}");
    rig.json(&[&arguments[..], &["--execute"]].concat(), Exit::Ok).await?;
    let again = directory.path().join("again.ndjson").display().to_string();
    rig.ok(&["event", "export", &copy, "--file", &again]).await;
    let text = |file: &str| std::fs::read_to_string(file);
    assert_eq!(text(&again)?.replace(&copy, &topic), text(&file)?);

    let saved = directory.path().join("plan.json").display().to_string();
    rig.ok(&["event", "import", &file, "--topic", &copy, "--plan", &saved]).await;
    std::fs::write(&file, text(&file)? + &text(&file)?)?;
    let stale = rig.fails(&["event", "import", "--from-plan", &saved, "--execute"], Exit::Failed).await;
    assert!(stale.contains("has changed"), "{stale}");
    std::fs::write(&file, "{\"topic\": \"canary-s3cr3t\"\n")?;
    let broken = rig.fails(&["event", "import", &file], Exit::Usage).await;
    assert!(broken.contains("line 1"), "{broken}");
    Ok(())
}

pub(crate) async fn an_event_is_published_as_planned(rig: Rig) -> TestResult {
    let topic = fresh("published");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let arguments = ["event", "publish", &topic, "--key", "k", "--value", "hello", "--header", "a=b"];
    only_plans(&rig, &topic, &arguments).await?;
    rig.json(&[&arguments[..], &["--execute"]].concat(), Exit::Ok).await?;
    assert_eq!(values(&rig, &topic).await?, ["hello"]);
    let typed = ["event", "publish", &topic, "--type", "order.placed", "--value", "{\"id\":1}", "--execute"];
    rig.ok(&typed).await;
    let tail = rig.ok(&["event", "tail", &topic, "--from", "-1", "--exit", "--filter", "type=order.placed"]).await;
    assert!(tail.contains("type=order.placed"), "{tail}");
    let wrong = rig.fails(&["event", "publish", &topic, "--type", "t", "--value", "{canary-s3cr3t"], Exit::Usage).await;
    assert!(wrong.contains("the payload is no JSON"), "{wrong}");
    let missing = rig.fails(&["event", "publish", "no-such-topic-here", "--value", "a"], Exit::Failed).await;
    assert!(missing.contains("no-such-topic-here does not exist"), "{missing}");
    let admin = rig.transport.admin().await?;
    assert!(!admin.list_topics().await?.contains(&Name::from("no-such-topic-here")));
    Ok(())
}
