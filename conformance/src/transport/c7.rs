//! C7: `close` leaves the group at once, so that others take over without waiting for a timeout.

use std::time::Duration;

use tidings_core::{Commit, ConsumerOptions, ErrorKind, SeekTo, TopicPartition, Transport};
use tokio::time::{Instant, sleep};

use super::rig::{Rig, same_records};
use crate::case::{Broken, Case, Checked, cases, holds, refused, same};
use crate::cx::poll_times;

pub(super) const CASES: &[Case<dyn Transport>] = cases![
    c7_close_leaves_at_once,
    c7_closing_twice_is_one_close,
    c7_closing_at_once_from_two_sides_is_one_close,
    c7_after_close_every_call_is_closed,
    c7_close_ends_a_pending_next,
    c7_a_dropped_close_can_be_repeated,
    c7_a_static_member_stays,
    c7_a_static_member_comes_back_to_its_partitions,
    c7_a_member_that_closes_in_a_revocation_lets_others_go_on,
    c7_closing_a_member_leaves_other_groups_alone,
];

/// A session that outlasts every case.
const LONG: Duration = Duration::from_secs(45);

async fn c7_close_leaves_at_once(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(LONG);
    let mut fleet = rig.join(options.clone()).await?;
    fleet.add(options).await?;
    fleet.shared(&topic, 2, &[0, 1]).await?;
    let began = Instant::now();
    fleet.close(0).await?;
    fleet.owns(1, &topic, 2).await?;
    holds(began.elapsed() < LONG / 2, "the others take over without a timeout", began.elapsed())
}

async fn c7_closing_twice_is_one_close(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 1).await?;
    fleet.close(0).await?;
    rig.within("a second close", fleet.consumer(0).close()).await?.map_err(Broken::from)
}

async fn c7_closing_at_once_from_two_sides_is_one_close(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 1).await?;
    fleet[0].pending = None;
    let consumer = fleet.consumer(0);
    let (one, other) = rig.within("two closes", async { tokio::join!(consumer.close(), consumer.close()) }).await?;
    one?;
    other.map_err(Broken::from)
}

async fn c7_after_close_every_call_is_closed(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 1).await?;
    let epoch = fleet[0].epoch(&p)?;
    fleet.close(0).await?;
    let (consumer, ps) = (fleet.consumer(0), [p.clone()]);
    let closed = &[ErrorKind::Closed];
    refused("next", closed, rig.within("next", consumer.next()).await?)?;
    refused("pause", closed, rig.within("pause", consumer.pause(&ps)).await?)?;
    refused("resume", closed, rig.within("resume", consumer.resume(&ps)).await?)?;
    refused("release", closed, rig.within("release", consumer.release(&ps)).await?)?;
    refused("progress", closed, rig.within("progress", consumer.progress()).await?)?;
    refused("seek", closed, rig.within("seek", consumer.seek(&p, SeekTo::Earliest)).await?)?;
    let answers = rig.within("commit", consumer.commit(vec![Commit::new(p, epoch, 1)])).await?;
    same("answers to commit", 1, answers.len())?;
    answers.into_iter().try_for_each(|answer| refused("commit", closed, answer))
}

async fn c7_close_ends_a_pending_next(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let mut fleet = rig.reader(&topic).await?;
    fleet.owns(0, &topic, 1).await?;
    fleet.rest().await?;
    let consumer = fleet.consumer(0);
    let pending = fleet[0].pending.take().unwrap_or_else(|| {
        let consumer = fleet.consumer(0);
        Box::pin(async move { consumer.next().await })
    });
    let both = async { tokio::join!(pending, consumer.close()) };
    let (step, closed) = rig.within("an end of next and close", both).await?;
    closed?;
    refused("a next that was pending at close", &[ErrorKind::Closed], step)
}

async fn c7_a_dropped_close_can_be_repeated(rig: &Rig) -> Checked {
    for times in 1..5 {
        let topic = rig.topic(1).await?;
        let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(LONG);
        let mut fleet = rig.join(options.clone()).await?;
        fleet.owns(0, &topic, 1).await?;
        fleet[0].pending = None;
        drop(poll_times(times, fleet.consumer(0).close()).await);
        fleet.close(0).await?;
        let began = Instant::now();
        let mut next = rig.join(options).await?;
        next.owns(0, &topic, 1).await?;
        holds(began.elapsed() < LONG / 2, "the next owner without a timeout", began.elapsed())?;
    }
    Ok(())
}

async fn c7_a_static_member_stays(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(LONG);
    let mut fleet = rig.join(options.clone().with_instance_id("one")).await?;
    fleet.add(options.with_instance_id("two")).await?;
    fleet.shared(&topic, 2, &[0, 1]).await?;
    fleet.close(0).await?;
    fleet.rest().await?;
    same("partitions of the other member, as a static one stays", 1, fleet[1].has(&topic))
}

async fn c7_a_static_member_comes_back_to_its_partitions(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let options = ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(LONG);
    let (one, two) = (options.clone().with_instance_id("one"), options.with_instance_id("two"));
    let mut fleet = rig.join(one.clone()).await?;
    fleet.add(two).await?;
    fleet.shared(&topic, 2, &[0, 1]).await?;
    let had: Vec<TopicPartition> = fleet[0].owned.keys().cloned().collect();
    let others: Vec<TopicPartition> = fleet[1].owned.keys().cloned().collect();
    fleet.close(0).await?;
    let back = fleet.add(one).await?;
    fleet.owns(back, &topic, 1).await?;
    fleet.rest().await?;
    same("partitions of a static member that is back", had, fleet[back].owned.keys().cloned().collect())?;
    same("partitions of the other one", others, fleet[1].owned.keys().cloned().collect())?;
    same("revocations of the other one", 0, fleet[1].revocations.len().saturating_sub(1))
}

async fn c7_a_member_that_closes_in_a_revocation_lets_others_go_on(rig: &Rig) -> Checked {
    let topic = rig.topic(2).await?;
    let options =
        ConsumerOptions::new(rig.fresh("group"), [&topic]).with_session_timeout(LONG).with_revocation_deadline(LONG);
    let mut fleet = rig.join(options.clone()).await?;
    fleet.owns(0, &topic, 2).await?;
    fleet[0].holds_on = true;
    fleet.add(options).await?;
    fleet.until("a revocation", |m| !m[0].revoking.is_empty()).await?;
    let began = Instant::now();
    fleet.close(0).await?;
    fleet.owns(1, &topic, 2).await?;
    holds(began.elapsed() < LONG / 2, "the others take over without a timeout", began.elapsed())
}

async fn c7_closing_a_member_leaves_other_groups_alone(rig: &Rig) -> Checked {
    let topic = rig.topic(1).await?;
    let p = TopicPartition::new(&topic, 0);
    let mut fleet = rig.reader(&topic).await?;
    fleet.add(ConsumerOptions::new(rig.fresh("group"), [&topic])).await?;
    fleet.until("both have it", |m| m.iter().all(|m| m.has(&topic) == 1)).await?;
    fleet.close(0).await?;
    let records = rig.fill(&topic, 0, 0, 5).await?;
    fleet.records(1, 5).await?;
    sleep(Duration::from_millis(1)).await;
    same_records("the other group's records", 0, &records, fleet[1].of(&p))?;
    same("revocations of the other group", 0, fleet[1].revocations.len() + fleet[1].lost.len())
}
