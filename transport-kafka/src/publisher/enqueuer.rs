//! The current enqueuer: chooses partitions for the records of a call, queues them, and resends refused ones.
//!
//! It runs on a producer's thread with the enqueue state locked, so it has to give way: results are
//! handed over before each wait, and after each thousand records.

use std::collections::HashSet;
use std::future::ready;
use std::pin::pin;

use futures_util::FutureExt;
use tidings_core::{Record, Result};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::closed;
use super::enqueue::{MAX_AT_ONCE, Shared};
use super::lookup::Lookup;
use super::partitioning::Partitioning;
use super::producers::{Producers, ReadyBatches};
use super::queue_job::{Answer, Enqueued, Publish, QueueResult, Resend, take};
use super::silent_partitions::SilentPartitions;
use super::split_batch::not_resent;
use crate::client::producer::{RecordContent, Target};

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
                let mut lookup = self.lookup();
                let mut looked = pin!(lookup.find_partition(&mut missing, &record, since, deadline));
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

    fn lookup(&mut self) -> Lookup<'_, Producers> {
        let shared = self.shared;
        Lookup {
            partitioning: self.partitioning,
            source: &shared.producers,
            max_record_bytes: shared.max_record_bytes,
            is_closed: &shared.abandoned,
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
            && !self.lookup().learn_limit(&record.topic).await
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
