//! C4: a commit names the next offset to read; nothing is committed unasked, nothing goes back but after a seek.
//!
//! Commits are observed twice where possible, by progress and by the next owner, since a backend
//! may keep one of them in memory only.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, Name, SeekTo, Timestamp, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, partitions, same_records};
use super::members::Members;
use crate::case::{Case, Checked, cases, granted, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c4_nothing_is_committed_unasked,
    c4_nothing_is_committed_unasked_at_a_rebalance,
    c4_a_commit_is_seen_by_progress_and_by_the_next_owner,
    c4_a_lower_commit_is_taken_and_changes_nothing,
    c4_after_seek_a_commit_goes_back,
    c4_metadata_comes_back_with_the_next_assignment,
    c4_metadata_goes_with_its_commit,
    c4_each_commit_has_its_own_result,
    c4_many_commits_in_one_call,
    c4_a_commit_of_an_old_epoch_is_fenced,
    c4_a_commit_of_a_partition_never_assigned_is_fenced,
    c4_no_commit_has_no_answer,
    c4_ranges_settled_beyond_do_not_move_the_offset,
    c4_a_commit_in_an_outage_is_never_a_wrong_success[Outage],
    c4_commits_overlap_reading,
    c4_a_dropped_commit_can_be_repeated,
    c4_seek_goes_on_reading_elsewhere,
    c4_seek_beyond_the_log_goes_to_the_nearest,
    c4_seek_to_a_time,
    c4_seek_of_what_is_not_assigned_is_fenced,
    c4_a_commit_of_the_start_is_kept,
];

/// Creates a member that has the only partition of a topic and received its ten records.
pub(super) async fn ten_read(fixture: &Fixture) -> Checked<(Members<'_>, Name, TopicPartition)> {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    Ok((members, topic.clone(), TopicPartition::new(&topic, 0)))
}

/// Returns the next owner's assignment of the partition after the first member closed.
pub(super) async fn next_owner(
    fixture: &Fixture,
    mut members: Members<'_>,
    p: &TopicPartition,
) -> Checked<tidings_core::Assignment> {
    let options = members[0].options.clone();
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &p.topic, 1).await?;
    next[0].assignment(p)
}

/// Many clients commit by themselves; here that would lose records in flight.
async fn c4_nothing_is_committed_unasked(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    members.rest().await?;
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    same("what is committed, by progress", Some(None), progress.first().map(|p| p.committed))?;
    let assignment = next_owner(fixture, members, &p).await?;
    same("what is committed, for the next owner", None, assignment.committed)?;
    same("its start", 0, assignment.start_offset)
}

/// A client's rebalance or close is where automatic commits hide.
async fn c4_nothing_is_committed_unasked_at_a_rebalance(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 10).await?;
    }
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 20).await?;
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    for p in members[1].owned.keys() {
        same(&format!("what is committed of {p}"), None, members[1].assignment(p)?.committed)?;
    }
    members.records(1, 10).await
}

async fn c4_a_commit_is_seen_by_progress_and_by_the_next_owner(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 6).await?;
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    let mine = progress.iter().find(|progress| progress.partition == p);
    same("committed, by progress", Some(Some(6)), mine.map(|p| p.committed))?;
    same("position, by progress", Some(10), mine.map(|p| p.position))?;
    same("end, by progress", Some(10), mine.map(|p| p.end))?;
    same("lag, by progress", Some(4), mine.map(tidings_core::Progress::lag))?;
    let assignment = next_owner(fixture, members, &p).await?;
    same("committed, for the next owner", Some(6), assignment.committed)?;
    same("its start", 6, assignment.start_offset)
}

/// Commits may overtake each other, so a lower one is outdated and not an error.
async fn c4_a_lower_commit_is_taken_and_changes_nothing(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    for next in [8, 3, 8, 0] {
        members[0].commit(&p, next).await?;
    }
    same("what is committed", Some(8), next_owner(fixture, members, &p).await?.committed)
}

/// A replay must survive a restart in its midst.
async fn c4_after_seek_a_commit_goes_back(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 9).await?;
    same("where seek went", 4, members[0].seek(&p, SeekTo::Offset(4)).await?)?;
    members[0].commit(&p, 4).await?;
    same("what is committed", Some(4), next_owner(fixture, members, &p).await?.committed)
}

/// Text beyond ASCII, with characters that an encoding might escape.
async fn c4_metadata_comes_back_with_the_next_assignment(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let text = "größe: {\"open\": [7, 9]}";
    let commit = Commit::new(p.clone(), members[0].epoch(&p)?, 5).with_metadata(text);
    granted("commit with metadata", members[0].try_commit(commit).await?)?;
    let assignment = next_owner(fixture, members, &p).await?;
    same("what is committed", Some(5), assignment.committed)?;
    same("metadata", Some(text.to_owned()), assignment.metadata)
}

/// A later commit without metadata has none, and an outdated one changes neither.
async fn c4_metadata_goes_with_its_commit(fixture: &Fixture) -> Checked {
    for (commits, metadata) in [
        (vec![(3, Some("old")), (5, None)], None),
        (vec![(3, None), (5, Some("new"))], Some("new")),
        (vec![(5, Some("new")), (3, Some("outdated"))], Some("new")),
        (vec![(5, None), (3, Some("outdated"))], None),
    ] {
        let (members, _, p) = ten_read(fixture).await?;
        for (next, metadata) in commits {
            let mut commit = Commit::new(p.clone(), members[0].epoch(&p)?, next);
            commit.metadata = metadata.map(str::to_owned);
            granted("commit", members[0].try_commit(commit).await?)?;
        }
        let assignment = next_owner(fixture, members, &p).await?;
        same("what is committed", Some(5), assignment.committed)?;
        same("metadata", metadata.map(str::to_owned), assignment.metadata)?;
    }
    Ok(())
}

/// Of more than sixteen partitions, each with its own offset and long metadata, in no order. Of several commits of one
/// partition, the highest counts.
async fn c4_many_commits_in_one_call(fixture: &Fixture) -> Checked {
    const COUNT: u32 = 20;
    let topic = fixture.topic(COUNT).await?;
    let all = partitions(&topic, COUNT);
    fixture.publish(all.iter().flat_map(|p| (0..6).map(|n| numbered(&topic, p.partition, n))).collect()).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 120).await?;
    let next = |p: &TopicPartition| u64::from(p.partition * 7 % 6) + 1;
    let metadata = |p: &TopicPartition| format!("{p} {}", "größe ".repeat(60));
    let commit = |p: &TopicPartition, next: u64, metadata: String| -> Checked<Commit> {
        Ok(Commit::new(p.clone(), members[0].epoch(p)?, next).with_metadata(metadata))
    };
    let mut commits = Vec::new();
    for n in 0..COUNT as usize {
        let p = &all[n * 13 % COUNT as usize];
        commits.push(commit(p, next(p), metadata(p))?);
    }
    let twice = all.iter().find(|p| next(p) == 6).cloned().unwrap_or_else(|| all[0].clone());
    commits.insert(0, commit(&twice, 2, "outdated".into())?);
    commits.push(commit(&twice, 3, "outdated".into())?);
    commits.insert(7, Commit::new(TopicPartition::new(fixture.fresh("foreign"), 0), 1, 1));
    let count = commits.len();
    let answers = fixture.within("answers", members.consumer(0).commit(commits)).await?;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("answers", (0..count).map(|n| (n == 7).then_some(ErrorKind::Fenced)).collect(), kinds)?;
    let mut progress = fixture.within("progress", members.consumer(0).progress()).await??;
    progress.sort_unstable_by_key(|p| p.partition.partition);
    let expected: Vec<_> = all.iter().map(|p| Some(next(p))).collect();
    same("what is committed, by progress", expected, progress.iter().map(|p| p.committed).collect())?;
    let options = members[0].options.clone();
    members.close(0).await?;
    let mut owner = fixture.join(options).await?;
    owner.owns(0, &topic, COUNT).await?;
    for p in &all {
        let assignment = owner[0].assignment(p)?;
        same(&format!("what is committed of {p}"), Some(next(p)), assignment.committed)?;
        same(&format!("metadata of {p}"), Some(metadata(p)), assignment.metadata)?;
    }
    Ok(())
}

/// One foreign partition must not fail the others of the call.
async fn c4_each_commit_has_its_own_result(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    let [one, two] = [TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1)];
    let foreign = Commit::new(TopicPartition::new(fixture.fresh("foreign"), 0), 1, 1);
    let commits = vec![
        Commit::new(one.clone(), members[0].epoch(&one)?, 3),
        foreign,
        Commit::new(two.clone(), members[0].epoch(&two)?, 4),
    ];
    let answers = fixture.within("answers", members.consumer(0).commit(commits)).await?;
    same("answers to three commits", 3, answers.len())?;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    same("answers", vec![None, Some(ErrorKind::Fenced), None], kinds)?;
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    let mut committed: Vec<_> = progress.into_iter().map(|p| (p.partition.partition, p.committed)).collect();
    committed.sort_unstable();
    same("what is committed", vec![(0, Some(3)), (1, Some(4))], committed)
}

/// By the new owner's consumer, which knows the partition under another epoch.
async fn c4_a_commit_of_an_old_epoch_is_fenced(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = ten_read(fixture).await?;
    let old = members[0].epoch(&p)?;
    members[0].commit(&p, 2).await?;
    let options = members[0].options.clone();
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &topic, 1).await?;
    let stale = Commit::new(p.clone(), old, 10);
    refused("a commit of an old epoch", &[ErrorKind::Fenced], next[0].try_commit(stale).await?)?;
    let fresh = Commit::new(p.clone(), next[0].epoch(&p)?, 3);
    granted("a commit of the present epoch", next[0].try_commit(fresh).await?)?;
    same("what is committed", Some(3), next_owner(fixture, next, &p).await?.committed)
}

async fn c4_a_commit_of_a_partition_never_assigned_is_fenced(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    for partition in [TopicPartition::new(&p.topic, 99), TopicPartition::new(fixture.fresh("other"), 0)] {
        let commit = Commit::new(partition, members[0].epoch(&p)?, 1);
        refused("a commit of what is not its", &[ErrorKind::Fenced], members[0].try_commit(commit).await?)?;
    }
    Ok(())
}

async fn c4_no_commit_has_no_answer(fixture: &Fixture) -> Checked {
    let (members, _, _) = ten_read(fixture).await?;
    same("answers", 0, fixture.within("an answer", members.consumer(0).commit(Vec::new())).await?.len())
}

/// A backend may store the ranges; the watermark alone decides where reading starts.
async fn c4_ranges_settled_beyond_do_not_move_the_offset(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let mut commit = Commit::new(p.clone(), members[0].epoch(&p)?, 2);
    commit.settled_beyond = vec![4..6, 8..10];
    granted("commit", members[0].try_commit(commit).await?)?;
    same("what is committed", Some(2), next_owner(fixture, members, &p).await?.committed)
}

/// A service that believes it would not commit again.
async fn c4_a_commit_in_an_outage_is_never_a_wrong_success(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 3).await?;
    let commit = Commit::new(p.clone(), members[0].epoch(&p)?, 7);
    fixture.outage(true).await?;
    let answer = members[0].try_commit(commit).await;
    fixture.outage(false).await?;
    // The session may end meanwhile.
    let kinds = &[ErrorKind::Unavailable, ErrorKind::Indeterminate, ErrorKind::Fenced];
    refused("a commit in an outage", kinds, answer?)?;
    let group = members[0].options.group.clone();
    drop(members);
    let admin = fixture.admin().await?;
    let lag = fixture.eventually("an answer", || async { Ok(admin.group_lag(&group).await.ok()) }).await?;
    let committed = lag.first().and_then(|l| l.committed);
    holds([Some(3), Some(7)].contains(&committed), "the commit before the outage, or the one in it", committed)
}

/// A commit that waited for `next` would never come while a topic is quiet.
async fn c4_commits_overlap_reading(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    // No more records exist: `next` is pending while the commit is answered.
    members.rest().await?;
    let (consumer, epoch) = (members.consumer(0), members[0].epoch(&p)?);
    let commit = async move { consumer.commit(vec![Commit::new(p, epoch, 10)]).await };
    let answers = members.meanwhile("an answer to commit during a pending next", commit).await?;
    answers.into_iter().try_for_each(|answer| granted("commit", answer))
}

async fn c4_a_dropped_commit_can_be_repeated(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let epoch = members[0].epoch(&p)?;
    for times in 0..6 {
        let commit = Commit::new(p.clone(), epoch, times as u64 + 1);
        drop(poll_times(times, members.consumer(0).commit(vec![commit])).await);
    }
    members[0].commit(&p, 9).await?;
    same("what is committed", Some(9), next_owner(fixture, members, &p).await?.committed)
}

async fn c4_seek_goes_on_reading_elsewhere(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    for (to, at) in [(SeekTo::Offset(6), 6), (SeekTo::Earliest, 0), (SeekTo::Latest, 10)] {
        members[0].received.clear();
        same(&format!("where {to:?} went"), at, members[0].seek(&p, to).await?)?;
        members.records(0, 10 - at as usize).await?;
        members.rest().await?;
        same_records(&format!("records after {to:?}"), at, &records[at as usize..], members[0].of(&p))?;
    }
    let new = fixture.fill(&topic, 0, 10, 12).await?;
    members.records(0, 2).await?;
    same_records("records after the end", 10, &new, members[0].of(&p))
}

/// The returned offset tells the caller where reading continues.
async fn c4_seek_beyond_the_log_goes_to_the_nearest(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    same("where a seek beyond the end went", 10, members[0].seek(&p, SeekTo::Offset(1_000)).await?)?;
    same("where a seek to the start went", 0, members[0].seek(&p, SeekTo::Offset(0)).await?)?;
    members.records(0, 20).await
}

async fn c4_seek_to_a_time(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let base = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
    let at = |n: u64| base.saturating_add(Duration::from_secs(n));
    fixture.publish((0..10).map(|n| numbered(&topic, 0, n).with_timestamp(at(n as u64 * 10))).collect()).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    same("the first record of that time", 4, members[0].seek(&p, SeekTo::Time(at(40))).await?)?;
    same("the first record later", 5, members[0].seek(&p, SeekTo::Time(at(41))).await?)?;
    same("no record so late", 10, members[0].seek(&p, SeekTo::Time(at(9_000))).await?)
}

async fn c4_seek_of_what_is_not_assigned_is_fenced(fixture: &Fixture) -> Checked {
    let (members, _, p) = ten_read(fixture).await?;
    let other = TopicPartition::new(&p.topic, 7);
    let consumer = members.consumer(0);
    let answer = fixture.within("an answer", consumer.seek(&other, SeekTo::Earliest)).await?;
    refused("seek of what is not assigned", &[ErrorKind::Fenced], answer)
}

/// Catches backends that take 0 for "nothing committed" and apply the start policy again.
async fn c4_a_commit_of_the_start_is_kept(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 2).await?;
    for p in partitions(&topic, 2) {
        members[0].commit(&p, 0).await?;
    }
    let group = members[0].options.group.clone();
    let lag = fixture.within("lag", fixture.admin().await?.group_lag(&group)).await??;
    let committed: Vec<_> = lag.iter().map(|l| l.committed).collect();
    holds(committed == [Some(0), Some(0)], "0 is committed of both, which is not nothing", committed)
}
