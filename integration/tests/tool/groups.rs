//! `group`.

use std::sync::Arc;
use std::time::Duration;

use tidings::consumer::{Commit, Consumer, ConsumerOptions, Step};
use tidings::record::Name;
use tidings::tool::Exit;
use tidings::{Topic, Transport};
use tokio::time::{Instant, sleep, timeout};

use crate::rig::{Rig, TestResult, fresh};
use crate::topics::{create, only_plans, publish};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A group that has committed the first `offset` records of a topic with one partition; its member is still there.
pub(crate) async fn live(rig: &Rig, group: &str, topic: &str, offset: u64) -> TestResult<Arc<dyn Consumer>> {
    let consumer = rig.transport.consumer(ConsumerOptions::new(group, [Name::from(topic)])).await?;
    loop {
        if let Step::Records(fetched) = timeout(LIMIT, consumer.next()).await?? {
            let commit = Commit::new(fetched.batch.origin().as_ref().clone(), fetched.epoch, offset);
            consumer.commit(vec![commit]).await.remove(0)?;
            return Ok(consumer);
        }
    }
}

/// The same, and the member has left.
pub(crate) async fn idle(rig: &Rig, group: &str, topic: &str, offset: u64) -> TestResult {
    live(rig, group, topic, offset).await?.close().await?;
    let admin = rig.transport.admin().await?;
    let ends = Instant::now() + LIMIT;
    while !admin.describe_group(&group.into()).await?.members.is_empty() {
        assert!(Instant::now() < ends, "the member does not leave");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub(crate) async fn filled(rig: &Rig, what: &str) -> TestResult<(String, String)> {
    let topic = fresh(what);
    create(&rig.transport, Topic::new(topic.as_str())).await?;
    publish(&rig.transport, &topic, &["a", "b", "c"]).await?;
    Ok((format!("{topic}-group"), topic))
}

pub(crate) async fn a_group_is_listed_described_and_its_lag_shown(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "lagging").await?;
    let member = live(&rig, &group, &topic, 1).await?;
    let list = rig.json(&["group", "list", "--prefix", &group, "--details"], Exit::Ok).await?;
    assert_eq!((&list["groups"][0]["name"], &list["groups"][0]["members"]), (&group.as_str().into(), &1.into()));
    let described = rig.json(&["group", "describe", &group], Exit::Ok).await?;
    assert_eq!(described["groups"][0]["members"][0]["partitions"][0]["topic"], topic.as_str(), "{described}");
    let lag = rig.json(&["group", "lag", &group], Exit::Ok).await?;
    let partition = &lag["partitions"][0];
    assert_eq!((&partition["committed"], &partition["end"], &partition["lag"]), (&1.into(), &3.into(), &2.into()));
    assert!(partition["member"].is_string(), "{lag}");
    let check = rig.json(&["group", "lag", &group, "--check", "--max-lag", "1"], Exit::CheckFailed).await?;
    assert_eq!(check["lag"], 2);
    rig.ok(&["group", "lag", &group, "--check", "--max-lag", "2"]).await;
    let table = rig.run(&["group", "lag", &group]).await;
    assert!(table.out.contains("behind") && table.err.contains("2 behind in all."), "{table:?}");
    Ok(member.close().await?)
}

pub(crate) async fn a_live_group_is_not_deleted_and_its_members_are_named(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "alive").await?;
    let member = live(&rig, &group, &topic, 1).await?;
    let id = rig.transport.admin().await?.describe_group(&group.as_str().into()).await?.members.remove(0).id;
    let before = rig.state(&topic).await?;
    let refused = rig.fails(&["group", "delete", &group, "--execute"], Exit::Failed).await;
    assert!(refused.contains(&id) && refused.contains("it has 1 members"), "{refused}");
    assert_eq!(rig.state(&topic).await?, before);
    Ok(member.close().await?)
}

pub(crate) async fn a_group_is_deleted_as_planned(rig: Rig) -> TestResult {
    let (group, topic) = filled(&rig, "deleted").await?;
    idle(&rig, &group, &topic, 2).await?;
    let plan = only_plans(&rig, &topic, &["group", "delete", &group]).await?;
    assert_eq!(plan["steps"][0]["step"]["offsets"][0]["offset"], 2, "{plan}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("plan.json").display().to_string();
    rig.ok(&["group", "delete", &group, "--plan", &file]).await;
    idle(&rig, &group, &topic, 3).await?;
    let stale = rig.fails(&["group", "delete", "--from-plan", &file, "--execute"], Exit::Failed).await;
    assert!(stale.contains("other committed offsets now"), "{stale}");
    rig.json(&["group", "delete", &group, "--execute"], Exit::Ok).await?;
    let gone = rig.fails(&["group", "describe", &group], Exit::Failed).await;
    assert!(gone.contains(&group), "{gone}");
    Ok(())
}
