//! The publisher: appends to the logs, in the order of the calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, Timestamp, async_trait, partition_for,
};
use tokio::sync::{Mutex, Notify};

use crate::broker::Broker;
use crate::error::{closed, injected};
use crate::faults::Hit;
use crate::log::Appender;
use crate::topic::{Logs, TopicLog};

#[derive(Debug)]
pub(crate) struct MemoryPublisher {
    broker: Arc<Broker>,
    /// Fair: whoever waits at the bound is served in the order of the calls' first polls, and nobody passes.
    turn: Mutex<()>,
    unanswered: Unanswered,
    closed: AtomicBool,
}

/// What was stored and not answered yet, which happens only by an injected delay.
#[derive(Debug, Default)]
struct Unanswered {
    records: AtomicUsize,
    bytes: AtomicUsize,
    fewer: Notify,
}

/// A share of the unanswered, given back when dropped.
struct Share<'a> {
    of: &'a MemoryPublisher,
    records: usize,
    bytes: usize,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.unanswered.records.fetch_sub(self.records, Ordering::AcqRel);
        self.of.unanswered.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.of.unanswered.fewer.notify_waiters();
        // The one who waits at the bound may not be waiting just yet.
        self.of.unanswered.fewer.notify_one();
    }
}

impl MemoryPublisher {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        let (turn, unanswered, closed) = (Mutex::new(()), Unanswered::default(), AtomicBool::new(false));
        Self { broker, turn, unanswered, closed }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Stores records whose answers are delayed: no more at once than the bound, the last ones unanswered on return.
    async fn publish_late(&self, records: Vec<Record>, delay: Duration) -> Vec<Result<Position>> {
        let mut rest: VecDeque<Record> = records.into();
        let mut answers = Vec::with_capacity(rest.len());
        let turn = self.turn.lock().await;
        loop {
            let share = self.admit(&rest).await;
            let now: Vec<Record> = rest.drain(..share.records).collect();
            if self.is_closed() {
                answers.extend(now.iter().map(|_| Err(closed("publish", "publisher"))));
            } else {
                self.store(now, &mut answers);
            }
            if rest.is_empty() {
                drop(turn);
                tokio::time::sleep(delay).await;
                return answers;
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Waits until some of `records` may be unanswered, and takes the share of as many as may be.
    async fn admit(&self, records: &VecDeque<Record>) -> Share<'_> {
        let config = &self.broker.config;
        loop {
            let (mut count, mut size) = (0, 0);
            let there = self.unanswered.records.load(Ordering::Acquire);
            let bytes = self.unanswered.bytes.load(Ordering::Acquire);
            for record in records {
                let more = size + record.size();
                let full =
                    there + count + 1 > config.max_unanswered_records || bytes + more > config.max_unanswered_bytes;
                // One that is larger than the bound goes alone.
                if full && (there > 0 || count > 0) {
                    break;
                }
                (count, size) = (count + 1, more);
            }
            if count > 0 || records.is_empty() || self.is_closed() {
                let count = if count == 0 { records.len() } else { count };
                self.unanswered.records.fetch_add(count, Ordering::AcqRel);
                self.unanswered.bytes.fetch_add(size, Ordering::AcqRel);
                return Share { of: self, records: count, bytes: size };
            }
            self.unanswered.fewer.notified().await;
        }
    }

    fn store(&self, records: Vec<Record>, answers: &mut Vec<Result<Position>>) {
        // Before a topic is made that the broker could not make.
        if self.broker.faults.reach("publish").is_err() {
            answers.extend(records.iter().filter_map(|_| self.broker.faults.reach("publish").err()).map(Err));
            return;
        }
        let now = self.broker.clock.now();
        let mut records = records.into_iter();
        let mut next = records.next();
        while let Some(first) = next.take() {
            match self.broker.topic_or_create("publish", &first.topic) {
                Ok(topic) => next = self.store_run(&topic, now, first, &mut records, answers),
                Err(e) => {
                    answers.push(Err(e));
                    next = records.next();
                }
            }
        }
    }

    /// Stores `first` and those after it that go to the same topic; returns the first that does not.
    fn store_run(
        &self,
        topic: &TopicLog,
        now: Timestamp,
        first: Record,
        more: &mut impl Iterator<Item = Record>,
        answers: &mut Vec<Result<Position>>,
    ) -> Option<Record> {
        let logs = topic.logs();
        let mut run = Run { topic, logs: &logs, now, open: None };
        let mut next = Some(first);
        while let Some(record) = next {
            if record.topic != topic.name {
                return Some(record);
            }
            answers.push(match self.broker.faults.publish(&record) {
                None => run.store(record),
                Some(hit) => run.fail(record, hit),
            });
            next = more.next();
        }
        None
    }
}

/// Records of one topic on their way into its logs: the log of the last one stays open for the next.
struct Run<'a> {
    topic: &'a TopicLog,
    logs: &'a Logs,
    now: Timestamp,
    open: Option<(u32, Appender<'a>)>,
}

impl Run<'_> {
    fn store(&mut self, record: Record) -> Result<Position> {
        let size = record.size();
        if size as u64 > self.topic.max_record_bytes {
            return Err(self.too_large(size));
        }
        let partition = self.partition(&record, size)?;
        if self.open.as_ref().is_none_or(|(open, _)| *open != partition) {
            // One log at a time: two publishers that each held one and wanted the other's would stop.
            self.open = None;
            self.open = Some((partition, self.logs[partition as usize].appender(self.now)));
        }
        let offset = self.open.as_mut().map_or(0, |(_, log)| log.push(record, size));
        Ok(Position::new(partition, offset))
    }

    fn fail(&mut self, record: Record, hit: Hit) -> Result<Position> {
        if hit.stored {
            // What would not have been stored is refused as without the fault.
            self.store(record)?;
        }
        Err(injected("publish", hit.kind))
    }

    fn partition(&self, record: &Record, size: usize) -> Result<u32> {
        let count = self.logs.len() as u32;
        if record.key.is_some() {
            self.topic.set_keyed();
        }
        match (record.partition, &record.key) {
            (Some(named), _) if named < count => Ok(named),
            (Some(named), _) => {
                let text = format!("publish to {:?}: there is no partition {named}, only {count}", self.topic.name);
                Err(Error::new(ErrorKind::NotFound, text))
            }
            (None, Some(key)) => Ok(partition_for(key, count)),
            (None, None) => Ok(self.topic.sticky(size, count)),
        }
    }

    fn too_large(&self, size: usize) -> Error {
        let (name, max) = (&self.topic.name, self.topic.max_record_bytes);
        Error::new(ErrorKind::TooLarge, format!("publish to {name:?}: a record of {size} bytes, {max} at most"))
    }
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        if self.is_closed() {
            return records.iter().map(|_| Err(closed("publish", "publisher"))).collect();
        }
        let delay = self.broker.faults.publish_delay();
        match self.turn.try_lock() {
            Ok(turn) if delay.is_zero() => {
                let mut answers = Vec::with_capacity(records.len());
                self.store(records, &mut answers);
                drop(turn);
                // A loop of publishes must let other tasks and timers run; after the first poll has stored them (P3).
                tokio::task::coop::consume_budget().await;
                answers
            }
            turn => {
                drop(turn);
                self.publish_late(records, delay).await
            }
        }
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.unanswered.fewer.notify_waiters();
        self.unanswered.fewer.notify_one();
        let answered = async {
            while self.unanswered.records.load(Ordering::Acquire) > 0 {
                let fewer = self.unanswered.fewer.notified();
                if self.unanswered.records.load(Ordering::Acquire) > 0 {
                    fewer.await;
                }
            }
        };
        let late =
            |_| Error::new(ErrorKind::Unknown, "close the publisher: the deadline passed with records unanswered");
        tokio::time::timeout(deadline, answered).await.map_err(late)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
