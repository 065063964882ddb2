//! Places and queues records in the order in which calls were first polled.
//!
//! A call queues its records itself if it does not have to wait and no other call waits. Otherwise it waits in line
//! for a task that queues them, which also serves calls that wait at the bound and calls that are no longer polled.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{Name, Record, Result};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::Instant;
use tracing::error;

use super::bound::Bound;
use super::closed;
use super::halves::{Halves, Ready};
use super::holds::Holds;
use super::lane::Answered;
use super::line::{Job, Length, Line, Next, Placed, Publish, Queued, Rest};
use super::places::{Dice, Place, Places};
use super::turn::Turn;
use crate::client::producer::Content;
use crate::config::KafkaConfig;

/// Maximum number of records placed and handed over at once: more would keep a thread from other work for too long.
pub(super) const AT_ONCE: usize = 1_024;

/// State owned by the current enqueuer.
#[derive(Debug)]
struct Front {
    places: Places,
    holds: Holds,
    /// The rest of a call that queued its first records itself: it precedes everything queued since, or the records
    /// of two calls would mix.
    rest: Weak<Rest>,
}

/// State shared by the publisher and its task.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) halves: Halves,
    pub(super) bound: Bound,
    /// Locked by the current enqueuer until all of its records are queued.
    front: Mutex<Front>,
    /// Set when waiting calls are abandoned.
    abandoned: AtomicBool,
    pub(super) max_record_bytes: usize,
    pub(super) delivery_timeout: Duration,
}

impl Shared {
    pub(super) fn new(halves: Halves, config: &KafkaConfig) -> Self {
        Self {
            halves,
            bound: Bound::new(config.max_unanswered_records, config.max_unanswered_bytes),
            front: Mutex::new(Front {
                places: Places::new(config.batch_bytes, config.metadata_max_age),
                holds: Holds::default(),
                rest: Weak::new(),
            }),
            abandoned: AtomicBool::new(false),
            max_record_bytes: config.max_record_bytes,
            delivery_timeout: config.delivery_timeout,
        }
    }

    /// Queues the first of these records, in order: all of them, unless a wait is needed or other calls already wait.
    /// `line_up` turns the rest into a job for the task; returns whether the task is there to do it.
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

    /// Returns the turn, unless another call has it or waits in line by now.
    fn turn_at_once(&self, line: &Line) -> Option<MutexGuard<'_, Front>> {
        let front = self.front.try_lock().ok()?;
        (line.is_idle() && self.check_open().is_ok()).then_some(front)
    }

    /// Returns how many records could be queued at once.
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
            // Errors and questions to brokers are left to the task.
            let Some(partition) = place.of(record, dice).filter(|_| size <= self.max_record_bytes) else { break };
            match Content::of(record) {
                Ok(content) => {
                    let most = place.most();
                    queued.placed.push(Placed { partition, number: place.note_queued(partition), most });
                    ready.push((first, size), (*topic, partition, most), content, &mut share, answers);
                }
                Err(error) => queued.fail(first, error),
            }
            first += 1;
        }
        // During our turn, so that no other call's records come first.
        self.halves.send(&mut ready);
        first
    }

    /// Sends a call the results of its next records, and hands over those that are ready: in this order, so that
    /// their answers find them.
    pub(super) fn hand_over(&self, reply: &mut mpsc::UnboundedSender<Queued>, queued: &mut Queued, ready: &mut Ready) {
        tell(reply, std::mem::take(queued));
        self.halves.send(ready);
    }

    /// Fails current and future waiters because the publisher is closed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.bound.close();
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

/// Runs until the publisher is gone.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::UnboundedReceiver<Job>, length: Length) {
    while let Some(job) = jobs.recv().await {
        // As in a half's worker: unfinished work is dropped, which informs its waiters.
        if AssertUnwindSafe(work(&shared, job)).catch_unwind().await.is_err() {
            error!("a publisher's thread panicked: records that waited may or may not be stored; it goes on");
        }
        length.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn work(shared: &Shared, job: Job) {
    let mut front = shared.front.lock().await;
    let Front { places, holds, rest } = &mut *front;
    let mut turn = Turn { shared, places, holds };
    let rest = std::mem::take(rest).upgrade();
    let rest = rest.and_then(|rest| rest.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(rest) = rest {
        turn.publish(rest).await;
    }
    // The caller may be gone: its queued records are sent all the same.
    match job {
        Job::Publish(publish) => turn.publish(publish).await,
        Job::GoOn(done) => drop(done),
        Job::Alone { again, deadline, reply } => drop(reply.send(turn.alone(again, deadline).await)),
        Job::Barrier(reply) => drop(reply.send(())),
    }
}

/// Sends a call the result of queueing. If the call is gone, nothing is kept for it, even if it ended at this moment:
/// the message then remains in the channel until that is dropped.
fn tell(reply: &mut mpsc::UnboundedSender<Queued>, queued: Queued) {
    drop(reply.send(queued));
    if reply.is_closed() {
        *reply = mpsc::unbounded_channel().0;
    }
}
