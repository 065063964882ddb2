//! A1, groups: what operators see of them, and how they move or delete them.
//!
//! The cases use groups that have committed less than they read, so that a wrong offset (the end,
//! the position, the start) differs from the right one.

use std::time::Duration;

use tidings_core::{
    ConsumerOptions, ErrorKind, GroupState, Name, PartitionLag, PartitionReset, ResetOffsetsOptions, ResetTo, Result,
    SeekTo, Timestamp, TopicPartition, Transport,
};

use super::fixture::{Fixture, numbered};
use super::members::Members;
use crate::case::{Case, Checked, cases, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    a1_groups_are_listed_in_order,
    a1_a_group_is_described_with_its_members,
    a1_a_missing_group_is_told,
    a1_each_member_is_described_with_its_own_partitions,
    a1_lag_is_what_is_left_to_read,
    a1_lag_counts_what_was_never_committed,
    a1_reset_moves_a_group,
    a1_reset_shifts_within_the_log,
    a1_reset_to_a_time,
    a1_a_dry_run_moves_nothing,
    a1_reset_is_refused_while_the_group_has_members,
    a1_reset_of_a_missing_topic_is_told,
    a1_reset_prepares_a_group_that_never_ran,
    a1_offsets_are_set_one_by_one,
    a1_offsets_are_set_within_the_log_or_not_at_all,
    a1_offsets_of_an_active_group_are_not_set,
    a1_a_deleted_group_starts_anew,
    a1_deleting_a_group_is_refused_while_it_has_members,
];

/// Creates a group without members that has committed 6 of the 10 records of each partition.
async fn left_behind(fixture: &Fixture, count: u32) -> Checked<(Name, Name)> {
    let (members, topic) = working(fixture, count).await?;
    let mut members = members;
    let group = members[0].options.group.clone();
    members.close(0).await?;
    Ok((group, topic))
}

/// Like [`left_behind`], with its member.
async fn working(fixture: &Fixture, count: u32) -> Checked<(Members<'_>, Name)> {
    let topic = fixture.topic(count).await?;
    for p in 0..count {
        fixture.fill(&topic, p, 0, 10).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10 * count as usize).await?;
    for p in super::fixture::partitions(&topic, count) {
        members[0].commit(&p, 6).await?;
    }
    Ok((members, topic))
}

/// Returns the committed offset of each partition, as operators see it.
async fn committed(fixture: &Fixture, group: &Name) -> Checked<Vec<Option<u64>>> {
    let admin = fixture.admin().await?;
    let lag = fixture.within("lag", admin.group_lag(group)).await??;
    Ok(lag.into_iter().map(|l| l.committed).collect())
}

/// Resets, retrying while the broker still considers the group active.
async fn reset(fixture: &Fixture, group: &Name, topic: &Name, to: ResetTo, dry: bool) -> Checked<Vec<PartitionReset>> {
    let plan = ResetOffsetsOptions::default();
    let options = if dry { plan.with_dry_run() } else { plan };
    let admin = fixture.admin().await?;
    fixture.note(format!("reset {group} to {to:?}, dry run {dry}"));
    let topics = [topic.clone()];
    fixture
        .eventually("a group without members", || async {
            match admin.reset_offsets(group, &topics, to, options).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                answer => Ok(Some(answer?)),
            }
        })
        .await
}

async fn a1_groups_are_listed_in_order(fixture: &Fixture) -> Checked {
    let mut mine = vec![left_behind(fixture, 1).await?.0, left_behind(fixture, 1).await?.0];
    mine.sort();
    let listed = fixture.within("list", fixture.admin().await?.list_groups()).await??;
    holds(listed.is_sorted(), "a sorted list", &listed)?;
    same("my groups in it", mine.clone(), listed.into_iter().filter(|g| mine.contains(g)).collect())
}

/// A group needs a moment to become stable, and another to become empty: both are waited for.
async fn a1_a_group_is_described_with_its_members(fixture: &Fixture) -> Checked {
    let (mut members, topic) = working(fixture, 2).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    let stable = fixture.eventually("a stable group", || async {
        let described = admin.describe_group(&group).await?;
        Ok((described.state == GroupState::Stable).then_some(described))
    });
    let described = members.meanwhile("a description", stable).await??;
    same("its name", &group, &described.name)?;
    same("its members", 1, described.members.len())?;
    let mut has: Vec<TopicPartition> = described.members.into_iter().flat_map(|m| m.partitions).collect();
    has.sort();
    same("their partitions", super::fixture::partitions(&topic, 2), has)?;
    members.close(0).await?;
    fixture
        .eventually("an empty group", || async {
            let described = admin.describe_group(&group).await?;
            Ok((described.state == GroupState::Empty && described.members.is_empty()).then_some(()))
        })
        .await
}

/// An empty description would hide a misspelt name.
async fn a1_a_missing_group_is_told(fixture: &Fixture) -> Checked {
    let (admin, group) = (fixture.admin().await?, fixture.fresh("missing"));
    let missing = &[ErrorKind::NotFound];
    refused("describing a missing group", missing, fixture.within("describe", admin.describe_group(&group)).await?)?;
    refused("the lag of a missing group", missing, fixture.within("lag", admin.group_lag(&group)).await?)?;
    refused("deleting a missing group", missing, fixture.within("delete", admin.delete_group(&group)).await?)
}

/// Two members of two topics. The group is listed although it has committed nothing.
async fn a1_each_member_is_described_with_its_own_partitions(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(4).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.add(options.clone()).await?;
    members.shared(&topic, 4, &[0, 1]).await?;
    let (group, admin) = (options.group, fixture.admin().await?);
    let mut expected: Vec<Vec<TopicPartition>> =
        [0, 1].iter().map(|who: &usize| members[*who].owned.keys().cloned().collect()).collect();
    expected.sort();
    let same_as_owned = fixture.eventually("each member with what it has", || async {
        let described = admin.describe_group(&group).await?;
        let mut has: Vec<Vec<TopicPartition>> = described.members.iter().map(|m| m.partitions.clone()).collect();
        has.iter_mut().for_each(|of| of.sort());
        has.sort();
        fixture.note(format!("described: {described:?}"));
        Ok((described.state == GroupState::Stable && has == expected).then_some(described))
    });
    let described = members.meanwhile("a description", same_as_owned).await??;
    holds(described.members[0].id != described.members[1].id, "an id of each member", &described)?;
    let listed = members.meanwhile("a list", admin.list_groups()).await??;
    holds(listed.contains(&group), "the group in the list", listed)
}

/// A partition that nothing is committed of has all of its log as lag, and one that has no record none.
async fn a1_lag_counts_what_was_never_committed(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(12).await?;
    for (p, count) in [(0, 4), (2, 5), (10, 6)] {
        fixture.fill(&topic, p, 0, count).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 12).await?;
    members.records(0, 15).await?;
    members[0].commit(&TopicPartition::new(&topic, 2), 2).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    let expected: Vec<PartitionLag> = super::fixture::partitions(&topic, 12)
        .into_iter()
        .map(|p| {
            let end = match p.partition {
                0 => 4,
                2 => 5,
                10 => 6,
                _ => 0,
            };
            let committed = (p.partition == 2).then_some(2);
            PartitionLag::new(p, committed, 0, end)
        })
        .collect();
    // A broker may learn of a member's partitions a moment later.
    let lag = fixture.eventually("the lag of each partition that is read", || async {
        let lag = admin.group_lag(&group).await?;
        fixture.note(format!("lag: {lag:?}"));
        Ok((lag.len() == 12).then_some(lag))
    });
    let lag = members.meanwhile("the lag", lag).await??;
    same("lag by partition, sorted by number", &expected, &lag)?;
    same("offsets left", 4 + 3 + 6, lag.iter().filter_map(PartitionLag::lag).sum())?;
    fixture.fill(&topic, 0, 4, 7).await?;
    let grown = fixture.eventually("a lag that has grown", || async {
        let lag = admin.group_lag(&group).await?;
        Ok((lag.first().and_then(PartitionLag::lag) == Some(7)).then_some(()))
    });
    members.meanwhile("the lag", grown).await?
}

/// Catches a lag that is computed from the position of a member instead of its commit.
async fn a1_lag_is_what_is_left_to_read(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 2).await?;
    fixture.fill(&topic, 1, 10, 15).await?;
    let lag = fixture.within("lag", fixture.admin().await?.group_lag(&group)).await??;
    let expected = vec![
        PartitionLag::new(TopicPartition::new(&topic, 0), Some(6), 0, 10),
        PartitionLag::new(TopicPartition::new(&topic, 1), Some(6), 0, 15),
    ];
    same("lag by partition, sorted", expected, lag.clone())?;
    same("offsets left", vec![Some(4), Some(9)], lag.iter().map(PartitionLag::lag).collect())
}

/// Each kind of target, and an offset beyond the end, which is clamped. A member then reads from
/// there.
async fn a1_reset_moves_a_group(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 2).await?;
    for (to, at) in [(SeekTo::Earliest, 0), (SeekTo::Latest, 10), (SeekTo::Offset(3), 3), (SeekTo::Offset(99), 10)] {
        let before = committed(fixture, &group).await?;
        let moved = reset(fixture, &group, &topic, ResetTo::Position(to), false).await?;
        same("where it was", before, moved.iter().map(|m| m.from).collect())?;
        same("where it is now", vec![at, at], moved.iter().map(|m| m.to).collect())?;
        same("what is committed", vec![Some(at), Some(at)], committed(fixture, &group).await?)?;
    }
    reset(fixture, &group, &topic, ResetTo::Position(SeekTo::Offset(8)), false).await?;
    let mut members = fixture.join(ConsumerOptions::new(&group, [&topic])).await?;
    members.records(0, 4).await?;
    members.rest().await?;
    same("records behind the reset", 4, members[0].count())
}

/// Shifts are relative to the committed offset and clamped at both ends.
async fn a1_reset_shifts_within_the_log(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 1).await?;
    for (by, at) in [(-2, 4), (3, 7), (-100, 0), (100, 10)] {
        let moved = reset(fixture, &group, &topic, ResetTo::Shift(by), false).await?;
        same(&format!("where a shift by {by} went"), vec![at], moved.iter().map(|m| m.to).collect())?;
    }
    Ok(())
}

async fn a1_reset_to_a_time(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let base = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
    let at = |n: u64| base.saturating_add(Duration::from_secs(n * 10));
    fixture.publish((0..10).map(|n| numbered(&topic, 0, n).with_timestamp(at(n as u64))).collect()).await?;
    let mut members = fixture.read_all(&topic, 1, 10).await?;
    let group = members[0].options.group.clone();
    members[0].commit(&TopicPartition::new(&topic, 0), 10).await?;
    members.close(0).await?;
    let moved = reset(fixture, &group, &topic, ResetTo::Position(SeekTo::Time(at(7))), false).await?;
    same("the first record of that time", vec![7], moved.iter().map(|m| m.to).collect())
}

/// It must report the same moves as the run that follows it.
async fn a1_a_dry_run_moves_nothing(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 1).await?;
    let told = reset(fixture, &group, &topic, ResetTo::Position(SeekTo::Earliest), true).await?;
    let expected = vec![PartitionReset::new(TopicPartition::new(&topic, 0), Some(6), 0)];
    same("what it would do", expected, told)?;
    same("what is committed", vec![Some(6)], committed(fixture, &group).await?)
}

/// A member would commit over the new offset, and the operator would believe in it.
async fn a1_reset_is_refused_while_the_group_has_members(fixture: &Fixture) -> Checked {
    let (mut members, topic) = working(fixture, 1).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    let topics = [topic];
    let to = ResetTo::Position(SeekTo::Earliest);
    let refusal = members
        .meanwhile("an answer", admin.reset_offsets(&group, &topics, to, ResetOffsetsOptions::default()))
        .await?;
    refused("moving an active group", &[ErrorKind::Conflict], refusal)?;
    same("what is committed", vec![Some(6)], committed(fixture, &group).await?)
}

async fn a1_reset_of_a_missing_topic_is_told(fixture: &Fixture) -> Checked {
    let (group, _) = left_behind(fixture, 1).await?;
    let (admin, topics) = (fixture.admin().await?, [fixture.fresh("missing")]);
    let answer = fixture
        .eventually("a group without members", || async {
            match admin
                .reset_offsets(&group, &topics, ResetTo::Position(SeekTo::Earliest), ResetOffsetsOptions::default())
                .await
            {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                answer => Ok(Some(answer)),
            }
        })
        .await?;
    refused("moving a group on a missing topic", &[ErrorKind::NotFound], answer)
}

/// A service can thus be given its start before its first deployment.
async fn a1_reset_prepares_a_group_that_never_ran(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    let group = fixture.fresh("group");
    let moved = reset(fixture, &group, &topic, ResetTo::Position(SeekTo::Offset(8)), false).await?;
    same("where it was and is", vec![(None, 8)], moved.iter().map(|m| (m.from, m.to)).collect())?;
    let mut members = fixture.join(ConsumerOptions::new(&group, [&topic])).await?;
    members.records(0, 2).await?;
    members.rest().await?;
    same("records behind the reset", 2, members[0].count())
}

/// Sets offsets, retrying while the broker still considers the group active; `None` where the transport cannot.
async fn set(fixture: &Fixture, group: &Name, offsets: &[(TopicPartition, u64)]) -> Checked<Option<Result<()>>> {
    let admin = fixture.admin().await?;
    fixture.note(format!("set the offsets of {group} to {offsets:?}"));
    fixture
        .eventually("a group without members", || async {
            match admin.alter_offsets(group, offsets).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Some(None)),
                answer => Ok(Some(Some(answer))),
            }
        })
        .await
}

/// Catches one that sets the same offset everywhere, as a reset does.
async fn a1_offsets_are_set_one_by_one(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 3).await?;
    let offsets = [(TopicPartition::new(&topic, 0), 3), (TopicPartition::new(&topic, 2), 9)];
    let Some(answer) = set(fixture, &group, &offsets).await? else { return Ok(()) };
    answer?;
    same("what is committed", vec![Some(3), Some(6), Some(9)], committed(fixture, &group).await?)
}

async fn a1_offsets_are_set_within_the_log_or_not_at_all(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 2).await?;
    let beyond = [(TopicPartition::new(&topic, 0), 3), (TopicPartition::new(&topic, 1), 11)];
    let Some(answer) = set(fixture, &group, &beyond).await? else { return Ok(()) };
    refused("an offset beyond the end", &[ErrorKind::Invalid], answer)?;
    let missing = [(TopicPartition::new(&topic, 0), 3), (TopicPartition::new(&topic, 2), 3)];
    if let Some(answer) = set(fixture, &group, &missing).await? {
        refused("an offset of a missing partition", &[ErrorKind::NotFound], answer)?;
    }
    same("what is committed", vec![Some(6), Some(6)], committed(fixture, &group).await?)
}

async fn a1_offsets_of_an_active_group_are_not_set(fixture: &Fixture) -> Checked {
    let (mut members, topic) = working(fixture, 1).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    let offsets = [(TopicPartition::new(&topic, 0), 3)];
    let refusal = members.meanwhile("an answer", admin.alter_offsets(&group, &offsets)).await?;
    refused("setting offsets of an active group", &[ErrorKind::Conflict, ErrorKind::Unsupported], refusal)?;
    same("what is committed", vec![Some(6)], committed(fixture, &group).await?)
}

/// Catches a deletion that leaves commits behind.
async fn a1_a_deleted_group_starts_anew(fixture: &Fixture) -> Checked {
    let (group, topic) = left_behind(fixture, 1).await?;
    let admin = fixture.admin().await?;
    fixture
        .eventually("a group without members is deleted", || async {
            match admin.delete_group(&group).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
                answer => Ok(Some(answer?)),
            }
        })
        .await?;
    let listed = fixture.within("list", admin.list_groups()).await??;
    holds(!listed.contains(&group), "a group that is gone", listed)?;
    let mut members = fixture.join(ConsumerOptions::new(&group, [&topic])).await?;
    members.records(0, 10).await?;
    let assignment = members[0].assignment(&TopicPartition::new(&topic, 0))?;
    same("what is committed", None, assignment.committed)
}

async fn a1_deleting_a_group_is_refused_while_it_has_members(fixture: &Fixture) -> Checked {
    let (mut members, _) = working(fixture, 1).await?;
    let (group, admin) = (members[0].options.group.clone(), fixture.admin().await?);
    let refusal = members.meanwhile("an answer", admin.delete_group(&group)).await?;
    refused("deleting an active group", &[ErrorKind::Conflict], refusal)?;
    same("what is committed", vec![Some(6)], committed(fixture, &group).await?)
}
