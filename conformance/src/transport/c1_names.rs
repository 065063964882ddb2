//! C1 by names, numbers and sizes: topics and groups that begin alike, many partitions, large offsets.
//!
//! A backend that composes a storage key of names and numbers, or keeps a number in a narrower type, mixes up things
//! that the other cases never put next to each other.

use tidings_core::{
    Commit, ConsumerOptions, ErrorKind, Name, PartitionLag, Progress, SeekTo, TopicPartition, Transport,
};

use super::fixture::{Fixture, numbered, partitions, same_records};
use super::members::Members;
use crate::case::{Case, Checked, cases, granted, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c1_topics_that_begin_alike_are_kept_apart,
    c1_groups_that_begin_alike_are_kept_apart,
    c1_names_of_any_length_are_told_apart,
    c1_a_topic_that_is_named_twice_is_read_once,
    c1_a_member_reads_twenty_topics,
    c1_a_topic_of_three_hundred_partitions,
    c1_offsets_of_any_size[AdvancedLog],
];

/// Names of which each begins with the first. With `topic` and `partition` joined, `t`, 11 would be `t1`, 1.
fn alike(fixture: &Fixture, what: &str) -> [Name; 4] {
    let first = fixture.fresh(what);
    let upper = Name::from(first.to_uppercase());
    [first.clone(), format!("{first}-eu").into(), format!("{first}1").into(), upper]
}

/// Each reader gets the records of its topic, and commits its own offset.
async fn c1_topics_that_begin_alike_are_kept_apart(fixture: &Fixture) -> Checked {
    let topics = alike(fixture, "orders");
    for (topic, count) in topics.iter().zip([12, 1, 2, 1]) {
        fixture.create(tidings_core::Topic::new(topic).with_partitions(count)).await?;
    }
    let [first, eu, one, upper] = &topics;
    let places = [(first, 0, 5), (first, 1, 6), (first, 11, 7), (eu, 0, 8), (one, 1, 9), (upper, 0, 10)];
    let mut filled = Vec::new();
    for (topic, p, count) in places {
        filled.push((TopicPartition::new(topic, p), fixture.fill(topic, p, 0, count).await?));
    }
    let mut alone = fixture.reader(first).await?;
    alone.records(0, 18).await?;
    alone.rest().await?;
    same("records of the first topic alone", 18, alone[0].count())?;
    let mut members = fixture.join(ConsumerOptions::new(fixture.fresh("group"), &topics)).await?;
    members.records(0, 45).await?;
    for (n, (p, records)) in filled.iter().enumerate() {
        same_records(&format!("records of {p}"), 0, records, members[0].of(p))?;
        members[0].commit(p, n as u64).await?;
    }
    let options = members[0].options.clone();
    members.close(0).await?;
    let mut next = fixture.join(options).await?;
    for (topic, count) in topics.iter().zip([12, 1, 2, 1]) {
        next.owns(0, topic, count).await?;
    }
    for (n, (p, _)) in filled.iter().enumerate() {
        same(&format!("what is committed of {p}"), Some(n as u64), next[0].assignment(p)?.committed)?;
    }
    Ok(())
}

/// Also where one group's name and a topic's, joined, are another group's.
async fn c1_groups_that_begin_alike_are_kept_apart(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    fixture.fill(&topic, 0, 0, 10).await?;
    let [first, eu, one, upper] = alike(fixture, "group");
    let twice = Name::from(format!("{topic}-{topic}"));
    fixture.create(tidings_core::Topic::new(&twice)).await?;
    fixture.fill(&twice, 0, 0, 10).await?;
    let mut members = fixture.join(ConsumerOptions::new(&first, [&twice])).await?;
    members.records(0, 10).await?;
    members[0].commit(&TopicPartition::new(&twice, 0), 9).await?;
    members.close(0).await?;
    let groups =
        [first.clone(), eu, one, upper, format!("{first}-{topic}").into(), format!("{first} größe/1:*").into()];
    for (n, group) in groups.iter().enumerate() {
        let mut members = fixture.join(ConsumerOptions::new(group, [&topic])).await?;
        members.records(0, 10).await?;
        same(&format!("what is committed before {group} committed"), None, members[0].assignment(&p)?.committed)?;
        let commit = Commit::new(p.clone(), members[0].epoch(&p)?, n as u64 + 1).with_metadata(format!("by {n}"));
        granted("commit", members[0].try_commit(commit).await?)?;
        members.close(0).await?;
    }
    for (n, group) in groups.iter().enumerate() {
        let mut members = fixture.join(ConsumerOptions::new(group, [&topic])).await?;
        members.owns(0, &topic, 1).await?;
        let assignment = members[0].assignment(&p)?;
        same(&format!("what {group} committed"), Some(n as u64 + 1), assignment.committed)?;
        same(&format!("the metadata of {group}"), Some(format!("by {n}")), assignment.metadata)?;
        members.close(0).await?;
    }
    Ok(())
}

/// Catches names that are cut: these differ in their last character.
async fn c1_names_of_any_length_are_told_apart(fixture: &Fixture) -> Checked {
    let long = |what: &str, length: usize| {
        let mut name = fixture.fresh(what).to_string();
        name.extend(std::iter::repeat_n('x', length - 1 - name.len()));
        ["a", "b"].map(|last| Name::from(format!("{name}{last}")))
    };
    let (topics, groups) = (long("topic", 249), long("group", 400));
    for (n, topic) in topics.iter().enumerate() {
        fixture.create(tidings_core::Topic::new(topic)).await?;
        fixture.fill(topic, 0, 0, 3 + n).await?;
    }
    for (n, (topic, group)) in topics.iter().zip(&groups).enumerate() {
        let p = TopicPartition::new(topic, 0);
        let mut members = fixture.join(ConsumerOptions::new(group, [topic])).await?;
        members.records(0, 3 + n).await?;
        members.rest().await?;
        same("records of a topic with a long name", 3 + n, members[0].of(&p).len())?;
        same("what is committed", None, members[0].assignment(&p)?.committed)?;
        members[0].commit(&p, 1 + n as u64).await?;
        members.close(0).await?;
    }
    let admin = fixture.admin().await?;
    for (n, (topic, group)) in topics.iter().zip(&groups).enumerate() {
        let lag = fixture.within("lag", admin.group_lag(group)).await??;
        let expected = PartitionLag::new(TopicPartition::new(topic, 0), Some(1 + n as u64), 0, 3 + n as u64);
        same("the lag of a group with a long name", vec![expected], lag)?;
    }
    Ok(())
}

/// A service whose handlers share a topic names it more than once.
async fn c1_a_topic_that_is_named_twice_is_read_once(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let records = fixture.fill(&topic, 1, 0, 10).await?;
    let mut members = fixture.join(ConsumerOptions::new(fixture.fresh("group"), [&topic, &topic])).await?;
    members.owns(0, &topic, 2).await?;
    members.records(0, 10).await?;
    members.rest().await?;
    same("assignments", 2, members[0].assignments.len())?;
    same_records("records", 0, &records, members[0].of(&partitions(&topic, 2)[1]))
}

async fn c1_a_member_reads_twenty_topics(fixture: &Fixture) -> Checked {
    let names: Vec<Name> = (0..20).map(|_| fixture.fresh("topic")).collect();
    let asked: Vec<_> = names.iter().map(tidings_core::Topic::new).collect();
    let admin = fixture.admin().await?;
    for answer in fixture.within("create", admin.create_topics(&asked)).await?? {
        granted("create", answer)?;
    }
    let records: Vec<_> = (0..60).map(|n| numbered(&names[n % 20], 0, n)).collect();
    fixture.publish(records.clone()).await?;
    let mut members = fixture.join(ConsumerOptions::new(fixture.fresh("group"), &names)).await?;
    members.records(0, 60).await?;
    for name in &names {
        let of: Vec<_> = records.iter().filter(|r| r.topic == *name).cloned().collect();
        same_records(&format!("records of {name}"), 0, &of, members[0].of(&TopicPartition::new(name, 0)))?;
    }
    Ok(())
}

/// Partitions in use of three hundred: some differ only beyond 8 bits, or in the order of their digits.
const USED: [u32; 10] = [0, 2, 10, 43, 44, 127, 128, 255, 256, 299];

/// Commits next offset `p + 1` of each, in one call and not in their order, with a foreign one among them.
async fn commit_all(fixture: &Fixture, members: &Members<'_>, topic: &Name) -> Checked {
    let member = &members[0];
    let commit = |p: u32| -> Checked<Commit> {
        let p = TopicPartition::new(topic, p);
        Ok(Commit::new(p.clone(), member.epoch(&p)?, u64::from(p.partition % 7) + 1))
    };
    let mut commits: Vec<Commit> = USED.iter().rev().map(|p| commit(*p)).collect::<Checked<_>>()?;
    commits.insert(4, Commit::new(TopicPartition::new(topic, 300), 1, 1));
    let answers = fixture.within("answers", members.consumer(0).commit(commits)).await?;
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(tidings_core::Error::kind)).collect();
    let expected = (0..=USED.len()).map(|n| (n == 4).then_some(ErrorKind::Fenced)).collect();
    same("answers to eleven commits", expected, kinds)
}

async fn c1_a_topic_of_three_hundred_partitions(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(300).await?;
    let records: Vec<_> = USED.iter().flat_map(|p| (0..8).map(|n| numbered(&topic, *p, n))).collect();
    let positions = fixture.publish(records.clone()).await?;
    let named: Vec<u32> = records.iter().filter_map(|r| r.partition).collect();
    same("the partitions that were named", named, positions.iter().map(|p| p.partition).collect())?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 300).await?;
    members.records(0, records.len()).await?;
    for (p, of) in USED.iter().zip(records.chunks(8)) {
        same_records(&format!("records of {p}"), 0, of, members[0].of(&TopicPartition::new(&topic, *p)))?;
    }
    commit_all(fixture, &members, &topic).await?;
    let expected: Vec<(u32, Option<u64>)> = USED.iter().map(|p| (*p, Some(u64::from(p % 7) + 1))).collect();
    let progress = fixture.within("progress", members.consumer(0).progress()).await??;
    same("partitions with a progress", 300, progress.len())?;
    let mut told: Vec<_> = progress.into_iter().map(|p: Progress| (p.partition.partition, p.committed)).collect();
    told.sort_unstable();
    same("committed, by progress", &expected, &told.into_iter().filter(|(_, c)| c.is_some()).collect())?;
    let options = members[0].options.clone();
    members.close(0).await?;
    let lag = fixture.within("lag", fixture.admin().await?.group_lag(&options.group)).await??;
    let told = lag.iter().filter(|l| l.committed.is_some()).map(|l| (l.partition.partition, l.committed)).collect();
    same("committed, by lag, sorted by number", &expected, &told)?;
    let mut next = fixture.join(options).await?;
    next.owns(0, &topic, 300).await?;
    for (p, committed) in expected {
        let assignment = next[0].assignment(&TopicPartition::new(&topic, p))?;
        same(&format!("committed of {p}, for the next owner"), committed, assignment.committed)?;
    }
    Ok(())
}

/// A long-lived partition: 32 bits end after weeks, 53 bits are the integers of a double.
async fn c1_offsets_of_any_size(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let admin = fixture.admin().await?;
    for (p, base) in partitions(&topic, 3).into_iter().zip([(1 << 31) - 2, (1_u64 << 32) - 2, (1 << 53) - 2]) {
        fixture.advance_log(&p, base).await?;
        let records = fixture.fill(&topic, p.partition, 0, 5).await?;
        let mut members = fixture.reader(&topic).await?;
        members.until("five records", |m| m[0].of(&p).len() >= 5).await?;
        same_records("records", base, &records, members[0].of(&p))?;
        same("where a seek went", base + 3, members[0].seek(&p, SeekTo::Offset(base + 3)).await?)?;
        members.until("two records again", |m| m[0].of(&p).len() >= 7).await?;
        same_records("records after a seek", base + 3, &records[3..], &members[0].of(&p)[5..])?;
        members[0].commit(&p, base + 3).await?;
        let options = members[0].options.clone();
        members.close(0).await?;
        let lag = fixture.within("lag", admin.group_lag(&options.group)).await??;
        let of: Vec<_> = lag.into_iter().filter(|l| l.partition == p).collect();
        same("the lag", vec![PartitionLag::new(p.clone(), Some(base + 3), base, base + 5)], of)?;
        let mut next = fixture.join(options).await?;
        next.until("two records", |m| m[0].of(&p).len() >= 2).await?;
        same_records("what was not committed", base + 3, &records[3..], next[0].of(&p))?;
    }
    Ok(())
}
