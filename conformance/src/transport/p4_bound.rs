//! P4 and P3 at the bound: what waits there, waits in order, and nothing goes beyond.
//!
//! The hook delays all answers, so that the bound of unanswered records is reached and held.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tidings_core::{ErrorKind, Name, Publisher, Record, Transport};
use tokio::time::timeout;

use super::fixture::Fixture;
use super::p3::{Publishing, alone, first_polled_in_order, in_order};
use crate::case::{Broken, Case, Checked, broken, cases, granted, holds, only, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p3_calls_that_wait_at_the_bound_keep_their_order[SlowAnswers],
    p4_at_the_bound_publish_waits[SlowAnswers],
    p4_at_the_bound_in_bytes_publish_waits[SlowAnswers],
    p4_a_record_larger_than_the_bound_goes_alone[SlowAnswers],
    p4_a_call_beyond_the_bound_is_sent_in_parts[SlowAnswers],
    p4_calls_that_are_dropped_give_their_room_back[SlowAnswers],
    p4_close_gives_up_at_its_deadline[SlowAnswers],
    p4_calls_that_wait_at_the_bound_end_at_close[SlowAnswers],
];

/// Creates twice as many calls of one record as the publisher's bound on unanswered records.
fn calls<'a>(fixture: &Fixture, publisher: &'a dyn Publisher, topic: &Name) -> Vec<Publishing<'a>> {
    let record = |n: usize| Record::new(topic, format!("{n}")).with_key("k");
    (0..fixture.pace.unanswered * 2).map(|n| alone(publisher, n, record(n))).collect()
}

/// Polls each once, in order; none may be answered.
async fn all_wait(calls: &mut [Publishing<'_>]) -> Checked {
    let answered = std::future::poll_fn(|task| {
        let ready = |call: &mut Publishing<'_>| Pin::as_mut(call).poll(task).is_ready();
        Poll::Ready(calls.iter_mut().map(ready).filter(|ready| *ready).count())
    });
    same("calls that are answered though answers are slow", 0, answered.await)
}

/// Waiters are often served in the order of their last poll, or by chance.
async fn p3_calls_that_wait_at_the_bound_keep_their_order(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(3).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let mut calls = calls(fixture, &*publisher, &topic);
    all_wait(&mut calls).await?;
    fixture.slow_answers(false).await?;
    let mut positions = Vec::new();
    // Later polls are in reverse order: the order of the first polls counts.
    calls.reverse();
    for answers in fixture.within("answers to all calls", first_polled_in_order(calls)).await? {
        positions.push(granted("a call that waited", only("answers to one record", answers)?)?);
    }
    positions.reverse();
    in_order("the order of the first polls", &positions)
}

/// The broker's own log tells how many were sent.
async fn p4_at_the_bound_publish_waits(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let mut calls = calls(fixture, &*publisher, &topic);
    all_wait(&mut calls).await?;
    let end = end(fixture, &topic).await?;
    let bound = fixture.pace.unanswered as u64;
    holds(end <= bound, &format!("at most {bound} records sent without an answer"), end)?;
    fixture.slow_answers(false).await?;
    let answers = fixture.within("answers to all calls", first_polled_in_order(calls)).await?;
    answers.into_iter().flatten().try_for_each(|answer| granted("a call that waited", answer).map(drop))
}

/// Returns the end of the only partition's log.
async fn end(fixture: &Fixture, topic: &Name) -> Checked<u64> {
    let admin = fixture.admin().await?;
    let described = only("describe", admin.describe_topics(std::slice::from_ref(topic)).await?)??;
    described.partitions.first().map_or_else(|| broken("a partition", "none"), |p| Ok(p.end))
}

fn bound_in_bytes(fixture: &Fixture) -> Checked<usize> {
    let why = "the setup does not state the publisher's bound in bytes";
    fixture.pace.unanswered_bytes.ok_or_else(|| Broken::Ignored(why.into()))
}

/// Four records fit; there are three times as many, and less than the bound on records.
async fn p4_at_the_bound_in_bytes_publish_waits(fixture: &Fixture) -> Checked {
    let bound = bound_in_bytes(fixture)?;
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let value = vec![b'v'; bound / 4 - 200];
    let record = || Record::new(&topic, value.clone()).with_key("k");
    let mut calls: Vec<_> = (0..8).map(|n| alone(&*publisher, n, record())).collect();
    calls.push(publisher.publish((0..4).map(|_| record()).collect()));
    all_wait(&mut calls).await?;
    let sent = end(fixture, &topic).await? as usize;
    holds(sent > 0 && sent * value.len() <= bound, &format!("at most {bound} bytes sent without an answer"), sent)?;
    fixture.slow_answers(false).await?;
    let answers = fixture.within("answers to all calls", first_polled_in_order(calls)).await?;
    answers.into_iter().flatten().try_for_each(|answer| granted("a call that waited", answer).map(drop))?;
    same("records that are stored", 12, end(fixture, &topic).await?)
}

/// Room for it never comes: it goes once nothing else is unanswered, and what comes after it waits.
async fn p4_a_record_larger_than_the_bound_goes_alone(fixture: &Fixture) -> Checked {
    let bound = bound_in_bytes(fixture)?;
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let small = || Record::new(&topic, "small").with_key("k");
    let large = Record::new(&topic, vec![b'l'; bound * 2]).with_key("k");
    let mut calls = vec![publisher.publish(vec![small()]), publisher.publish(vec![large.clone(), small()])];
    all_wait(&mut calls).await?;
    holds(end(fixture, &topic).await? <= 1, "only the record before it sent", end(fixture, &topic).await?)?;
    fixture.slow_answers(false).await?;
    for answer in fixture.within("answers to both calls", first_polled_in_order(calls)).await?.into_iter().flatten() {
        granted("a call with a large record", answer)?;
    }
    fixture.slow_answers(true).await?;
    let mut calls = vec![publisher.publish(vec![large]), publisher.publish(vec![small()])];
    all_wait(&mut calls).await?;
    holds(end(fixture, &topic).await? <= 4, "only the large record sent", end(fixture, &topic).await?)?;
    fixture.slow_answers(false).await?;
    for answer in fixture.within("answers to both calls", first_polled_in_order(calls)).await?.into_iter().flatten() {
        granted("a call with or behind a large record", answer)?;
    }
    same("records that are stored", 5, end(fixture, &topic).await?)
}

/// A single call may exceed the bound: by count, by size, and behind a record of any size.
async fn p4_a_call_beyond_the_bound_is_sent_in_parts(fixture: &Fixture) -> Checked {
    let (count, bytes) = (fixture.pace.unanswered, bound_in_bytes(fixture)?);
    let (small, quarter) = (vec![b's'; 10], vec![b'q'; bytes / 4 - 200]);
    let large = vec![b'l'; bytes * 2];
    for (what, values, most) in [
        ("records", vec![small.clone(); count * 2], count as u64),
        ("bytes", vec![quarter; 8], 4),
        ("a large record and a small one", vec![large, small], 1),
    ] {
        let topic = fixture.topic(1).await?;
        let publisher = fixture.publisher().await?;
        fixture.slow_answers(true).await?;
        let sent = values.len() as u64;
        let mut calls = vec![publisher.publish(values.into_iter().map(|value| Record::new(&topic, value)).collect())];
        all_wait(&mut calls).await?;
        let there = end(fixture, &topic).await?;
        holds(there <= most, &format!("at most {most} of {what} sent without an answer"), there)?;
        fixture.slow_answers(false).await?;
        let answers = fixture.within("answers to the call", first_polled_in_order(calls)).await?;
        answers.into_iter().flatten().try_for_each(|answer| granted("a record beyond the bound", answer).map(drop))?;
        same(&format!("{what} that are stored"), sent, end(fixture, &topic).await?)?;
    }
    Ok(())
}

/// Otherwise a few cancelled requests would close the publisher for all.
async fn p4_calls_that_are_dropped_give_their_room_back(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let mut dropped = calls(fixture, &*publisher, &topic);
    all_wait(&mut dropped).await?;
    drop(dropped);
    fixture.slow_answers(false).await?;
    let later = (0..fixture.pace.unanswered).map(|n| Record::new(&topic, format!("{n}"))).collect();
    fixture.publish_by(&*publisher, later).await.map(drop)
}

/// A short wait.
const DEADLINE: Duration = Duration::from_millis(300);

async fn p4_close_gives_up_at_its_deadline(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let mut calls = vec![publisher.publish(vec![Record::new(&topic, "unanswered")])];
    all_wait(&mut calls).await?;
    let began = tokio::time::Instant::now();
    let closed = fixture.within("close", publisher.close(DEADLINE)).await?;
    holds(began.elapsed() < DEADLINE * 10, "an end soon after the deadline", began.elapsed())?;
    fixture.slow_answers(false).await?;
    refused("close with records unanswered", &[ErrorKind::Indeterminate], closed)?;
    for answer in fixture.within("an end of the call", first_polled_in_order(calls)).await?.into_iter().flatten() {
        // Its record may be stored: the only valid answers are that it is stored, or that its outcome is unknown.
        if let Err(error) = answer {
            refused("the call", &[ErrorKind::Indeterminate], Err::<(), _>(error))?;
        }
    }
    Ok::<_, Broken>(())
}

/// They must not wait for answers that may never arrive: records beyond the bound are not stored, and end as `Closed`.
async fn p4_calls_that_wait_at_the_bound_end_at_close(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let publisher = fixture.publisher().await?;
    fixture.slow_answers(true).await?;
    let mut calls = calls(fixture, &*publisher, &topic);
    all_wait(&mut calls).await?;
    let waiting = calls.split_off(fixture.pace.unanswered);
    let closed = fixture.within("close", publisher.close(DEADLINE)).await?;
    let ended = timeout(DEADLINE * 10, first_polled_in_order(waiting)).await;
    fixture.slow_answers(false).await?;
    drop(closed);
    let Ok(ended) = ended else {
        return broken("an end of the calls without room soon after close", "they wait for answers to other calls");
    };
    for answer in ended.into_iter().flatten() {
        refused("a call without room at close", &[ErrorKind::Closed], answer)?;
    }
    for answer in fixture.within("an end of all calls", first_polled_in_order(calls)).await?.into_iter().flatten() {
        // Records with room may be stored.
        if let Err(error) = answer {
            refused("a call at close", &[ErrorKind::Closed, ErrorKind::Indeterminate], Err::<(), _>(error))?;
        }
    }
    Ok(())
}
