//! Work of the current enqueuer: places the records of a call, and resends refused ones.

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
use crate::client::producer::{Content, Target, no_partition};

/// Pause before a topic is looked up again while no broker answers.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The task's state while it runs a job.
pub(super) struct Turn<'a> {
    pub(super) shared: &'a Shared,
    pub(super) places: &'a mut Places,
    pub(super) holds: &'a mut Holds,
}

impl Turn<'_> {
    pub(super) async fn publish(&mut self, Publish { call, since, mut reply, answers }: Publish) {
        let (shared, next) = (self.shared, take(&call));
        // Without a receiver nothing is left of the call, or its records are queued without one.
        let answers = answers.upgrade().unwrap_or_else(|| mpsc::unbounded_channel().0);
        // For all of the call: records behind a topic that cannot be looked up have waited, too.
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
                // The thread belongs to a half, which has to send them.
                yield_now().await;
            }
        }
        shared.hand_over(&mut reply, &mut queued, &mut ready);
    }

    /// Returns the partition of a record that may be published.
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
            // Brokers are not asked about invalid names.
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
                // The topic may have grown if it was last asked for before the call.
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

    /// Asks for a topic's partition count until `deadline`. While no broker answers, the known count stays valid, and
    /// is refreshed later.
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

    /// Asks for a topic's batch limit, for at most a second; returns whether a broker reported it.
    async fn learn_limit(&mut self, topic: &Name) -> bool {
        let told = self.shared.halves.largest_batch(topic).await;
        if let Some(told) = told {
            self.places.set_limit(topic, told);
        }
        told.is_some()
    }

    /// Refreshes a known topic, and others that are due soon. While no broker answers, the known count stays valid;
    /// returns `None` if the topic no longer exists.
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

    /// Sends a record alone. Nothing else is queued until the answer arrives, so that nothing overtakes the records
    /// that follow it, but not for longer than [`Holds`] allow: other calls wait, for brokers that may be healthy.
    ///
    /// A record with a key is not resent if other records of its partition were queued after it: they may be stored,
    /// and it would be stored after them (P3).
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

/// Returns the error of a record whose partition did not exist when a broker last reported its topic.
fn untold(topic: &Name, partition: u32) -> Error {
    let what = "no broker tells whether the topic has grown by it";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}[{partition}]: {what}"))
}
