//! P4 and P3 at the bound: what waits there, waits in order, and nothing goes beyond.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tidings_core::{ErrorKind, Name, Publisher, Record, Transport};

use super::p3::{Publishing, alone, first_polled_in_order, in_order};
use super::rig::Rig;
use crate::case::{Broken, Case, Checked, broken, cases, granted, holds, only, refused, same};

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    p3_calls_that_wait_at_the_bound_keep_their_order[SlowAnswers],
    p4_at_the_bound_publish_waits[SlowAnswers],
    p4_calls_that_are_dropped_give_their_room_back[SlowAnswers],
    p4_close_gives_up_at_its_deadline[SlowAnswers],
    p4_calls_that_wait_at_the_bound_end_at_close[SlowAnswers],
];

/// Creates twice as many calls of one record as the publisher's bound on unanswered records.
fn calls<'a>(rig: &Rig, publisher: &'a dyn Publisher, topic: &Name) -> Vec<Publishing<'a>> {
    let record = |n: usize| Record::new(topic, format!("{n}")).with_key("k");
    (0..rig.pace.unanswered * 2).map(|n| alone(publisher, n, record(n))).collect()
}

/// Polls each once, in order; none may be answered.
async fn all_wait(calls: &mut [Publishing<'_>]) -> Checked {
    let answered = std::future::poll_fn(|task| {
        let ready = |call: &mut Publishing<'_>| Pin::as_mut(call).poll(task).is_ready();
        Poll::Ready(calls.iter_mut().map(ready).filter(|ready| *ready).count())
    });
    same("calls that are answered though answers are slow", 0, answered.await)
}

async fn p3_calls_that_wait_at_the_bound_keep_their_order(rig: &Rig) -> Checked {
    let topic = rig.topic(3).await?;
    let publisher = rig.publisher().await?;
    rig.slow_answers(true).await?;
    let mut calls = calls(rig, &*publisher, &topic);
    all_wait(&mut calls).await?;
    rig.slow_answers(false).await?;
    let mut positions = Vec::new();
    // Later polls are in reverse order: the order of the first polls counts.
    calls.reverse();
    for answers in rig.within("answers to all calls", first_polled_in_order(calls)).await? {
        positions.push(granted("a call that waited", only("answers to one record", answers)?)?);
    }
    positions.reverse();
    in_order("the order of the first polls", &positions)
}

async fn p4_at_the_bound_publish_waits(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let publisher = rig.publisher().await?;
    rig.slow_answers(true).await?;
    let mut calls = calls(rig, &*publisher, &topic);
    all_wait(&mut calls).await?;
    let admin = rig.admin().await?;
    let described = only("describe", admin.describe_topics(std::slice::from_ref(&topic)).await?)??;
    let Some(end) = described.partitions.first().map(|p| p.end) else { return broken("a partition", "none") };
    let bound = rig.pace.unanswered as u64;
    holds(end <= bound, &format!("at most {bound} records sent without an answer"), end)?;
    rig.slow_answers(false).await?;
    let answers = rig.within("answers to all calls", first_polled_in_order(calls)).await?;
    answers.into_iter().flatten().try_for_each(|answer| granted("a call that waited", answer).map(drop))
}

async fn p4_calls_that_are_dropped_give_their_room_back(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let publisher = rig.publisher().await?;
    rig.slow_answers(true).await?;
    let mut dropped = calls(rig, &*publisher, &topic);
    all_wait(&mut dropped).await?;
    drop(dropped);
    rig.slow_answers(false).await?;
    let later = (0..rig.pace.unanswered).map(|n| Record::new(&topic, format!("{n}"))).collect();
    rig.publish_by(&*publisher, later).await.map(drop)
}

/// A short wait.
const DEADLINE: Duration = Duration::from_millis(300);

async fn p4_close_gives_up_at_its_deadline(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let publisher = rig.publisher().await?;
    rig.slow_answers(true).await?;
    let mut calls = vec![publisher.publish(vec![Record::new(&topic, "unanswered")])];
    all_wait(&mut calls).await?;
    let began = tokio::time::Instant::now();
    let closed = rig.within("close", publisher.close(DEADLINE)).await?;
    holds(began.elapsed() < DEADLINE * 10, "an end soon after the deadline", began.elapsed())?;
    rig.slow_answers(false).await?;
    refused("close with records unanswered", &[ErrorKind::Indeterminate], closed)?;
    for answer in rig.within("an end of the call", first_polled_in_order(calls)).await?.into_iter().flatten() {
        // Its record may be stored: the only valid answers are that it is stored, or that its outcome is unknown.
        if let Err(error) = answer {
            refused("the call", &[ErrorKind::Indeterminate], Err::<(), _>(error))?;
        }
    }
    Ok::<_, Broken>(())
}

async fn p4_calls_that_wait_at_the_bound_end_at_close(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let publisher = rig.publisher().await?;
    rig.slow_answers(true).await?;
    let mut calls = calls(rig, &*publisher, &topic);
    all_wait(&mut calls).await?;
    let closed = rig.within("close", publisher.close(DEADLINE)).await?;
    rig.slow_answers(false).await?;
    drop(closed);
    for answer in rig.within("an end of all calls", first_polled_in_order(calls)).await?.into_iter().flatten() {
        // Records without room are definitely not stored; records with room may be.
        if let Err(error) = answer {
            refused("a call at close", &[ErrorKind::Closed, ErrorKind::Indeterminate], Err::<(), _>(error))?;
        }
    }
    Ok(())
}
