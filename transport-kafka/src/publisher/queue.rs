//! One task that places and queues records, in the order in which calls were first polled: also of calls that wait at the
//! bound, and of those that nobody polls any more.

use std::collections::HashSet;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use tidings_core::{Error, ErrorKind, Name, Position, Record, Result};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::bound::{Bound, Share};
use super::closed;
use super::places::Places;
use crate::config::KafkaConfig;
use crate::seam::producer::{Producer, Refusal, Underway, no_partition};

/// The pause before a topic is looked for again while no broker answers.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long others wait for the answer to a record that is sent by itself.
const HOLD: Duration = Duration::from_secs(1);

/// What the task is asked to do.
pub(super) enum Job {
    /// Queue these, for which somebody waits since then. They are told of in order, and at the latest before the bound
    /// has to be waited for: it is whoever waits that gives the shares of what is answered back.
    Publish { call: SharedCall, since: Instant, reply: mpsc::UnboundedSender<Queued> },
    /// Send this one in a batch of its own, if its turn comes in time and it was not overtaken.
    Alone { again: Again, deadline: Instant, reply: oneshot::Sender<Option<Answer>> },
    /// Say when all that came before is queued.
    Barrier(oneshot::Sender<()>),
}

/// What comes of a record that was sent by itself.
pub(super) type Answer = BoxFuture<'static, Result<Position>>;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Publish { .. } => "Publish",
            Self::Alone { .. } => "Alone",
            Self::Barrier(_) => "Barrier",
        })
    }
}

/// The records of a call until the task takes them, or the call is dropped.
#[derive(Debug)]
pub(super) struct Call(SharedCall);
pub(super) type SharedCall = Arc<Mutex<Vec<Record>>>;

impl Call {
    pub(super) fn new(records: Vec<Record>) -> Self {
        Self(Arc::new(Mutex::new(records)))
    }

    pub(super) fn share(&self) -> SharedCall {
        Arc::clone(&self.0)
    }

    /// Whether the task has the records: some of them may be on their way.
    pub(super) fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        drop(take(&self.0));
    }
}

fn take(call: &SharedCall) -> Vec<Record> {
    std::mem::take(&mut *call.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What the publisher and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) producer: Producer,
    bound: Bound,
    /// Calls that wait are given up.
    abandoned: AtomicBool,
    max_record_bytes: usize,
    pub(super) delivery_timeout: Duration,
}

impl Shared {
    pub(super) fn new(producer: Producer, config: &KafkaConfig) -> Self {
        Self {
            producer,
            bound: Bound::new(config.max_unanswered_records, config.max_unanswered_bytes),
            abandoned: AtomicBool::new(false),
            max_record_bytes: config.max_record_bytes,
            delivery_timeout: config.delivery_timeout,
        }
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

/// What was made of the next records of a call: each comes back with it, as it may have to be sent again.
pub(super) type Queued = Vec<(Record, Result<Sent>)>;

/// A record in the client's queue.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) unanswered: Unanswered,
    pub(super) partition: u32,
    /// How many records were queued for its partition, with it.
    pub(super) number: u64,
}

/// What it takes to send a record once more.
#[derive(Debug, Clone)]
pub(super) struct Again {
    pub(super) record: Record,
    pub(super) partition: u32,
    /// How many records were queued for its partition, up to it or up to what may precede it.
    pub(super) number: u64,
}

/// The task's own.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    places: Places,
}

impl Queue {
    pub(super) fn new(shared: Arc<Shared>, config: &KafkaConfig) -> Self {
        Self { shared, places: Places::new(config.batch_bytes, config.metadata_max_age) }
    }

    /// Works until the publisher is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.recv().await {
            // Whoever asked may be gone: what was queued for them goes on.
            match job {
                Job::Publish { call, since, reply } => self.publish(take(&call), since, &reply).await,
                Job::Alone { again, deadline, reply } => drop(reply.send(self.alone(again, deadline).await)),
                Job::Barrier(reply) => drop(reply.send(())),
            }
        }
    }

    async fn publish(&mut self, records: Vec<Record>, since: Instant, reply: &mpsc::UnboundedSender<Queued>) {
        // For all of the call together: what waits behind a topic that can't be looked up has waited too.
        let deadline = since + self.shared.delivery_timeout;
        let mut missing = HashSet::new();
        let mut sent = Vec::with_capacity(records.len());
        for record in records {
            let one = match self.find_place(&mut missing, &record, since, deadline).await {
                Ok(partition) => {
                    let size = record.size();
                    let share = match self.shared.bound.try_take(size) {
                        Some(share) => Some(share),
                        None => {
                            drop(reply.send(std::mem::take(&mut sent)));
                            self.shared.bound.take(size).await
                        }
                    };
                    self.enqueue(&record, partition, share).await
                }
                Err(error) => Err(error),
            };
            sent.push((record, one));
        }
        drop(reply.send(sent));
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

    async fn enqueue(&mut self, record: &Record, partition: u32, share: Option<Share>) -> Result<Sent> {
        let share = share.ok_or_else(closed)?;
        let underway = self.shared.producer.enqueue(record, partition).await?;
        let number = self.places.note_queued(&record.topic, partition);
        Ok(Sent { unanswered: Unanswered::new(record.topic.clone(), underway, share), partition, number })
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
        let Again { record, partition, number } = again;
        if record.key.is_some() && self.places.queued(&record.topic, partition) != number {
            return None;
        }
        let mut answer = match self.send_alone(&record, partition, deadline).await {
            Ok(unanswered) => unanswered.answer().map_err(|refusal| refusal.error).boxed(),
            Err(error) => return Some(ready(Err(error)).boxed()),
        };
        match timeout(HOLD, &mut answer).await {
            Ok(answer) => Some(ready(answer).boxed()),
            Err(_) => Some(answer),
        }
    }

    async fn send_alone(&self, record: &Record, partition: u32, deadline: Instant) -> Result<Unanswered> {
        let topic = record.topic.clone();
        if Instant::now() >= deadline {
            return Err(untried(&topic));
        }
        let share = timeout_at(deadline, self.shared.bound.take(record.size())).await.map_err(|_| untried(&topic))?;
        let share = share.ok_or_else(closed)?;
        let underway = self.shared.producer.enqueue_alone(record, partition).await?;
        Ok(Unanswered::new(topic, underway, share))
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

/// A record whose answer is awaited; when nobody waits any more, its share of the bound is kept until the answer comes.
#[derive(Debug)]
pub(super) struct Unanswered {
    topic: Name,
    parts: Option<(Underway, Share)>,
}

impl Unanswered {
    fn new(topic: Name, underway: Underway, share: Share) -> Self {
        Self { topic, parts: Some((underway, share)) }
    }

    pub(super) async fn answer(mut self) -> Result<Position, Refusal> {
        let Some((underway, _)) = &mut self.parts else {
            let error = Error::new(ErrorKind::Unknown, format!("publish to {}", self.topic));
            return Err(Refusal { error, batch: false });
        };
        let answer = underway.answer(&self.topic).await;
        self.parts = None;
        answer
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let (Some((mut underway, share)), Ok(runtime)) = (self.parts.take(), Handle::try_current()) {
            let topic = self.topic.clone();
            runtime.spawn(async move {
                let _nobody_asks = underway.answer(&topic).await;
                drop(share);
            });
        }
    }
}
