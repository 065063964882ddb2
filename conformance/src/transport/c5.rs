//! C5: a paused partition yields nothing; membership lives while handlers work.
//!
//! The member of every case checks at each step that no record of a paused partition comes.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, TopicPartition, Transport};
use tokio::time::sleep;

use super::fixture::{Fixture, partitions, same_records};
use crate::case::{Case, Checked, cases, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c5_a_paused_partition_yields_nothing_until_resumed,
    c5_pausing_in_the_midst_of_a_backlog_stops_it_at_once,
    c5_pausing_before_assignment_holds_after_it,
    c5_pausing_one_partition_leaves_the_others,
    c5_pause_and_resume_are_repeatable_and_cancel_safe,
    c5_progress_says_what_is_paused,
    c5_a_paused_partition_stays_the_members,
    c5_membership_lives_while_a_handler_works,
    c5_a_pending_next_is_alive,
    c5_a_member_that_stops_asking_for_steps_dies,
    c5_a_member_that_is_dropped_gives_its_partitions_up,
];

/// Nothing is lost either: what was published meanwhile comes after the resume.
async fn c5_a_paused_partition_yields_nothing_until_resumed(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let mut records = fixture.fill(&topic, 0, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    // `next` is pending while it pauses: what comes then is not for it.
    members[0].pause(&p).await?;
    records.extend(fixture.fill(&topic, 0, 5, 10).await?);
    members.rest().await?;
    same("records while paused", 5, members[0].count())?;
    members[0].resume(&p).await?;
    members.records(0, 10).await?;
    members.rest().await?;
    same_records("before and after the pause", 0, &records, members[0].of(&p[0]))
}

/// Prefetched records must not come after `pause` has returned.
async fn c5_pausing_in_the_midst_of_a_backlog_stops_it_at_once(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = fixture.fill(&topic, 0, 0, 300).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(10);
    let mut members = fixture.join(options).await?;
    for round in 1..4 {
        members.records(0, round * 40).await?;
        members[0].pause(&p).await?;
        let before = members[0].count();
        members.rest().await?;
        same("records while paused", before, members[0].count())?;
        members[0].resume(&p).await?;
    }
    members.records(0, 300).await?;
    members.rest().await?;
    same_records("all of the backlog", 0, &records, members[0].of(&p[0]))
}

/// A service paused by its operator joins the group and reads nothing.
async fn c5_pausing_before_assignment_holds_after_it(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let [one, two] = [TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1)];
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    // No step was taken yet, so nothing is assigned.
    members[0].pause(std::slice::from_ref(&one)).await?;
    members.owns(0, &topic, 2).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    same("records of what is not paused", 5, members[0].of(&two).len())?;
    same("records of what is paused", 0, members[0].of(&one).len())?;
    members[0].resume(std::slice::from_ref(&one)).await?;
    members.until("records after resume", |m| m[0].of(&one).len() >= 5).await
}

async fn c5_pausing_one_partition_leaves_the_others(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 3).await?;
    let all = partitions(&topic, 3);
    members[0].pause(&all[1..2]).await?;
    for p in 0..3 {
        fixture.fill(&topic, p, 0, 10).await?;
    }
    members.records(0, 20).await?;
    members.rest().await?;
    same("records of the others", 20, members[0].count())
}

/// Calls are dropped after each number of polls, and repeated.
async fn c5_pause_and_resume_are_repeatable_and_cancel_safe(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = fixture.fill(&topic, 0, 0, 20).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 20).await?;
    for times in 0..4 {
        drop(poll_times(times, members.consumer(0).pause(&p)).await);
        members[0].pause(&p).await?;
        drop(poll_times(times, members.consumer(0).resume(&p)).await);
        members[0].resume(&p).await?;
        members[0].resume(&p).await?;
    }
    let more = fixture.fill(&topic, 0, 20, 25).await?;
    members.records(0, 25).await?;
    let all: Vec<_> = records.into_iter().chain(more).collect();
    same_records("all records, once each", 0, &all, members[0].of(&p[0]))
}

async fn c5_progress_says_what_is_paused(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 2).await?;
    members[0].pause(&[TopicPartition::new(&topic, 1)]).await?;
    let mut progress = fixture.within("progress", members.consumer(0).progress()).await??;
    progress.sort_unstable_by_key(|p| p.partition.partition);
    same("what is paused", vec![false, true], progress.iter().map(|p| p.paused).collect())
}

/// For longer than a session.
async fn c5_a_paused_partition_stays_the_members(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options).await?;
    members.records(0, 5).await?;
    members[0].pause(std::slice::from_ref(&p)).await?;
    members.rest_for(fixture.pace.lifetime + fixture.pace.lifetime / 2).await?;
    // Backpressure must not look like a crash: the member still owns the partition.
    members[0].commit(&p, 5).await?;
    same("what was lost", 0, members[0].lost.len())
}

async fn c5_membership_lives_while_a_handler_works(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 5).await?;
    let other = members.add(options).await?;
    members.until("one owner", |m| m.iter().map(|m| m.has(&topic)).sum::<usize>() == 1).await?;
    let owner = usize::from(members[0].owned.is_empty());
    // The owner's handler runs for longer than a session without any call, while the other member waits.
    members[owner].idle = true;
    members.rest_for(fixture.pace.lifetime + fixture.pace.lifetime / 2).await?;
    same("partitions of the other member", 0, members[other - owner].has(&topic))?;
    members[owner].commit(&p, 5).await
}

/// A quiet topic is no reason to leave the group.
async fn c5_a_pending_next_is_alive(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_session_timeout(fixture.pace.lifetime)
        .with_max_idle(fixture.pace.lifetime);
    let mut members = fixture.join(options).await?;
    members.records(0, 5).await?;
    members.rest_for(fixture.pace.lifetime * 2).await?;
    members[0].commit(&p, 5).await?;
    fixture.fill(&topic, 0, 5, 6).await?;
    members.records(0, 6).await?;
    same("what was lost", 0, members[0].lost.len())
}

/// Its handler hangs: after the idle limit the partition goes to another member.
async fn c5_a_member_that_stops_asking_for_steps_dies(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_session_timeout(fixture.pace.lifetime)
        .with_max_idle(fixture.pace.lifetime)
        .with_revocation_deadline(fixture.pace.lifetime / 2);
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 5).await?;
    let late = Commit::new(p.clone(), members[0].epoch(&p)?, 5);
    // A step was handed out, and `next` is not called any more.
    members[0].pending = None;
    members[0].idle = true;
    fixture.outlive().await?;
    members.add(options).await?;
    members.owns(1, &topic, 1).await?;
    refused("a commit of a dead member", &[ErrorKind::Fenced], members[0].try_commit(late).await?)?;
    members.records(1, 5).await
}

/// As when a process panics or forgets to close.
async fn c5_a_member_that_is_dropped_gives_its_partitions_up(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 2).await?;
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    let mut members = members.kill(1);
    // At once or by its session: others continue without an explicit close of the consumer.
    let grace = fixture.pace.lifetime + Duration::from_secs(1);
    tokio::join!(sleep(grace), async { members.rest_for(grace).await }).1?;
    members.owns(0, &topic, 2).await
}
