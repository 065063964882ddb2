//! The two halves of a publisher, for the even partitions and the odd ones: the client's producer is on a thread of its own
//! in each.
//!
//! One producer has a batch of each partition under way, and encodes the next ones only when those are answered: the broker
//! then waits for it, and it for the broker. Of two, one encodes while the other waits. And each record is touched by
//! whoever queues it, by whoever sends it and by whoever takes its answer: on one thread, where nothing of it has to come
//! from another core, that takes half the time. So calls hand their records over in batches, and are answered in batches.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::{FutureExt, join_all, try_join_all};
use futures_util::stream::{SelectAll, StreamExt};
use tidings_core::{Error, ErrorKind, Name, Position, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, sleep, timeout_at};

use super::bound::Share;
use super::lane::{Answered, Lane, answer_of};
use super::line::Answer;
use super::{closed, gone};
use crate::config::KafkaConfig;
use crate::home::Home;
use crate::seam::connection::{Connection, Role};
use crate::seam::producer::{Content, Producer, Refusal, Underway};

const HALVES: usize = 2;
/// How often topics are looked for, for how long and with which pause, before what the halves are told may differ.
const LOOKS: usize = 4;
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a topic that was looked for in vain is left alone.
const LEAVE_ALONE: Duration = Duration::from_secs(2);
/// What a close waits for beyond its end: to hear that all was answered in time.
const GRACE: Duration = Duration::from_secs(1);
/// So many lanes are looked through, which is faster than to look them up.
const FEW: usize = 16;

#[derive(Debug)]
pub(super) struct Halves([Half; HALVES]);

#[derive(Debug)]
struct Half {
    producer: Arc<Producer>,
    home: Home,
    work: mpsc::UnboundedSender<Work>,
    /// What was not queued by the end of a close is refused.
    given_up: Arc<AtomicBool>,
}

/// What a half is given to do, in order.
#[derive(Debug)]
enum Work {
    Send(Batch),
    /// In a batch of its own.
    Alone {
        topic: Name,
        partition: u32,
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
struct Batch {
    /// The partitions, each of which comes to be a lane.
    lanes: Vec<(Name, u32)>,
    /// Where those lanes are that are not among the first few.
    more: HashMap<(Name, u32), usize, RandomState>,
    records: Vec<One>,
    share: Share,
    answers: mpsc::UnboundedSender<Vec<Answered>>,
}

#[derive(Debug)]
struct One {
    /// In its call.
    place: usize,
    lane: usize,
    bytes: usize,
    record: Content,
}

fn half_of(partition: u32) -> usize {
    partition as usize % HALVES
}

impl Ready {
    /// For about so many records.
    pub(super) fn of(count: usize) -> Self {
        Self { room: count.div_ceil(HALVES), ..Self::default() }
    }

    /// Adds the record at a place of its call, with its part of `share`; `answers` is told what becomes of it.
    pub(super) fn push(
        &mut self,
        (place, bytes): (usize, usize),
        (topic, partition): (&Name, u32),
        record: Content,
        share: &mut Share,
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
    ) {
        let batch = self.batches[half_of(partition)].get_or_insert_with(|| Batch {
            lanes: Vec::new(),
            more: HashMap::default(),
            records: Vec::with_capacity(self.room),
            share: share.none(),
            answers: answers.clone(),
        });
        let lane = batch.lane_of(topic, partition);
        share.give(&mut batch.share, bytes);
        batch.records.push(One { place, lane, bytes, record });
    }
}

impl Batch {
    fn lane_of(&mut self, topic: &Name, partition: u32) -> usize {
        let is_of = |lane: &(Name, u32)| lane.1 == partition && lane.0 == *topic;
        if let Some(lane) = self.lanes.iter().take(FEW).position(is_of) {
            return lane;
        }
        let next = self.lanes.len();
        if next >= FEW {
            let lane = *self.more.entry((topic.clone(), partition)).or_insert(next);
            if lane < next {
                return lane;
            }
        }
        self.lanes.push((topic.clone(), partition));
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
    pub(super) fn send_alone(&self, topic: Name, partition: u32, record: Content, share: Share) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0[half_of(partition)].give(Work::Alone { topic, partition, record, share, answer });
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
                Err(Error::new(ErrorKind::Unknown, "close the publisher: records are unanswered"))
            }
        }
    }
}

impl Half {
    async fn open(config: &KafkaConfig) -> Result<Self> {
        let (home, settings) = (Home::new("kafka-publisher")?, config.clone());
        let opened = home.run(async move {
            let connection = Connection::open(&settings, Role::Publishing).await?;
            Producer::open(&connection, &settings).await
        });
        let (producer, given_up) = (Arc::new(opened.await?), Arc::<AtomicBool>::default());
        let (work, given) = mpsc::unbounded_channel();
        let worker =
            Worker { producer: Arc::clone(&producer), given_up: Arc::clone(&given_up), missing: HashMap::default() };
        home.handle().spawn(worker.run(given, home.clone(), config.delivery_timeout));
        Ok(Self { producer, home, work, given_up })
    }

    /// Asks the client, where it is at home: there are the connections that this may open.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Producer>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.home.run(ask(Arc::clone(&self.producer))).await
    }

    fn give(&self, work: Work) {
        // Its thread ends when this is dropped, and not before.
        drop(self.work.send(work));
    }
}

/// What a half's thread works with.
struct Worker {
    producer: Arc<Producer>,
    given_up: Arc<AtomicBool>,
    /// Topics that were looked for in vain.
    missing: HashMap<Name, Missing, RandomState>,
}

/// Why records of a topic can't be sent, and until when it is not looked for again: all others of the half wait for that.
struct Missing {
    until: Instant,
    kind: ErrorKind,
    why: String,
}

impl Worker {
    /// Works until the publisher is gone, and then until all is answered, but no longer than a delivery may take.
    async fn run(mut self, mut given: mpsc::UnboundedReceiver<Work>, home: Home, delivery_timeout: Duration) {
        while let Some(work) = given.recv().await {
            match work {
                Work::Send(batch) => {
                    self.send(batch).await;
                    // To the client, which sends it, and to those who wait for answers.
                    yield_now().await;
                }
                Work::Alone { topic, partition, record, share, answer } => {
                    match self.producer.enqueue_alone(&topic, partition, record).await {
                        Ok(underway) => {
                            let came = answer_of(Lane::of_one(topic, partition, underway, share));
                            tokio::spawn(came.map(|came| drop(answer.send(came.map_err(|refusal| refusal.error)))));
                        }
                        Err(error) => drop(answer.send(Err(error))),
                    }
                }
                Work::Close { ends, done } => {
                    let (producer, home) = (Arc::clone(&self.producer), home.clone());
                    tokio::spawn(async move {
                        drop(done.send(producer.close(ends.saturating_duration_since(Instant::now())).await));
                        // Not before, also when the publisher is dropped meanwhile.
                        drop(home);
                    });
                }
            }
        }
        let _in_time = self.producer.close(delivery_timeout).await;
        drop(self);
        drop(home);
    }

    async fn send(&mut self, Batch { lanes: heads, records, mut share, answers, .. }: Batch) {
        let empty = |share: &Share| -> Vec<Lane> {
            heads.iter().map(|(topic, partition)| Lane::new(topic.clone(), *partition, share)).collect()
        };
        let (mut lanes, mut failed) = (empty(&share), Vec::new());
        for One { place, lane, bytes, record } in records {
            // Those before must not wait for a topic that is looked for.
            let waits = || answer(std::mem::replace(&mut lanes, empty(&share)), std::mem::take(&mut failed), &answers);
            let queued = self.queue(&heads[lane], record, waits).await;
            match queued {
                Ok(underway) => lanes[lane].push(place, underway, bytes, &mut share),
                Err(error) => {
                    drop(share.part(bytes));
                    failed.push((place, Err(Refusal { error, batch: false })));
                }
            }
        }
        answer(lanes, failed, &answers);
    }

    /// Puts a record into the client's queue; `waits` is called before its topic is looked for.
    async fn queue(
        &mut self,
        (topic, partition): &(Name, u32),
        record: Content,
        waits: impl FnOnce(),
    ) -> Result<Underway> {
        // Before it is tried: what the client took may be stored.
        if self.given_up.load(Ordering::Acquire) {
            return Err(closed());
        }
        // The task has a budget for what is ready at once, which is less than a batch.
        let mut queuing = pin!(unconstrained(self.producer.enqueue(topic, *partition, record)));
        if let Some(queued) = queuing.as_mut().now_or_never() {
            return queued;
        }
        if let Some(error) = refusal(&mut self.missing, topic) {
            return Err(error);
        }
        waits();
        let queued = queuing.await;
        if let Err(error) = &queued
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable)
        {
            let (until, why) = (Instant::now() + LEAVE_ALONE, error.report());
            self.missing.insert(topic.clone(), Missing { until, kind: error.kind(), why });
        }
        queued
    }
}

/// Why a topic is not looked for now.
fn refusal(missing: &mut HashMap<Name, Missing, RandomState>, topic: &Name) -> Option<Error> {
    let now = Instant::now();
    missing.retain(|_, missing| missing.until > now);
    missing.get(topic).map(|missing| Error::new(missing.kind, missing.why.clone()))
}

/// Tells what becomes of records. Also when nobody waits any more: each keeps its share until it is answered.
fn answer(lanes: Vec<Lane>, failed: Vec<Answered>, answers: &mpsc::UnboundedSender<Vec<Answered>>) {
    if !failed.is_empty() {
        drop(answers.send(failed));
    }
    let (mut lanes, answers) = (lanes.into_iter().collect::<SelectAll<Lane>>(), answers.clone());
    tokio::spawn(async move {
        while let Some(answered) = lanes.next().await {
            drop(answers.send(answered));
        }
    });
}
