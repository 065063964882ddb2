//! C5, pause in each state: before the first record, across assignments, at a seek, and of several partitions.
//!
//! The member of every case checks at each step that no record of a paused partition comes.

use tidings_core::{ConsumerOptions, Progress, Record, SeekTo, TopicPartition, Transport};

use super::fixture::{Fixture, partitions, same_records};
use super::members::Members;
use crate::case::{Case, Checked, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c5_pausing_between_assignment_and_the_first_record,
    c5_a_pause_holds_when_its_partition_comes_back,
    c5_a_pause_holds_after_a_lost_session[SessionLoss],
    c5_a_pause_is_its_members_own,
    c5_several_partitions_are_paused_and_resumed_in_one_call,
    c5_a_seek_of_a_paused_partition_waits_for_its_resume,
    c5_a_paused_backlog_leaves_room_for_the_others,
    c5_a_paused_partition_keeps_little_of_what_is_gone[DeletedRecords],
    c5_progress_goes_on_under_a_pause,
];

/// Records may be fetched by then: none of them comes. Two pauses end with one resume.
async fn c5_pausing_between_assignment_and_the_first_record(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = fixture.fill(&topic, 0, 0, 100).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members[0].pause(&p).await?;
    members[0].pause(&p).await?;
    members.rest().await?;
    same("records while paused", 0, members[0].count())?;
    members[0].resume(&p).await?;
    members.records(0, 100).await?;
    same_records("records after the resume", 0, &records, members[0].of(&p[0]))
}

/// Drives the members until member 0 has both partitions again, which stay paused; then resumes them.
async fn comes_back_paused(members: &mut Members<'_>, all: &[TopicPartition], assigned: usize) -> Checked {
    let again = |m: &[super::member::Member<'_>]| m[0].assignments.len() >= assigned && m[0].owned.len() == all.len();
    members.until("the partitions are assigned again", again).await?;
    members.rest().await?;
    same("records while paused", 0, members[0].count())?;
    let progress: Vec<Progress> = members.consumer(0).progress().await?;
    same("what is paused, by progress", vec![true; all.len()], progress.iter().map(|p| p.paused).collect())?;
    members[0].resume(all).await?;
    members.records(0, 10).await
}

/// It goes to another member, which reads it, and back.
async fn c5_a_pause_holds_when_its_partition_comes_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let all = partitions(&topic, 2);
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members[0].pause(&all).await?;
    members.owns(0, &topic, 2).await?;
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.records(1, 5).await?;
    members.close(1).await?;
    comes_back_paused(&mut members, &all, 3).await
}

async fn c5_a_pause_holds_after_a_lost_session(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let all = partitions(&topic, 2);
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members[0].pause(&all).await?;
    members.owns(0, &topic, 2).await?;
    fixture.session_loss(&members[0].options.group.clone()).await?;
    members.until("the loss is told", |m| m[0].lost.len() >= 2).await?;
    comes_back_paused(&mut members, &all, 4).await
}

/// A service that is restarted, and one of another group, read on.
async fn c5_a_pause_is_its_members_own(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = fixture.fill(&topic, 0, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members[0].pause(&p).await?;
    let options = members[0].options.clone();
    members.add(ConsumerOptions::new(fixture.fresh("group"), [&topic])).await?;
    members.records(1, 5).await?;
    members.close(0).await?;
    let next = members.add(options).await?;
    members.records(next, 5).await?;
    same_records("records of the next owner", 0, &records, members[next].of(&p[0]))?;
    let progress = fixture.within("progress", members.consumer(next).progress()).await??;
    same("what the next owner has paused", vec![false], progress.iter().map(|p| p.paused).collect())
}

/// Also beyond sixteen: a set of bits or a list of fixed length is caught.
async fn c5_several_partitions_are_paused_and_resumed_in_one_call(fixture: &Fixture) -> Checked {
    const COUNT: u32 = 20;
    let topic = fixture.topic(COUNT).await?;
    let all = partitions(&topic, COUNT);
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, COUNT).await?;
    members[0].pause(&all[1..]).await?;
    fixture.publish(all.iter().map(|p| Record::new(&topic, "v").with_partition(p.partition)).collect()).await?;
    members.records(0, 1).await?;
    members.rest().await?;
    same("records while nineteen are paused", 1, members[0].count())?;
    members[0].resume(&all[3..]).await?;
    members.records(0, 18).await?;
    members.rest().await?;
    same("records while two are paused", 18, members[0].count())?;
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    let mut paused: Vec<u32> = progress.iter().filter(|p| p.paused).map(|p| p.partition.partition).collect();
    paused.sort_unstable();
    same("what is paused, by progress", vec![1, 2], paused)?;
    members[0].resume(&all[1..3]).await?;
    members.records(0, 20).await
}

/// The position moves, and nothing else happens until then.
async fn c5_a_seek_of_a_paused_partition_waits_for_its_resume(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    let records = fixture.fill(&topic, 0, 0, 100).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(10);
    let mut members = fixture.join(options).await?;
    members.records(0, 30).await?;
    members[0].pause(&p).await?;
    for at in [80, 0, 40] {
        same("where seek went", at, members[0].seek(&p[0], SeekTo::Offset(at)).await?)?;
        members[0].received.clear();
        members.rest().await?;
        same("records while paused", 0, members[0].count())?;
        let progress = fixture.within("progress", members.consumer(0).progress()).await??;
        same("position, by progress", vec![(at, true)], progress.iter().map(|p| (p.position, p.paused)).collect())?;
    }
    members[0].resume(&p).await?;
    members.records(0, 60).await?;
    members.rest().await?;
    same_records("records after the resume", 40, &records[40..], members[0].of(&p[0]))
}

/// Fetched records of a paused partition count towards the bound of bytes, which must not stop the others.
async fn c5_a_paused_backlog_leaves_room_for_the_others(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let [one, two] = [TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1)];
    let large = |p: u32| (0..40).map(|_| Record::new(&topic, vec![b'x'; 5_000]).with_partition(p)).collect();
    fixture.publish(large(0)).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_max_batch_records(1)
        .with_max_buffered_bytes(20_000);
    let mut members = fixture.join(options).await?;
    members.records(0, 3).await?;
    members[0].pause(std::slice::from_ref(&one)).await?;
    members.rest().await?;
    fixture.publish(large(1)).await?;
    members.until("all of the other partition", |m| m[0].of(&two).len() >= 40).await?;
    members[0].resume(std::slice::from_ref(&one)).await?;
    members.until("all of the one that was paused", |m| m[0].of(&one).len() >= 40).await?;
    members.rest().await?;
    same("records in all", 80, members[0].count())
}

/// Memory under a pause is bounded: of a backlog that is deleted meanwhile, only what was fetched before comes.
async fn c5_a_paused_partition_keeps_little_of_what_is_gone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = [TopicPartition::new(&topic, 0)];
    // In small calls, so that a broker's batches are smaller than the bound.
    for _ in 0..50 {
        let large = |n: u8| Record::new(&topic, vec![n; 5_000]).with_partition(0);
        fixture.publish((0..4).map(large).collect()).await?;
    }
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_max_batch_records(1)
        .with_max_buffered_bytes(20_000);
    let mut members = fixture.join(options).await?;
    members.records(0, 3).await?;
    members[0].pause(&p).await?;
    members.rest().await?;
    let before = members[0].count();
    fixture.delete_records(&p[0], 0..200).await?;
    members[0].resume(&p).await?;
    fixture.publish(vec![Record::new(&topic, "young").with_partition(0)]).await?;
    members.until("the record behind the gap", |m| m[0].of(&p[0]).last().is_some_and(|r| r.offset == 200)).await?;
    let old = members[0].count() - before - 1;
    // Twice the bound and a batch: what was on its way counts as well.
    holds(old <= 12, "at most 60,000 bytes of a paused partition were fetched ahead", old)
}

/// An operator who paused a service wants to see its lag grow. The end may be known a moment later.
async fn c5_progress_goes_on_under_a_pause(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let p = [TopicPartition::new(&topic, 0)];
    fixture.fill(&topic, 0, 0, 10).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    let consumer = members.consumer(0);
    let ask = async |end: u64| -> Checked<Progress> {
        let what = format!("the end {end}, by progress");
        let found = fixture.eventually(&what, || async {
            let progress = consumer.progress().await?;
            // A member may get its partitions one after the other.
            holds(progress.len() <= 2, "at most 2 partitions with a progress", &progress)?;
            if progress.len() < 2 {
                return Ok(None);
            }
            Ok(progress.into_iter().find(|found| found.partition == p[0] && found.end == end))
        });
        found.await
    };
    same("position and commit", (10, None), told(&ask(10).await?))?;
    members[0].commit(&p[0], 4).await?;
    same("position and commit after a commit", (10, Some(4)), told(&ask(10).await?))?;
    members[0].pause(&p).await?;
    fixture.fill(&topic, 0, 10, 15).await?;
    let paused = ask(15).await?;
    same("position and commit under a pause", (10, Some(4)), told(&paused))?;
    holds(paused.paused && paused.lag() == 11, "a lag of 11 of a paused partition", paused)?;
    members[0].commit(&p[0], 10).await?;
    same("position and commit after another commit", (10, Some(10)), told(&ask(15).await?))?;
    members[0].resume(&p).await?;
    members.records(0, 15).await?;
    same("position and commit after the resume", (15, Some(10)), told(&ask(15).await?))
}

fn told(progress: &Progress) -> (u64, Option<u64>) {
    (progress.position, progress.committed)
}
