//! The publisher: appends to the logs, in the order of the calls.
//!
//! A call without an injected delay stores its records in its first poll, so that the order of
//! first polls is the order of the log (P3). With a delay, or behind a delayed call, calls take
//! turns.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_core::{
    Begun, DelayedRecord, Error, ErrorKind, Guarantees, Name, Position, Publisher, Record, Result, Timestamp,
    async_trait,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::{closed, injected, lock};
use crate::faults::Hit;
use crate::log::Appender;
use crate::place::{check, place};
use crate::topic::{Logs, TopicLog};

/// Number of logs that stay open while a call stores its records; each open log costs a lock, a retention check and a
/// wake-up.
const OPEN_LOGS: usize = 4;
/// Number of records after which open logs are closed to let readers in.
const RUN_RECORDS: usize = 1_024;

/// Number of records per unit of a task's budget. A unit (of 128) per record, which takes a fraction of a
/// microsecond, would make the task yield and wake another thread too often.
const RECORDS_PER_BUDGET: u32 = 8;

/// A publisher; each has its own bound of unanswered records.
#[derive(Debug)]
pub(crate) struct MemoryPublisher {
    broker: Arc<Broker>,
    /// Locked while a call stores its records, so that records of two calls do not interleave.
    last: Mutex<Last>,
    /// A fair lock: calls waiting at the bound are served in the order of their first polls.
    turn: tokio::sync::Mutex<()>,
    /// Number of calls that have the turn or wait for it; while there is one, all calls take turns.
    late: AtomicUsize,
    unanswered: Unanswered,
    /// Approximate number of records published without waiting.
    published: AtomicU32,
    closed: AtomicBool,
}

/// The last published topic, which the next record usually goes to as well.
#[derive(Debug, Default)]
pub(crate) struct Last(Option<(Arc<TopicLog>, Logs)>);

/// Stored records without an answer yet, which only an injected delay causes.
#[derive(Debug, Default)]
struct Unanswered {
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// Notified when a share was released or the publisher closed.
    fewer: Notify,
}

/// A share of the unanswered records, released on drop.
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
        // The call at the bound may not be waiting yet.
        self.of.unanswered.fewer.notify_one();
    }
}

/// A call that has the turn or waits for it, until dropped.
struct Late<'a>(&'a AtomicUsize);

impl<'a> Late<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl MemoryPublisher {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self {
            broker,
            last: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            late: AtomicUsize::new(0),
            unanswered: Unanswered::default(),
            published: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Stores records without a delay, or returns them.
    fn publish_now(&self, records: Vec<Record>, delay: Duration) -> Result<Vec<Result<Position>>, Vec<Record>> {
        let Some(mut last) = self.turn_now(delay) else { return Err(records) };
        let mut answers = Vec::with_capacity(records.len());
        self.store(&mut last, records, &mut answers);
        Ok(answers)
    }

    /// Returns the right to store at once if nothing is delayed.
    fn turn_now(&self, delay: Duration) -> Option<MutexGuard<'_, Last>> {
        if !delay.is_zero() {
            return None;
        }
        let last = lock(&self.last);
        // Checked under the lock: a call that becomes late from now on is ordered after this one.
        (self.late.load(Ordering::Acquire) == 0).then_some(last)
    }

    /// Returns whether records published without waiting use another unit of the task's budget: a loop of publishes
    /// must let other tasks and timers run, after the first poll has stored them (P3).
    fn uses_budget(&self, records: usize) -> bool {
        let count = u32::try_from(records.max(1)).unwrap_or(u32::MAX);
        let before = self.published.fetch_add(count, Ordering::Relaxed);
        before / RECORDS_PER_BUDGET != before.wrapping_add(count) / RECORDS_PER_BUDGET
    }

    /// Stores records with delayed answers: at most the bound at once, the last ones still unanswered on return.
    ///
    /// On drop, records already stored stay stored and their share of the bound is released.
    async fn publish_late(&self, records: Vec<Record>, delay: Duration) -> Vec<Result<Position>> {
        let mut rest: VecDeque<Record> = records.into();
        let mut answers = Vec::with_capacity(rest.len());
        // Dropped after the turn, so that later calls find none waiting.
        let late = Late::new(&self.late);
        let turn = self.turn.lock().await;
        loop {
            let Some(share) = self.admit(&rest).await else {
                // The remaining records were not sent, so they have no answer to wait for.
                answers.extend(rest.iter().map(|_| Err(closed("publish", "publisher"))));
                return answers;
            };
            let now: Vec<Record> = rest.drain(..share.records).collect();
            self.store(&mut lock(&self.last), now, &mut answers);
            if rest.is_empty() {
                drop((turn, late));
                tokio::time::sleep(delay).await;
                return answers;
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Waits until some of `records` fit within the bound, and takes a share for these; returns `None` once the
    /// publisher is closed.
    async fn admit(&self, records: &VecDeque<Record>) -> Option<Share<'_>> {
        let config = &self.broker.config;
        loop {
            if self.is_closed() {
                return None;
            }
            let (mut count, mut size) = (0, 0);
            let there = self.unanswered.records.load(Ordering::Acquire);
            let bytes = self.unanswered.bytes.load(Ordering::Acquire);
            for record in records {
                let more = size + record.size();
                let full =
                    there + count + 1 > config.max_unanswered_records || bytes + more > config.max_unanswered_bytes;
                // A record larger than the bound goes alone.
                if full && (there > 0 || count > 0) {
                    break;
                }
                (count, size) = (count + 1, more);
            }
            if count > 0 || records.is_empty() {
                self.unanswered.records.fetch_add(count, Ordering::AcqRel);
                self.unanswered.bytes.fetch_add(size, Ordering::AcqRel);
                return Some(Share { of: self, records: count, bytes: size });
            }
            self.unanswered.fewer.notified().await;
        }
    }

    fn store(&self, last: &mut Last, mut records: Vec<Record>, answers: &mut Vec<Result<Position>>) {
        // Before a topic is created that an unreachable broker could not create.
        if self.broker.faults.reach("publish").is_err() {
            answers.extend(records.iter().filter_map(|_| self.broker.faults.reach("publish").err()).map(Err));
            return;
        }
        let now = self.broker.clock.now();
        if records.len() == 1
            && let Some(record) = records.pop()
        {
            answers.push(self.store_one(last, record, now));
            return;
        }
        let mut records = records.into_iter().peekable();
        while let Some(first) = records.peek() {
            match last.topic(&self.broker, &first.topic) {
                Ok((topic, logs)) => self.store_batch(TopicBatch::new(topic, logs, now), &mut records, answers),
                Err(e) => {
                    answers.push(Err(e));
                    records.next();
                }
            }
        }
    }

    /// Stores a single record, the most common call.
    fn store_one(&self, last: &mut Last, record: Record, now: Timestamp) -> Result<Position> {
        let (topic, logs) = last.topic(&self.broker, &record.topic)?;
        let Some(hit) = self.broker.faults.publish(&record) else {
            let (partition, size) = place(topic, logs.len(), &record)?;
            return Ok(Position::new(partition, logs[partition as usize].appender(now).push(record, size)));
        };
        TopicBatch::new(topic, logs, now).fail(record, hit)
    }

    /// Stores the leading records that go to the batch's topic.
    fn store_batch(
        &self,
        mut batch: TopicBatch<'_>,
        records: &mut Peekable<impl Iterator<Item = Record>>,
        answers: &mut Vec<Result<Position>>,
    ) {
        for _ in 0..RUN_RECORDS {
            let Some(record) = records.next_if(|record| record.topic == batch.topic.name) else { return };
            answers.push(match self.broker.faults.publish(&record) {
                None => batch.store(record),
                Some(hit) => batch.fail(record, hit),
            });
        }
    }
}

impl Last {
    /// Returns the topic `name`; the cached one, unless it was deleted or has got partitions since.
    pub(crate) fn topic(&mut self, broker: &Broker, name: &Name) -> Result<(&TopicLog, &Logs)> {
        if self.0.as_ref().is_none_or(|(topic, logs)| topic.name != *name || !topic.has_just(logs)) {
            let topic = broker.topic_or_create("publish", name)?;
            let logs = topic.logs();
            self.0 = Some((topic, logs));
        }
        let (topic, logs) = self.0.as_ref().expect("it was just set");
        Ok((topic, logs))
    }
}

/// A batch of records of one topic, whose logs stay open for the next ones.
struct TopicBatch<'a> {
    topic: &'a TopicLog,
    logs: &'a Logs,
    now: Timestamp,
    /// Indexed by the partition's number modulo the array's length.
    open: [Option<(u32, Appender<'a>)>; OPEN_LOGS],
}

impl<'a> TopicBatch<'a> {
    fn new(topic: &'a TopicLog, logs: &'a Logs, now: Timestamp) -> Self {
        Self { topic, logs, now, open: [const { None }; OPEN_LOGS] }
    }

    fn store(&mut self, record: Record) -> Result<Position> {
        let (partition, size) = place(self.topic, self.logs.len(), &record)?;
        Ok(Position::new(partition, self.log(partition).push(record, size)))
    }

    /// Returns the open log of `partition`.
    fn log(&mut self, partition: u32) -> &mut Appender<'a> {
        let place = partition as usize % OPEN_LOGS;
        if self.open[place].as_ref().is_none_or(|(open, _)| *open != partition) {
            self.open[place] = None;
            let log = &self.logs[partition as usize];
            let appender = log.try_appender(self.now).unwrap_or_else(|| {
                // Close all logs before waiting for one: two publishers that each hold a log that the other needs
                // would deadlock.
                self.open.fill_with(|| None);
                log.appender(self.now)
            });
            return &mut self.open[place].insert((partition, appender)).1;
        }
        &mut self.open[place].as_mut().expect("it was just looked at").1
    }

    /// Applies an injected fault to one record.
    fn fail(&mut self, record: Record, hit: Hit) -> Result<Position> {
        if hit.stored {
            // Records that would not have been stored are refused as without the fault.
            self.store(record)?;
        }
        Err(injected("publish", hit.kind))
    }
}

#[async_trait]
impl Publisher for MemoryPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        if self.is_closed() {
            return records.iter().map(|_| Err(closed("publish", "publisher"))).collect();
        }
        let delay = self.broker.faults.publish_delay();
        let answers = match self.publish_now(records, delay) {
            Ok(answers) => answers,
            // Boxed, to keep the future of a call without waiting small.
            Err(records) => return Box::pin(self.publish_late(records, delay)).await,
        };
        if self.uses_budget(answers.len()) {
            tokio::task::coop::consume_budget().await;
        }
        answers
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        if self.is_closed() {
            return Begun::Answered(Err(closed("publish", "publisher")));
        }
        let delay = self.broker.faults.publish_delay();
        let Some(mut last) = self.turn_now(delay) else {
            return Begun::Pending(Box::pin(async move { self.publish_late(vec![record], delay).await.remove(0) }));
        };
        let answer = match self.broker.faults.reach("publish") {
            Ok(()) => self.store_one(&mut last, record, self.broker.clock.now()),
            Err(error) => Err(error),
        };
        drop(last);
        if !self.uses_budget(1) {
            return Begun::Answered(answer);
        }
        Begun::Pending(Box::pin(async {
            tokio::task::coop::consume_budget().await;
            answer
        }))
    }

    /// Refuses a record that its topic would refuse now.
    async fn publish_delayed(&self, delayed: DelayedRecord) -> Result<()> {
        const VERB: &str = "publish a delayed event";
        if self.is_closed() {
            return Err(closed(VERB, "publisher"));
        }
        self.broker.faults.reach(VERB)?;
        let topic = self.broker.topic_or_create(VERB, &delayed.record.topic)?;
        check(&topic, topic.logs().len() as u32, &delayed.record)?;
        self.broker.delayed.add(&self.broker, delayed)
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        const VERB: &str = "cancel a delayed event";
        if self.is_closed() {
            return Err(closed(VERB, "publisher"));
        }
        self.broker.faults.reach(VERB)?;
        Ok(self.broker.delayed.cancel(id))
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
        let late = |_| {
            Error::new(
                ErrorKind::Indeterminate,
                "close the publisher: records in flight were not answered before the deadline",
            )
        };
        tokio::time::timeout(deadline, answered).await.map_err(late)
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
