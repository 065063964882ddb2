//! C1 and C2, a log that is cut short under its reader, as by an unclean election of a leader or by a broker's own
//! recovery.
//!
//! What was cut off is gone. What is published afterwards has the same offsets, and is new: a reader that goes on from
//! where it was would miss it.

use tidings_core::{ConsumerOptions, Name, SeekTo, Start, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, same_records};
use super::member::Member;
use super::members::Members;
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c1_a_log_cut_below_what_was_read_is_read_anew[TruncatedRecords],
    c1_a_log_cut_below_what_was_committed_is_read_anew[TruncatedRecords],
    c1_what_is_left_of_a_cut_log_is_whole[TruncatedRecords],
    c2_a_log_cut_behind_its_reader_takes_nothing[TruncatedRecords],
];

/// Creates a member that has read ten records, in a group that does not start at the oldest one.
async fn read_ten(fixture: &Fixture) -> Checked<(Members<'_>, Name, TopicPartition)> {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let mut members = fixture.join(options).await?;
    members.owns(0, &topic, 1).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    members.records(0, 10).await?;
    members[0].set_back = true;
    Ok((members, topic, p))
}

/// The offsets are the same, and the records are not: numbers from 90 on.
async fn c1_a_log_cut_below_what_was_read_is_read_anew(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = read_ten(fixture).await?;
    members[0].commit(&p, 4).await?;
    fixture.truncate_records(&p, 6).await?;
    let after = (90..96).map(|n| numbered(&topic, 0, n)).collect::<Vec<_>>();
    fixture.publish(after.clone()).await?;
    let last = |m: &[Member<'_>]| m[0].of(&p).last().is_some_and(|r| r.offset == 11);
    members.until("what was published after the cut", last).await?;
    let came = members[0].of(&p);
    same_records("what was published after the cut", 6, &after, &came[came.len() - 6..])?;
    // Uncommitted records come again, as from any owner that is lost.
    same("records between the commit and the cut", 8, came.len() - 10)?;
    members[0].commit(&p, 12).await
}

async fn c1_a_log_cut_below_what_was_committed_is_read_anew(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = read_ten(fixture).await?;
    members[0].commit(&p, 10).await?;
    members[0].seek(&p, SeekTo::Offset(3)).await?;
    members[0].pause(std::slice::from_ref(&p)).await?;
    fixture.truncate_records(&p, 6).await?;
    members[0].resume(std::slice::from_ref(&p)).await?;
    let after = (90..93).map(|n| numbered(&topic, 0, n)).collect::<Vec<_>>();
    fixture.publish(after.clone()).await?;
    let last = |m: &[Member<'_>]| m[0].of(&p).last().is_some_and(|r| r.offset == 8);
    members.until("what was published after the cut", last).await?;
    // The commit is no offset of this log: reading goes to the oldest record.
    let expected: Vec<_> = (0..6).map(|n| numbered(&topic, 0, n)).chain(after).collect();
    same_records("the log after the cut", 0, &expected, &members[0].of(&p)[10..])?;
    members[0].commit(&p, 9).await?;
    members.close(0).await?;
    let lag = fixture.within("lag", fixture.admin().await?.group_lag(&members[0].options.group)).await??;
    same("what is committed", Some(9), lag.first().and_then(|l| l.committed))
}

/// Cut at each of several places, with readers in between, and filled again: another group reads it all.
async fn c1_what_is_left_of_a_cut_log_is_whole(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut kept = fixture.fill(&topic, 0, 0, 5).await?;
    for (n, end) in [(1, 5), (2, 13), (3, 9), (4, 12), (5, 1)] {
        let first = kept.len();
        kept.extend((0..10).map(|i| numbered(&topic, 0, n * 100 + i)));
        fixture.publish(kept[first..].to_vec()).await?;
        let members = fixture.read_all(&topic, 1, kept.len()).await?;
        same_records("before the cut", 0, &kept, members[0].of(&p))?;
        fixture.truncate_records(&p, end as u64).await?;
        kept.truncate(end);
        let members = fixture.read_all(&topic, 1, kept.len()).await?;
        same_records("what is left", 0, &kept, members[0].of(&p))?;
    }
    Ok(())
}

/// Nothing that the member has read is gone: at the very place where it reads, and beyond.
async fn c2_a_log_cut_behind_its_reader_takes_nothing(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = read_ten(fixture).await?;
    members[0].commit(&p, 10).await?;
    fixture.truncate_records(&p, 10).await?;
    members[0].pause(std::slice::from_ref(&p)).await?;
    fixture.publish((10..20).map(|n| numbered(&topic, 0, n)).collect()).await?;
    fixture.truncate_records(&p, 14).await?;
    fixture.publish((90..92).map(|n| numbered(&topic, 0, n)).collect()).await?;
    members[0].resume(std::slice::from_ref(&p)).await?;
    members.records(0, 16).await?;
    members.rest().await?;
    same("what was lost", 0, members[0].lost.len())?;
    let expected: Vec<_> = (0..14).chain(90..92).map(|n| numbered(&topic, 0, n)).collect();
    same_records("before and after", 0, &expected, members[0].of(&p))?;
    members[0].commit(&p, 16).await
}
