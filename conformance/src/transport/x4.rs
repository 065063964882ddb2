//! X4: offsets of a partition that the member has lost abort the whole transaction.

use tidings_core::{
    Commit, ConsumerOptions, ErrorKind, Name, TopicPartition, TransactionOffsets, Transactor, Transport,
};

use super::c4::ten_read;
use super::fixture::{Fixture, partitions};
use super::members::Members;
use crate::case::{Case, Checked, broken, cases, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    x4_offsets_of_a_partition_that_moved_are_refused,
    x4_offsets_of_a_member_that_left_are_refused,
    x4_offsets_of_a_lost_session_are_refused[SessionLoss],
    x4_offsets_of_an_old_epoch_are_not_given,
];

/// Commits records with offsets that must be refused; then the transactor continues.
async fn refuses(
    fixture: &Fixture,
    members: &mut Members<'_>,
    transactor: &dyn Transactor,
    offsets: TransactionOffsets,
) -> Checked {
    let topic = fixture.topic(1).await?;
    members.meanwhile("publish", fixture.put_numbered(transactor, &topic, 0, 3)).await??;
    let ended = members.meanwhile("commit", fixture.try_end(transactor, Some(offsets))).await??;
    refused("a commit with these offsets", &[ErrorKind::Conflict], ended)?;
    let records = members.meanwhile("publish", fixture.put_numbered(transactor, &topic, 5, 7)).await??;
    members.meanwhile("commit", fixture.end(transactor, None)).await??;
    members.meanwhile("the records", fixture.sees(&topic, &records)).await?
}

/// Two members share what one had: one of its partitions moves.
async fn moved<'a>(
    fixture: &'a Fixture,
    topic: &Name,
) -> Checked<(Members<'a>, TransactionOffsets, TopicPartition, Commit)> {
    let options = ConsumerOptions::new(fixture.fresh("group"), [topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, topic, 2).await?;
    let commits = partitions(topic, 2).into_iter().map(|p| Ok(Commit::new(p.clone(), members[0].epoch(&p)?, 0)));
    let commits = commits.collect::<Checked<Vec<_>>>()?;
    let (consumer, asked) = (members.consumer(0), commits.clone());
    let offsets = members.meanwhile("offsets", async move { consumer.transaction_offsets(asked).await }).await??;
    members.add(options).await?;
    members.shared(topic, 2, &[0, 1]).await?;
    match commits.into_iter().find(|commit| members[1].owned.contains_key(&commit.partition)) {
        Some(commit) => Ok((members, offsets, commit.partition.clone(), commit)),
        None => broken("a partition that moved", "none"),
    }
}

async fn x4_offsets_of_a_partition_that_moved_are_refused(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let (mut members, offsets, p, _) = moved(fixture, &topic).await?;
    let transactor = fixture.transactor().await?;
    refuses(fixture, &mut members, &*transactor, offsets).await?;
    let group = members[0].options.group.clone();
    same("what is committed", None, fixture.committed_offset(&group, &p).await?)?;
    // The next owner's are taken, by the same transactor.
    let offsets = members.offsets(1, &p, 0).await??;
    members.meanwhile("commit", fixture.end(&*transactor, Some(offsets))).await??;
    members.meanwhile("the offset", fixture.until_committed(&group, &p, 0)).await?
}

async fn x4_offsets_of_a_member_that_left_are_refused(fixture: &Fixture) -> Checked {
    let (mut members, _, p) = ten_read(fixture).await?;
    let transactor = fixture.transactor().await?;
    let offsets = members.offsets(0, &p, 6).await??;
    let group = members[0].options.group.clone();
    members.close(0).await?;
    refuses(fixture, &mut members, &*transactor, offsets).await?;
    same("what is committed", None, fixture.committed_offset(&group, &p).await?)
}

async fn x4_offsets_of_a_lost_session_are_refused(fixture: &Fixture) -> Checked {
    let (mut members, topic, p) = ten_read(fixture).await?;
    let transactor = fixture.transactor().await?;
    let offsets = members.offsets(0, &p, 6).await??;
    let group = members[0].options.group.clone();
    fixture.session_loss(&group).await?;
    members.until("the loss", |m| !m[0].lost.is_empty()).await?;
    members.owns(0, &topic, 1).await?;
    refuses(fixture, &mut members, &*transactor, offsets).await?;
    same("what is committed", None, fixture.committed_offset(&group, &p).await?)
}

async fn x4_offsets_of_an_old_epoch_are_not_given(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let (mut members, _, _, old) = moved(fixture, &topic).await?;
    let consumer = members.consumer(0);
    let asked = members.meanwhile("offsets", async move { consumer.transaction_offsets(vec![old]).await }).await?;
    refused("offsets of a partition that moved", &[ErrorKind::Fenced], asked)
}
