//! C8: bytes that cannot be read hold their partition alone.
//!
//! Another client may write anything. One bad batch must neither stop the whole consumer nor be
//! skipped without a word.

use tidings_core::{ConsumerOptions, ErrorKind, SeekTo, TopicPartition, Transport};

use super::fixture::{Fixture, same_records};
use super::member::Member;
use crate::case::{Case, Checked, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c8_unreadable_bytes_hold_their_partition_alone[UnreadableRecords],
    c8_a_held_partition_stays_committable_and_a_seek_goes_on[UnreadableRecords],
    c8_the_next_owner_is_told_again[UnreadableRecords],
];

/// Checks that the partition is reported unreadable once, from `offset` on.
fn held(member: &Member<'_>, p: &TopicPartition, offset: u64) -> Checked {
    let told: Vec<_> = member.unreadable.iter().collect();
    same("how often it is told that the partition cannot be read", 1, told.len())?;
    same("the partition that cannot be read", p, &told[0].partition)?;
    same("the epoch", member.epoch(p)?, told[0].epoch)?;
    same("the first offset that cannot be read", offset, told[0].offset)?;
    let beyond = told[0].next_offset.is_none_or(|next| next > offset);
    holds(beyond, "readable records go on beyond the range", told[0])?;
    let kinds = [ErrorKind::Undecodable, ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Unsupported];
    holds(kinds.contains(&told[0].error.kind()), &format!("an error of {kinds:?}"), told[0])
}

/// Records before the bytes come, those behind do not, and the other partition goes on.
async fn c8_unreadable_bytes_hold_their_partition_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let (bad, good) = (TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1));
    let before = fixture.fill(&topic, 0, 0, 3).await?;
    fixture.append_unreadable(&bad).await?;
    fixture.fill(&topic, 0, 3, 6).await?;
    let mut neighbours = fixture.fill(&topic, 1, 0, 10).await?;
    let mut members = fixture.reader(&topic).await?;
    members.until("unreadable bytes are told", |m| !m[0].unreadable.is_empty()).await?;
    neighbours.extend(fixture.fill(&topic, 1, 10, 20).await?);
    members.until("20 records of the other partition", |m| m[0].of(&good).len() >= 20).await?;
    members.rest().await?;
    same("how the member ended", None, members[0].ended)?;
    held(&members[0], &bad, 3)?;
    same_records("records before the unreadable bytes", 0, &before, members[0].of(&bad))?;
    same_records("records of the other partition", 0, &neighbours, members[0].of(&good))
}

/// A service that decides to skip seeks beyond the range and reads on.
async fn c8_a_held_partition_stays_committable_and_a_seek_goes_on(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 3).await?;
    fixture.append_unreadable(&p).await?;
    let behind = fixture.fill(&topic, 0, 3, 6).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.until("unreadable bytes are told", |m| !m[0].unreadable.is_empty()).await?;
    members[0].commit(&p, 3).await?;
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    let [progress] = &progress[..] else { return holds(false, "the progress of one partition", progress) };
    same("what is committed", Some(3), progress.committed)?;
    holds(progress.lag() >= 3, "what lies behind is lag", progress)?;
    let next = progress.end - 3;
    same("the offset of the seek", next, members[0].seek(&p, SeekTo::Offset(next)).await?)?;
    members.records(0, 6).await?;
    members.rest().await?;
    same_records("records behind the unreadable bytes", next, &behind, &members[0].of(&p)[3..])?;
    held(&members[0], &p, 3)?;
    members[0].commit(&p, next + 3).await
}

/// The report is not a state of the group: each owner meets the bytes itself.
async fn c8_the_next_owner_is_told_again(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 3).await?;
    fixture.append_unreadable(&p).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut first = fixture.join(options.clone()).await?;
    first.until("unreadable bytes are told", |m| !m[0].unreadable.is_empty()).await?;
    first[0].commit(&p, 3).await?;
    first.close(0).await?;
    let mut second = fixture.join(options).await?;
    second.until("unreadable bytes are told again", |m| !m[0].unreadable.is_empty()).await?;
    second.rest().await?;
    held(&second[0], &p, 3)?;
    same("records", 0, second[0].count())
}
