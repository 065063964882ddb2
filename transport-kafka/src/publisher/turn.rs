//! What whoever has the publisher's turn does: finds the places of a call's records, and sends refused ones again.

use std::collections::HashSet;
use std::future::ready;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Error, ErrorKind, Name, Record, Result, check_topic_name};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::closed;
use super::halves::Ready;
use super::holds::Holds;
use super::line::{Again, Answer, Placed, Publish, Queued, take};
use super::places::Places;
use super::queue::{AT_ONCE, Shared};
use super::resend::untried;
use crate::seam::producer::{Content, Target, no_partition};

/// The pause before a topic is looked for again while no broker answers.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The task's, while it does a job.
pub(super) struct Turn<'a> {
    pub(super) shared: &'a Shared,
    pub(super) places: &'a mut Places,
    pub(super) holds: &'a mut Holds,
}

impl Turn<'_> {
    pub(super) async fn publish(&mut self, Publish { call, since, mut reply, answers }: Publish) {
        let (shared, next) = (self.shared, take(&call));
        // Where nobody waits any more there is nothing left of the call, or it is queued for nobody.
        let answers = answers.upgrade().unwrap_or_else(|| mpsc::unbounded_channel().0);
        // For all of the call together: what waits behind a topic that can't be looked up has waited too.
        let deadline = since + shared.delivery_timeout;
        let mut missing = HashSet::new();
        let (mut queued, mut ready) = (Queued::default(), Ready::default());
        for (place, record) in (next.first..).zip(next.records) {
            let size = record.size();
            let found = {
                let mut looked = pin!(self.find_place(&mut missing, &record, since, deadline));
                match looked.as_mut().now_or_never() {
                    Some(found) => found,
                    None => {
                        shared.hand_over(&mut reply, &mut queued, &mut ready);
                        looked.await
                    }
                }
            };
            match found {
                Ok(partition) => {
                    let share = match shared.bound.try_take(size) {
                        Some(share) => Some(share),
                        None => {
                            shared.hand_over(&mut reply, &mut queued, &mut ready);
                            shared.bound.take(size).await
                        }
                    };
                    match (share, Content::of(&record)) {
                        (Some(mut share), Ok(content)) => {
                            let (number, most) = self.places.note_queued(&record.topic, partition);
                            queued.placed.push(Placed { partition, number, most });
                            let (bytes, target) = (share.bytes(), (&record.topic, partition, most));
                            ready.push((place, bytes), target, content, &mut share, &answers);
                        }
                        (Some(_), Err(error)) => queued.fail(place, error),
                        (None, _) => queued.fail(place, closed()),
                    }
                }
                Err(error) => queued.fail(place, error),
            }
            queued.records.push(record);
            if queued.records.len() >= AT_ONCE {
                shared.hand_over(&mut reply, &mut queued, &mut ready);
                // The thread is that of a half, which has to send them.
                yield_now().await;
            }
        }
        shared.hand_over(&mut reply, &mut queued, &mut ready);
    }

    /// The partition of a record that may be published.
    async fn find_place(
        &mut self,
        missing: &mut HashSet<Name>,
        record: &Record,
        since: Instant,
        deadline: Instant,
    ) -> Result<u32> {
        self.shared.check_open()?;
        let (topic, size) = (record.topic.clone(), record.size());
        if size > self.shared.max_record_bytes {
            let most = self.shared.max_record_bytes;
            let what = format!("publish to {topic}: a record of {size} bytes, where max_record_bytes is {most}");
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        if self.places.known(&topic).is_none() {
            // No broker is asked for what can't be.
            check_topic_name(&topic)?;
        }
        if missing.contains(&topic) {
            return Err(Error::new(ErrorKind::NotFound, format!("publish: there is no topic {topic}")));
        }
        let place = self.place(record, since, deadline).await;
        if place.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) && self.places.count(&topic).is_none()
        {
            missing.insert(topic);
        }
        place
    }

    async fn place(&mut self, record: &Record, since: Instant, deadline: Instant) -> Result<u32> {
        let count = match self.places.count(&record.topic) {
            Some(count) => count,
            None => self.learn(&record.topic, deadline).await?,
        };
        match record.partition {
            Some(partition) if partition < count => Ok(partition),
            Some(partition) => {
                // It may have grown since it was asked for, if that was before the call.
                let known = self.places.is_known_since(&record.topic, since);
                let count = if known { count } else { self.learn(&record.topic, deadline).await? };
                if partition < count {
                    return Ok(partition);
                }
                let told = self.places.is_known_since(&record.topic, since);
                Err(if told { no_partition(&record.topic, partition) } else { untold(&record.topic, partition) })
            }
            None => Ok(self.places.choose(record)),
        }
    }

    /// Asks for the number of a topic's partitions, until `deadline`. While no broker answers, what was known holds, and is
    /// asked for again in a while.
    async fn learn(&mut self, topic: &Name, deadline: Instant) -> Result<u32> {
        let known = self.places.known(topic);
        if let Some(known) = known {
            if !self.places.may_ask() {
                return Ok(known);
            }
            if let Some(count) = self.refresh(topic, known).await {
                return Ok(count);
            }
        }
        let asked = Instant::now();
        let count = loop {
            if known.is_none() && Instant::now() >= deadline {
                let what = format!("publish: no broker told of the topic {topic} in time");
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            match (self.shared.halves.partitions(topic).await, known) {
                (Ok(count), _) => break count,
                (Err(error), Some(known)) if error.kind() == ErrorKind::Unavailable => {
                    self.places.note_asked_in_vain();
                    return Ok(known);
                }
                (Err(error), _) if error.kind() == ErrorKind::Unavailable => {
                    self.shared.check_open()?;
                    sleep(LOOK_AGAIN).await;
                }
                (Err(error), _) => {
                    self.places.doubt(topic);
                    return Err(error);
                }
            }
        };
        self.places.learn(topic, count, asked);
        if known.is_none() {
            self.learn_limit(topic).await;
        }
        Ok(count)
    }

    /// Asks how much a topic takes in a batch, a second at most; whether a broker told.
    async fn learn_limit(&mut self, topic: &Name) -> bool {
        let told = self.shared.halves.largest_batch(topic).await;
        if let Some(told) = told {
            self.places.set_limit(topic, told);
        }
        told.is_some()
    }

    /// Asks once more for a topic that is known, and for others whose turn is near. While no broker answers, what was
    /// known holds; nothing comes back if it is not there any more.
    async fn refresh(&mut self, topic: &Name, known: u32) -> Option<u32> {
        let asked = Instant::now();
        let topics = self.places.aging(topic);
        match self.shared.halves.refresh(&topics).await {
            Ok(counts) => {
                counts.iter().for_each(|(topic, count)| self.places.learn(topic, *count, asked));
                counts.iter().find(|(found, _)| found == topic).map(|(_, count)| *count)
            }
            Err(_) => {
                self.places.note_asked_in_vain();
                Some(known)
            }
        }
    }

    /// Nothing else is queued until the answer is here, so that nothing overtakes those that are to follow it; but not for
    /// longer than [`Holds`] allow, since others wait, for brokers that may be well.
    ///
    /// A record with a key that others of its partition were queued behind is not sent again: they may be stored, and it
    /// would come after them (P3).
    pub(super) async fn alone(&mut self, again: Again, deadline: Instant) -> Option<Answer> {
        let Again { record, placed: Placed { partition, number, most }, too_large } = again;
        if too_large && self.places.note_too_large(&record.topic, most) && !self.learn_limit(&record.topic).await {
            self.places.lower_limit(&record.topic);
        }
        if record.key.is_some() && self.places.queued(&record.topic, partition) != number {
            return None;
        }
        let target = Target { topic: record.topic.clone(), partition };
        if self.holds.is_silent(&target) {
            return Some(ready(Err(untried(&target.topic))).boxed());
        }
        let mut answer = match self.send_alone(&record, &target, deadline).await {
            Ok(answer) => answer,
            Err(error) => return Some(ready(Err(error)).boxed()),
        };
        match timeout(self.holds.limit(), &mut answer).await {
            Ok(answer) => Some(ready(answer).boxed()),
            Err(_) => {
                self.holds.note_silent(target);
                Some(answer)
            }
        }
    }

    async fn send_alone(&self, record: &Record, target: &Target, deadline: Instant) -> Result<Answer> {
        let topic = &target.topic;
        if Instant::now() >= deadline {
            return Err(untried(topic));
        }
        let share = timeout_at(deadline, self.shared.bound.take(record.size())).await.map_err(|_| untried(topic))?;
        let share = share.ok_or_else(closed)?;
        Ok(self.shared.halves.send_alone(target.clone(), Content::of(record)?, share))
    }
}

/// Of a record that names a partition which its topic did not have when a broker last told of it.
fn untold(topic: &Name, partition: u32) -> Error {
    let what = "no broker tells whether the topic has grown by it";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}[{partition}]: {what}"))
}
