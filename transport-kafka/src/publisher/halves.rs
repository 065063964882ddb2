//! The two halves of a publisher, for even and odd partitions; each runs a client producer on its own thread.
//!
//! A producer has one batch per partition in flight, and encodes the next batches only after those are answered: the
//! broker then waits for the producer, and the producer for the broker. With two producers, one encodes while the
//! other waits. Also, each record is touched when it is queued, sent and answered: on a single thread, where nothing
//! has to be loaded from another core, that takes half the time. So calls hand their records over in batches, and are
//! answered in batches.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::{FutureExt, join_all, try_join_all};
use tidings_core::{Error, ErrorKind, Name, Position, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::bound::Share;
use super::gone;
use super::lane::Answered;
use super::line::Answer;
use super::worker::{Current, Worker};
use crate::client::producer::{Content, Producer, Target};
use crate::config::KafkaConfig;
use crate::dedicated_runtime::DedicatedRuntime;

const HALVES: usize = 2;
/// Attempts to look up topics, at most for how long and with which pause, before the halves' answers may differ.
const LOOKS: usize = 4;
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a close waits beyond its deadline, to learn that all records were answered in time.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum number of lanes that are searched linearly, which is faster than a map.
const FEW: usize = 16;

#[derive(Debug)]
pub(super) struct Halves([Half; HALVES]);

#[derive(Debug)]
struct Half {
    producer: Current,
    runtime: DedicatedRuntime,
    work: mpsc::UnboundedSender<Work>,
    /// Set when records not queued by the deadline of a close are refused.
    given_up: Arc<AtomicBool>,
}

/// Work for a half, in order.
#[derive(Debug)]
pub(super) enum Work {
    Send(Batch),
    /// Sends a record in a batch of its own.
    Alone {
        target: Target,
        record: Content,
        share: Share,
        answer: oneshot::Sender<Result<Position>>,
    },
    /// Waits for the answers to earlier work, and refuses later work.
    Close {
        ends: Instant,
        done: oneshot::Sender<Result<()>>,
    },
}

/// Records of a call that are ready to be sent, for both halves.
#[derive(Debug, Default)]
pub(super) struct Ready {
    batches: [Option<Batch>; HALVES],
    /// Initial capacity of a batch, in records.
    room: usize,
}

/// Records for one half, in order, with their share of the bound.
#[derive(Debug)]
pub(super) struct Batch {
    /// The partitions, each of which becomes a lane.
    pub(super) heads: Vec<Head>,
    /// Index of the lanes that are not among the first few.
    more: HashMap<Target, usize, RandomState>,
    pub(super) records: Vec<One>,
    pub(super) share: Share,
    pub(super) answers: mpsc::UnboundedSender<Vec<Answered>>,
}

/// A partition, and its topic's batch limit in bytes where that is below the configured one.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) target: Target,
    pub(super) most: Option<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct One {
    /// Place of the record in its call.
    pub(super) place: usize,
    pub(super) lane: usize,
    pub(super) bytes: usize,
    pub(super) record: Content,
}

fn half_of(partition: u32) -> usize {
    partition as usize % HALVES
}

impl Ready {
    /// Creates an empty list with this initial capacity.
    pub(super) fn of(count: usize) -> Self {
        Self { room: count.div_ceil(HALVES), ..Self::default() }
    }

    /// Adds the record at a place of its call, with its part of `share`; its result goes to `answers`. Batches of its
    /// topic are limited to `most` bytes.
    pub(super) fn push(
        &mut self,
        (place, bytes): (usize, usize),
        (topic, partition, most): (&Name, u32, Option<NonZeroU32>),
        record: Content,
        share: &mut Share,
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
    ) {
        let batch = self.batches[half_of(partition)].get_or_insert_with(|| Batch {
            heads: Vec::new(),
            more: HashMap::default(),
            records: Vec::with_capacity(self.room),
            share: share.none(),
            answers: answers.clone(),
        });
        let lane = batch.lane_of(topic, partition, most);
        share.give(&mut batch.share, bytes);
        batch.records.push(One { place, lane, bytes, record });
    }
}

impl Batch {
    fn lane_of(&mut self, topic: &Name, partition: u32, most: Option<NonZeroU32>) -> usize {
        let is_of = |head: &Head| head.target.partition == partition && head.target.topic == *topic;
        if let Some(lane) = self.heads.iter().take(FEW).position(is_of) {
            return lane;
        }
        let next = self.heads.len();
        let target = Target { topic: topic.clone(), partition };
        if next >= FEW {
            let lane = *self.more.entry(target.clone()).or_insert(next);
            if lane < next {
                return lane;
            }
        }
        self.heads.push(Head { target, most });
        next
    }
}

impl Halves {
    pub(super) async fn open(config: &KafkaConfig) -> Result<Self> {
        let (even, odd) = tokio::try_join!(Half::open(config), Half::open(config))?;
        Ok(Self([even, odd]))
    }

    /// Spawns a task of the publisher.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0[0].runtime.handle().spawn(task));
    }

    /// Hands records over. Records of a partition are sent in the order of these calls.
    pub(super) fn send(&self, ready: &mut Ready) {
        for (half, batch) in self.0.iter().zip(&mut ready.batches) {
            if let Some(batch) = batch.take() {
                // If the half is gone, the batch is dropped, which informs its callers.
                half.give(Work::Send(batch));
            }
        }
    }

    /// Sends a record in a batch of its own, if nothing else is handed over meanwhile.
    pub(super) fn send_alone(&self, target: Target, record: Content, share: Share) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0[half_of(target.partition)].give(Work::Alone { target, record, share, answer });
        answered.map(|answer| answer.unwrap_or_else(|_| Err(gone()))).boxed()
    }

    /// Returns a topic's partition count as last reported; without one, asks the brokers for at most a second.
    ///
    /// The result is a count that both halves know: they ask brokers that may learn of new partitions at different
    /// times.
    pub(super) async fn partitions(&self, topic: &Name) -> Result<u32> {
        let ask = |producer: Arc<Producer>| {
            let topic = topic.clone();
            async move { producer.partitions(&topic).await }
        };
        let counts = self.ask_each(ask).await?;
        Ok(counts.into_iter().min().unwrap_or(0))
    }

    /// Asks the brokers again about topics, all at once and for at most a second, and returns the partition count of
    /// each existing topic. If the answers of the halves keep differing, the smaller count is returned.
    pub(super) async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let (mut looks, ends) = (1, Instant::now() + LOOK_LIMIT);
        let ask = |producer: Arc<Producer>| {
            let topics = topics.to_vec();
            async move { producer.refresh(&topics).await }
        };
        let mut counts = self.ask_each(ask).await?;
        while looks < LOOKS && counts.windows(2).any(|pair| pair[0] != pair[1]) {
            looks += 1;
            sleep(LOOK_AGAIN).await;
            match timeout_at(ends, self.ask_each(ask)).await {
                Ok(Ok(again)) => counts = again,
                _ => break,
            }
        }
        let known = |topic: &Name, counts: &[(Name, u32)]| {
            counts.iter().find(|(name, _)| name == topic).map(|(_, count)| *count)
        };
        let least = |topic: &Name| {
            let counts: Option<Vec<u32>> = counts.iter().map(|counts| known(topic, counts)).collect();
            Some((topic.clone(), counts?.into_iter().min()?))
        };
        Ok(topics.iter().filter_map(least).collect())
    }

    /// Returns the largest batch that a topic accepts, if a broker reports it.
    pub(super) async fn largest_batch(&self, topic: &Name) -> Option<usize> {
        let [half, ..] = &self.0;
        let topic = topic.clone();
        let asked = half.ask(|producer| async move { Ok(producer.largest_batch(&topic).await) });
        asked.await.ok().flatten()
    }

    /// Asks both clients the same question.
    async fn ask_each<T, F>(&self, ask: impl Fn(Arc<Producer>) -> F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        try_join_all(self.0.iter().map(|half| half.ask(&ask))).await
    }

    /// Refuses new records and waits for the answers to those that were handed over.
    pub(super) async fn close(&self, ends: Instant) -> Result<()> {
        let closed = self.0.iter().map(|half| {
            let (done, closed) = oneshot::channel();
            half.give(Work::Close { ends, done });
            closed.map(|closed| closed.unwrap_or_else(|_| Err(gone())))
        });
        match timeout_at(ends + GRACE, join_all(closed)).await {
            Ok(closed) => closed.into_iter().collect(),
            Err(_) => {
                self.0.iter().for_each(|half| half.given_up.store(true, Ordering::Release));
                Err(Error::new(ErrorKind::Indeterminate, "close the publisher: records are unanswered"))
            }
        }
    }
}

impl Half {
    async fn open(config: &KafkaConfig) -> Result<Self> {
        let (runtime, settings, given_up) =
            (DedicatedRuntime::new("kafka-publisher")?, config.clone(), Arc::<AtomicBool>::default());
        let flag = Arc::clone(&given_up);
        let worker = runtime.run(async move { Worker::open(settings, flag).await }).await?;
        let producer = worker.current();
        let (work, given) = mpsc::unbounded_channel();
        runtime.handle().spawn(worker.run(given, runtime.clone()));
        Ok(Self { producer, runtime, work, given_up })
    }

    /// Asks the client on its own thread, where the connections that this may open belong.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Producer>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.runtime.run(ask(self.producer.get())).await
    }

    fn give(&self, work: Work) {
        // Its thread ends when this is dropped, and not before.
        drop(self.work.send(work));
    }
}
