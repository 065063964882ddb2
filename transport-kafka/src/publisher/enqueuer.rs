//! The current enqueuer: chooses partitions for the records of a call, queues them, and resends refused ones.
//!
//! It runs on a producer's thread with the enqueue state locked, so it has to give way: results are
//! handed over before each wait, and after each thousand records.

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
use super::enqueue::{MAX_AT_ONCE, Shared};
use super::partitioning::Partitioning;
use super::producers::ReadyBatches;
use super::queue_job::{Answer, Enqueued, Publish, QueueResult, Resend, take};
use super::silent_partitions::SilentPartitions;
use super::split_batch::not_resent;
use crate::client::producer::{RecordContent, Target, no_partition};

/// Pause before a topic is looked up again while no broker answers.
///
/// Records of other calls wait meanwhile, as they do for the brokers.
const LOOKUP_PAUSE: Duration = Duration::from_millis(200);

/// The task's state while it runs a job.
///
/// It borrows the enqueue state, which stays locked for the whole job.
pub(super) struct Enqueuer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) partitioning: &'a mut Partitioning,
    pub(super) silent: &'a mut SilentPartitions,
}

impl Enqueuer<'_> {
    /// Queues the records of a call in order, and sends their results in the same order.
    ///
    /// A record that cannot be queued gets its error and does not stop the next ones (P1).
    pub(super) async fn publish(&mut self, Publish { call, since, mut reply, answers }: Publish) {
        let (shared, next) = (self.shared, take(&call));
        // Without a receiver nothing is left of the call, or its records are queued without one.
        let answers = answers.upgrade().unwrap_or_else(|| mpsc::unbounded_channel().0);
        // For all of the call: records behind a topic that cannot be looked up have waited, too.
        let deadline = since + shared.delivery_timeout;
        let mut missing = HashSet::new();
        let (mut queued, mut ready) = (QueueResult::default(), ReadyBatches::default());
        for (index, record) in (next.first..).zip(next.records) {
            let size = record.size();
            let found = {
                let mut looked = pin!(self.find_partition(&mut missing, &record, since, deadline));
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
                    let permit = match shared.buffer_limit.try_take(size) {
                        Some(permit) => Some(permit),
                        None => {
                            shared.hand_over(&mut reply, &mut queued, &mut ready);
                            shared.buffer_limit.take(size).await
                        }
                    };
                    match (permit, RecordContent::of(&record)) {
                        (Some(mut permit), Ok(content)) => {
                            let (ordinal, max_batch_bytes) = self.partitioning.note_queued(&record.topic, partition);
                            queued.enqueued.push(Enqueued { partition, ordinal, max_batch_bytes });
                            let (bytes, target) = (permit.bytes(), (&record.topic, partition, max_batch_bytes));
                            ready.push((index, bytes), target, content, &mut permit, &answers);
                        }
                        (Some(_), Err(error)) => queued.fail(index, error),
                        (None, _) => queued.fail(index, closed()),
                    }
                }
                Err(error) => queued.fail(index, error),
            }
            queued.records.push(record);
            if queued.records.len() >= MAX_AT_ONCE {
                shared.hand_over(&mut reply, &mut queued, &mut ready);
                // The thread belongs to a producer, which has to send them.
                yield_now().await;
            }
        }
        shared.hand_over(&mut reply, &mut queued, &mut ready);
    }

    /// Returns the partition of a record that may be published.
    ///
    /// `missing` holds the topics that this call has not found: each is asked for once.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge), [`NotFound`](ErrorKind::NotFound),
    /// [`Closed`](ErrorKind::Closed); [`Unavailable`](ErrorKind::Unavailable) if no broker tells of
    /// the topic in time.
    async fn find_partition(
        &mut self,
        missing: &mut HashSet<Name>,
        record: &Record,
        since: Instant,
        deadline: Instant,
    ) -> Result<u32> {
        self.shared.check_open()?;
        let (topic, size) = (record.topic.clone(), record.size());
        if size > self.shared.max_record_bytes {
            let limit = self.shared.max_record_bytes;
            let what = format!("publish to {topic:?}: a record of {size} bytes exceeds max_record_bytes ({limit})");
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        if self.partitioning.known(&topic).is_none() {
            // Brokers are not asked about invalid names.
            check_topic_name(&topic)?;
        }
        if missing.contains(&topic) {
            return Err(Error::new(ErrorKind::NotFound, format!("publish to {topic:?}: there is no such topic")));
        }
        let partition = self.choose_partition(record, since, deadline).await;
        if partition.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
            && self.partitioning.count(&topic).is_none()
        {
            missing.insert(topic);
        }
        partition
    }

    /// A named partition beyond the known count is not refused before a broker has confirmed the
    /// count: the topic may have grown.
    async fn choose_partition(&mut self, record: &Record, since: Instant, deadline: Instant) -> Result<u32> {
        let count = match self.partitioning.count(&record.topic) {
            Some(count) => count,
            None => self.learn(&record.topic, deadline).await?,
        };
        match record.partition {
            Some(partition) if partition < count => Ok(partition),
            Some(partition) => {
                // The topic may have grown if it was last asked for before the call.
                let known = self.partitioning.is_known_since(&record.topic, since);
                let count = if known { count } else { self.learn(&record.topic, deadline).await? };
                if partition < count {
                    return Ok(partition);
                }
                let told = self.partitioning.is_known_since(&record.topic, since);
                Err(if told { no_partition(&record.topic, partition) } else { unconfirmed(&record.topic, partition) })
            }
            None => Ok(self.partitioning.choose(record)),
        }
    }

    /// Asks for a topic's partition count until `deadline`. While no broker answers, the known count stays valid, and
    /// is refreshed later.
    ///
    /// A topic that is new to the publisher is waited for; a known one is not, since its count is
    /// most likely still right.
    async fn learn(&mut self, topic: &Name, deadline: Instant) -> Result<u32> {
        let known = self.partitioning.known(topic);
        if let Some(known) = known {
            if !self.partitioning.may_ask() {
                return Ok(known);
            }
            if let Some(count) = self.refresh(topic, known).await {
                return Ok(count);
            }
        }
        let asked = Instant::now();
        let count = loop {
            if known.is_none() && Instant::now() >= deadline {
                let what = format!("publish to {topic:?}: no broker described the topic in time");
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            match (self.shared.producers.partitions(topic).await, known) {
                (Ok(count), _) => break count,
                (Err(error), Some(known)) if error.kind() == ErrorKind::Unavailable => {
                    self.partitioning.note_unanswered();
                    return Ok(known);
                }
                (Err(error), _) if error.kind() == ErrorKind::Unavailable => {
                    self.shared.check_open()?;
                    sleep(LOOKUP_PAUSE).await;
                }
                (Err(error), _) => {
                    self.partitioning.mark_missing(topic);
                    return Err(error);
                }
            }
        };
        self.partitioning.learn(topic, count, asked);
        if known.is_none() {
            self.learn_limit(topic).await;
        }
        Ok(count)
    }

    /// Asks for a topic's batch limit, for at most a second; returns whether a broker reported it.
    ///
    /// Without an answer the limit stays as it is known.
    async fn learn_limit(&mut self, topic: &Name) -> bool {
        let told = self.shared.producers.largest_batch(topic).await;
        if let Some(told) = told {
            self.partitioning.set_limit(topic, told);
        }
        told.is_some()
    }

    /// Refreshes a known topic, and others that are due soon. While no broker answers, the known count stays valid;
    /// returns `None` if the topic no longer exists.
    ///
    /// One request for all topics that are due: each alone would hold up the queue.
    async fn refresh(&mut self, topic: &Name, known: u32) -> Option<u32> {
        let asked = Instant::now();
        let topics = self.partitioning.aging(topic);
        match self.shared.producers.refresh(&topics).await {
            Ok(counts) => {
                counts.iter().for_each(|(topic, count)| self.partitioning.learn(topic, *count, asked));
                counts.iter().find(|(found, _)| found == topic).map(|(_, count)| *count)
            }
            Err(_) => {
                self.partitioning.note_unanswered();
                Some(known)
            }
        }
    }

    /// Sends a record alone. Nothing else is queued until the answer arrives, so that nothing overtakes the records
    /// that follow it, but not for longer than [`SilentPartitions`] allow: other calls wait, for brokers that may be
    /// healthy.
    ///
    /// A record with a key is not resent if other records of its partition were queued after it: they may be stored,
    /// and it would be stored after them (P3).
    ///
    /// # Errors
    /// `None` if a later record may have overtaken it. [`Unavailable`](ErrorKind::Unavailable) if
    /// its turn did not come in time.
    pub(super) async fn alone(&mut self, resend: Resend, deadline: Instant) -> Option<Answer> {
        let Resend { record, enqueued: Enqueued { partition, ordinal, max_batch_bytes }, too_large } = resend;
        if too_large
            && self.partitioning.note_too_large(&record.topic, max_batch_bytes)
            && !self.learn_limit(&record.topic).await
        {
            self.partitioning.lower_limit(&record.topic);
        }
        if record.key.is_some() && self.partitioning.queued(&record.topic, partition) != ordinal {
            return None;
        }
        let target = Target { topic: record.topic.clone(), partition };
        if self.silent.is_silent(&target) {
            return Some(ready(Err(not_resent(&target.topic))).boxed());
        }
        let mut answer = match self.send_alone(&record, &target, deadline).await {
            Ok(answer) => answer,
            Err(error) => return Some(ready(Err(error)).boxed()),
        };
        match timeout(self.silent.answer_wait(), &mut answer).await {
            Ok(answer) => Some(ready(answer).boxed()),
            Err(_) => {
                self.silent.note_silent(target);
                Some(answer)
            }
        }
    }

    /// Hands a record over in a batch of its own, if there is room before `deadline`.
    async fn send_alone(&self, record: &Record, target: &Target, deadline: Instant) -> Result<Answer> {
        let topic = &target.topic;
        if Instant::now() >= deadline {
            return Err(not_resent(topic));
        }
        let permit =
            timeout_at(deadline, self.shared.buffer_limit.take(record.size())).await.map_err(|_| not_resent(topic))?;
        let permit = permit.ok_or_else(closed)?;
        Ok(self.shared.producers.send_alone(target.clone(), RecordContent::of(record)?, permit))
    }
}

/// Returns the error of a record whose partition did not exist when a broker last reported its topic.
///
/// Unavailable rather than not found: a retry may find the partition.
fn unconfirmed(topic: &Name, partition: u32) -> Error {
    let what = "no broker confirms that the partition exists";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}[{partition}]: {what}"))
}
