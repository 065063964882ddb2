//! Places and queues records, in the order in which calls were first polled.
//!
//! A call does so by itself, at once, where nothing has to be waited for and no other call waits. Else it gets in line, for
//! one task that does it: also for calls that wait at the bound, and for those that nobody polls any more.

use std::collections::HashSet;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use tidings_core::{Error, ErrorKind, Name, Record, Result};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::bound::Bound;
use super::closed;
use super::lane::{Lane, answer_of};
use super::line::{Again, Answer, Job, Length, Line, Next, Placed, Publish, Queued, Rest, Sent, take};
use super::places::{Dice, Place, Places};
use crate::config::KafkaConfig;
use crate::seam::producer::{Producer, no_partition};

/// How many records a call may queue by itself: more would keep its thread from other work for too long.
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
    pub(super) producer: Producer,
    bound: Bound,
    /// Locked by whoever places and queues records, until all of them are queued.
    front: Mutex<Front>,
    /// Calls that wait are given up.
    abandoned: AtomicBool,
    max_record_bytes: usize,
    pub(super) delivery_timeout: Duration,
}

impl Shared {
    /// Within the runtime that the publisher is to work on.
    pub(super) fn new(producer: Producer, config: &KafkaConfig) -> Self {
        Self {
            producer,
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
        line_up: impl FnOnce(Next) -> Publish,
    ) -> (Queued, bool) {
        let mut queued = Queued::default();
        let mut front = self.turn_at_once(line);
        let first = front.as_mut().map_or(0, |front| self.queue_first(&mut front.places, &records, &mut queued));
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

    /// The same for a single record, which is left to get in line otherwise.
    pub(super) fn queue_one_at_once(&self, line: &Line, record: &Record) -> Option<Result<(Lane, Placed)>> {
        let mut front = self.turn_at_once(line)?;
        let share = self.bound.try_take_all(1, record.size())?;
        let _runtime = self.bound.runtime().enter();
        let (place, dice) = front.places.at_once(&record.topic, Instant::now())?;
        let sent = self.try_queue(place, dice, record)?;
        Some(sent.map(|Sent { underway, placed, .. }| {
            (Lane::of_one(record.topic.clone(), placed.partition, underway, share), placed)
        }))
    }

    /// The turn of whoever asks, if nobody was first: has it, or got in line by now.
    fn turn_at_once(&self, line: &Line) -> Option<MutexGuard<'_, Front>> {
        let front = self.front.try_lock().ok()?;
        (line.is_idle() && self.check_open().is_ok()).then_some(front)
    }

    /// How many of them could be queued at once.
    fn queue_first(&self, places: &mut Places, records: &[Record], queued: &mut Queued) -> usize {
        let (now, bytes) = (Instant::now(), records.iter().map(Record::size).sum());
        let fits = records.len() <= AT_ONCE;
        let share = if fits { self.bound.try_take_all(records.len(), bytes) } else { None };
        let Some(mut share) = share else { return 0 };
        queued.placed.reserve_exact(records.len());
        let _runtime = self.bound.runtime().enter();
        let mut known: Option<(&Name, &mut Place, &mut Dice)> = None;
        for (index, record) in records.iter().enumerate() {
            if known.as_ref().is_none_or(|(topic, ..)| **topic != record.topic) {
                known = places.at_once(&record.topic, now).map(|(place, dice)| (&record.topic, place, dice));
            }
            let Some((topic, place, dice)) = &mut known else { return index };
            let Some(one) = self.try_queue(place, dice, record) else { return index };
            queued.push(index, topic, one, &mut share);
        }
        records.len()
    }

    /// Queues a record, unless something has to be waited for or to be told, which the task does.
    fn try_queue(&self, place: &mut Place, dice: &mut Dice, record: &Record) -> Option<Result<Sent>> {
        let bytes = record.size();
        if bytes > self.max_record_bytes {
            return None;
        }
        let partition = place.of(record, dice)?;
        let queued = self.producer.try_enqueue(record, partition)?;
        Some(queued.map(|underway| Sent {
            underway,
            bytes,
            placed: Placed { partition, number: place.note_queued(partition) },
        }))
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
    async fn publish(&mut self, Publish { call, since, mut reply }: Publish) {
        let next = take(&call);
        // For all of the call together: what waits behind a topic that can't be looked up has waited too.
        let deadline = since + self.shared.delivery_timeout;
        let mut missing = HashSet::new();
        let mut queued = Queued::default();
        for (place, record) in (next.first..).zip(next.records) {
            match self.find_place(&mut missing, &record, since, deadline).await {
                Ok(partition) => {
                    let share = match self.shared.bound.try_take(record.size()) {
                        Some(share) => Some(share),
                        None => {
                            tell(&mut reply, std::mem::take(&mut queued));
                            self.shared.bound.take(record.size()).await
                        }
                    };
                    match share {
                        Some(mut share) => {
                            let one = self.enqueue(&record, partition, share.bytes()).await;
                            queued.push(place, &record.topic, one, &mut share);
                        }
                        None => queued.fail(place, closed()),
                    }
                }
                Err(error) => queued.fail(place, error),
            }
            queued.records.push(record);
        }
        tell(&mut reply, queued);
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

    async fn enqueue(&mut self, record: &Record, partition: u32, bytes: usize) -> Result<Sent> {
        let underway = self.shared.producer.enqueue(record, partition).await?;
        let number = self.places.note_queued(&record.topic, partition);
        Ok(Sent { underway, bytes, placed: Placed { partition, number } })
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
            match (self.shared.producer.partitions(topic).await, known) {
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
        match self.shared.producer.refresh(&topics).await {
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
            Ok(lane) => answer_of(lane).map_err(|refusal| refusal.error).boxed(),
            Err(error) => return Some(ready(Err(error)).boxed()),
        };
        match timeout(HOLD, &mut answer).await {
            Ok(answer) => Some(ready(answer).boxed()),
            Err(_) => Some(answer),
        }
    }

    async fn send_alone(&self, record: &Record, partition: u32, deadline: Instant) -> Result<Lane> {
        let topic = record.topic.clone();
        if Instant::now() >= deadline {
            return Err(untried(&topic));
        }
        let share = timeout_at(deadline, self.shared.bound.take(record.size())).await.map_err(|_| untried(&topic))?;
        let share = share.ok_or_else(closed)?;
        let underway = self.shared.producer.enqueue_alone(record, partition).await?;
        Ok(Lane::of_one(topic, partition, underway, share))
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

/// Of a record whose batch was refused, and that may not be sent again by itself.
pub(super) fn overtaken(topic: &Name) -> Error {
    let what = "its batch was refused for another record, and later records of its partition are on their way";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}: {what}"))
}

/// Of a record whose batch was refused, and that was not sent by itself.
pub(super) fn untried(topic: &Name) -> Error {
    let what = "its batch was refused, and it could not be sent by itself in time";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}: {what}"))
}
