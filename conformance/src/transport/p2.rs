//! P2: `Ok` means that the broker holds the record; what may or may not be held is `Indeterminate`.
//!
//! The worst error of a publisher is a wrong `Ok`, the second worst a wrong failure: the first
//! loses a record, the second stores it twice. What is not known has to be said.

use std::time::Duration;

use tidings_core::{ErrorKind, Record, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, same_record, same_records};
use crate::case::{Case, Checked, cases, granted, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p2_what_is_acknowledged_is_there,
    p2_what_is_acknowledged_outlives_its_publisher,
    p2_a_dropped_publish_stores_whole_records_once_or_none,
    p2_a_publisher_works_on_after_a_dropped_publish,
    p2_a_deleted_topic_takes_no_record,
    p2_a_lost_answer_is_unknown_and_never_a_failure[LostAnswers],
    p2_what_an_outage_refuses_is_not_there[Outage],
    p2_publishing_goes_on_after_an_outage[Outage],
    p2_an_outage_repeats_nothing_and_brings_nothing_back[Outage],
];

async fn p2_what_is_acknowledged_is_there(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let mut all = Vec::new();
    for n in 0..20 {
        let record = numbered(&topic, 0, n);
        let positions = fixture.publish_by(&*publisher, vec![record.clone()]).await?;
        same("the offset of the next record", vec![n as u64], positions.iter().map(|p| p.offset).collect())?;
        all.push(record);
    }
    let members = fixture.read_all(&topic, 1, 20).await?;
    same_records("what is stored", 0, &all, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// Catches a publisher that answers before the broker has, and drops its queue.
async fn p2_what_is_acknowledged_outlives_its_publisher(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let records: Vec<Record> = (0..5).map(|n| numbered(&topic, 0, n)).collect();
    fixture.publish_by(&*publisher, records.clone()).await?;
    drop(publisher);
    let members = fixture.read_all(&topic, 1, 5).await?;
    same_records("what is stored", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// A dropped call may have stored any part of its records, but none of them twice or out of order.
async fn p2_a_dropped_publish_stores_whole_records_once_or_none(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let mut sent = Vec::new();
    for times in 0..12 {
        let records: Vec<Record> = (0..3).map(|i| numbered(&topic, 0, times * 3 + i)).collect();
        let answered = poll_times(times, publisher.publish(records.clone())).await;
        fixture
            .note(format!("a publish polled {times} times: {}", if answered.is_some() { "done" } else { "dropped" }));
        sent.extend(records);
    }
    // Later records of the same publisher come after all records that the dropped calls may still store.
    let last = numbered(&topic, 0, 999);
    let positions = fixture.publish_by(&*publisher, vec![last.clone()]).await?;
    sent.push(last);
    let held = positions.first().map_or(0, |p| p.offset as usize + 1);
    let members = fixture.read_all(&topic, 1, held).await?;
    let mut rest = sent.iter();
    for stored in members[0].of(&TopicPartition::new(&topic, 0)) {
        let found = rest.find(|record| record.key == stored.key);
        holds(found.is_some(), "each record once and in the order of the calls", stored)?;
        found.map_or(Ok(()), |record| same_record("a record of a dropped call", record, stored))?;
    }
    Ok(())
}

async fn p2_a_publisher_works_on_after_a_dropped_publish(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    drop(poll_times(1, publisher.publish(vec![Record::new(&topic, "dropped")])).await);
    fixture.publish_by(&*publisher, vec![Record::new(&topic, "kept")]).await?;
    fixture.within("close", publisher.close(Duration::from_secs(5))).await?.map_err(Into::into)
}

/// A publisher knows the topic from before. Once it is there again, what is answered `Ok` is in the new one.
async fn p2_a_deleted_topic_takes_no_record(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    let admin = fixture.admin().await?;
    for answer in fixture.within("delete", admin.delete_topics(std::slice::from_ref(&topic))).await?? {
        granted("delete", answer)?;
    }
    let answers = fixture.within("an answer", publisher.publish(vec![numbered(&topic, 0, 1)])).await?;
    let kinds = &[ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::Indeterminate];
    answers.into_iter().try_for_each(|answer| refused("a record of a deleted topic", kinds, answer))?;
    fixture.create(tidings_core::Topic::new(&topic)).await?;
    let again = vec![numbered(&topic, 0, 2)];
    fixture
        .eventually("the publisher finds the new topic", || async {
            let answers = fixture.within("an answer", publisher.publish(again.clone())).await?;
            Ok(answers.iter().all(Result::is_ok).then_some(()))
        })
        .await?;
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 1).await?;
    let stored = members[0].of(&TopicPartition::new(&topic, 0));
    same("the key of the first record", &numbered(&topic, 0, 2).key, &stored[0].key)
}

/// A caller that is told of a failure publishes again.
async fn p2_a_lost_answer_is_unknown_and_never_a_failure(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    fixture.lost_answers(true).await?;
    let answers = fixture.within("an answer", publisher.publish(vec![numbered(&topic, 0, 1)])).await?;
    fixture.lost_answers(false).await?;
    for answer in answers {
        refused("a record whose answer was lost", &[ErrorKind::Indeterminate], answer)?;
    }
    Ok(())
}

/// `Unavailable` promises that the record is not stored; only `Indeterminate` may leave it open.
async fn p2_what_an_outage_refuses_is_not_there(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    fixture.outage(true).await?;
    let down = fixture.within("answers", publisher.publish((1..4).map(|n| numbered(&topic, 0, n)).collect())).await?;
    fixture.outage(false).await?;
    let mut surely_not = Vec::new();
    for (i, answer) in down.into_iter().enumerate() {
        if answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable) {
            surely_not.push(numbered(&topic, 0, i + 1));
        }
        refused("a record during an outage", &[ErrorKind::Unavailable, ErrorKind::Indeterminate], answer)?;
    }
    let mut members = fixture.reader(&topic).await?;
    members.records(0, 1).await?;
    members.rest().await?;
    let stored = members[0].of(&TopicPartition::new(&topic, 0));
    let there = surely_not.iter().find(|record| stored.iter().any(|s| s.key == record.key));
    holds(there.is_none(), "no record that was refused as unavailable", there)
}

async fn p2_publishing_goes_on_after_an_outage(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    fixture.outage(true).await?;
    drop(fixture.within("answers", publisher.publish(vec![numbered(&topic, 0, 1)])).await?);
    fixture.outage(false).await?;
    let record = vec![numbered(&topic, 0, 2)];
    fixture
        .eventually("the publisher works again", || async {
            let answers = fixture.within("an answer", publisher.publish(record.clone())).await?;
            Ok(answers.iter().all(Result::is_ok).then_some(()))
        })
        .await
}

/// Records that were answered before, during and after an outage are stored once each if `Ok`, and not at all if
/// `Unavailable`, however the publisher sent them again.
async fn p2_an_outage_repeats_nothing_and_brings_nothing_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let mut answered = Vec::new();
    for n in 0..9 {
        match n {
            3 => fixture.outage(true).await?,
            6 => fixture.outage(false).await?,
            _ => {}
        }
        let answers = fixture.within("an answer", publisher.publish(vec![numbered(&topic, 0, n)])).await?;
        answered.extend(answers.into_iter().map(|answer| (n, answer.map_err(|error| error.kind()))));
    }
    fixture.note(format!("answers: {answered:?}"));
    fixture
        .eventually("the publisher works again", || async {
            let answers = fixture.within("an answer", publisher.publish(vec![numbered(&topic, 0, 99)])).await?;
            Ok(answers.iter().all(Result::is_ok).then_some(()))
        })
        .await?;
    fixture.within("close", publisher.close(Duration::from_secs(10))).await??;
    let mut members = fixture.reader(&topic).await?;
    members
        .until("the last record", |m| m[0].received.values().flatten().any(|r| r.key == Some("key 99".into())))
        .await?;
    members.rest().await?;
    let stored = members[0].of(&TopicPartition::new(&topic, 0));
    for (n, answer) in answered {
        let times = stored.iter().filter(|r| r.key == numbered(&topic, 0, n).key).count();
        let expected = match answer {
            Ok(_) => 1..=1,
            Err(ErrorKind::Indeterminate) => 0..=1,
            Err(_) => 0..=0,
        };
        holds(expected.contains(&times), &format!("record {n}, {answer:?}, {expected:?} times"), times)?;
    }
    Ok(())
}
