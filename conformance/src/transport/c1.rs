//! C1: a partition's records come in offset order from the committed offset, else by the start policy.

use std::time::Duration;

use tidings_core::{
    ConsumerOptions, ErrorKind, Name, Record, SeekTo, Start, StoredRecord, Timestamp, TopicPartition, Transport,
};

use super::fixture::{Fixture, partitions, same_records};
use crate::case::{Broken, Case, Checked, cases, holds, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c1_records_come_in_order_with_their_bytes_and_offsets,
    c1_reading_goes_on_from_the_committed_offset,
    c1_uncommitted_records_come_again_to_the_next_owner,
    c1_what_was_settled_out_of_order_comes_again_from_the_lowest,
    c1_each_group_reads_everything,
    c1_a_late_group_reads_the_backlog,
    c1_many_topics_groups_and_publishers_at_once,
    c1_one_member_reads_several_topics,
    c1_latest_skips_what_was_there,
    c1_a_time_skips_what_was_before_it,
    c1_a_time_outside_the_log_starts_at_its_ends,
    c1_what_is_committed_wins_over_the_start_policy,
    c1_batches_keep_to_their_option,
    c1_a_large_record_passes_a_small_buffer,
    c1_a_missing_topic_is_not_found,
    c1_a_committed_offset_that_is_gone_goes_to_the_oldest[DeletedRecords],
    c1_a_committed_offset_beyond_the_end_goes_to_the_oldest[TruncatedRecords],
    c1_a_gap_is_skipped_and_nothing_else[DeletedRecords],
    c1_reading_goes_on_after_an_outage[Outage],
];

/// More records than one fetch returns, in several partitions at once.
async fn c1_records_come_in_order_with_their_bytes_and_offsets(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(4).await?;
    let mut filled = Vec::new();
    for p in 0..4 {
        filled.push(fixture.fill(&topic, p, 0, 250).await?);
    }
    let members = fixture.read_all(&topic, 4, 1_000).await?;
    for (p, records) in partitions(&topic, 4).iter().zip(&filled) {
        same_records(&format!("records of {p}"), 0, records, members[0].of(p))?;
    }
    Ok(())
}

/// Reads at least `read` of `filled` records, commits `next` (if any), closes, and returns what the next owner reads.
async fn handed_over(fixture: &Fixture, commit: Option<u64>, from: usize) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut first = fixture.join(options.clone()).await?;
    first.records(0, 10).await?;
    if let Some(next) = commit {
        first[0].commit(&p, next).await?;
    }
    first.close(0).await?;
    drop(first);
    let mut second = fixture.join(options).await?;
    second.owns(0, &topic, 1).await?;
    let assignment = second[0].assignment(&p)?;
    same("what is committed", commit, assignment.committed)?;
    same("where reading starts", from as u64, assignment.start_offset)?;
    second.records(0, 10 - from).await?;
    second.rest().await?;
    same_records("records of the next owner", from as u64, &records[from..], second[0].of(&p))
}

async fn c1_reading_goes_on_from_the_committed_offset(fixture: &Fixture) -> Checked {
    handed_over(fixture, Some(10), 10).await?;
    handed_over(fixture, Some(7), 7).await
}

async fn c1_uncommitted_records_come_again_to_the_next_owner(fixture: &Fixture) -> Checked {
    handed_over(fixture, None, 0).await
}

/// A commit is a watermark: later settled records come again rather than an earlier one being lost.
async fn c1_what_was_settled_out_of_order_comes_again_from_the_lowest(fixture: &Fixture) -> Checked {
    // 0, 1, 3, 5 and 9 are settled: the lowest that is not is 2.
    handed_over(fixture, Some(2), 2).await
}

/// Catches a backend that shares positions between groups.
async fn c1_each_group_reads_everything(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let mut members = fixture.members();
    for group in 0..3 {
        members.add(ConsumerOptions::new(fixture.fresh(&format!("group-{group}")), [&topic])).await?;
    }
    let filled = [fixture.fill(&topic, 0, 0, 50).await?, fixture.fill(&topic, 1, 0, 50).await?];
    members.until("every group has 100 records", |m| m.iter().all(|m| m.count() >= 100)).await?;
    members.rest().await?;
    for group in 0..3 {
        for (p, records) in partitions(&topic, 2).iter().zip(&filled) {
            same_records(&format!("group {group}'s records of {p}"), 0, records, members[group].of(p))?;
        }
    }
    Ok(())
}

async fn c1_a_late_group_reads_the_backlog(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 20).await?;
    let mut early = fixture.read_all(&topic, 1, 20).await?;
    let p = TopicPartition::new(&topic, 0);
    early[0].commit(&p, 20).await?;
    early.close(0).await?;
    let late = fixture.read_all(&topic, 1, 20).await?;
    same_records("the backlog", 0, &records, late[0].of(&p))
}

/// Catches records that reach a reader of another topic, and deadlocks between appends and reads.
async fn c1_many_topics_groups_and_publishers_at_once(fixture: &Fixture) -> Checked {
    let topics: Vec<Name> = vec![fixture.topic(2).await?, fixture.topic(2).await?, fixture.topic(2).await?];
    let mut members = fixture.members();
    for topic in &topics {
        for _ in 0..2 {
            members.add(ConsumerOptions::new(fixture.fresh("group"), [topic])).await?;
        }
    }
    let publishing = async {
        let fill = async |topic: &Name| {
            for n in 0..5 {
                fixture.fill(topic, 0, n * 10, n * 10 + 10).await?;
                fixture.fill(topic, 1, n * 10, n * 10 + 10).await?;
            }
            Ok::<_, Broken>(())
        };
        tokio::try_join!(fill(&topics[0]), fill(&topics[1]), fill(&topics[2]))
    };
    members.meanwhile("publishing while groups read", publishing).await??;
    members.until("every group has all 100 records of its topic", |m| m.iter().all(|m| m.count() >= 100)).await?;
    members.rest().await?;
    for who in 0..6 {
        for p in partitions(&topics[who / 2], 2) {
            let expected: Vec<Record> = (0..50).map(|n| super::fixture::numbered(&p.topic, p.partition, n)).collect();
            same_records(&format!("member {who}'s records of {p}"), 0, &expected, members[who].of(&p))?;
        }
    }
    Ok(())
}

async fn c1_one_member_reads_several_topics(fixture: &Fixture) -> Checked {
    let (one, other) = (fixture.topic(1).await?, fixture.topic(2).await?);
    let filled = [fixture.fill(&one, 0, 0, 10).await?, fixture.fill(&other, 1, 0, 10).await?];
    let mut members = fixture.join(ConsumerOptions::new(fixture.fresh("group"), [&one, &other])).await?;
    members.owns(0, &one, 1).await?;
    members.owns(0, &other, 2).await?;
    members.records(0, 20).await?;
    same_records("one topic", 0, &filled[0], members[0].of(&TopicPartition::new(&one, 0)))?;
    same_records("the other topic", 0, &filled[1], members[0].of(&TopicPartition::new(&other, 1)))
}

async fn c1_latest_skips_what_was_there(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 5).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let mut members = fixture.join(options).await?;
    members.owns(0, &topic, 1).await?;
    let p = TopicPartition::new(&topic, 0);
    same("the start", 5, members[0].assignment(&p)?.start_offset)?;
    let new = fixture.fill(&topic, 0, 5, 10).await?;
    members.records(0, 5).await?;
    members.rest().await?;
    same_records("what is published from now on", 5, &new, members[0].of(&p))
}

async fn c1_a_time_skips_what_was_before_it(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let base = Timestamp::now().saturating_sub(Duration::from_secs(3_600));
    let at = |n: u64| base.saturating_add(Duration::from_secs(n * 60));
    let records: Vec<Record> =
        (0..10).map(|n| super::fixture::numbered(&topic, 0, n).with_timestamp(at(n as u64))).collect();
    fixture.publish(records.clone()).await?;
    // The middle of a minute: the first record at or after that time is the next one.
    let start = Start::Time(at(3).saturating_add(Duration::from_secs(30)));
    let mut members = fixture.join(ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(start)).await?;
    members.records(0, 6).await?;
    members.rest().await?;
    same_records("records of that time or later", 4, &records[4..], members[0].of(&TopicPartition::new(&topic, 0)))
}

/// Before all records, and behind them.
async fn c1_a_time_outside_the_log_starts_at_its_ends(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 5).await?;
    let soon = Timestamp::now().saturating_add(Duration::from_secs(3_600));
    for (time, at) in [(Timestamp::from_millis(-1), 0), (Timestamp::from_millis(i64::MIN), 0), (soon, 5)] {
        let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Time(time));
        let mut members = fixture.join(options).await?;
        members.owns(0, &topic, 1).await?;
        same(&format!("the start by the time {time}"), at, members[0].assignment(&p)?.start_offset)?;
        members.records(0, 5 - at as usize).await?;
    }
    Ok(())
}

/// Otherwise a service that changes its policy would skip or repeat records.
async fn c1_what_is_committed_wins_over_the_start_policy(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 10).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut first = fixture.join(options.clone()).await?;
    first.records(0, 10).await?;
    first[0].commit(&p, 4).await?;
    first.close(0).await?;
    let mut second = fixture.join(options.with_start(Start::Latest)).await?;
    second.records(0, 6).await?;
    second.rest().await?;
    same_records("records behind the commit", 4, &records[4..], second[0].of(&p))
}

async fn c1_batches_keep_to_their_option(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 100).await?;
    // The member itself fails if a batch exceeds its options.
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(7);
    let mut members = fixture.join(options).await?;
    members.records(0, 100).await?;
    same_records("small batches", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// A record beyond the bound comes alone: a reader that stops at it would never go on.
async fn c1_a_large_record_passes_a_small_buffer(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let large = |n: usize| Record::new(&topic, vec![n as u8; 300_000]).with_partition(0);
    let records: Vec<Record> = (0..8).map(large).collect();
    fixture.publish(records.clone()).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_buffered_bytes(1_000);
    let mut members = fixture.join(options).await?;
    members.records(0, 8).await?;
    same_records("large records", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// Either the join or the first step fails; waiting for the topic would look like an idle service.
async fn c1_a_missing_topic_is_not_found(fixture: &Fixture) -> Checked {
    let options = ConsumerOptions::new(fixture.fresh("group"), [fixture.fresh("missing")]);
    let joined = fixture.within("an answer", fixture.transport()?.consumer(options)).await?;
    let answer = match joined {
        Err(error) => Err(error),
        Ok(consumer) => fixture.within("a step", consumer.next()).await?,
    };
    crate::case::refused("reading a missing topic", &[ErrorKind::NotFound], answer)
}

/// With the policy `Latest`, which must not apply: the group has a commit.
async fn c1_a_committed_offset_that_is_gone_goes_to_the_oldest(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let records = fixture.fill(&topic, 0, 0, 20).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let admin = fixture.admin().await?;
    let mut first = fixture.join(options.clone()).await?;
    first.owns(0, &topic, 1).await?;
    first[0].seek(&p, SeekTo::Offset(4)).await?;
    first[0].commit(&p, 4).await?;
    first.close(0).await?;
    fixture.delete_records(&p, 0..10).await?;
    let lag = fixture.within("lag", admin.group_lag(&options.group)).await??;
    same("the oldest offset", Some(10), lag.first().map(|l| l.start))?;
    let mut second = fixture.join(options).await?;
    second.owns(0, &topic, 1).await?;
    let assignment = second[0].assignment(&p)?;
    same("the start", 10, assignment.start_offset)?;
    same("what was committed", Some(4), assignment.committed)?;
    same("the range that is missing", Some(4..10), assignment.missing)?;
    second.records(0, 10).await?;
    same_records("what is left", 10, &records[10..], second[0].of(&p))
}

/// The log was recreated: all of its records are new to the group.
async fn c1_a_committed_offset_beyond_the_end_goes_to_the_oldest(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 20).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_start(Start::Latest);
    let mut first = fixture.join(options.clone()).await?;
    first.owns(0, &topic, 1).await?;
    first[0].commit(&p, 20).await?;
    first.close(0).await?;
    fixture.truncate_records(&p, 0).await?;
    let records = fixture.fill(&topic, 0, 0, 4).await?;
    let admin = fixture.admin().await?;
    let lag = fixture.within("lag", admin.group_lag(&options.group)).await??;
    same("the lag", Some(4), lag.first().and_then(tidings_core::PartitionLag::lag))?;
    let mut second = fixture.join(options.clone()).await?;
    second[0].set_back = true;
    second.records(0, 4).await?;
    same_records("what is read anew", 0, &records, second[0].of(&p))?;
    same("the start", 0, second[0].assignment(&p)?.start_offset)?;
    second[0].commit(&p, 3).await?;
    second.close(0).await?;
    let lag = fixture.within("lag", admin.group_lag(&options.group)).await??;
    same("what is committed anew", Some(3), lag.first().and_then(|l| l.committed))?;
    let mut third = fixture.join(options).await?;
    third.records(0, 1).await?;
    same_records("the next owner's records", 3, &records[3..], third[0].of(&p))
}

async fn c1_a_gap_is_skipped_and_nothing_else(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 20).await?;
    fixture.delete_records(&p, 5..12).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 13).await?;
    members.rest().await?;
    let came: Vec<u64> = members[0].of(&p).iter().map(|r| r.offset).collect();
    same("offsets around a gap", (0..5).chain(12..20).collect(), came)
}

/// With or without the loss of the session, which the backend may decide.
async fn c1_reading_goes_on_after_an_outage(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut records = fixture.fill(&topic, 0, 0, 5).await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 5).await?;
    members[0].commit(&p, 5).await?;
    fixture.outage(true).await?;
    members.rest().await?;
    fixture.outage(false).await?;
    records.extend(fixture.fill(&topic, 0, 5, 10).await?);
    members.until("the last record comes", |m| m[0].of(&p).last().is_some_and(|r| r.offset == 9)).await?;
    members.rest().await?;
    let stored = members[0].of(&p);
    if members[0].lost.is_empty() {
        return same_records("before and after", 0, &records, stored);
    }
    // A member that lost its place resumes from its commit: committed records never come again; records received
    // before it learned of the loss may.
    let (before, after) = stored.split_at(5.min(stored.len()));
    same_records("before", 0, &records[..5], before)?;
    let in_order = |r: &[StoredRecord]| r[1].offset == r[0].offset + 1 || r[1].offset == 5;
    holds(after.first().is_some_and(|r| r.offset == 5), "the first one that was not committed", after)?;
    holds(after.windows(2).all(in_order), "no gap, and no other beginning", after)?;
    same_records("after", 5, &records[5..], &after[after.len().saturating_sub(5)..])
}
