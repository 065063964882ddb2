//! C6: `next` is cancel-safe: no record and no step is lost by dropping it.
//!
//! A service selects over `next` and other events, so its future is dropped all the time. What a
//! dropped call had taken must come with the next one.

use std::time::Duration;

use tidings_core::{ConsumerOptions, Result, Step, TopicPartition, Transport};
use tokio::time::{Instant, sleep, timeout};

use super::fixture::{Fixture, partitions, same_records};
use super::members::{AGAIN, Members};
use super::p4::turns_during;
use crate::case::{Case, Checked, broken, cases, holds};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c6_dropping_next_loses_no_record,
    c6_dropping_next_hundreds_of_times_loses_no_record,
    c6_dropping_next_while_records_arrive_loses_none,
    c6_dropping_next_loses_no_assignment_and_no_revocation,
    c6_dropping_next_loses_no_loss[SessionLoss],
    c6_dropping_a_next_that_was_woken_loses_nothing,
    c6_a_loop_of_next_lets_other_tasks_run,
];

/// Returns the result of a `next` of member `who`; a transient error is no step.
async fn take(members: &mut Members<'_>, who: usize, step: Result<Step>) -> Checked {
    match step {
        Err(error) if error.is_retryable() => {
            sleep(AGAIN).await;
            Ok(())
        }
        step => members[who].take(step?).await,
    }
}

/// Drives member `who` with calls of `next` that are dropped after a few polls, until `done`.
async fn droppily(
    fixture: &Fixture,
    members: &mut Members<'_>,
    who: usize,
    mut done: impl FnMut(&Members<'_>) -> bool,
) -> Checked {
    let deadline = Instant::now() + fixture.pace.patience;
    members[who].pending = None;
    let mut turn: u32 = 0;
    while !done(members) {
        if Instant::now() > deadline {
            return broken("all steps, though next is dropped again and again", format!("{:?}", members[who]));
        }
        turn += 1;
        let consumer = members.consumer(who);
        // Some calls get more polls, so that a `next` that fetches by itself can make progress between two drops. Their
        // number has no period, so that a fault at regular intervals of calls meets each of them.
        let stepped = match turn.wrapping_mul(2_654_435_769) >> 28 {
            0 => timeout(fixture.pace.quiet, consumer.next()).await.ok(),
            few => poll_times((few as usize).saturating_sub(7).max(1), consumer.next()).await,
        };
        match stepped {
            Some(step) => take(members, who, step).await?,
            None => sleep(Duration::from_millis(1)).await,
        }
    }
    Ok(())
}

async fn c6_dropping_next_loses_no_record(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let filled = [fixture.fill(&topic, 0, 0, 100).await?, fixture.fill(&topic, 1, 0, 100).await?];
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(3);
    let mut members = fixture.join(options).await?;
    droppily(fixture, &mut members, 0, |members| members[0].count() >= 200).await?;
    members.rest().await?;
    for (p, records) in partitions(&topic, 2).iter().zip(&filled) {
        same_records(&format!("records of {p}"), 0, records, members[0].of(p))?;
    }
    Ok(())
}

/// One record at a time: many steps, more than half of which are dropped after one poll.
async fn c6_dropping_next_hundreds_of_times_loses_no_record(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let records = fixture.fill(&topic, 0, 0, 500).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(1);
    let mut members = fixture.join(options).await?;
    droppily(fixture, &mut members, 0, |members| members[0].count() >= 500).await?;
    members.rest().await?;
    same_records("all records, once each", 0, &records, members[0].of(&TopicPartition::new(&topic, 0)))
}

/// The drop falls into the moment between the arrival and the poll that would return the record.
async fn c6_dropping_next_while_records_arrive_loses_none(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    let mut all = Vec::new();
    let publisher = fixture.publisher().await?;
    for n in 0..20 {
        let records: Vec<_> = (n * 2..n * 2 + 2).map(|n| super::fixture::numbered(&topic, 0, n)).collect();
        let consumer = members.consumer(0);
        // The publish and the dropped `next` run concurrently, so that records arrive between polls.
        let (published, step) =
            tokio::join!(fixture.publish_by(&*publisher, records.clone()), poll_times(1 + n % 5, consumer.next()));
        published?;
        all.extend(records);
        if let Some(step) = step {
            take(&mut members, 0, step).await?;
        }
    }
    droppily(fixture, &mut members, 0, |members| members[0].count() >= 40).await?;
    members.rest().await?;
    same_records("all records, once each", 0, &all, members[0].of(&p))
}

/// Steps other than records, which backends often send through another channel.
async fn c6_dropping_next_loses_no_assignment_and_no_revocation(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]);
    let mut members = fixture.join(options.clone()).await?;
    droppily(fixture, &mut members, 0, |members| members[0].has(&topic) == 2).await?;
    let transport = fixture.transport()?;
    let other = fixture.within("a second member", transport.consumer(options.clone())).await??;
    let asked = std::sync::Arc::clone(&other);
    let waiting = tokio::spawn(async move {
        loop {
            match asked.next().await {
                Ok(Step::Assigned(assignments)) if !assignments.is_empty() => return Ok(assignments.len()),
                Ok(_) => {}
                Err(error) if error.is_retryable() => sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    });
    droppily(fixture, &mut members, 0, |members| members[0].has(&topic) < 2).await?;
    match fixture.within("the second member's partition", waiting).await? {
        Ok(assigned) => assigned.map(drop)?,
        Err(error) => return broken("a second member", error),
    }
    fixture.within("close", other.close()).await?.map_err(Into::into)
}

async fn c6_dropping_next_loses_no_loss(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    fixture.session_loss(&members[0].options.group.clone()).await?;
    droppily(fixture, &mut members, 0, |members| !members[0].lost.is_empty()).await
}

/// The wake-up is consumed by a future that never runs again.
async fn c6_dropping_a_next_that_was_woken_loses_nothing(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    let mut all = Vec::new();
    for n in 0..5 {
        let consumer = members.consumer(0);
        let mut pending = consumer.next();
        if let Some(step) = poll_times(1, pending.as_mut()).await {
            take(&mut members, 0, step).await?;
        }
        // It is woken by the record, and dropped before it is polled again.
        all.extend(fixture.fill(&topic, 0, n, n + 1).await?);
        sleep(Duration::from_millis(20)).await;
        drop(pending);
        members.records(0, n + 1).await?;
        members[0].pending = None;
    }
    members.rest().await?;
    same_records("all records, once each", 0, &all, members[0].of(&p))
}

/// A backlog must not keep timers and heartbeats from running.
async fn c6_a_loop_of_next_lets_other_tasks_run(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    fixture.fill(&topic, 0, 0, 2_000).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_max_batch_records(1);
    let mut members = fixture.join(options).await?;
    members.records(0, 1).await?;
    members[0].pending = None;
    // Without the helpers, whose timers let others run.
    let consumer = members.consumer(0);
    let read = async {
        let mut count = 1;
        while count < 2_000 {
            match consumer.next().await {
                Ok(Step::Records(fetched)) => count += fetched.batch.len(),
                Err(error) if !error.is_retryable() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    };
    let turns = fixture.within("2,000 records", turns_during(read)).await??;
    holds(turns > 1, "other tasks run during 2,000 steps", turns)
}
