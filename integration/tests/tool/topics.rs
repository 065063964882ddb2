//! `topic`.

use tidings::record::Name;
use tidings::tool::Exit;
use tidings::{Record, Topic, Transport};

use crate::rig::{Rig, TestResult, fresh};

pub(crate) async fn create(transport: &dyn Transport, topic: Topic) -> TestResult {
    Ok(transport.admin().await?.create_topics(&[topic]).await?.remove(0)?)
}

pub(crate) async fn publish(transport: &dyn Transport, topic: &str, values: &[&str]) -> TestResult {
    let record = |value: &&str| Record::new(topic, value.to_string()).with_key(value.to_string());
    for answer in transport.publisher().await?.publish(values.iter().map(record).collect()).await {
        answer?;
    }
    Ok(())
}

async fn partitions(rig: &Rig, topic: &str) -> TestResult<usize> {
    let admin = rig.transport.admin().await?;
    Ok(admin.describe_topics(&[Name::from(topic)]).await?.remove(0)?.partitions.len())
}

/// Runs a verb without `--execute` and checks that nothing changed, also with `--plan`.
pub(crate) async fn only_plans(rig: &Rig, mark: &str, arguments: &[&str]) -> TestResult<serde_json::Value> {
    let before = rig.state(mark).await?;
    let plan = rig.json(arguments, Exit::Ok).await?;
    assert_eq!(plan["executed"], false, "{plan}");
    assert!(
        plan["steps"].as_array().is_some_and(|steps| steps.iter().all(|step| step["result"] == "planned")),
        "{plan}"
    );
    let shown = rig.run(arguments).await;
    assert!(shown.err.contains("Plan only, nothing changed."), "{shown:?}");
    assert_eq!(rig.state(mark).await?, before, "{arguments:?}");
    Ok(plan)
}

pub(crate) async fn a_plan_changes_nothing_and_is_applied_as_shown(rig: Rig) -> TestResult {
    let topic = fresh("planned");
    let arguments = ["topic", "create", &topic, "--partitions", "3", "--retention", "7d", "--with-dead-letters"];
    let plan = only_plans(&rig, &topic, &arguments).await?;
    assert_eq!(plan["steps"][0]["step"]["name"], topic.as_str());
    let applied = rig.json(&[&arguments[..], &["--execute"]].concat(), Exit::Ok).await?;
    assert_eq!((&applied["executed"], &applied["digest"]), (&true.into(), &plan["digest"]), "the same plan");
    assert_eq!(partitions(&rig, &format!("{topic}-dlq-state")).await?, 3);

    let deletion = only_plans(&rig, &topic, &["topic", "delete", &topic]).await?;
    assert_eq!(deletion["steps"][0]["step"]["ends"], serde_json::json!([0, 0, 0]));
    rig.json(&["topic", "delete", &topic, "--execute"], Exit::Ok).await?;
    let gone = rig.fails(&["topic", "describe", &topic], Exit::Failed).await;
    assert!(gone.contains(&topic) && gone.contains("does not exist"), "{gone}");
    Ok(())
}

pub(crate) async fn a_stale_plan_is_refused(rig: Rig) -> TestResult {
    let topic = fresh("stale");
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (created, deleted) = (file("create.json"), file("delete.json"));
    rig.ok(&["topic", "create", &topic, "--plan", &created]).await;
    rig.ok(&["topic", "create", "--from-plan", &created, "--execute"]).await;
    let stale = rig.fails(&["topic", "create", "--from-plan", &created, "--execute"], Exit::Failed).await;
    assert!(stale.contains("is stale, nothing was changed") && stale.contains(&topic), "{stale}");

    rig.ok(&["topic", "delete", &topic, "--plan", &deleted]).await;
    rig.ok(&["topic", "grow", &topic, "--partitions", "2", "--execute"]).await;
    let before = rig.state(&topic).await?;
    let stale = rig.fails(&["topic", "delete", "--from-plan", &deleted, "--execute"], Exit::Failed).await;
    assert!(stale.contains("stale") && stale.contains("other partitions"), "{stale}");
    assert_eq!(rig.state(&topic).await?, before);
    let other = rig.fails(&["topic", "create", "--from-plan", &deleted], Exit::Usage).await;
    assert!(other.contains("one of topic delete, not of topic.create"), "{other}");
    Ok(())
}

pub(crate) async fn a_topic_grows_only_if_its_keys_may_move(rig: Rig) -> TestResult {
    let topic = fresh("grown");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    only_plans(&rig, &topic, &["topic", "grow", &topic, "--partitions", "2"]).await?;
    publish(&rig.transport, &topic, &["a"]).await?;
    let refused = rig.fails(&["topic", "grow", &topic, "--partitions", "2"], Exit::Failed).await;
    assert!(refused.contains("--allow-rekeying"), "{refused}");
    rig.ok(&["topic", "grow", &topic, "--partitions", "2", "--allow-rekeying", "--execute"]).await;
    assert_eq!(partitions(&rig, &topic).await?, 2);
    let fewer = rig.fails(&["topic", "grow", &topic, "--partitions", "1"], Exit::Usage).await;
    assert!(fewer.contains("cannot be reduced"), "{fewer}");
    Ok(())
}

pub(crate) async fn a_file_is_applied_and_then_there_is_nothing_to_do(rig: Rig) -> TestResult {
    let (one, two) = (fresh("applied"), fresh("applied-too"));
    create(&rig.transport, Topic::new(one.as_str())).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("topics.toml");
    let text =
        format!("[[topic]]\nname = \"{one}\"\npartitions = 2\n\n[[topic]]\nname = \"{two}\"\nretention = \"1h\"\n");
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    only_plans(&rig, "applied", &["topic", "apply", &file]).await?;
    let applied = rig.json(&["topic", "apply", &file, "--execute"], Exit::Ok).await?;
    assert_eq!(applied["steps"].as_array().map(Vec::len), Some(2), "{applied}");
    assert_eq!((partitions(&rig, &one).await?, partitions(&rig, &two).await?), (2, 1));
    let again = rig.run(&["topic", "apply", &file, "--execute"]).await;
    assert!(again.exit == Exit::Ok && again.err.contains("Nothing to do."), "{again:?}");

    std::fs::write(&file, format!("[[topic]]\nname = \"{two}\"\nretention = \"2h\"\n"))?;
    let altered = rig.json(&["topic", "apply", &file, "--execute"], Exit::Ok).await?;
    assert_eq!(altered["steps"][0]["step"]["alter"]["to"], "7200000", "{altered}");
    let again = rig.run(&["topic", "apply", &file, "--execute"]).await;
    assert!(again.exit == Exit::Ok && again.err.contains("Nothing to do."), "{again:?}");

    std::fs::write(&file, "[[topic]]\nnmae = \"a\"\n")?;
    let typo = rig.fails(&["topic", "apply", &file], Exit::Usage).await;
    assert!(typo.contains("line 2: unknown field `nmae`"), "{typo}");
    Ok(())
}

pub(crate) async fn lists_and_descriptions_are_as_the_broker_says(rig: Rig) -> TestResult {
    let topic = fresh("described");
    create(&rig.transport, Topic::new(topic.as_str()).with_partitions(2)).await?;
    publish(&rig.transport, &topic, &["a", "b", "c"]).await?;
    let list = rig.json(&["topic", "list", "--prefix", &topic], Exit::Ok).await?;
    assert_eq!(list, serde_json::json!({ "topics": [{ "name": topic }] }));
    let details = rig.json(&["topic", "list", "--prefix", &topic, "--details"], Exit::Ok).await?;
    assert_eq!((&details["topics"][0]["partitions"], &details["topics"][0]["records"]), (&2.into(), &3.into()));
    let table = rig.ok(&["topic", "list", "--prefix", &topic, "-o", "wide"]).await;
    assert!(table.starts_with("NAME") && table.contains("PARTITIONS") && table.lines().count() == 2, "{table}");

    let described = rig.json(&["topic", "describe", &topic], Exit::Ok).await?;
    let ends = described["topics"][0]["partitions"].as_array().into_iter().flatten().filter_map(|p| p["end"].as_u64());
    assert_eq!(ends.sum::<u64>(), 3, "{described}");
    let yaml = rig.ok(&["topic", "describe", &topic, "-o", "yaml"]).await;
    assert!(yaml.contains(&format!("name: {topic}\n")), "{yaml}");
    let lines = rig.ok(&["topic", "list", "--prefix", &topic, "-o", "jsonl"]).await;
    assert_eq!(lines, format!("{{\"name\":\"{topic}\"}}\n"));
    Ok(())
}
