//! The task that sends batches: it takes them from the buffers of their partitions when they can be sent, gives them to
//! the tasks of the brokers, and ends them.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_util::FutureExt;
use tidings_core::{Error, Name, Result, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, error};

use super::buffer::{Due, PartitionBuffer};
use super::call::{outcome_of, outcome_of_missing};
use super::delivery::{Delivery, packing};
use super::missing::Missing;
use super::news::News;
use super::questions::{Found, Questions, next};
use super::throttle::Throttle;
use crate::dedicated_runtime::DedicatedRuntime;
use crate::wire::cluster::Cluster;
use crate::wire::producer::{
    Answer, BatchToSend, Completion, Fate, Identity, Report, SendQueue, SendSettings, ToSend, run,
};
use crate::wire::records::Packing;

/// Capacity of the channel to a broker's task: fewer requests are ever in flight.
const REQUESTS: usize = 8;
/// Interval of the wake-ups of a task that waits for nothing.
const IDLE: Duration = Duration::from_secs(60);
/// Maximum size of the batches of a request, in bytes, unless a single batch is larger: Java's default.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The side of the task that the publisher holds.
#[derive(Debug)]
pub(super) struct Sending {
    news: Arc<News>,
    /// Replies once all batches have ended. The task ends without a sender.
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Sending {
    /// Starts the task on the current runtime, which it keeps until all batches have ended.
    pub(super) fn start(cluster: Cluster, first: Option<Identity>, runtime: DedicatedRuntime) -> Self {
        let ((drains, drained), news) = (mpsc::unbounded_channel(), Arc::<News>::default());
        let task = Task::new(cluster, Arc::clone(&news), first);
        tokio::spawn(async move {
            task.run(drained).await;
            drop(runtime);
        });
        Self { news, drains }
    }

    /// Wakes the task, after listing these partitions.
    pub(super) fn wake(&self, listed: &mut Vec<Arc<PartitionBuffer>>) {
        self.news.add(listed);
    }

    /// Sends all batches without their linger, and waits until they and the task have ended. Records that are queued
    /// afterwards end as not stored.
    pub(super) async fn drain(&self) {
        let (reply, drained) = oneshot::channel();
        let _ended = self.drains.send(reply);
        // An error means that the task has ended, and with it all batches.
        let _ended = drained.await;
    }
}

/// A partition of the publisher, by its number in the send queue.
struct Partition {
    buffer: Arc<PartitionBuffer>,
    /// Whether batches wait in its buffer.
    has_batches: bool,
    missing: Missing,
    /// The cause of the last failure of a request with its batches, for the errors of those that expire.
    failure: Option<Arc<Error>>,
}

struct Task {
    cluster: Cluster,
    queue: SendQueue<Delivery>,
    packing: Packing,
    linger: Duration,
    timeout: Duration,
    news: Arc<News>,
    numbers: HashMap<TopicPartition, usize, RandomState>,
    partitions: Vec<Partition>,
    brokers: HashMap<i32, mpsc::Sender<ToSend>>,
    reports: (mpsc::UnboundedSender<Report>, mpsc::UnboundedReceiver<Report>),
    questions: Questions,
    drains: Vec<oneshot::Sender<()>>,
    /// Whether the publisher still exists.
    is_open: bool,
    /// The cause of the last failure of another request, for the errors of batches that expire.
    failure: Option<Arc<Error>>,
    throttle: Throttle,
}

impl Task {
    fn new(cluster: Cluster, news: Arc<News>, first: Option<Identity>) -> Self {
        let config = cluster.config();
        let max_request_bytes = config.batch_bytes.max(MAX_REQUEST_BYTES);
        let settings = SendSettings { delivery_timeout: config.delivery_timeout, max_request_bytes };
        let (packing, linger, timeout) = (packing(config), config.linger, config.delivery_timeout);
        Self {
            cluster,
            queue: SendQueue::new(settings),
            packing,
            linger,
            timeout,
            news,
            numbers: HashMap::default(),
            partitions: Vec::new(),
            brokers: HashMap::new(),
            reports: mpsc::unbounded_channel(),
            questions: Questions::new(first),
            drains: Vec::new(),
            is_open: true,
            failure: None,
            throttle: Throttle::default(),
        }
    }

    /// Runs until the publisher is gone and all batches have ended.
    async fn run(mut self, mut drains: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        loop {
            // The program's log subscriber may panic. The state is consistent between any two steps.
            match AssertUnwindSafe(self.step(&mut drains)).catch_unwind().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    // A future that panicked must not be polled again.
                    (self.questions.leaders, self.questions.identity) = (None, None);
                    error!("the sending task of a publisher panicked; it continues");
                }
            }
        }
        self.news.end();
        self.cluster.disconnect().await;
        for drain in self.drains {
            // The caller may no longer wait.
            let _gone = drain.send(());
        }
    }

    /// Does all that can be done now, and waits for the next event. Returns whether to go on.
    async fn step(&mut self, drains: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>) -> bool {
        let now = tokio::time::Instant::now().into_std();
        self.add_listed();
        let ended = self.queue.expire(now);
        self.end(ended);
        let linger_ends = self.send_all(now);
        self.ask();
        if self.queue.is_empty() && self.partitions.iter().all(|partition| !partition.has_batches) {
            // Batches that are queued after a drain are refused.
            if !self.is_open || !self.drains.is_empty() {
                return false;
            }
        }
        let wakes_at = self.queue.wakes_at(now).into_iter().chain(linger_ends).min().unwrap_or(now + IDLE);
        let Questions { leaders, identity, .. } = &mut self.questions;
        tokio::select! {
            Some(report) = self.reports.1.recv() => self.report(report),
            () = self.news.any() => {}
            drain = drains.recv(), if self.is_open => match drain {
                Some(drain) => self.drains.push(drain),
                None => self.is_open = false,
            },
            asked = next(leaders) => self.led(asked),
            asked = next(identity) => self.identified(asked),
            () = sleep_until(wakes_at.into()) => {}
        }
        while let Ok(report) = self.reports.1.try_recv() {
            self.report(report);
        }
        true
    }

    /// Adds the partitions that have batches.
    fn add_listed(&mut self) {
        for buffer in self.news.take() {
            let number = self.number(&buffer);
            if let Some(partition) = self.partitions.get_mut(number) {
                partition.has_batches = true;
            }
        }
    }

    /// Returns the number of a partition, and adds one that is new.
    fn number(&mut self, buffer: &Arc<PartitionBuffer>) -> usize {
        if let Some(number) = self.numbers.get(&buffer.at) {
            return *number;
        }
        let number = self.queue.add_partition();
        self.queue.set_leader(number, self.cluster.leader(&buffer.at).map(|leader| leader.broker));
        if let Some(identity) = self.questions.known {
            self.queue.set_identity_of(number, identity);
        }
        self.partitions.push(Partition {
            buffer: Arc::clone(buffer),
            has_batches: false,
            missing: Missing::default(),
            failure: None,
        });
        self.numbers.insert(buffer.at.clone(), number);
        number
    }

    /// Takes the batches that can be sent, and sends them. Returns when the next one can be taken.
    fn send_all(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let (any, next) = self.take(now);
            self.start_requests(now);
            if !any {
                return next;
            }
        }
    }

    /// Takes at most one batch of each partition.
    fn take(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let is_hurried = !self.is_open || !self.drains.is_empty();
        let linger = if is_hurried { Duration::ZERO } else { self.linger };
        let (mut any, mut next) = (false, None::<Instant>);
        let mut wake = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for (number, partition) in self.partitions.iter_mut().enumerate().filter(|(_, p)| p.has_batches) {
            let Some((due, expires)) = partition.buffer.due(now, linger, self.timeout) else {
                partition.has_batches = false;
                continue;
            };
            wake(expires);
            match due {
                Due::At(ready) => wake(ready),
                Due::Now if !self.queue.wants(number, now) => {}
                Due::Now | Due::Expired => {
                    let batch = partition.buffer.take();
                    let delivery = batch.and_then(|batch| Delivery::new(&partition.buffer, batch, self.packing));
                    if let Some(delivery) = delivery {
                        let opened_at = delivery.opened_at();
                        // The partition exists: it cannot end at once.
                        let _ended = self.queue.push(number, delivery, opened_at);
                    }
                    any = true;
                }
            }
        }
        (any, next.filter(|next| *next > now))
    }

    /// Starts all requests that may be sent now.
    fn start_requests(&mut self, now: Instant) {
        for broker in self.queue.leaders() {
            loop {
                let (partitions, timeout, mut batches) = (&self.partitions, self.timeout, Vec::new());
                let request = self.queue.next_request(broker, now, |number, producer, delivery| {
                    let expires = (delivery.opened_at() + timeout).into();
                    let bytes = delivery.stamped(producer);
                    let at = partitions.get(number).map(|partition| partition.buffer.at.clone());
                    batches.extend(at.map(|at| BatchToSend { at, bytes, expires }));
                });
                let Some(request) = request else { break };
                let to_send = ToSend::new(request, batches, self.reports.0.clone());
                let task = self.brokers.entry(broker).or_insert_with(|| start_broker(broker, &self.cluster));
                // If the task has ended, dropping the request reports it as lost. The next one starts another task.
                if task.try_send(to_send).is_err() {
                    self.brokers.remove(&broker);
                }
            }
        }
    }

    /// Requests leaders and an identity, if batches wait for them.
    fn ask(&mut self) {
        if self.questions.leaders.is_none() {
            let waiting = self.queue.without_leader().filter_map(|number| self.partitions.get(number));
            let topics: BTreeSet<Name> = waiting.map(|partition| partition.buffer.at.topic.clone()).collect();
            if !topics.is_empty() {
                self.questions.ask_leaders(&self.cluster, topics.into_iter().collect());
            }
        }
        if self.questions.identity.is_none() && self.queue.needs_identity() {
            self.questions.ask_identity(&self.cluster);
        }
    }

    fn led(&mut self, asked: Result<Found>) {
        self.questions.leaders = None;
        self.questions.pause();
        let found = asked.unwrap_or_else(|error| {
            self.failed("cannot look up the leaders of topics; they are looked up again", Arc::new(error));
            Found::new()
        });
        let now = tokio::time::Instant::now().into_std();
        for number in self.queue.without_leader().collect::<Vec<_>>() {
            let Some(Partition { buffer, missing, .. }) = self.partitions.get_mut(number) else { continue };
            self.queue.set_leader(number, self.cluster.leader(&buffer.at).map(|leader| leader.broker));
            if let Some(error) = missing.note(&buffer.at, &found, now) {
                let ended = self.queue.give_up(number);
                ended.into_iter().for_each(|ended| ended.payload.end(outcome_of_missing(ended.fate, &error)));
            }
        }
    }

    fn identified(&mut self, asked: Result<Identity>) {
        self.questions.identity = None;
        match asked {
            Ok(identity) => {
                self.questions.known = Some(identity);
                self.queue.set_identity(identity);
            }
            Err(error) => {
                self.questions.pause();
                self.failed("the broker assigned no producer id; the next one is asked", Arc::new(error));
            }
        }
    }

    fn failed(&mut self, event: &str, error: Arc<Error>) {
        self.failure = Some(Arc::clone(&error));
        debug!(error = error.report(), "{event}");
    }

    fn report(&mut self, report: Report) {
        let now = tokio::time::Instant::now().into_std();
        match report {
            Report::Answered { request, answers, throttle } => {
                let number = |(at, answer): (TopicPartition, Answer)| Some((*self.numbers.get(&at)?, answer));
                let answers = answers.into_iter().filter_map(number).collect();
                self.note_failure(request, None);
                let ended = self.queue.answered(request, &answers, now);
                if ended.iter().any(|ended| matches!(ended.fate, Fate::Stored(_))) {
                    self.failure = None;
                }
                self.end(ended);
                self.throttle.note(throttle, now);
            }
            Report::Lost { request, unsent, error } => {
                if error.is_some() {
                    self.note_failure(request, error);
                }
                let ended = self.queue.lost(request, unsent, now);
                self.end(ended);
            }
        }
    }

    /// Records why the partitions of a request have no answer, or that they have one.
    fn note_failure(&mut self, request: u64, error: Option<Arc<Error>>) {
        for number in self.queue.partitions_of(request) {
            if let Some(partition) = self.partitions.get_mut(*number) {
                partition.failure.clone_from(&error);
            }
        }
    }

    fn end(&self, ended: Vec<Completion<Delivery>>) {
        for Completion { partition, payload, fate } in ended {
            let own = self.partitions.get(partition).and_then(|partition| partition.failure.as_deref());
            payload.end(outcome_of(fate, own.or(self.failure.as_deref())));
        }
    }
}

fn start_broker(broker: i32, cluster: &Cluster) -> mpsc::Sender<ToSend> {
    let (requests, incoming) = mpsc::channel(REQUESTS);
    tokio::spawn(run(broker, cluster.clone(), incoming));
    requests
}

#[cfg(test)]
mod tests;
