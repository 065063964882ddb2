//! C4, seek: reading goes on exactly where the answer says, of that partition alone, and commits go back once.
//!
//! An answer alone proves little: each case reads on after it.

use std::time::Duration;

use tidings_core::{ConsumerOptions, Name, Record, SeekTo, Timestamp, TopicPartition, Transport};

use super::c4::{next_owner, ten_read};
use super::fixture::{Fixture, numbered, partitions, same_records};
use super::members::Members;
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c4_seek_reads_from_the_offset_that_it_returns,
    c4_seek_in_the_midst_of_a_backlog,
    c4_seek_moves_its_partition_alone,
    c4_seek_far_beyond_the_log_goes_to_its_end,
    c4_seek_below_what_is_gone_goes_to_the_oldest[DeletedRecords],
    c4_a_seek_without_a_commit_ends_with_its_member,
    c4_commits_go_back_once_after_a_seek,
    c4_a_seek_lets_only_its_partition_go_back,
];

/// Seeks, and checks both the returned offset and the records that come from there on, to the end of the log.
async fn seek_and_read(
    members: &mut Members<'_>,
    p: &TopicPartition,
    to: SeekTo,
    at: usize,
    records: &[Record],
) -> Checked {
    members[0].received.clear();
    same(&format!("where {to:?} went"), at as u64, members[0].seek(p, to).await?)?;
    members.records(0, records.len() - at).await?;
    members.rest().await?;
    same_records(&format!("records after {to:?}"), at as u64, &records[at..], members[0].of(p))
}

/// Times that are not in order: the first record in the log of that time or later counts, not the next by time.
async fn c4_seek_reads_from_the_offset_that_it_returns(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let base = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
    let at = |seconds: u64| base.saturating_add(Duration::from_secs(seconds));
    let times = [10, 50, 30, 50, 20, 60, 70, 60, 80, 90];
    let records: Vec<Record> =
        times.iter().enumerate().map(|(n, time)| numbered(&topic, 0, n).with_timestamp(at(*time))).collect();
    fixture.publish(records.clone()).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    for (time, offset) in [(10, 0), (11, 1), (50, 1), (51, 5), (61, 6), (71, 8), (90, 9), (91, 10)] {
        seek_and_read(&mut members, &p, SeekTo::Time(at(time)), offset, &records).await?;
    }
    for early in [Timestamp::from_millis(0), Timestamp::from_millis(-1), Timestamp::from_millis(i64::MIN)] {
        same(&format!("where {early} went"), 0, members[0].seek(&p, SeekTo::Time(early)).await?)?;
    }
    seek_and_read(&mut members, &p, SeekTo::Offset(7), 7, &records).await?;
    seek_and_read(&mut members, &p, SeekTo::Earliest, 0, &records).await?;
    seek_and_read(&mut members, &p, SeekTo::Latest, 10, &records).await
}

/// Records that were fetched before the seek must not come after it.
async fn c4_seek_in_the_midst_of_a_backlog(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 400).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(10);
    let mut members = fixture.join(options).await?;
    members.records(0, 20).await?;
    for at in [200, 50, 50, 390, 0] {
        members[0].received.clear();
        same("where seek went", at as u64, members[0].seek(&p, SeekTo::Offset(at as u64)).await?)?;
        members.records(0, 10).await?;
        let came = members[0].of(&p).to_vec();
        same_records("records after a seek", at as u64, &records[at..at + came.len()], &came)?;
    }
    members.records(0, 400).await?;
    members.rest().await?;
    same_records("all records, once each", 0, &records, members[0].of(&p))
}

/// The member fails if records of the other partition come again; none may be left out either.
async fn c4_seek_moves_its_partition_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let mut filled = Vec::new();
    for p in 0..3 {
        filled.push(fixture.fill(&topic, p, 0, 100).await?);
    }
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(5);
    let mut members = fixture.join(options).await?;
    members.records(0, 60).await?;
    let [one, two, three] = [0, 1, 2].map(|p| TopicPartition::new(&topic, p));
    members.until("records of each", |m| [&one, &two, &three].iter().all(|p| m[0].of(p).len() >= 10)).await?;
    members[0].received.remove(&two);
    members[0].seek(&two, SeekTo::Offset(3)).await?;
    members.until("all", |m| m[0].of(&one).len() + m[0].of(&three).len() >= 200 && m[0].of(&two).len() >= 97).await?;
    members.rest().await?;
    same_records("the partition that was moved", 3, &filled[1][3..], members[0].of(&two))?;
    same_records("the first one", 0, &filled[0], members[0].of(&one))?;
    same_records("the third one", 0, &filled[2], members[0].of(&three))
}

/// Offsets that a narrower or a signed type would take for small or special ones.
async fn c4_seek_far_beyond_the_log_goes_to_its_end(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = ten_read(fixture).await?;
    for far in [(1 << 32) + 3, (1 << 53) + 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
        same(&format!("where a seek to {far} went"), 10, members[0].seek(&p, SeekTo::Offset(far)).await?)?;
    }
    members.rest().await?;
    same("records after a seek to the end", 10, members[0].count())?;
    fixture.fill(&topic, 0, 10, 12).await?;
    members.records(0, 12).await?;
    let came: Vec<u64> = members[0].of(&p).iter().map(|r| r.offset).collect();
    same("offsets of all records", (0..12).collect(), came)
}

async fn c4_seek_below_what_is_gone_goes_to_the_oldest(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 20).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 20).await?;
    fixture.delete_records(&p, 0..10).await?;
    let early = SeekTo::Time(Timestamp::from_millis(0));
    for to in [SeekTo::Offset(0), SeekTo::Offset(3), SeekTo::Offset(10), SeekTo::Earliest, early] {
        same(&format!("where {to:?} went"), 10, members[0].seek(&p, to).await?)?;
    }
    let described = super::a1::describe(fixture, &topic).await?;
    same("the bounds, described", vec![(10, 20)], described.partitions.iter().map(|p| (p.start, p.end)).collect())?;
    members[0].received.clear();
    members.records(0, 10).await?;
    members.rest().await?;
    same_records("what is left", 10, &records[10..], members[0].of(&p))
}

/// A seek is the member's, a commit the group's.
async fn c4_a_seek_without_a_commit_ends_with_its_member(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    members[0].commit(&p, 6).await?;
    members[0].seek(&p, SeekTo::Offset(2)).await?;
    members.records(0, 18).await?;
    let assignment = next_owner(fixture, members, &p).await?;
    same("what is committed", Some(6), assignment.committed)?;
    same("the next owner's start", 6, assignment.start_offset)
}

/// Whether the first commit after the seek goes back or forward, later ones only go forward.
async fn c4_commits_go_back_once_after_a_seek(fixture: &Fixture) -> Checked {
    for (commits, at) in [(vec![4, 7, 5, 4], 7), (vec![10, 5, 4], 10), (vec![6, 4], 6)] {
        let (mut members, _, p) = ten_read(fixture).await?;
        members[0].commit(&p, 9).await?;
        members[0].seek(&p, SeekTo::Offset(4)).await?;
        for next in &commits {
            members[0].commit(&p, *next).await?;
        }
        let progress = fixture.within("progress", members.consumer(0).progress()).await??;
        let what = format!("committed after a seek to 4 and commits of {commits:?}");
        same(&format!("{what}, by progress"), vec![Some(at)], progress.iter().map(|p| p.committed).collect())?;
        same(&what, Some(at), next_owner(fixture, members, &p).await?.committed)?;
    }
    Ok(())
}

async fn c4_a_seek_lets_only_its_partition_go_back(fixture: &Fixture) -> Checked {
    let topic: Name = fixture.topic(2).await?;
    let all = partitions(&topic, 2);
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 10).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 20).await?;
    for p in &all {
        members[0].commit(p, 9).await?;
    }
    members[0].seek(&all[0], SeekTo::Offset(4)).await?;
    for p in &all {
        members[0].commit(p, 5).await?;
    }
    let options = members[0].options.clone();
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &topic, 2).await?;
    same("committed of the one that was moved", Some(5), next[0].assignment(&all[0])?.committed)?;
    same("committed of the other one", Some(9), next[0].assignment(&all[1])?.committed)
}
