//! C9: `is_member` is true once the group has accepted the member, and no longer than the membership lasts.

use std::time::Duration;

use tidings_core::{ConsumerOptions, Transport};

use super::fixture::Fixture;
use super::members::Members;
use crate::case::{Case, Checked, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c9_a_member_without_partitions_is_one_once_the_group_lists_it,
    c9_a_closed_member_is_none,
    c9_a_closed_static_member_is_none,
    c9_a_member_that_stops_asking_is_none_until_it_asks_again,
];

/// Waits until a member says whether it is one.
async fn says(members: &mut Members<'_>, fixture: &Fixture, who: usize, expected: bool) -> Checked {
    let (consumer, what) = (members.consumer(who), format!("is_member of member {who}: {expected}"));
    let answer = || async { Ok((consumer.is_member() == Some(expected)).then_some(())) };
    members.meanwhile(&what, fixture.eventually(&what, answer)).await?
}

/// A service that has joined and waits for its share is ready; one that has not joined is not.
async fn c9_a_member_without_partitions_is_one_once_the_group_lists_it(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.add(members[0].options.clone()).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    for who in 0..2 {
        says(&mut members, fixture, who, true).await?;
        let described = members.meanwhile("a description", admin.describe_group(&group)).await??;
        holds(described.members.len() > who, &format!("at least {} listed members", who + 1), described)?;
    }
    let owners = (0..2).filter(|who| members[*who].has(&topic) > 0).count();
    holds(owners <= 1, "one partition has at most one owner", owners)
}

async fn c9_a_closed_member_is_none(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.add(members[0].options.clone()).await?;
    for who in 0..2 {
        says(&mut members, fixture, who, true).await?;
    }
    members.close(0).await?;
    same("is_member after close", Some(false), members.consumer(0).is_member())?;
    same("is_member of the other one", Some(true), members.consumer(1).is_member())
}

/// The group keeps its place; the closed consumer does not have it any more.
async fn c9_a_closed_static_member_is_none(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_instance_id("one");
    let mut members = fixture.join(options.with_session_timeout(Duration::from_secs(45))).await?;
    says(&mut members, fixture, 0, true).await?;
    members.close(0).await?;
    same("is_member after close", Some(false), members.consumer(0).is_member())
}

async fn c9_a_member_that_stops_asking_is_none_until_it_asks_again(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_session_timeout(fixture.pace.lifetime)
        .with_max_idle(fixture.pace.lifetime)
        .with_revocation_deadline(fixture.pace.lifetime / 2);
    let mut members = fixture.join(options).await?;
    members.records(0, 5).await?;
    says(&mut members, fixture, 0, true).await?;
    // A step was handed out, and `next` is not called any more.
    members[0].pending = None;
    members[0].idle = true;
    fixture.outlive().await?;
    says(&mut members, fixture, 0, false).await?;
    members[0].idle = false;
    says(&mut members, fixture, 0, true).await
}
