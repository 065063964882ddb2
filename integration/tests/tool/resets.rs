//! `group reset`, `group clone`.

use std::time::Duration;

use tidings::idempotency::{EventRef, IdempotencyStore};
use tidings::memory::MemoryStore;
use tidings::record::Name;
use tidings::tool::Exit;
use tidings::{Record, Topic};
use uuid::Uuid;

use crate::groups::{filled, idle, live};
use crate::rig::{Rig, TestResult, fresh};
use crate::topics::{create, only_plans};

async fn committed(rig: &Rig, group: &str) -> TestResult<Vec<Option<u64>>> {
    let lag = rig.transport.admin().await?.group_lag(&Name::from(group)).await?;
    Ok(lag.into_iter().map(|lag| lag.committed).collect())
}

pub(crate) async fn a_reset_is_applied_with_the_offsets_of_its_plan(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "reset").await?;
    idle(&rig, &group, &topic, 3).await?;
    let plan = only_plans(&rig, &topic, &["group", "reset", &group, "--to", "1"]).await?;
    let step = &plan["steps"][0]["step"];
    assert_eq!((&step["from"], &step["to"], &step["offsets"]), (&3.into(), &1.into(), &2.into()), "{plan}");
    assert!(step["done"].is_null(), "unknown without a store: {plan}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plan.json").display().to_string();
    rig.ok(&["group", "reset", &group, "--shift", "-1", "--plan", &file]).await;
    rig.json(&["group", "reset", "--from-plan", &file, "--execute"], Exit::Ok).await?;
    assert_eq!(committed(&rig, &group).await?, [Some(2)]);
    let stale = rig.fails(&["group", "reset", "--from-plan", &file, "--execute"], Exit::Failed).await;
    assert!(stale.contains("2 is committed now, not 3"), "{stale}");
    assert_eq!(committed(&rig, &group).await?, [Some(2)]);
    Ok(())
}

pub(crate) async fn a_reset_of_a_live_group_names_its_members(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "reset-live").await?;
    let member = live(&rig, &group, &topic, 1).await?;
    let id = rig.transport.admin().await?.describe_group(&group.as_str().into()).await?.members.remove(0).id;
    let before = rig.state(&topic).await?;
    for execute in [&["--execute"][..], &[]] {
        let arguments = [&["group", "reset", &group, "--to", "start"][..], execute].concat();
        let refused = rig.fails(&arguments, Exit::Failed).await;
        assert!(refused.contains(&id), "{refused}");
    }
    assert_eq!(rig.state(&topic).await?, before);
    Ok(member.close().await?)
}

pub(crate) async fn a_reset_counts_the_events_that_are_done(rig: Rig) -> TestResult {
    let topic = fresh("reset-done");
    let group = format!("{topic}-group");
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    let ids = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    let record = |id: &Uuid| {
        Record::new(topic.as_str(), "{}").with_header("eventType", "t").with_header("eventId", id.to_string())
    };
    let records = ids.iter().map(|id| record(id).with_header("content-type", "application/octet-stream")).collect();
    for answer in rig.transport.publisher().await?.publish(records).await {
        answer?;
    }
    idle(&rig, &group, &topic, 3).await?;
    let store = MemoryStore::new();
    let (scope, done) = (Name::from(topic.as_str()), [EventRef::new(ids[0], "t"), EventRef::new(ids[1], "t")]);
    let lease = store.acquire_lease(&scope, Duration::from_secs(60)).await?;
    store.claim(&lease, &done).await?;
    store.complete(&lease, &done).await?.into_iter().collect::<tidings::Result<Vec<_>>>()?;
    let rig = rig.with_store(store);
    let plan = rig.json(&["group", "reset", &group, "--to", "start", "--store", "sled:here"], Exit::Ok).await?;
    assert_eq!(plan["steps"][0]["step"]["done"], 2, "{plan}");
    let notes = plan["notes"].to_string();
    assert!(notes.contains("2 events are marked done") && notes.contains("new scope"), "{notes}");
    let other = rig
        .json(&["group", "reset", &group, "--to", "start", "--store", "sled:here", "--scope", "x"], Exit::Ok)
        .await?;
    assert_eq!(other["steps"][0]["step"]["done"], 0, "{other}");
    Ok(())
}

pub(crate) async fn a_clone_has_the_offsets_of_its_group(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "cloned").await?;
    idle(&rig, &group, &topic, 2).await?;
    let other = format!("{group}-too");
    only_plans(&rig, &topic, &["group", "clone", &group, &other]).await?;
    rig.json(&["group", "clone", &group, &other, "--execute"], Exit::Ok).await?;
    assert_eq!(committed(&rig, &other).await?, [Some(2)]);
    let again = rig.run(&["group", "clone", &group, &other]).await;
    assert!(again.err.contains("Nothing to do."), "{again:?}");
    Ok(())
}
