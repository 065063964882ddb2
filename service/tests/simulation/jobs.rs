//! The events of a simulation, and the handlers that execute the task in each event.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_core::{Batch, BoxError, Caused, Delivery, Envelope, failed, reject, stopped_at, unavailable};
use tidings_macros::Event;
use tidings_service::State;
use uuid::Uuid;

use super::history::{Happened, How, Log, Process};

/// The task of a handler, carried by the event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) key: Option<String>,
    /// The handler's duration: 0 is immediate, 1 a single yield, else milliseconds.
    pub(crate) wait: u64,
    /// The number of first runs that fail.
    pub(crate) fails: u32,
    pub(crate) by: Failing,
    /// The number of events it returns.
    pub(crate) returns: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failing {
    Error,
    Panic,
    Reject,
    Unavailable,
    Hang,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "jobs", type = "job", key = &self.task.key)]
pub(crate) struct Job {
    pub(crate) task: Task,
}

/// Handled in batches.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "parts", type = "part", key = &self.task.key)]
pub(crate) struct Part {
    pub(crate) task: Task,
}

/// The event returned by both handlers.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(crate = "tidings_core", topic = "dones", type = "done", key = "key")]
pub(crate) struct Done {
    key: Option<String>,
}

/// How a batch handler reports failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    Nothing,
    Failed,
    StoppedAt,
}

/// State shared by all handlers of a run.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) log: Arc<Log>,
    pub(crate) telling: Telling,
    runs: AtomicU64,
    /// The number of runs of each event.
    tries: Mutex<HashMap<Uuid, u32>>,
}

impl Shared {
    pub(crate) fn new(log: Arc<Log>, telling: Telling) -> Arc<Self> {
        Arc::new(Self { log, telling, runs: AtomicU64::new(0), tries: Mutex::default() })
    }

    /// Returns whether this run of the event fails.
    fn fails(&self, id: Uuid, task: &Task) -> bool {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = tries.entry(id).or_default();
        *tries = tries.saturating_add(1);
        *tries <= task.fails
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) shared: Arc<Shared>,
    /// Whether order is kept per partition.
    pub(crate) by_partition: bool,
    /// A planted bug: failures are reported as handled.
    pub(crate) swallows: bool,
}

/// A run of a handler: its end is recorded in any case.
struct Run<'a> {
    worker: &'a Worker,
    run: u64,
    how: How,
}

impl Worker {
    fn begin(&self, delivery: &Delivery) -> Run<'_> {
        let run = self.shared.runs.fetch_add(1, Ordering::Relaxed);
        let (process, origin, epoch) = (self.process, delivery.origin().clone(), delivery.epoch());
        let offsets = delivery.records().map(|record| record.offset).collect();
        self.shared.log.add(Happened::Began { process, run, origin, epoch, offsets });
        Run { worker: self, run, how: How::Dropped }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let (process, run, how) = (self.worker.process, self.run, self.how.clone());
        self.worker.shared.log.add(Happened::Ended { process, run, how });
    }
}

async fn wait(task: &Task) {
    match task.wait {
        0 => {}
        1 => tokio::task::yield_now().await,
        millis => tokio::time::sleep(Duration::from_millis(millis)).await,
    }
}

async fn fail(by: Failing) -> BoxError {
    match by {
        Failing::Error => "as asked".into(),
        Failing::Panic => panic!("as asked"),
        Failing::Reject => reject("as asked").into(),
        Failing::Unavailable => unavailable("as asked").into(),
        Failing::Hang => std::future::pending().await,
    }
}

pub(crate) async fn job(
    event: Envelope<Job>,
    delivery: Delivery,
    State(worker): State<Worker>,
) -> Result<Vec<Done>, BoxError> {
    let mut run = worker.begin(&delivery);
    let task = &event.payload.task;
    let fails = worker.shared.fails(event.id, task);
    wait(task).await;
    if fails {
        let error = fail(task.by).await;
        run.how = How::Failed;
        return if worker.swallows { Ok(Vec::new()) } else { Err(error) };
    }
    run.how = How::Ok;
    Ok((0..task.returns).map(|_| Done { key: task.key.clone() }).collect())
}

pub(crate) async fn parts(
    batch: Batch<Part>,
    delivery: Delivery,
    State(worker): State<Worker>,
) -> Result<Vec<Caused<Done>>, BoxError> {
    let mut run = worker.begin(&delivery);
    let mut done = Vec::new();
    let offsets: Vec<u64> = delivery.records().map(|record| record.offset).collect();
    // A handler that reports failures per record returns no events, and lets no record overtake a failed one.
    let keys: HashSet<_> = batch.iter().filter_map(|event| event.payload.task.key.as_ref()).collect();
    let apart = !worker.by_partition && keys.len() == batch.len();
    let may_tell = batch.len() > 1 && batch.iter().all(|event| event.payload.task.returns == 0);
    let mut bad: Vec<usize> = Vec::new();
    let mut error = None;
    for (place, event) in batch.iter().enumerate() {
        let task = &event.payload.task;
        wait(task).await;
        if worker.shared.fails(event.id, task) {
            let told = fail(task.by).await;
            let plain = task.by == Failing::Error && may_tell;
            match worker.shared.telling {
                Telling::StoppedAt if plain => {
                    run.how = How::Partly(offsets[..place].to_vec());
                    return Err(stopped_at(place, told).into());
                }
                Telling::Failed if plain && apart => {
                    bad.push(place);
                    error = Some(told);
                    continue;
                }
                _ => {
                    run.how = How::Failed;
                    return Err(told);
                }
            }
        }
        done.extend((0..task.returns).map(|_| event.causes(Done { key: task.key.clone() })));
    }
    if let Some(error) = error {
        let handled = (0..offsets.len()).filter(|place| !bad.contains(place)).map(|place| offsets[place]);
        run.how = How::Partly(handled.collect());
        return Err(failed(bad, error).into());
    }
    run.how = How::Ok;
    Ok(done)
}
