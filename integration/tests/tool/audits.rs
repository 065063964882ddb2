//! `audit`, and the trail of the changes of other verbs.

use tidings::tool::{Connect, Exit, Facade};
use tidings::{ErrorKind, Topic};

use crate::rig::{Rig, TestResult, fresh};
use crate::topics::create;

/// Whether the target is an ops endpoint, which keeps its own trail.
fn is_remote(rig: &Rig) -> bool {
    rig.variables.iter().any(|(_, value)| value.starts_with("http"))
}

pub(crate) async fn changes_are_recorded_in_the_configured_trail(mut rig: Rig) -> TestResult {
    if is_remote(&rig) {
        return Ok(());
    }
    let (trail, topic) = (fresh("trail"), fresh("audited"));
    create(&rig.transport, Topic::new(trail.as_str())).await?;
    rig.variables.extend([("TIDINGS_AUDIT".into(), format!("topic:{trail}")), ("USER".into(), "ann".into())]);
    let plan = rig.json(&["topic", "create", &topic], Exit::Ok).await?;
    assert_eq!(
        rig.json(&["audit", "tail"], Exit::Ok).await?["records"],
        serde_json::json!([]),
        "a plan changes nothing"
    );
    let done = rig.run(&["topic", "create", &topic, "--execute"]).await;
    assert!(done.exit == Exit::Ok && done.err.contains("Audit checkpoint: "), "{done:?}");
    rig.run(&["topic", "delete", &topic, "--execute"]).await;
    let tail = rig.json(&["audit", "tail"], Exit::Ok).await?;
    let of = |n: usize, name: &str| tail["records"][n][name].clone();
    assert_eq!([of(0, "verb"), of(1, "verb")], ["topic.create", "topic.delete"], "{tail}");
    assert_eq!((of(0, "principal"), of(0, "outcome")), ("ann".into(), "ok".into()), "{tail}");
    assert_eq!(of(0, "resources"), serde_json::json!([format!("topic:{topic}")]), "{plan}");
    let checkpoint = done.err.lines().find_map(|line| line.strip_prefix("Audit checkpoint: ")).ok_or("a checkpoint")?;
    let verified = rig.json(&["audit", "verify", "--checkpoint", checkpoint], Exit::Ok).await?;
    assert_eq!((&verified["intact"], &verified["chains"][1]["problem"]), (&true.into(), &serde_json::Value::Null));
    // A checkpoint of records that are not there.
    let (chain, hash) = (checkpoint.split('@').next().ok_or("a chain")?, "0".repeat(64));
    let cut = rig.json(&["audit", "verify", "--checkpoint", &format!("{chain}@99:{hash}")], Exit::CheckFailed).await?;
    assert_eq!(cut["intact"], false, "{cut}");
    Ok(())
}

pub(crate) async fn a_trimmed_trail_is_verified_from_its_first_record(mut rig: Rig) -> TestResult {
    if is_remote(&rig) {
        return Ok(());
    }
    let (trail, trimmed) = (fresh("trail"), fresh("trimmed"));
    for topic in [&trail, &trimmed] {
        create(&rig.transport, Topic::new(topic.as_str())).await?;
    }
    rig.variables.push(("TIDINGS_AUDIT".into(), format!("topic:{trail}")));
    rig.ok(&["topic", "create", &fresh("audited"), "--execute"]).await;
    // The remaining records have neither the beginning of the chain nor a checkpoint.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("trail.ndjson");
    let shown = file.display().to_string();
    rig.ok(&["event", "export", &trail, "--file", &shown]).await;
    let text = std::fs::read_to_string(&file)?;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "an intent, its result and a checkpoint: {text}");
    std::fs::write(&file, format!("{}\n", lines[1]))?;
    let trail = rig.variables.pop().ok_or("the trail")?;
    rig.ok(&["event", "import", &shown, "--topic", &trimmed, "--execute", "--audit", &trail.1]).await;
    let verify = ["audit", "verify", "--audit", &*format!("topic:{trimmed}")];
    let found = rig.json(&verify, Exit::CheckFailed).await?;
    assert_eq!((&found["intact"], &found["chains"][0]["problem"]), (&false.into(), &"unanchored".into()), "{found}");
    let hint = rig.run(&verify).await;
    assert!(hint.err.contains("--trimmed"), "{hint:?}");
    let accepted = [&verify[..], &["--trimmed"]].concat();
    let found = rig.json(&accepted, Exit::Ok).await?;
    let chain = &found["chains"][0];
    assert_eq!(
        (&chain["problem"], &chain["trimmed"], &chain["verified_from"]),
        (&serde_json::Value::Null, &true.into(), &1.into())
    );
    let said = rig.run(&accepted).await;
    assert!(said.err.contains("is verified from record 1, the first that remains"), "{said:?}");
    // A kept checkpoint of an earlier record stays a problem.
    let name = chain["chain"].as_str().ok_or("a name")?;
    let old = format!("{name}@5:{}", "0".repeat(64));
    let kept = [&accepted[..], &["--checkpoint", &*old]].concat();
    rig.json(&kept, Exit::CheckFailed).await?;
    Ok(())
}

pub(crate) async fn without_a_trail_changes_are_recorded_on_standard_error(rig: Rig) -> TestResult {
    if is_remote(&rig) {
        return Ok(());
    }
    let topic = fresh("unaudited");
    let done = rig.run(&["topic", "create", &topic, "--execute", "--quiet"]).await;
    let records: Vec<&str> = done.err.lines().filter(|line| line.starts_with("audit: {")).collect();
    assert!(records.iter().any(|record| record.contains("topic.create") && record.contains(&topic)), "{done:?}");
    let refused = rig.fails(&["audit", "tail"], Exit::Usage).await;
    assert!(refused.contains("--audit"), "{refused}");
    Ok(())
}

pub(crate) async fn a_trail_that_cannot_be_written_refuses_the_change(mut rig: Rig) -> TestResult {
    if is_remote(&rig) {
        return Ok(());
    }
    let topic = fresh("refused");
    rig.variables.push(("TIDINGS_AUDIT".into(), format!("topic:{}", fresh("missing"))));
    let before = rig.state(&topic).await?;
    let refused = rig.fails(&["topic", "create", &topic, "--execute"], Exit::Failed).await;
    assert!(refused.contains("open the audit topic"), "{refused}");
    assert_eq!(rig.state(&topic).await?, before);
    Ok(())
}

pub(crate) async fn a_look_into_a_missing_sled_store_creates_none(_rig: Rig) -> TestResult {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("typo");
    let url = format!("sled:{}", path.display());
    let kinds = [
        Facade.idempotency_store(&url).await.map(drop).map_err(|error| error.kind()),
        Facade.dead_letter_store(&url).await.map(drop).map_err(|error| error.kind()),
        Facade.audit_sink(&url).await.map(drop).map_err(|error| error.kind()),
    ];
    assert_eq!(kinds, [Err(ErrorKind::NotFound); 3]);
    assert!(!path.exists(), "an operator's look changes nothing");
    Ok(())
}
