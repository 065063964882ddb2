//! C5: a paused partition yields nothing; membership lives while handlers work.
//!
//! The member of every case checks at each step that no record of a paused partition comes.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, TopicPartition, Transport};
use tokio::time::sleep;

use super::rig::{Rig, partitions, same_records};
use crate::case::{Case, Checked, cases, refused, same};
use crate::cx::poll_times;

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

async fn c5_a_paused_partition_yields_nothing_until_resumed(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let mut records = rig.fill(&topic, 0, 0, 5).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.records(0, 5).await?;
    fleet.rest().await?;
    // `next` is pending while it pauses: what comes then is not for it.
    fleet[0].pause(&p).await?;
    records.extend(rig.fill(&topic, 0, 5, 10).await?);
    fleet.rest().await?;
    same("records while paused", 5, fleet[0].count())?;
    fleet[0].resume(&p).await?;
    fleet.records(0, 10).await?;
    fleet.rest().await?;
    same_records("before and after the pause", 0, &records, fleet[0].of(&p[0]))
}

async fn c5_pausing_in_the_midst_of_a_backlog_stops_it_at_once(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = rig.fill(&topic, 0, 0, 300).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_max_batch_records(10);
    let mut fleet = rig.join(options).await?;
    for round in 1..4 {
        fleet.records(0, round * 40).await?;
        fleet[0].pause(&p).await?;
        let before = fleet[0].count();
        fleet.rest().await?;
        same("records while paused", before, fleet[0].count())?;
        fleet[0].resume(&p).await?;
    }
    fleet.records(0, 300).await?;
    fleet.rest().await?;
    same_records("all of the backlog", 0, &records, fleet[0].of(&p[0]))
}

async fn c5_pausing_before_assignment_holds_after_it(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let [one, two] = [TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1)];
    for p in 0..2 {
        rig.fill(&topic, p, 0, 5).await?;
    }
    let mut fleet = rig.reader(&topic).await?;
    // No step was taken yet, so nothing is assigned.
    fleet[0].pause(std::slice::from_ref(&one)).await?;
    fleet.owns(0, &topic, 2).await?;
    fleet.records(0, 5).await?;
    fleet.rest().await?;
    same("records of what is not paused", 5, fleet[0].of(&two).len())?;
    same("records of what is paused", 0, fleet[0].of(&one).len())?;
    fleet[0].resume(std::slice::from_ref(&one)).await?;
    fleet.until("records after resume", |m| m[0].of(&one).len() >= 5).await
}

async fn c5_pausing_one_partition_leaves_the_others(rig: &Rig) -> Checked {
    let topic = rig.topic(3).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 3).await?;
    let all = partitions(&topic, 3);
    fleet[0].pause(&all[1..2]).await?;
    for p in 0..3 {
        rig.fill(&topic, p, 0, 10).await?;
    }
    fleet.records(0, 20).await?;
    fleet.rest().await?;
    same("records of the others", 20, fleet[0].count())
}

async fn c5_pause_and_resume_are_repeatable_and_cancel_safe(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = rig.fill(&topic, 0, 0, 20).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.records(0, 20).await?;
    for times in 0..4 {
        drop(poll_times(times, fleet.consumer(0).pause(&p)).await);
        fleet[0].pause(&p).await?;
        drop(poll_times(times, fleet.consumer(0).resume(&p)).await);
        fleet[0].resume(&p).await?;
        fleet[0].resume(&p).await?;
    }
    let more = rig.fill(&topic, 0, 20, 25).await?;
    fleet.records(0, 25).await?;
    let all: Vec<_> = records.into_iter().chain(more).collect();
    same_records("all records, once each", 0, &all, fleet[0].of(&p[0]))
}

async fn c5_progress_says_what_is_paused(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 2).await?;
    fleet[0].pause(&[TopicPartition::new(&topic, 1)]).await?;
    let mut progress = rig.within("progress", fleet.consumer(0).progress()).await??;
    progress.sort_unstable_by_key(|p| p.partition.partition);
    same("what is paused", vec![false, true], progress.iter().map(|p| p.paused).collect())
}

async fn c5_a_paused_partition_stays_the_members(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    rig.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(rig.pace.lifetime);
    let mut fleet = rig.join(options).await?;
    fleet.records(0, 5).await?;
    fleet[0].pause(std::slice::from_ref(&p)).await?;
    fleet.rest_for(rig.pace.lifetime + rig.pace.lifetime / 2).await?;
    // Backpressure must not look like a crash: the member still owns the partition.
    fleet[0].commit(&p, 5).await?;
    same("what was lost", 0, fleet[0].lost.len())
}

async fn c5_membership_lives_while_a_handler_works(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    rig.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(rig.pace.lifetime);
    let mut fleet = rig.join(options.clone()).await?;
    fleet.records(0, 5).await?;
    let other = fleet.add(options).await?;
    fleet.until("one owner", |m| m.iter().map(|m| m.has(&topic)).sum::<usize>() == 1).await?;
    let owner = usize::from(fleet[0].owned.is_empty());
    // The owner's handler runs for longer than a session without any call, while the other member waits.
    fleet[owner].idle = true;
    fleet.rest_for(rig.pace.lifetime + rig.pace.lifetime / 2).await?;
    same("partitions of the other member", 0, fleet[other - owner].has(&topic))?;
    fleet[owner].commit(&p, 5).await
}

async fn c5_a_pending_next_is_alive(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    rig.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic])
        .with_session_timeout(rig.pace.lifetime)
        .with_max_idle(rig.pace.lifetime);
    let mut fleet = rig.join(options).await?;
    fleet.records(0, 5).await?;
    fleet.rest_for(rig.pace.lifetime * 2).await?;
    fleet[0].commit(&p, 5).await?;
    rig.fill(&topic, 0, 5, 6).await?;
    fleet.records(0, 6).await?;
    same("what was lost", 0, fleet[0].lost.len())
}

async fn c5_a_member_that_stops_asking_for_steps_dies(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    rig.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic])
        .with_session_timeout(rig.pace.lifetime)
        .with_max_idle(rig.pace.lifetime)
        .with_revocation_deadline(rig.pace.lifetime / 2);
    let mut fleet = rig.join(options.clone()).await?;
    fleet.records(0, 5).await?;
    let late = Commit::new(p.clone(), fleet[0].epoch(&p)?, 5);
    // A step was handed out, and `next` is not called any more.
    fleet[0].pending = None;
    fleet[0].idle = true;
    rig.outlive().await?;
    fleet.add(options).await?;
    fleet.owns(1, &topic, 1).await?;
    refused("a commit of a dead member", &[ErrorKind::Fenced], fleet[0].try_commit(late).await?)?;
    fleet.records(1, 5).await
}

async fn c5_a_member_that_is_dropped_gives_its_partitions_up(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(rig.pace.lifetime);
    let mut fleet = rig.join(options.clone()).await?;
    fleet.owns(0, &topic, 2).await?;
    fleet.add(options).await?;
    fleet.shared(&topic, 2, &[0, 1]).await?;
    let mut fleet = fleet.kill(1);
    // At once or by its session: others continue without an explicit close of the consumer.
    let grace = rig.pace.lifetime + Duration::from_secs(1);
    tokio::join!(sleep(grace), async { fleet.rest_for(grace).await }).1?;
    fleet.owns(0, &topic, 2).await
}
