//! The two halves of a publisher, for the even partitions and the odd ones: the client's producer is on a thread of its own
//! in each.
//!
//! One producer has a batch of each partition under way, and encodes the next ones only when those are answered: the broker
//! then waits for it, and it for the broker. Of two, one encodes while the other waits. And each record is touched by
//! whoever queues it, by whoever sends it and by whoever takes its answer: on one thread, where nothing of it has to come
//! from another core, that takes half the time. So calls hand their records over in batches, and are answered in batches.

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
use crate::config::KafkaConfig;
use crate::home::Home;
use crate::seam::producer::{Content, Producer, Target};

const HALVES: usize = 2;
/// How often topics are looked for, for how long and with which pause, before what the halves are told may differ.
const LOOKS: usize = 4;
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What a close waits for beyond its end: to hear that all was answered in time.
const GRACE: Duration = Duration::from_secs(1);
/// So many lanes are looked through, which is faster than to look them up.
const FEW: usize = 16;

#[derive(Debug)]
pub(super) struct Halves([Half; HALVES]);

#[derive(Debug)]
struct Half {
    producer: Current,
    home: Home,
    work: mpsc::UnboundedSender<Work>,
    /// What was not queued by the end of a close is refused.
    given_up: Arc<AtomicBool>,
}

/// What a half is given to do, in order.
#[derive(Debug)]
pub(super) enum Work {
    Send(Batch),
    /// In a batch of its own.
    Alone {
        target: Target,
        record: Content,
        share: Share,
        answer: oneshot::Sender<Result<Position>>,
    },
    /// Waits for the answers to what came before, and refuses what comes later.
    Close {
        ends: Instant,
        done: oneshot::Sender<Result<()>>,
    },
}

/// Records of a call that are ready to be sent, for both halves.
#[derive(Debug, Default)]
pub(super) struct Ready {
    batches: [Option<Batch>; HALVES],
    /// How many records a batch has room for at first.
    room: usize,
}

/// Records for one half, in order, with their share of the bound.
#[derive(Debug)]
pub(super) struct Batch {
    /// The partitions, each of which comes to be a lane.
    pub(super) heads: Vec<Head>,
    /// Where those lanes are that are not among the first few.
    more: HashMap<Target, usize, RandomState>,
    pub(super) records: Vec<One>,
    pub(super) share: Share,
    pub(super) answers: mpsc::UnboundedSender<Vec<Answered>>,
}

/// A partition, and how many bytes its topic takes in a batch where that is less than a batch has.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) target: Target,
    pub(super) most: Option<NonZeroU32>,
}

#[derive(Debug)]
pub(super) struct One {
    /// In its call.
    pub(super) place: usize,
    pub(super) lane: usize,
    pub(super) bytes: usize,
    pub(super) record: Content,
}

fn half_of(partition: u32) -> usize {
    partition as usize % HALVES
}

impl Ready {
    /// For about so many records.
    pub(super) fn of(count: usize) -> Self {
        Self { room: count.div_ceil(HALVES), ..Self::default() }
    }

    /// Adds the record at a place of its call, with its part of `share`; `answers` is told what becomes of it. Its topic may
    /// take no more than `most` bytes in a batch.
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

    /// Runs a task of the publisher's, as long as it lasts.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0[0].home.handle().spawn(task));
    }

    /// Hands records over. Those of a partition are sent in the order of these calls.
    pub(super) fn send(&self, ready: &mut Ready) {
        for (half, batch) in self.0.iter().zip(&mut ready.batches) {
            if let Some(batch) = batch.take() {
                // Where the half is gone, so is the batch, and whoever waits hears of it.
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

    /// How many partitions a topic has, by what was last told; asks the brokers for a second at most if nothing was.
    ///
    /// It is the number that both halves know of: they ask brokers that may hear of new partitions at different times.
    pub(super) async fn partitions(&self, topic: &Name) -> Result<u32> {
        let ask = |producer: Arc<Producer>| {
            let topic = topic.clone();
            async move { producer.partitions(&topic).await }
        };
        let counts = self.ask_each(ask).await?;
        Ok(counts.into_iter().min().unwrap_or(0))
    }

    /// Asks the brokers anew about topics, all at once and for a second at most: how many partitions each has, of those
    /// that there are. It is what both halves are told, or the least of it if that stays different.
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

    /// The largest batch that a topic takes, if a broker tells.
    pub(super) async fn largest_batch(&self, topic: &Name) -> Option<usize> {
        let [half, ..] = &self.0;
        let topic = topic.clone();
        let asked = half.ask(|producer| async move { Ok(producer.largest_batch(&topic).await) });
        asked.await.ok().flatten()
    }

    /// Asks both clients the same.
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
        let (home, settings, given_up) = (Home::new("kafka-publisher")?, config.clone(), Arc::<AtomicBool>::default());
        let flag = Arc::clone(&given_up);
        let worker = home.run(async move { Worker::open(settings, flag).await }).await?;
        let producer = worker.current();
        let (work, given) = mpsc::unbounded_channel();
        home.handle().spawn(worker.run(given, home.clone()));
        Ok(Self { producer, home, work, given_up })
    }

    /// Asks the client, where it is at home: there are the connections that this may open.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Producer>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.home.run(ask(self.producer.get())).await
    }

    fn give(&self, work: Work) {
        // Its thread ends when this is dropped, and not before.
        drop(self.work.send(work));
    }
}
