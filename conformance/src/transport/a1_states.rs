//! A1, states of groups, and groups that a change must not affect.

use tidings_core::{ConsumerOptions, GroupState, TopicPartition, Transport};

use super::fixture::Fixture;
use crate::case::{Case, Checked, cases, granted, only, same};

pub(super) const CASES: &[Case<dyn Transport>] =
    cases![a1_a_group_is_rebalancing_until_a_revocation_ends, a1_deleting_a_topic_concerns_no_other_group,];

/// A group is not stable while a member keeps a partition that another one waits for.
async fn a1_a_group_is_rebalancing_until_a_revocation_ends(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_revocation_deadline(fixture.pace.patience * 2)
        .with_max_idle(fixture.pace.patience * 2);
    let (group, admin) = (options.group.clone(), fixture.admin().await?);
    let is = |state: GroupState| {
        let (group, admin) = (&group, &admin);
        let what = format!("a group that is {state:?}");
        async move {
            fixture
                .eventually(&what, || async {
                    let described = admin.describe_group(group).await?;
                    fixture.note(format!("described: {described:?}"));
                    Ok((described.state == state).then_some(()))
                })
                .await
        }
    };
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 2).await?;
    members[0].commit(&TopicPartition::new(&topic, 0), 0).await?;
    members.meanwhile("a description", is(GroupState::Stable)).await??;
    members[0].holds_on = true;
    members.add(options).await?;
    members.until("a revocation", |m| !m[0].revoking.is_empty()).await?;
    members.meanwhile("a description", is(GroupState::Rebalancing)).await??;
    let revoked: Vec<TopicPartition> = members[0].revoking.iter().cloned().collect();
    members[0].release(&revoked).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.meanwhile("a description", is(GroupState::Stable)).await??;
    members.close(0).await?;
    members.owns(1, &topic, 2).await?;
    members.meanwhile("a description", is(GroupState::Stable)).await??;
    members.close(1).await?;
    is(GroupState::Empty).await
}

/// Its members keep their partitions, and its commits stay.
async fn a1_deleting_a_topic_concerns_no_other_group(fixture: &Fixture) -> Checked {
    let (kept, gone) = (fixture.topic(2).await?, fixture.topic(2).await?);
    for p in 0..2 {
        fixture.fill(&kept, p, 0, 5).await?;
        fixture.fill(&gone, p, 0, 5).await?;
    }
    let mut members = fixture.reader(&kept).await?;
    members.records(0, 10).await?;
    let (first, second) = (TopicPartition::new(&kept, 0), TopicPartition::new(&kept, 1));
    members[0].commit(&first, 3).await?;
    let other = fixture.read_all(&gone, 2, 10).await?;
    other[0].commit(&TopicPartition::new(&gone, 0), 4).await?;
    drop(other);
    let admin = fixture.admin().await?;
    let answers = members.meanwhile("a deletion", admin.delete_topics(std::slice::from_ref(&gone))).await??;
    granted("delete a topic", only("delete a topic", answers)?)?;
    members.rest().await?;
    members[0].commit(&second, 4).await?;
    let records = fixture.fill(&kept, 1, 5, 8).await?;
    members.records(0, 13).await?;
    same("records of a topic that stays", records.len(), members[0].of(&second).len() - 5)?;
    same("what was lost or revoked", 0, members[0].lost.len() + members[0].revocations.len())?;
    let group = members[0].options.group.clone();
    let lag = members.meanwhile("lag", admin.group_lag(&group)).await??;
    let committed: Vec<_> = lag.iter().map(|lag| (lag.partition.clone(), lag.committed)).collect();
    same("what is committed", vec![(first, Some(3)), (second, Some(4))], committed)
}
