//! C2: records of a partition come only between its `Assigned` and its `release` or `Lost`; epochs grow.
//!
//! The member of every case checks at each step that no record comes outside an assignment.

use tidings_core::{Commit, ConsumerOptions, ErrorKind, TopicPartition, Transport};

use super::fixture::{Fixture, partitions, same_records};
use crate::case::{Case, Checked, cases, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c2_an_assignment_says_where_reading_starts,
    c2_epochs_grow_from_owner_to_owner,
    c2_epochs_grow_from_member_to_member_and_back,
    c2_members_share_the_partitions,
    c2_members_have_equal_shares,
    c2_more_members_than_partitions,
    c2_next_is_the_offset_after_the_records,
    c2_next_counts_gaps[DeletedRecords],
    c2_a_gap_at_the_end_is_told_without_a_record[DeletedRecords],
    c2_no_record_comes_after_release,
    c2_work_in_flight_at_a_rebalance_comes_to_one_owner_or_again,
    c2_a_lost_session_raises_lost_and_fences[SessionLoss],
    c2_after_a_lost_session_the_member_may_get_partitions_again[SessionLoss],
    c2_a_member_that_nobody_answers_raises_lost_by_itself[Outage],
    c2_a_short_outage_takes_no_partition[Outage],
];

async fn c2_an_assignment_says_where_reading_starts(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    fixture.fill(&topic, 1, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 3).await?;
    for p in partitions(&topic, 3) {
        let assignment = members[0].assignment(&p)?;
        same(&format!("the start of {p}"), 0, assignment.start_offset)?;
        same(&format!("what is committed of {p}"), None, assignment.committed)?;
        same(&format!("metadata of {p}"), None, assignment.metadata)?;
        same(&format!("what is missing of {p}"), None, assignment.missing)?;
    }
    Ok(())
}

/// Equal epochs would let a previous owner's commit pass for the present one's.
async fn c2_epochs_grow_from_owner_to_owner(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut epochs = Vec::new();
    for _ in 0..4 {
        let mut members = fixture.join(options.clone()).await?;
        members.owns(0, &topic, 1).await?;
        epochs.push(members[0].epoch(&p)?);
        members.close(0).await?;
    }
    holds(epochs.is_sorted_by(|a, b| a < b), "epochs that grow with each assignment", epochs)
}

async fn c2_epochs_grow_from_member_to_member_and_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 2).await?;
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.close(1).await?;
    // The members themselves fail if an epoch of a partition does not grow.
    members.owns(0, &topic, 2).await
}

/// Each record comes once: no two members read a partition at a time.
async fn c2_members_share_the_partitions(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(6).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    for _ in 0..2 {
        members.add(options.clone()).await?;
    }
    members.shared(&topic, 6, &[0, 1, 2]).await?;
    for p in 0..6 {
        fixture.fill(&topic, p, 0, 20).await?;
    }
    members.until("120 records in all", |m| m.iter().map(|m| m.count()).sum::<usize>() >= 120).await?;
    members.rest().await?;
    same("records in all", 120, (0..3).map(|i| members[i].count()).sum())
}

/// One that keeps what it had, and gives a newcomer a single partition, would leave most work to one process.
async fn c2_members_have_equal_shares(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(8).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 8).await?;
    for count in 2..=3 {
        members.add(options.clone()).await?;
        let (least, most) = (8 / count, 8_usize.div_ceil(count));
        members
            .until(&format!("{least} to {most} partitions of 8 for each of {count} members"), |m| {
                let shares = m.iter().map(|m| m.has(&topic));
                shares.clone().sum::<usize>() == 8 && shares.clone().all(|share| (least..=most).contains(&share))
            })
            .await?;
    }
    members.close(1).await?;
    members.until("4 partitions for each of 2 members", |m| m[0].has(&topic) == 4 && m[2].has(&topic) == 4).await
}

/// The member without a partition waits; it is neither refused nor given a second reader.
async fn c2_more_members_than_partitions(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    members.add(options.clone()).await?;
    members.add(options).await?;
    fixture.fill(&topic, 0, 0, 10).await?;
    members.until("10 records", |m| m.iter().map(|m| m.count()).sum::<usize>() >= 10).await?;
    members.rest().await?;
    let owners = (0..3).filter(|i| members[*i].has(&topic) == 1).count();
    same("owners of one partition", 1, owners)
}

async fn c2_next_is_the_offset_after_the_records(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 10).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 10).await?;
    same("the offset after ten records", Some(10), members[0].owned.get(&p).map(|o| o.position))
}

/// Compaction and transaction markers leave gaps; the next offset lies behind them.
async fn c2_next_counts_gaps(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 10).await?;
    fixture.delete_records(&p, 3..9).await?;
    let mut members = fixture.reader(&topic).await?;
    members.until("the position passes a gap", |m| m[0].owned.get(&p).is_some_and(|o| o.position == 10)).await?;
    same("records around the gap", 4, members[0].count())
}

async fn c2_a_gap_at_the_end_is_told_without_a_record(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 10).await?;
    fixture.delete_records(&p, 6..10).await?;
    let mut members = fixture.reader(&topic).await?;
    // A group that can't commit beyond the gap would show a lag forever.
    members.until("the position passes the gap", |m| m[0].owned.get(&p).is_some_and(|o| o.position == 10)).await?;
    members[0].commit(&p, 10).await
}

/// Catches prefetched records that are handed out although their partition is gone.
async fn c2_no_record_comes_after_release(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(2);
    for p in 0..2 {
        fixture.fill(&topic, p, 0, 200).await?;
    }
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 4).await?;
    // It releases while it reads: many records are buffered, and the member fails if any of them comes.
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.until("the second member reads its partition", |m| m[1].count() >= 200).await?;
    members.rest().await
}

/// Committed records never come again, uncommitted ones always do.
async fn c2_work_in_flight_at_a_rebalance_comes_to_one_owner_or_again(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let filled = [fixture.fill(&topic, 0, 0, 20).await?, fixture.fill(&topic, 1, 0, 20).await?];
    let mut members = fixture.join(options.clone()).await?;
    members.records(0, 40).await?;
    // Half of it is settled when the second member comes.
    for p in partitions(&topic, 2) {
        members[0].commit(&p, 10).await?;
    }
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.records(1, 10).await?;
    members.rest().await?;
    let moved: Vec<TopicPartition> = members[1].owned.keys().cloned().collect();
    for p in moved {
        let records = &filled[p.partition as usize];
        same_records("what was not committed comes again", 10, &records[10..], members[1].of(&p))?;
    }
    Ok(())
}

/// The commit is refused even though the member has not left: another may own the partition by now.
async fn c2_a_lost_session_raises_lost_and_fences(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let all = partitions(&topic, 3);
    for p in 0..3 {
        fixture.fill(&topic, p, 0, 5).await?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 15).await?;
    let commit = |p: &TopicPartition| Ok(Commit::new(p.clone(), members[0].epoch(p)?, 5));
    let old: Vec<Commit> = all.iter().map(commit).collect::<Checked<_>>()?;
    fixture.session_loss(&members[0].options.group.clone()).await?;
    members.until("the loss of each partition is told", |m| all.iter().all(|p| m[0].lost.contains(p))).await?;
    for old in old {
        refused("a commit after Lost", &[ErrorKind::Fenced], members[0].try_commit(old).await?)?;
    }
    Ok(())
}

/// Under a new epoch, from the commit.
async fn c2_after_a_lost_session_the_member_may_get_partitions_again(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 5).await?;
    members[0].commit(&p, 3).await?;
    fixture.session_loss(&members[0].options.group.clone()).await?;
    members.until("the loss is told", |m| !m[0].lost.is_empty()).await?;
    members.records(0, 7).await?;
    let again = members[0].assignment(&p)?;
    same("where reading starts again", 3, again.start_offset)?;
    same_records("what comes again", 3, &records[3..], &members[0].of(&p)[5..])
}

/// A member that went on would handle records that the group has given to another.
async fn c2_a_member_that_nobody_answers_raises_lost_by_itself(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options).await?;
    members.records(0, 5).await?;
    fixture.outage(true).await?;
    // The broker can't report the loss: the consumer must notice it by its own clock.
    let told = members.until("the loss is told while no broker answers", |m| !m[0].lost.is_empty()).await;
    fixture.outage(false).await?;
    told
}

/// A third of the session timeout: the group waits for its member, and the member knows that it does.
async fn c2_a_short_outage_takes_no_partition(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut records = fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options).await?;
    members.records(0, 5).await?;
    fixture.outage(true).await?;
    let rested = members.rest_for(fixture.pace.lifetime / 3).await;
    fixture.outage(false).await?;
    rested?;
    records.extend(fixture.fill(&topic, 0, 5, 10).await?);
    members.records(0, 10).await?;
    members.rest().await?;
    same("what was lost", 0, members[0].lost.len())?;
    same_records("before and after", 0, &records, members[0].of(&p))?;
    members[0].commit(&p, 10).await
}
