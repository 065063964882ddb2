//! Places and queues records, in the order in which calls were first polled.
//!
//! A call does so by itself, at once, where nothing has to be waited for and no other call waits. Else it gets in line, for
//! one task that does it: also for calls that wait at the bound, and for those that nobody polls any more.

use std::collections::HashSet;
use std::future::ready;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Error, ErrorKind, Name, Record, Result};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::bound::Bound;
use super::closed;
use super::halves::{Halves, Ready};
use super::lane::Answered;
use super::line::{Again, Answer, Job, Length, Line, Next, Placed, Publish, Queued, Rest, take};
use super::places::{Dice, Place, Places};
use super::resend::untried;
use crate::config::KafkaConfig;
use crate::seam::producer::{Content, no_partition};

/// How many records are placed and handed over at once: more would keep a thread from other work for too long.
const AT_ONCE: usize = 1_024;

/// The pause before a topic is looked for again while no broker answers.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long others wait for the answer to a record that is sent by itself.
const HOLD: Duration = Duration::from_secs(1);

/// What is the own of whoever places and queues records.
#[derive(Debug)]
struct Front {
    places: Places,
    /// Of a call that queued the first of its records by itself: they come before whatever got in line since, or the
    /// records of two calls would mix.
    rest: Weak<Rest>,
}

/// What the publisher and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) halves: Halves,
    bound: Bound,
    /// Locked by whoever places and queues records, until all of them are queued.
    front: Mutex<Front>,
    /// Calls that wait are given up.
    abandoned: AtomicBool,
    max_record_bytes: usize,
    pub(super) delivery_timeout: Duration,
}

impl Shared {
    pub(super) fn new(halves: Halves, config: &KafkaConfig) -> Self {
        Self {
            halves,
            bound: Bound::new(config.max_unanswered_records, config.max_unanswered_bytes),
            front: Mutex::new(Front {
                places: Places::new(config.batch_bytes, config.metadata_max_age),
                rest: Weak::new(),
            }),
            abandoned: AtomicBool::new(false),
            max_record_bytes: config.max_record_bytes,
            delivery_timeout: config.delivery_timeout,
        }
    }

    /// Queues the first of these records, in order: all of them, unless something has to be waited for, or others wait
    /// already. `line_up` makes a job of the rest, for the task; whether that is there to do it comes back.
    pub(super) fn queue_at_once(
        &self,
        line: &Line,
        mut records: Vec<Record>,
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
        line_up: impl FnOnce(Next) -> Publish,
    ) -> (Queued, bool) {
        let mut queued = Queued::default();
        let mut front = self.turn_at_once(line);
        let first =
            front.as_mut().map_or(0, |front| self.queue_first(&mut front.places, &records, answers, &mut queued));
        let rest = records.split_off(first);
        queued.records = records;
        if rest.is_empty() {
            return (queued, true);
        }
        let rest = line_up(Next { first, records: rest });
        let job = match &mut front {
            Some(front) => {
                let rest = Arc::new(Rest::new(Some(rest)));
                front.rest = Arc::downgrade(&rest);
                Job::GoOn(rest)
            }
            None => Job::Publish(rest),
        };
        (queued, line.get_in(job))
    }

    /// The turn of whoever asks, if nobody was first: has it, or got in line by now.
    fn turn_at_once(&self, line: &Line) -> Option<MutexGuard<'_, Front>> {
        let front = self.front.try_lock().ok()?;
        (line.is_idle() && self.check_open().is_ok()).then_some(front)
    }

    /// How many of them could be queued at once.
    fn queue_first(
        &self,
        places: &mut Places,
        records: &[Record],
        answers: &mpsc::UnboundedSender<Vec<Answered>>,
        queued: &mut Queued,
    ) -> usize {
        let (now, bytes) = (Instant::now(), records.iter().map(Record::size).sum());
        let fits = records.len() <= AT_ONCE;
        let share = if fits { self.bound.try_take_all(records.len(), bytes) } else { None };
        let Some(mut share) = share else { return 0 };
        queued.placed.reserve_exact(records.len());
        let mut ready = Ready::of(records.len());
        let mut known: Option<(&Name, &mut Place, &mut Dice)> = None;
        let mut first = 0;
        for record in records {
            if known.as_ref().is_none_or(|(topic, ..)| **topic != record.topic) {
                known = places.at_once(&record.topic, now).map(|(place, dice)| (&record.topic, place, dice));
            }
            let Some((topic, place, dice)) = &mut known else { break };
            let size = record.size();
            // What is to be told or to be asked for is left to the task.
            let Some(partition) = place.of(record, dice).filter(|_| size <= self.max_record_bytes) else { break };
            match Content::of(record) {
                Ok(content) => {
                    queued.placed.push(Placed { partition, number: place.note_queued(partition) });
                    ready.push((first, size), (*topic, partition), content, &mut share, answers);
                }
                Err(error) => queued.fail(first, error),
            }
            first += 1;
        }
        // While it is our turn, so that no other call's come first.
        self.halves.send(&mut ready);
        first
    }

    /// Tells a call what is known of its next records, and hands over those that are ready: in this order, so that their
    /// answers find them.
    fn hand_over(&self, reply: &mut mpsc::UnboundedSender<Queued>, queued: &mut Queued, ready: &mut Ready) {
        tell(reply, std::mem::take(queued));
        self.halves.send(ready);
    }

    /// Whoever waits now or later is told that the publisher is closed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.bound.close();
    }

    fn check_open(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

/// Works until the publisher is gone.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<Job>, length: Length) {
    while let Some(job) = jobs.recv().await {
        let mut front = shared.front.lock().await;
        let Front { places, rest } = &mut *front;
        let mut turn = Turn { shared: &shared, places };
        let rest = std::mem::take(rest).upgrade();
        let rest = rest.and_then(|rest| rest.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(rest) = rest {
            turn.publish(rest).await;
        }
        // Whoever asked may be gone: what was queued for them goes on.
        match job {
            Job::Publish(publish) => turn.publish(publish).await,
            Job::GoOn(done) => drop(done),
            Job::Alone { again, deadline, reply } => drop(reply.send(turn.alone(again, deadline).await)),
            Job::Barrier(reply) => drop(reply.send(())),
        }
        length.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The task's, while it does a job.
struct Turn<'a> {
    shared: &'a Shared,
    places: &'a mut Places,
}

impl Turn<'_> {
    async fn publish(&mut self, Publish { call, since, mut reply, answers }: Publish) {
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
                            let number = self.places.note_queued(&record.topic, partition);
                            queued.placed.push(Placed { partition, number });
                            let bytes = share.bytes();
                            ready.push((place, bytes), (&record.topic, partition), content, &mut share, &answers);
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
        Ok(count)
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
    /// longer than `HOLD`, since others wait, for brokers that may be well.
    ///
    /// A record with a key that others of its partition were queued behind is not sent again: they may be stored, and it
    /// would come after them (P3).
    async fn alone(&mut self, again: Again, deadline: Instant) -> Option<Answer> {
        let Again { record, placed: Placed { partition, number } } = again;
        if record.key.is_some() && self.places.queued(&record.topic, partition) != number {
            return None;
        }
        let mut answer = match self.send_alone(&record, partition, deadline).await {
            Ok(answer) => answer,
            Err(error) => return Some(ready(Err(error)).boxed()),
        };
        match timeout(HOLD, &mut answer).await {
            Ok(answer) => Some(ready(answer).boxed()),
            Err(_) => Some(answer),
        }
    }

    async fn send_alone(&self, record: &Record, partition: u32, deadline: Instant) -> Result<Answer> {
        let topic = record.topic.clone();
        if Instant::now() >= deadline {
            return Err(untried(&topic));
        }
        let share = timeout_at(deadline, self.shared.bound.take(record.size())).await.map_err(|_| untried(&topic))?;
        let share = share.ok_or_else(closed)?;
        Ok(self.shared.halves.send_alone(topic, partition, Content::of(record)?, share))
    }
}

/// Tells a call what was queued. Where the call is gone nothing is kept for it, also if it went in this very moment: what is
/// sent then lies in the channel until nobody has that.
fn tell(reply: &mut mpsc::UnboundedSender<Queued>, queued: Queued) {
    drop(reply.send(queued));
    if reply.is_closed() {
        *reply = mpsc::unbounded_channel().0;
    }
}

/// Of a record that names a partition which its topic did not have when a broker last told of it.
fn untold(topic: &Name, partition: u32) -> Error {
    let what = "no broker tells whether the topic has grown by it";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}[{partition}]: {what}"))
}
