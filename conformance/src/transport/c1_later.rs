//! C1 and C5, late events: partitions that are added while a group runs or has no members, and late calls of `next`.

use tidings_core::{
    Commit, ConsumerOptions, CreatePartitionsOptions, ErrorKind, Name, Record, Start, TopicPartition, Transport,
};

use super::fixture::{Fixture, same_records};
use crate::case::{Broken, Case, Checked, cases, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c1_a_partition_that_appears_later_starts_at_its_beginning,
    c1_a_partition_that_appears_while_no_member_is_there_starts_at_its_beginning,
    c5_a_member_gets_partitions_at_a_late_first_call,
    c5_a_member_that_drops_its_last_call_dies,
];

/// Grows a topic of one partition to two, and fills the new one.
async fn grown(fixture: &Fixture, topic: &Name) -> Checked<Vec<Record>> {
    let admin = fixture.admin().await?;
    fixture.note("grow to 2 partitions");
    fixture
        .within("grow", admin.create_partitions(topic, 2, CreatePartitionsOptions::default().with_rekeying()))
        .await??;
    fixture.described(topic, 2).await?;
    fixture
        .eventually("the new partition takes records", || async {
            match fixture.fill(topic, 1, 0, 5).await {
                Ok(records) => Ok(Some(records)),
                Err(Broken::Failed(why)) if why.contains("not-found") => Ok(None),
                Err(other) => Err(other),
            }
        })
        .await
}

async fn c1_a_partition_that_appears_later_starts_at_its_beginning(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let mut members = fixture.join(options).await?;
    members.owns(0, &topic, 1).await?;
    // Published before the group discovers the partition: `Latest` must not skip it.
    let records = grown(fixture, &topic).await?;
    members.owns(0, &topic, 2).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    same_records("the new partition", 0, &records, members[0].of(&TopicPartition::new(&topic, 1)))?;
    same("records of the old partition", 0, members[0].of(&TopicPartition::new(&topic, 0)).len())
}

/// A topic may grow between two runs of a service, when only commits show which partitions the group has read.
async fn c1_a_partition_that_appears_while_no_member_is_there_starts_at_its_beginning(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let mut first = fixture.join(options.clone()).await?;
    first.owns(0, &topic, 1).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    first.records(0, 5).await?;
    first[0].commit(&TopicPartition::new(&topic, 0), 5).await?;
    first.close(0).await?;
    drop(first);
    let records = grown(fixture, &topic).await?;
    let mut second = fixture.join(options).await?;
    second.owns(0, &topic, 2).await?;
    second.records(0, 5).await?;
    second.rest().await?;
    same_records("the new partition", 0, &records, second[0].of(&TopicPartition::new(&topic, 1)))?;
    same("records of the old partition", 0, second[0].of(&TopicPartition::new(&topic, 0)).len())
}

/// It joined, did not call `next` for longer than permitted, and owned no partition: it becomes a member again.
async fn c5_a_member_gets_partitions_at_a_late_first_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 1).await?;
    let short = options.with_session_timeout(fixture.pace.lifetime).with_max_idle(fixture.pace.lifetime);
    let late = members.add(short.with_revocation_deadline(fixture.pace.lifetime / 2)).await?;
    members[late].idle = true;
    members.rest_for(fixture.pace.lifetime + fixture.pace.lifetime / 2).await?;
    members.close(0).await?;
    members[late].idle = false;
    members.owns(late, &topic, 1).await
}

/// Its last call of `next` was dropped before it returned, and must not keep the member alive.
async fn c5_a_member_that_drops_its_last_call_dies(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_session_timeout(fixture.pace.lifetime)
        .with_max_idle(fixture.pace.lifetime)
        .with_revocation_deadline(fixture.pace.lifetime / 2);
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    let late = Commit::new(p.clone(), members[0].epoch(&p)?, 5);
    members[0].pending = None;
    members[0].idle = true;
    let other = members.add(options).await?;
    members.owns(other, &topic, 1).await?;
    refused("a commit of a dead member", &[ErrorKind::Fenced], members[0].try_commit(late).await?)?;
    members.records(other, 5).await
}
