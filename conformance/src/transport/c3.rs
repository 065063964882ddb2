//! C3: commits are taken until a revocation ends, and fenced afterwards.
//!
//! The cases keep a revocation open for as long as they need, which a real service does while its
//! handlers finish. A backend that ignores `release`, or the deadline, is caught by one of them.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, Name, TopicPartition, Transport};

use super::fixture::{Fixture, partitions};
use super::member::Member;
use super::members::Members;
use crate::case::{Broken, Case, Checked, broken, cases, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c3_commits_are_taken_until_revocation_ends,
    c3_the_next_owner_starts_from_the_last_commit_of_a_revocation,
    c3_commits_after_release_are_fenced,
    c3_a_revocation_ends_at_its_deadline_with_lost,
    c3_nobody_else_has_a_partition_that_is_not_released,
    c3_asking_for_the_next_step_releases_nothing,
    c3_other_steps_come_while_a_revocation_is_open,
    c3_releasing_what_is_not_revoked_does_nothing,
    c3_releasing_everything_releases_what_is_revoked,
    c3_partitions_of_a_revocation_are_released_one_by_one,
    c3_a_revocation_carries_its_deadline,
    c3_a_rebalance_gives_each_partition_one_owner_again[Rebalance],
    c3_a_rebalance_of_one_member_gives_all_back[Rebalance],
];

/// Creates a member that has all partitions and read all records, and a joining one: the first delays its release.
async fn revoking(
    fixture: &Fixture,
    count: u32,
    deadline: Duration,
) -> Checked<(Members<'_>, Name, Vec<TopicPartition>)> {
    let topic = fixture.topic(count).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_revocation_deadline(deadline);
    for p in 0..count {
        fixture.fill(&topic, p, 0, 10).await?;
    }
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 10 * count as usize).await?;
    members[0].holds_on = true;
    members.add(options).await?;
    members.until("a revocation", |m| !m[0].revoking.is_empty()).await?;
    let revoked: Vec<TopicPartition> = members[0].revoking.iter().cloned().collect();
    Ok((members, topic, revoked))
}

/// Returns one revoked partition; which one does not matter.
fn any(revoked: &[TopicPartition]) -> Checked<TopicPartition> {
    revoked.first().cloned().map_or_else(|| broken("a revoked partition", "none"), Ok)
}

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(60);

/// The work in flight at a revocation would otherwise be done twice.
async fn c3_commits_are_taken_until_revocation_ends(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 2, LONG).await?;
    let p = any(&revoked)?;
    members[0].commit(&p, 4).await?;
    members.rest().await?;
    members[0].commit(&p, 8).await?;
    members[0].release(&revoked).await?;
    members.shared(&topic, 2, &[0, 1]).await
}

async fn c3_the_next_owner_starts_from_the_last_commit_of_a_revocation(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 2, LONG).await?;
    for p in &revoked {
        members[0].commit(p, 7).await?;
    }
    members[0].release(&revoked).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.records(1, 3).await?;
    for p in members[1].owned.keys() {
        let assignment = members[1].assignment(p)?;
        same("the next owner's start", 7, assignment.start_offset)?;
        same("what it knows as committed", Some(7), assignment.committed)?;
        same("its first record", Some(7), members[1].of(p).first().map(|r| r.offset))?;
    }
    Ok(())
}

/// Both before and after the next owner has the partition.
async fn c3_commits_after_release_are_fenced(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 2, LONG).await?;
    let p = any(&revoked)?;
    let late = Commit::new(p.clone(), members[0].epoch(&p)?, 9);
    members[0].commit(&p, 2).await?;
    members[0].release(&revoked).await?;
    refused("a commit after release", &[ErrorKind::Fenced], members[0].try_commit(late.clone()).await?)?;
    members.shared(&topic, 2, &[0, 1]).await?;
    refused("a commit while another owns it", &[ErrorKind::Fenced], members[0].try_commit(late).await?)?;
    if members[1].owned.contains_key(&p) {
        same("the next owner's start", 2, members[1].assignment(&p)?.start_offset)?;
    }
    Ok(())
}

/// A member that hangs must not keep its partitions for ever.
async fn c3_a_revocation_ends_at_its_deadline_with_lost(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 6, fixture.pace.lifetime / 2).await?;
    holds(revoked.len() >= 2, "two partitions or more are revoked of six", &revoked)?;
    let p = any(&revoked)?;
    let late = Commit::new(p.clone(), members[0].epoch(&p)?, 9);
    members[0].commit(&p, 3).await?;
    members.until("Lost at the deadline", |m| revoked.iter().all(|p| m[0].lost.contains(p))).await?;
    refused("a commit after the deadline", &[ErrorKind::Fenced], members[0].try_commit(late).await?)?;
    members.until("the next owner", |m| m[1].has(&topic) > 0).await?;
    if members[1].owned.contains_key(&p) {
        same("the next owner's start", 3, members[1].assignment(&p)?.start_offset)?;
    }
    Ok(())
}

/// Two owners at a time would handle one key concurrently.
async fn c3_nobody_else_has_a_partition_that_is_not_released(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 2, LONG).await?;
    members.rest().await?;
    let early = revoked.iter().find(|p| members[1].owned.contains_key(*p));
    holds(early.is_none(), "no other owner before the release", early)?;
    members[0].release(&revoked).await?;
    members.shared(&topic, 2, &[0, 1]).await
}

/// Some clients treat the next poll as consent; here only `release` counts.
async fn c3_asking_for_the_next_step_releases_nothing(fixture: &Fixture) -> Checked {
    let (mut members, _, revoked) = revoking(fixture, 2, LONG).await?;
    let p = any(&revoked)?;
    // `next` stays pending: it must not count as completing the revocation.
    for next in 1..4 {
        members.rest().await?;
        members[0].commit(&p, next).await?;
    }
    holds(!members[1].owned.contains_key(&p), "no other owner before the release", &members[1])?;
    members[0].release(&revoked).await
}

/// Ignored where the protocol revokes everything: no partition is left to read.
async fn c3_other_steps_come_while_a_revocation_is_open(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 2, LONG).await?;
    let kept = partitions(&topic, 2).into_iter().find(|p| !revoked.contains(p));
    let Some(kept) = kept else {
        let why = "this backend revokes all of a member's partitions at a rebalance";
        members[0].release(&revoked).await?;
        return Err(Broken::Ignored(why.into()));
    };
    fixture.fill(&topic, kept.partition, 10, 20).await?;
    members.until("records of what is kept", |m| m[0].of(&kept).len() >= 20).await?;
    members[0].commit(&kept, 20).await?;
    members[0].release(&revoked).await
}

/// A service may release late, after `Lost`, or twice.
async fn c3_releasing_what_is_not_revoked_does_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 2).await?;
    members[0].release(&partitions(&topic, 2)).await?;
    members[0].release(&[TopicPartition::new(fixture.fresh("other"), 0)]).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    let p = TopicPartition::new(&topic, 0);
    members[0].commit(&p, 5).await?;
    same("assignments of it", 1, members[0].assignments.iter().filter(|a| a.partition == p).count())
}

/// A service that ends releases all that it has. What is not revoked stays its own, under the same epoch.
async fn c3_releasing_everything_releases_what_is_revoked(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 4, LONG).await?;
    let kept: Vec<TopicPartition> = partitions(&topic, 4).into_iter().filter(|p| !revoked.contains(p)).collect();
    members[0].release(&partitions(&topic, 4)).await?;
    if kept.is_empty() {
        return Err(Broken::Ignored("this backend revokes all of a member's partitions at a rebalance".into()));
    }
    members.until("the next owner", |m| revoked.iter().all(|p| m[1].owned.contains_key(p))).await?;
    for p in &kept {
        members[0].commit(p, 7).await?;
        fixture.fill(&topic, p.partition, 10, 12).await?;
    }
    members.until("records of what is kept", |m| kept.iter().all(|p| m[0].of(p).len() >= 12)).await?;
    same("what was lost", 0, members[0].lost.len())
}

async fn c3_partitions_of_a_revocation_are_released_one_by_one(fixture: &Fixture) -> Checked {
    let (mut members, topic, revoked) = revoking(fixture, 6, LONG).await?;
    holds(revoked.len() >= 3, "three partitions or more are revoked of six", &revoked)?;
    let (first, rest) = (&revoked[..1], &revoked[1..]);
    members[0].release(first).await?;
    let gone = Commit::new(first[0].clone(), members[0].assignment(&first[0])?.epoch, 5);
    refused("a commit of what was released", &[ErrorKind::Fenced], members[0].try_commit(gone).await?)?;
    for p in rest {
        members[0].commit(p, 6).await?;
    }
    members[0].release(rest).await?;
    members.shared(&topic, 6, &[0, 1]).await?;
    for p in rest.iter().filter(|p| members[1].owned.contains_key(*p)) {
        same("the next owner's start", 6, members[1].assignment(p)?.start_offset)?;
    }
    Ok(())
}

/// A service plans by it; it may be shorter than the option, never longer.
async fn c3_a_revocation_carries_its_deadline(fixture: &Fixture) -> Checked {
    let deadline = Duration::from_secs(7);
    let (mut members, _, revoked) = revoking(fixture, 2, deadline).await?;
    let told = members[0].revocations.first().map(|r| r.deadline);
    holds(told.is_some_and(|told| !told.is_zero() && told <= deadline), "a deadline of at most 7 s", told)?;
    members[0].release(&revoked).await
}

/// No member joins or leaves. Each partition is revoked, and committed records are not read again.
async fn c3_a_rebalance_gives_each_partition_one_owner_again(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(4).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.add(options.clone()).await?;
    members.add(options).await?;
    members.shared(&topic, 4, &[0, 1, 2]).await?;
    for p in 0..4 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let all = |m: &[Member<'_>]| m.iter().map(Member::count).sum::<usize>();
    members.until("20 records", |m| all(m) == 20).await?;
    let before: Vec<_> = (0..3).map(|who| members[who].owned.clone()).collect();
    for (who, owned) in before.iter().enumerate() {
        for p in owned.keys() {
            members[who].commit(p, 5).await?;
        }
    }
    for _ in 0..3 {
        let told: Vec<usize> = (0..3).map(|who| revoked(&members[who])).collect();
        let owned: Vec<usize> = (0..3).map(|who| members[who].has(&topic)).collect();
        fixture.rebalance(&members[0].options.group).await?;
        let each = |m: &[Member<'_>]| (0..3).all(|who| revoked(&m[who]) == told[who] + owned[who]);
        members.until("a revocation of each partition", each).await?;
        members.shared(&topic, 4, &[0, 1, 2]).await?;
        members.rest().await?;
    }
    same("records after commits and rebalances", 20, (0..3).map(|who| members[who].count()).sum())
}

/// Returns the number of partitions that were revoked from a member.
fn revoked(member: &Member<'_>) -> usize {
    member.revocations.iter().map(|revocation| revocation.partitions.len()).sum()
}

async fn c3_a_rebalance_of_one_member_gives_all_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 2).await?;
    members[0].holds_on = true;
    fixture.rebalance(&members[0].options.group).await?;
    members.until("a revocation of both", |m| revoked(&m[0]) == 2).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    members.rest().await?;
    same("records while it is revoked", 0, members[0].count())?;
    let both: Vec<_> = members[0].revoking.iter().cloned().collect();
    members[0].release(&both).await?;
    members.owns(0, &topic, 2).await?;
    members.records(0, 5).await?;
    same("what was lost", 0, members[0].lost.len())
}
