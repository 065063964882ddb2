//! The native publisher: batches are encoded when records are queued, and sent over native connections.
//!
//! A record passes these parts: `enqueue` chooses its partition, takes capacity and appends it to the batch of its
//! partition in `buffer`; `sending` takes batches and sends them by the state machine of [`crate::wire::producer`]; and
//! `call` returns the answers. The publisher has one thread, on which its connections run.

mod buffer;
mod call;
mod delivery;
mod enqueue;
mod missing;
mod news;
mod questions;
mod sending;
mod throttle;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Guarantees, Position, Publisher, Record, Result, async_trait};
use tokio::sync::{oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use self::call::OpenCall;
use self::enqueue::{Job, Shared};
use self::sending::Sending;
use self::topics::Topics;
use super::queue_job::{JobQueue, PendingCall};
use super::{CLOSE_GRACE, LONGEST, closed, gone, unanswered};
use crate::config::KafkaConfig;
use crate::dedicated_runtime::DedicatedRuntime;
use crate::wire::cluster::Cluster;
use crate::wire::producer::Identity;

/// Idempotent publisher on native connections, with the contract and the bounds of
/// [`KafkaPublisher`](crate::KafkaPublisher).
#[derive(Debug)]
pub(crate) struct NativePublisher {
    // Ordered by first poll, whether or not the caller polls again.
    jobs: JobQueue<Job>,
    shared: Arc<Shared>,
    runtime: DedicatedRuntime,
    /// Set when new calls are refused.
    closed: AtomicBool,
    /// Whether all records were answered in time; shared by all calls of `close`.
    ending: OnceLock<watch::Receiver<Option<bool>>>,
}

impl NativePublisher {
    /// Connects, and starts the publisher's thread.
    ///
    /// # Errors
    /// If there is no connection, or the right to publish is missing.
    pub(crate) async fn open(config: &KafkaConfig) -> Result<Self> {
        let runtime = DedicatedRuntime::new("kafka-publisher")?;
        let (config, kept) = (config.clone(), runtime.clone());
        let opened = runtime.run(async move {
            let cluster = Cluster::connect(&config).await.map_err(|error| error.in_context("open a publisher"))?;
            let first = questions::first_identity(&cluster).await?;
            Ok(Self::start(cluster, first, kept))
        });
        opened.await
    }

    /// Starts the tasks of a publisher on the current runtime, which is `runtime`.
    fn start(cluster: Cluster, first: Option<Identity>, runtime: DedicatedRuntime) -> Self {
        let config = cluster.config().clone();
        let sending = Sending::start(cluster.clone(), first, runtime.clone());
        let shared = Arc::new(Shared::new(sending, Topics(cluster), &config));
        let (jobs, queue, length) = JobQueue::new();
        tokio::spawn(enqueue::run(Arc::clone(&shared), queue, length));
        Self { jobs, shared, runtime, closed: AtomicBool::new(false), ending: OnceLock::new() }
    }

    /// Starts closing; returns a receiver of the result.
    fn end(&self, ends: Instant) -> watch::Receiver<Option<bool>> {
        let shared = Arc::clone(&self.shared);
        let (reply, all_queued) = oneshot::channel();
        let is_queued = self.jobs.push(Job::Barrier(reply));
        let (done, ending) = watch::channel(None);
        let kept = self.runtime.clone();
        // Spawned, so that it continues after its caller stops waiting.
        self.runtime.handle().spawn(async move {
            if is_queued {
                let _in_time = timeout_at(ends, all_queued).await;
            }
            shared.abandon();
            let answered = async {
                // A call that has the turn may queue records until then.
                shared.all_queued().await;
                shared.sending.drain().await;
            };
            let drained = timeout_at(ends + CLOSE_GRACE / 2, answered).await;
            done.send_replace(Some(drained.is_ok()));
            drop((shared, kept));
        });
        ending
    }
}

/// Abandons records that wait at the limit or for a topic: their callers are gone.
impl Drop for NativePublisher {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

#[async_trait]
impl Publisher for NativePublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let count = records.len();
        if self.closed.load(Ordering::Acquire) {
            consume_budget().await;
            return (0..count).map(|_| Err(closed())).collect();
        }
        let open = OpenCall::new(count);
        let call = open.call();
        let pending = self.shared.queue(&self.jobs, records, open);
        call.ended().await;
        // There may have been nothing to wait for, and a loop of such calls must let other tasks run.
        consume_budget().await;
        // Without an answer, the publisher's thread is gone.
        call.answers(count, || if pending.as_ref().is_none_or(PendingCall::is_taken) { gone() } else { closed() })
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let ends = Instant::now() + deadline.min(LONGEST);
        let mut ending = self.ending.get_or_init(|| self.end(ends)).clone();
        // A later call may have a shorter deadline than the one that started the close.
        match timeout_at(ends + CLOSE_GRACE, ending.wait_for(Option::is_some)).await {
            Ok(Ok(drained)) if *drained == Some(true) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            _ => Err(Error::new(ErrorKind::Indeterminate, unanswered())),
        }
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
