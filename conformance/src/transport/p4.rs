//! P4: memory is bounded, at the bound `publish` waits; after `close` every publish ends as `Closed`.
//!
//! A publisher that buffers without bound takes the process down in an outage; one that refuses at
//! its bound makes every caller write a retry loop. So it waits.

use std::time::{Duration, Instant};

use tidings_core::{ErrorKind, Publisher, PublisherExt, Record, TopicPartition, Transport};

use super::fixture::{Fixture, numbered, same_records};
use super::p3::alone;
use crate::case::{Broken, Case, Checked, cases, granted, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p4_a_flood_waits_and_is_never_refused,
    p4_a_record_larger_than_any_bound_is_answered,
    p4_a_loop_of_publishes_lets_other_tasks_run,
    p4_after_close_publish_is_closed,
    p4_close_waits_for_what_is_under_way,
    p4_close_takes_any_deadline,
    p4_closing_twice_is_one_close,
    p4_closing_at_once_from_two_sides_is_one_close,
    p4_close_is_cancel_safe,
    p4_closing_one_publisher_leaves_the_others_open,
    p4_calls_that_wait_end_when_the_publisher_is_closed_in_an_outage[Outage],
];

/// Deadline of a close that has little to wait for.
const SOON: Duration = Duration::from_secs(10);

/// How long a loop of publishes lasts at most.
const ENOUGH: Duration = Duration::from_secs(5);

/// From many tasks at once.
async fn p4_a_flood_waits_and_is_never_refused(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for call in 0..200 {
        let publisher = std::sync::Arc::clone(&publisher);
        let records: Vec<Record> = (0..100).map(|n| numbered(&topic, 0, call * 100 + n)).collect();
        tasks.spawn(async move { publisher.publish(records).await });
    }
    let answers = fixture.within("answers to 20,000 records", tasks.join_all()).await?;
    let refused = answers.iter().flatten().find_map(|answer| answer.as_ref().err());
    holds(refused.is_none(), "every record of a flood is stored, as publish waits", refused)?;
    let mut offsets: Vec<u64> = answers.into_iter().flatten().flatten().map(|p| p.offset).collect();
    offsets.sort_unstable();
    holds(offsets.iter().copied().eq(0..20_000), "20,000 offsets, each once", offsets.len())
}

/// It must not wait for room that never comes.
async fn p4_a_record_larger_than_any_bound_is_answered(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let huge = Record::new(&topic, vec![b'h'; 48 << 20]);
    for answer in fixture.within("an answer to 48 MiB", publisher.publish(vec![huge])).await? {
        if let Err(error) = answer {
            refused("a huge record", &[ErrorKind::TooLarge], Err::<(), _>(error))?;
        }
    }
    fixture.publish_by(&*publisher, vec![Record::new(&topic, "small")]).await.map(drop)
}

/// Returns how often another task of the same thread ran while `work` did.
pub(super) async fn turns_during<F: Future<Output = Checked>>(work: F) -> Checked<u32> {
    let mut turns = 0;
    let other = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        worked = work => worked?,
        () = other => {}
    }
    Ok(turns)
}

/// A publisher that always answers at once would keep timers and heartbeats from running.
async fn p4_a_loop_of_publishes_lets_other_tasks_run(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let one = || Record::new(&topic, "v").with_partition(0);
    let alone = async {
        let begun = Instant::now();
        for _ in 0..10_000 {
            // A real broker answers less often, and other tasks run while it is waited for.
            if begun.elapsed() > ENOUGH {
                break;
            }
            granted("publish", publisher.publish_one(one()).await)?;
        }
        Ok(())
    };
    let turns = fixture.within("10,000 publishes", turns_during(alone)).await??;
    holds(turns > 1, "other tasks run during 10,000 publishes of one record", turns)?;
    let in_lists = async {
        let begun = Instant::now();
        for _ in 0..500 {
            if begun.elapsed() > ENOUGH {
                break;
            }
            for answer in publisher.publish(vec![one(); 20]).await {
                granted("publish", answer)?;
            }
        }
        Ok(())
    };
    let turns = fixture.within("500 publishes of lists", turns_during(in_lists)).await??;
    holds(turns > 1, "other tasks run during 500 publishes of 20 records", turns)
}

/// Checks that each record of a call is refused as `Closed`.
async fn is_closed(fixture: &Fixture, publisher: &dyn Publisher, topic: &tidings_core::Name) -> Checked {
    let answers = publisher.publish(vec![Record::new(topic, "a"), Record::new(topic, "b")]);
    let answers = fixture.within("an answer of a closed publisher", answers).await?;
    same("answers of a closed publisher", 2, answers.len())?;
    answers.into_iter().try_for_each(|answer| refused("publish after close", &[ErrorKind::Closed], answer))
}

async fn p4_after_close_publish_is_closed(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    fixture.within("close", publisher.close(SOON)).await??;
    is_closed(fixture, &*publisher, &topic).await?;
    fixture.read_all(&topic, 1, 1).await.map(drop)
}

/// The calls were polled once: they are in flight, and their records must be stored.
async fn p4_close_waits_for_what_is_under_way(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    let records: Vec<Record> = (0..50).map(|n| numbered(&topic, 0, n)).collect();
    let mut calls: Vec<_> = records.iter().enumerate().map(|(n, r)| alone(&*publisher, n, r.clone())).collect();
    let mut early = Vec::new();
    for (i, call) in calls.iter_mut().enumerate() {
        if let Some(answers) = poll_times(1, call.as_mut()).await {
            early.push((i, answers));
        }
    }
    fixture.within("close", publisher.close(SOON)).await??;
    let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
    early.into_iter().for_each(|(i, answer)| answers[i] = Some(answer));
    for (answer, call) in answers.iter_mut().zip(calls) {
        if answer.is_none() {
            *answer = Some(fixture.within("an answer by the time of close", call).await?);
        }
    }
    // Each was polled before the close: it is in flight, and close waits for it.
    let answers: Vec<_> = answers.into_iter().flatten().flatten().collect();
    let failed = answers.iter().find_map(|answer| answer.as_ref().err());
    holds(failed.is_none(), "what was under way at close is stored", failed)?;
    let members = fixture.read_all(&topic, 1, 50).await?;
    same_records("what was under way at close", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// With nothing unanswered even a deadline of zero is met; one without an end must not overflow.
async fn p4_close_takes_any_deadline(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    for deadline in [Duration::ZERO, Duration::MAX] {
        let publisher = fixture.publisher().await?;
        fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
        let closed = fixture.within("close", publisher.close(deadline)).await?;
        // A broker's connection may need a moment to end, which zero does not grant.
        match closed {
            Err(error) if deadline.is_zero() => {
                refused("close without time", &[ErrorKind::Indeterminate], Err::<(), _>(error))?;
            }
            closed => closed?,
        }
        is_closed(fixture, &*publisher, &topic).await?;
    }
    fixture.read_all(&topic, 1, 2).await.map(drop)
}

async fn p4_closing_twice_is_one_close(fixture: &Fixture) -> Checked {
    let publisher = fixture.publisher().await?;
    fixture.within("close", publisher.close(SOON)).await??;
    fixture.within("a second close", publisher.close(SOON)).await?.map_err(Broken::from)
}

async fn p4_closing_at_once_from_two_sides_is_one_close(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    let both = async { tokio::join!(publisher.close(SOON), publisher.close(SOON)) };
    let (one, other) = fixture.within("two closes", both).await?;
    one?;
    other?;
    is_closed(fixture, &*publisher, &topic).await
}

/// A dropped close has closed the publisher or not; a second one completes it.
async fn p4_close_is_cancel_safe(fixture: &Fixture) -> Checked {
    for times in 1..5 {
        let topic = fixture.topic(1).await?;
        let publisher = fixture.publisher().await?;
        let mut call = publisher.publish(vec![numbered(&topic, 0, 0)]);
        let early = poll_times(1, call.as_mut()).await;
        drop(poll_times(times, publisher.close(SOON)).await);
        fixture.within("the close behind a dropped one", publisher.close(SOON)).await??;
        if early.is_none() {
            drop(fixture.within("an answer", call).await?);
        }
        is_closed(fixture, &*publisher, &topic).await?;
    }
    Ok(())
}

async fn p4_closing_one_publisher_leaves_the_others_open(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let (one, other) = (fixture.publisher().await?, fixture.publisher().await?);
    fixture.publish_by(&*one, vec![numbered(&topic, 0, 0)]).await?;
    fixture.within("close", one.close(SOON)).await??;
    fixture.publish_by(&*other, vec![numbered(&topic, 0, 1)]).await?;
    fixture.read_all(&topic, 1, 2).await.map(drop)
}

/// A service must be able to end while its broker is down.
async fn p4_calls_that_wait_end_when_the_publisher_is_closed_in_an_outage(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.publish_by(&*publisher, vec![numbered(&topic, 0, 0)]).await?;
    fixture.outage(true).await?;
    let mut call = publisher.publish(vec![numbered(&topic, 0, 1)]);
    let early = poll_times(1, call.as_mut()).await;
    // Unanswered records make it `Indeterminate`; the case only requires that it ends.
    if let Err(error) = fixture.within("close in an outage", publisher.close(Duration::from_millis(500))).await? {
        refused("close with records unanswered", &[ErrorKind::Indeterminate], Err::<(), _>(error))?;
    }
    if early.is_none() {
        drop(fixture.within("an end of the call under way", call).await?);
    }
    fixture.outage(false).await?;
    is_closed(fixture, &*publisher, &topic).await
}
