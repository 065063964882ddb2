//! P1: outcome `i` is record `i`'s; one record's failure is not its neighbour's.

use std::time::Duration;

use tidings_core::{ErrorKind, PublisherExt, Record, Topic, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, same_record, same_records};
use crate::case::{Case, Checked, cases, granted, holds, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p1_each_record_has_its_own_answer,
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
    for (record, position) in records.iter().zip(positions) {
        let partition = TopicPartition::new(&topic, position.partition);
        let there = members[0].of(&partition).iter().find(|r| r.offset == position.offset);
        holds(there.is_some(), &format!("a record at {partition} {}", position.offset), &members[0])?;
        there.map_or(Ok(()), |stored| same_record("the record at its answer's place", record, stored))?;
    }
    Ok(())
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

/// Publishes good, bad, good and checks that only the bad one fails.
async fn only_the_second(fixture: &Fixture, topic: &tidings_core::Name, bad: Record, kind: ErrorKind) -> Checked {
    let publisher = fixture.publisher().await?;
    let (first, last) = (numbered(topic, 0, 0), numbered(topic, 0, 2));
    let answers = fixture.within("answers", publisher.publish(vec![first.clone(), bad, last.clone()])).await?;
    same("answers", 3, answers.len())?;
    let mut answers = answers.into_iter();
    let mut next =
        || answers.next().unwrap_or_else(|| Err(tidings_core::Error::new(ErrorKind::Indeterminate, "no answer")));
    granted("the record before the bad one", next())?;
    refused("the bad record", &[kind], next())?;
    granted("the record behind the bad one", next())?;
    let members = fixture.read_all(topic, 1, 2).await?;
    same_records("what is stored", 0, &[first, last], members[0].of(&TopicPartition::new(topic, 0)))
}

/// Its neighbours go to another topic.
async fn p1_a_missing_topic_fails_its_records_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let bad = Record::new(fixture.fresh("missing"), "lost");
    only_the_second(fixture, &topic, bad, ErrorKind::NotFound).await
}

/// Its neighbours go to the same topic.
async fn p1_a_missing_partition_fails_its_record_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let bad = Record::new(&topic, "nowhere").with_partition(7);
    only_the_second(fixture, &topic, bad, ErrorKind::NotFound).await
}

/// A broker refuses whole batches: the backend has to separate the record.
async fn p1_a_record_that_is_too_large_fails_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.fresh("topic");
    fixture.create(Topic::new(&topic).with_max_record_bytes(10_000)).await?;
    let bad = Record::new(&topic, vec![b'x'; 40_000]).with_partition(0);
    only_the_second(fixture, &topic, bad, ErrorKind::TooLarge).await
}

/// More than any batch holds.
async fn p1_thousands_of_records_in_one_call(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 3_000).await?;
    let members = fixture.read_all(&topic, 1, 3_000).await?;
    same_records("a large call's records", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
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
