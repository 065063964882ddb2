//! P1: outcome `i` is record `i`'s; one record's failure is not its neighbour's.

use std::time::Duration;

use tidings_core::{ErrorKind, Name, Position, PublisherExt, Record, Topic, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, partitions, same_record, same_records};
use super::member::Member;
use crate::case::{Case, Checked, broken, cases, granted, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p1_each_record_has_its_own_answer,
    p1_equal_records_are_stored_each,
    p1_no_record_has_no_answer,
    p1_a_record_alone_is_as_a_list_of_one,
    p1_a_missing_topic_fails_its_records_alone,
    p1_a_missing_partition_fails_its_record_alone,
    p1_a_record_that_is_too_large_fails_alone,
    p1_thousands_of_records_in_one_call,
    p1_records_of_several_topics_in_one_call,
];

/// Records go to several partitions, so that an answer at another's place is seen.
async fn p1_each_record_has_its_own_answer(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let records: Vec<Record> = (0..30).map(|n| numbered(&topic, (n * 7 % 3) as u32, n)).collect();
    let positions = fixture.publish(records.clone()).await?;
    let members = fixture.read_all(&topic, 3, 30).await?;
    each_at_its_place(&members[0], &records, &positions)
}

/// Checks that each record is stored where its answer says.
fn each_at_its_place(member: &Member<'_>, records: &[Record], positions: &[Position]) -> Checked {
    for (record, position) in records.iter().zip(positions) {
        let partition = TopicPartition::new(&record.topic, position.partition);
        let stored = member.of(&partition);
        let at = stored.partition_point(|r| r.offset < position.offset);
        match stored.get(at).filter(|stored| stored.offset == position.offset) {
            Some(stored) => same_record("the record at its answer's place", record, stored)?,
            None => return broken(format!("a record at {partition} {}", position.offset), format!("{member:?}")),
        }
    }
    Ok(())
}

/// Catches a backend that takes equal bytes for a repeat of one record.
async fn p1_equal_records_are_stored_each(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let record = numbered(&topic, 0, 7);
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![record.clone(); 3]).await?;
    for _ in 0..2 {
        granted("one more", fixture.within("an answer", publisher.publish_one(record.clone())).await?)?;
    }
    let members = fixture.read_all(&topic, 1, 5).await?;
    same_records("equal records", 0, &vec![record; 5], members[0].of(&TopicPartition::new(&topic, 0)))
}

async fn p1_no_record_has_no_answer(fixture: &Fixture) -> Checked {
    let publisher = fixture.publisher().await?;
    let answers = fixture.within("an answer", publisher.publish(Vec::new())).await?;
    same("answers", 0, answers.len())
}

/// `publish_one` may take a shorter path in a backend: answers and refusals must be the same.
async fn p1_a_record_alone_is_as_a_list_of_one(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_max_record_bytes(10_000)).await?;
    let publisher = fixture.publisher().await?;
    let records: Vec<Record> = (0..5).map(|n| numbered(&topic, 0, n)).collect();
    for (offset, record) in records.iter().enumerate() {
        let answer = fixture.within("an answer", publisher.publish_one(record.clone())).await?;
        same("its offset", offset as u64, granted("a good record", answer)?.offset)?;
    }
    let large = Record::new(&topic, vec![b'x'; 40_000]).with_partition(0);
    refused(
        "what is too large",
        &[ErrorKind::TooLarge],
        fixture.within("an answer", publisher.publish_one(large)).await?,
    )?;
    let nowhere = Record::new(fixture.fresh("missing"), "lost");
    let answer = fixture.within("an answer", publisher.publish_one(nowhere)).await?;
    refused("one of a missing topic", &[ErrorKind::NotFound], answer)?;
    let members = fixture.read_all(&topic, 1, 5).await?;
    same_records("what is stored", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))?;
    granted("the close", fixture.within("close", publisher.close(Duration::from_secs(10))).await?)?;
    let answer = fixture.within("an answer", publisher.publish_one(numbered(&topic, 0, 5))).await?;
    refused("one after the close", &[ErrorKind::Closed], answer)
}

/// Publishes a good record, the bad ones and a good one, and checks that only the bad ones fail; then each bad one alone.
async fn only_the_bad(fixture: &Fixture, topic: &Name, bad: Vec<Record>, kind: ErrorKind) -> Checked {
    let publisher = fixture.publisher().await?;
    let (first, last) = (numbered(topic, 0, 0), numbered(topic, 0, 2));
    let records: Vec<Record> = [vec![first.clone()], bad.clone(), vec![last.clone()]].concat();
    let mut answers = fixture.within("answers", publisher.publish(records)).await?;
    same("answers", bad.len() + 2, answers.len())?;
    granted("the record before the bad ones", answers.remove(0))?;
    for (n, _) in bad.iter().enumerate() {
        refused(&format!("bad record {n}"), &[kind], answers.remove(0))?;
    }
    granted("the record behind the bad ones", answers.remove(0))?;
    for (n, record) in bad.into_iter().enumerate() {
        let answer = fixture.within("an answer", publisher.publish_one(record)).await?;
        refused(&format!("bad record {n} alone"), &[kind], answer)?;
    }
    let members = fixture.read_all(topic, 1, 2).await?;
    same_records("what is stored", 0, &[first, last], members[0].of(&TopicPartition::new(topic, 0)))
}

/// Its neighbours go to another topic.
async fn p1_a_missing_topic_fails_its_records_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let bad = Record::new(fixture.fresh("missing"), "lost");
    only_the_bad(fixture, &topic, vec![bad], ErrorKind::NotFound).await
}

/// Its neighbours go to the same topic. Numbers that a narrower type would take for partition 0, or for "any".
async fn p1_a_missing_partition_fails_its_record_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let bad = [1, 7, 256, 65_536, 1 << 31, u32::MAX].map(|p| Record::new(&topic, "nowhere").with_partition(p));
    only_the_bad(fixture, &topic, bad.to_vec(), ErrorKind::NotFound).await
}

/// A broker refuses whole batches: the backend has to separate the record. The key and the headers count as well.
async fn p1_a_record_that_is_too_large_fails_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_max_record_bytes(10_000)).await?;
    let large = || vec![b'x'; 40_000];
    let bad = vec![
        Record::new(&topic, large()).with_partition(0),
        Record::new(&topic, "v").with_key(large()).with_partition(0),
        Record::new(&topic, "v").with_header("h", large()).with_partition(0),
    ];
    only_the_bad(fixture, &topic, bad, ErrorKind::TooLarge).await
}

/// More than any batch holds; nearly all for one partition, with others in between.
async fn p1_thousands_of_records_in_one_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let records: Vec<Record> = (0..5_000).map(|n| numbered(&topic, u32::from(n % 16 == 15), n)).collect();
    let positions = fixture.publish(records.clone()).await?;
    let members = fixture.read_all(&topic, 2, 5_000).await?;
    for p in partitions(&topic, 2) {
        let of: Vec<Record> = records.iter().filter(|r| r.partition == Some(p.partition)).cloned().collect();
        same_records("a large call's records", 0, &of, members[0].of(&p))?;
    }
    each_at_its_place(&members[0], &records, &positions)
}

async fn p1_records_of_several_topics_in_one_call(fixture: &Fixture) -> Checked {
    let topics = [fixture.topic(1).await?, fixture.topic(1).await?, fixture.topic(1).await?];
    let records: Vec<Record> = (0..30).map(|n| numbered(&topics[n % 3], 0, n)).collect();
    fixture.publish(records.clone()).await?;
    for topic in &topics {
        let members = fixture.read_all(topic, 1, 10).await?;
        let of: Vec<Record> = records.iter().filter(|r| r.topic == *topic).cloned().collect();
        same_records("a topic's records", 0, &of, members[0].of(&TopicPartition::new(topic, 0)))?;
    }
    Ok(())
}
