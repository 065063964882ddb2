//! The worker on a half's thread: passes records to the client's producer, and replaces a producer that has ended.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use futures_util::future::FutureExt;
use futures_util::stream::{SelectAll, StreamExt};
use tidings_core::{Error, ErrorKind, Name, Result};
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::bound::Share;
use super::closed;
use super::halves::{Batch, Head, One, Work};
use super::lane::{Answered, Lane, answer_of};
use crate::client::connection::{Connection, Role};
use crate::client::producer::{Content, Producer, Refusal, Target, Underway, Untaken};
use crate::config::KafkaConfig;
use crate::dedicated_runtime::DedicatedRuntime;

/// Pause before a missing topic is looked up again, or brokers that provided no new producer are asked again.
const LEAVE_ALONE: Duration = Duration::from_secs(2);
/// Minimum interval between reads of the client's retry count.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// The client's producer, which may have to be replaced.
#[derive(Debug, Clone)]
pub(super) struct Current(Arc<Mutex<Arc<Producer>>>);

impl Current {
    fn new(producer: Arc<Producer>) -> Self {
        Self(Arc::new(Mutex::new(producer)))
    }

    pub(super) fn get(&self) -> Arc<Producer> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, producer: Arc<Producer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = producer;
    }
}

/// State of a half's thread.
pub(super) struct Worker {
    connection: Connection,
    config: KafkaConfig,
    producer: Arc<Producer>,
    current: Current,
    given_up: Arc<AtomicBool>,
    /// Set when the half is closing.
    closing: bool,
    /// Why the producer accepts no more records.
    over: Option<Over>,
    /// Topics that were not found.
    missing: HashMap<Name, Missing, RandomState>,
    /// Bytes in the open batches of partitions whose topics have a limit below the configured batch size.
    filled: HashMap<Target, usize, RandomState>,
    /// When the client's retry count was read, and its value.
    retries: (Instant, u64),
}

/// Why records of a topic cannot be sent, and until when it is not looked up again: all other records of the half
/// wait for a lookup.
struct Missing {
    until: Instant,
    kind: ErrorKind,
    why: String,
}

/// Why the client's producer accepts no more records, or why there is no replacement yet.
struct Over {
    kind: ErrorKind,
    why: String,
    /// When a replacement may be opened.
    from: Instant,
}

impl Worker {
    /// Connects and opens the producer.
    ///
    /// # Errors
    /// If there is no connection, or no broker gives the producer its identity.
    pub(super) async fn open(config: KafkaConfig, given_up: Arc<AtomicBool>) -> Result<Self> {
        let connection = Connection::open(&config, Role::Publishing).await?;
        let producer = Arc::new(Producer::open(&connection, &config).await?);
        Ok(Self {
            connection,
            config,
            current: Current::new(Arc::clone(&producer)),
            producer,
            given_up,
            closing: false,
            over: None,
            missing: HashMap::default(),
            filled: HashMap::default(),
            retries: (Instant::now(), 0),
        })
    }

    pub(super) fn current(&self) -> Current {
        self.current.clone()
    }

    /// Runs until the publisher is gone, and then until all records are answered, at most for the delivery timeout.
    pub(super) async fn run(mut self, mut given: mpsc::UnboundedReceiver<Work>, runtime: DedicatedRuntime) {
        while let Some(work) = given.recv().await {
            // The client logs to the program's subscriber, which may panic. Each step leaves this state consistent,
            // and unfinished work is dropped, which informs its waiters.
            if AssertUnwindSafe(self.work(work, &runtime)).catch_unwind().await.is_err() {
                error!("a publisher's thread panicked: records that it was given may or may not be stored; it goes on");
            }
        }
        let _in_time = self.producer.close(self.config.delivery_timeout).await;
        drop(self);
        drop(runtime);
    }

    async fn work(&mut self, work: Work, runtime: &DedicatedRuntime) {
        match work {
            Work::Send(batch) => {
                self.renew().await;
                self.send(batch).await;
                // To the client, which sends the records, and to the tasks that wait for answers.
                yield_now().await;
            }
            Work::Alone { target, record, share, answer } => {
                self.renew().await;
                let retries = self.count_retries();
                match self.producer.enqueue_alone(&target, record, retries).await {
                    Ok(underway) => {
                        let came = answer_of(Lane::of_one(target, &self.producer, underway, share));
                        tokio::spawn(came.map(|came| drop(answer.send(came.map_err(|refusal| refusal.error)))));
                    }
                    Err(untaken) => drop(answer.send(Err(self.note(untaken)))),
                }
            }
            Work::Close { ends, done } => {
                self.closing = true;
                let (producer, runtime) = (Arc::clone(&self.producer), runtime.clone());
                tokio::spawn(async move {
                    drop(done.send(producer.close(ends.saturating_duration_since(Instant::now())).await));
                    // Not before, even if the publisher is dropped meanwhile.
                    drop(runtime);
                });
            }
        }
    }

    async fn send(&mut self, Batch { heads, records, mut share, answers, .. }: Batch) {
        let (retries, producer) = (self.count_retries(), Arc::clone(&self.producer));
        let empty = |share: &Share| -> Vec<Lane> {
            heads.iter().map(|head| Lane::new(head.target.clone(), &producer, share)).collect()
        };
        let (mut lanes, mut failed) = (empty(&share), Vec::new());
        for One { place, lane, bytes, record } in records {
            // Earlier records must not wait for a topic lookup.
            let waits = || answer(std::mem::replace(&mut lanes, empty(&share)), std::mem::take(&mut failed), &answers);
            let queued = self.queue(&producer, &heads[lane], (record, retries), waits).await;
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

    /// Puts a record into the client's queue; `waits` is called before its topic is looked up.
    async fn queue(
        &mut self,
        producer: &Producer,
        Head { target, most }: &Head,
        (record, retries): (Content, u64),
        waits: impl FnOnce(),
    ) -> Result<Underway> {
        // Before the attempt: a record that the client accepted may be stored.
        if self.given_up.load(Ordering::Acquire) {
            return Err(closed());
        }
        let alone = most.is_some_and(|most| self.make_room(target, record.wire_bytes(), most.get() as usize));
        // The task's budget for operations that are ready at once is less than a batch.
        let mut queuing = pin!(unconstrained(producer.enqueue(target, record, retries)));
        let queued = match queuing.as_mut().now_or_never() {
            Some(queued) => queued,
            None => {
                if let Some(error) = refusal(&mut self.missing, &target.topic) {
                    return Err(error);
                }
                waits();
                let queued = queuing.await;
                self.note_missing(&target.topic, &queued);
                queued
            }
        };
        match queued {
            Ok(underway) if alone => Ok(underway.alone()),
            Ok(underway) => Ok(underway),
            Err(untaken) => Err(self.note(untaken)),
        }
    }

    fn note_missing(&mut self, topic: &Name, queued: &Result<Underway, Untaken>) {
        let Err(Untaken { error, over: false }) = queued else { return };
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) {
            let (until, why) = (Instant::now() + LEAVE_ALONE, error.report());
            self.missing.insert(topic.clone(), Missing { until, kind: error.kind(), why });
        }
    }

    /// Closes the open batches if a record would make that of its partition larger than its topic accepts. Returns
    /// whether the record itself is too large.
    fn make_room(&mut self, target: &Target, bytes: usize, most: usize) -> bool {
        let filled = self.filled.get(target).copied().unwrap_or(0);
        if filled > 0 && filled + bytes > most {
            self.producer.close_batches();
            self.filled.clear();
        }
        *self.filled.entry(target.clone()).or_default() += bytes;
        bytes >= most
    }

    /// Returns the client's retry count, which may be a moment old.
    fn count_retries(&mut self) -> u64 {
        let now = Instant::now();
        if now.saturating_duration_since(self.retries.0) >= COUNT_EVERY {
            self.retries = (now, self.producer.retries());
        }
        self.retries.1
    }

    /// Returns the error of a record that was not accepted; records whether the producer has ended.
    fn note(&mut self, Untaken { error, over }: Untaken) -> Error {
        if !over || self.closing || self.given_up.load(Ordering::Acquire) {
            return error;
        }
        let over = self.over.get_or_insert_with(|| {
            let why = error.report();
            warn!(why, "the client's producer has ended; another one is opened");
            Over { kind: ErrorKind::Unavailable, why, from: Instant::now() }
        });
        Error::new(over.kind, format!("publish: a producer that has ended is replaced: {}", over.why))
    }

    /// Replaces an ended producer once its in-flight records are answered: otherwise records that it resends would be
    /// stored after later records of their key.
    async fn renew(&mut self) {
        let now = Instant::now();
        if self.closing || self.over.as_ref().is_none_or(|over| over.from > now) {
            return;
        }
        let limit = self.config.delivery_timeout;
        let _in_time = self.producer.close(limit).await;
        let opened = timeout(limit, Producer::open(&self.connection, &self.config)).await;
        let late = || Error::new(ErrorKind::Unavailable, "open a publisher: no broker answered in time");
        match opened.unwrap_or_else(|_| Err(late())) {
            Ok(producer) => {
                info!("another producer was opened in the place of one that had ended");
                self.producer = Arc::new(producer);
                self.current.set(Arc::clone(&self.producer));
                (self.over, self.retries) = (None, (Instant::now(), 0));
                self.filled.clear();
            }
            Err(error) => {
                let kind = if error.kind() == ErrorKind::Denied { ErrorKind::Denied } else { ErrorKind::Unavailable };
                self.over = Some(Over { kind, why: error.report(), from: Instant::now() + LEAVE_ALONE });
            }
        }
    }
}

/// Returns why a topic is not looked up now.
fn refusal(missing: &mut HashMap<Name, Missing, RandomState>, topic: &Name) -> Option<Error> {
    let now = Instant::now();
    missing.retain(|_, missing| missing.until > now);
    missing.get(topic).map(|missing| Error::new(missing.kind, missing.why.clone()))
}

/// Sends the answers to records. It continues without a receiver: each record keeps its share until it is answered.
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
