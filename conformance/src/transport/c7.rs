//! C7: `close` leaves the group at once, so that others take over without waiting for a timeout.
//!
//! The session timeout is longer than the patience of any case: a backend that only lets it expire
//! is caught by the wait for the next owner.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, SeekTo, TopicPartition, Transport};
use tokio::time::{Instant, sleep};

use super::fixture::{Fixture, same_records};
use crate::case::{Broken, Case, Checked, cases, holds, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c7_close_leaves_at_once,
    c7_closing_twice_is_one_close,
    c7_closing_at_once_from_two_sides_is_one_close,
    c7_after_close_every_call_is_closed,
    c7_close_ends_a_pending_next,
    c7_a_dropped_close_can_be_repeated,
    c7_a_static_member_stays,
    c7_a_static_member_that_stays_away_is_replaced,
    c7_a_static_member_comes_back_to_its_partitions,
    c7_a_member_that_closes_in_a_revocation_lets_others_go_on,
    c7_closing_a_member_leaves_other_groups_alone,
];

/// A session that outlasts every case.
const LONG: Duration = Duration::from_secs(45);

async fn c7_close_leaves_at_once(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(LONG);
    let mut members = fixture.join(options.clone()).await?;
    members.add(options).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    let began = Instant::now();
    members.close(0).await?;
    members.owns(1, &topic, 2).await?;
    holds(began.elapsed() < LONG / 2, "the others take over without a timeout", began.elapsed())
}

/// A service closes on shutdown and again on drop.
async fn c7_closing_twice_is_one_close(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members.close(0).await?;
    fixture.within("a second close", members.consumer(0).close()).await?.map_err(Broken::from)
}

async fn c7_closing_at_once_from_two_sides_is_one_close(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members[0].pending = None;
    let consumer = members.consumer(0);
    let (one, other) = fixture.within("two closes", async { tokio::join!(consumer.close(), consumer.close()) }).await?;
    one?;
    other.map_err(Broken::from)
}

/// Every method, since a task of the service may hold the consumer for longer.
async fn c7_after_close_every_call_is_closed(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    let epoch = members[0].epoch(&p)?;
    members.close(0).await?;
    let (consumer, ps) = (members.consumer(0), [p.clone()]);
    let closed = &[ErrorKind::Closed];
    refused("next", closed, fixture.within("next", consumer.next()).await?)?;
    refused("pause", closed, fixture.within("pause", consumer.pause(&ps)).await?)?;
    refused("resume", closed, fixture.within("resume", consumer.resume(&ps)).await?)?;
    refused("release", closed, fixture.within("release", consumer.release(&ps)).await?)?;
    refused("progress", closed, fixture.within("progress", consumer.progress()).await?)?;
    refused("seek", closed, fixture.within("seek", consumer.seek(&p, SeekTo::Earliest)).await?)?;
    let answers = fixture.within("commit", consumer.commit(vec![Commit::new(p, epoch, 1)])).await?;
    same("answers to commit", 1, answers.len())?;
    answers.into_iter().try_for_each(|answer| refused("commit", closed, answer))
}

/// A reader that waits for a step must not wait for ever.
async fn c7_close_ends_a_pending_next(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let mut members = fixture.reader(&topic).await?;
    members.owns(0, &topic, 1).await?;
    members.rest().await?;
    let consumer = members.consumer(0);
    let pending = members[0].pending.take().unwrap_or_else(|| {
        let consumer = members.consumer(0);
        Box::pin(async move { consumer.next().await })
    });
    let both = async { tokio::join!(pending, consumer.close()) };
    let (step, closed) = fixture.within("an end of next and close", both).await?;
    closed?;
    refused("a next that was pending at close", &[ErrorKind::Closed], step)
}

/// The group is left in any case: by the dropped call, or by the second one.
async fn c7_a_dropped_close_can_be_repeated(fixture: &Fixture) -> Checked {
    for times in 1..5 {
        let topic = fixture.topic(1).await?;
        let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(LONG);
        let mut members = fixture.join(options.clone()).await?;
        members.owns(0, &topic, 1).await?;
        members[0].pending = None;
        drop(poll_times(times, members.consumer(0).close()).await);
        members.close(0).await?;
        let began = Instant::now();
        let mut next = fixture.join(options).await?;
        next.owns(0, &topic, 1).await?;
        holds(began.elapsed() < LONG / 2, "the next owner without a timeout", began.elapsed())?;
    }
    Ok(())
}

/// A restart within the session must not move partitions (KIP-345).
async fn c7_a_static_member_stays(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(LONG);
    let mut members = fixture.join(options.clone().with_instance_id("one")).await?;
    members.add(options.with_instance_id("one-1")).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.close(0).await?;
    members.rest().await?;
    same("partitions of the other member, as a static one stays", 1, members[1].has(&topic))
}

/// Its place is kept for a session, and no longer.
async fn c7_a_static_member_that_stays_away_is_replaced(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(fixture.pace.lifetime);
    let mut members = fixture.join(options.clone().with_instance_id("one")).await?;
    members.add(options.with_instance_id("two")).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    members.close(0).await?;
    members.owns(1, &topic, 2).await
}

/// The other member notices nothing.
async fn c7_a_static_member_comes_back_to_its_partitions(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic]).with_session_timeout(LONG);
    let (one, two) = (options.clone().with_instance_id("one"), options.with_instance_id("one-1"));
    let mut members = fixture.join(one.clone()).await?;
    members.add(two).await?;
    members.shared(&topic, 2, &[0, 1]).await?;
    let had: Vec<TopicPartition> = members[0].owned.keys().cloned().collect();
    let others: Vec<TopicPartition> = members[1].owned.keys().cloned().collect();
    members.close(0).await?;
    let back = members.add(one).await?;
    members.owns(back, &topic, 1).await?;
    members.rest().await?;
    same("partitions of a static member that is back", had, members[back].owned.keys().cloned().collect())?;
    same("partitions of the other one", others, members[1].owned.keys().cloned().collect())?;
    same("revocations of the other one", 0, members[1].revocations.len().saturating_sub(1))
}

/// The open revocation must not hold back the group until its deadline.
async fn c7_a_member_that_closes_in_a_revocation_lets_others_go_on(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(2).await?;
    let options = ConsumerOptions::new(fixture.fresh("group"), [&topic])
        .with_session_timeout(LONG)
        .with_revocation_deadline(LONG);
    let mut members = fixture.join(options.clone()).await?;
    members.owns(0, &topic, 2).await?;
    members[0].holds_on = true;
    members.add(options).await?;
    members.until("a revocation", |m| !m[0].revoking.is_empty()).await?;
    let began = Instant::now();
    members.close(0).await?;
    members.owns(1, &topic, 2).await?;
    holds(began.elapsed() < LONG / 2, "the others take over without a timeout", began.elapsed())
}

async fn c7_closing_a_member_leaves_other_groups_alone(fixture: &Fixture) -> Checked {
    let topic = fixture.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut members = fixture.reader(&topic).await?;
    let alike = format!("{}-eu", members[0].options.group);
    members.add(ConsumerOptions::new(alike, [&topic])).await?;
    members.until("both have it", |m| m.iter().all(|m| m.has(&topic) == 1)).await?;
    members.close(0).await?;
    let records = fixture.fill(&topic, 0, 0, 5).await?;
    members.records(1, 5).await?;
    sleep(Duration::from_millis(1)).await;
    same_records("the other group's records", 0, &records, members[1].of(&p))?;
    same("revocations of the other group", 0, members[1].revocations.len() + members[1].lost.len())
}
