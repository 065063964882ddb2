//! The shutdown of a service: by when it ends, what it did not settle, and its final steps (rule E7).

use std::time::Duration;

use tidings_core::{Consumer, Error, ErrorKind, Name, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::engine::shared::Shared;
use crate::logs;
use crate::status::{ReturnedPartition, ShutdownReport};
use crate::time::after;

/// How long after its deadline a shutdown waits for a commit's answer.
const STOP_TIME: Duration = Duration::from_secs(10);
/// The time limit of each final step.
const FINISH_STEP: Duration = Duration::from_secs(5);

/// The progress of a shutdown.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    deadline: Option<Instant>,
    begun_at: Option<Instant>,
    /// The partitions that were given back with unsettled records.
    returned: Vec<ReturnedPartition>,
}

impl Shutdown {
    /// Begins the shutdown, or shortens it: returns whether its deadline is a new one. After a drain with a long deadline,
    /// a signal still ends the service within the time that the process has.
    pub(super) fn begin(&mut self, time: Duration, now: Instant) -> bool {
        let deadline = after(now, time);
        let is_earlier = self.deadline.is_none_or(|earlier| deadline < earlier);
        if is_earlier {
            self.deadline = Some(deadline);
        }
        self.begun_at.get_or_insert(now);
        is_earlier
    }

    /// Returns when the shutdown began.
    pub(super) fn begun_at(&self) -> Option<Instant> {
        self.begun_at
    }

    pub(super) fn has_begun(&self) -> bool {
        self.deadline.is_some()
    }

    /// Returns when the shutdown ends, even if some calls have not answered.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline + STOP_TIME)
    }

    /// Returns whether the service is stopping, and nothing is left to do or no time is left.
    pub(super) fn is_drained(&self, is_quiet: bool, now: Instant) -> bool {
        self.ends_at().is_some_and(|at| is_quiet || at <= now)
    }

    /// Records a partition that was given back.
    pub(super) fn gave_back(&mut self, returned: Option<ReturnedPartition>) {
        self.returned.extend(returned.filter(|_| self.has_begun()));
    }

    /// Reports what was not settled, including the partitions that are `left`, for which there was no time.
    pub(super) fn report(&mut self, service: &Name, left: impl Iterator<Item = ReturnedPartition>) -> ShutdownReport {
        let mut returned = std::mem::take(&mut self.returned);
        returned.extend(left);
        returned.sort();
        for partition in returned.iter().filter(|partition| partition.cancelled) {
            let line = logs::Cancelled {
                service: &service.as_str(),
                topic: &partition.partition.topic.as_str(),
                partition: &partition.partition.partition,
                records: &partition.records,
            };
            line.log();
        }
        ShutdownReport { returned }
    }
}

/// Performs the final steps: flushes the publisher, releases the lease's claims, leaves the group.
pub(super) async fn finish(shared: &Shared, consumer: &dyn Consumer, workers: &mut JoinSet<()>) {
    let late = |what| Error::new(ErrorKind::Unavailable, format!("{what}: no answer"));
    let said = |done: std::result::Result<Result<()>, _>, what| done.unwrap_or_else(|_| Err(late(what)));
    let service = shared.identity.service.as_str();
    // Each step may take its whole time, and the engine is not blocked meanwhile.
    let turn = || shared.pulse.turn();
    turn();
    let closed = timeout(FINISH_STEP, shared.backends.publisher.close(FINISH_STEP)).await;
    if let Err(error) = said(closed, "close the publisher") {
        logs::PublisherNotClosed { service: &service, error: &error.report() }.log();
    }
    turn();
    // Claims are released once no work can run under them; a handler that blocks its thread may still run.
    if !stopped(workers).await {
        logs::ClaimsKept { service: &service }.log();
    } else if let Some(claims) = &shared.backends.store
        && let Err(error) = said(timeout(FINISH_STEP, claims.retire()).await, "end the lease")
    {
        logs::LeaseNotRetired { service: &service, error: &error.report() }.log();
    }
    turn();
    if let Err(error) = said(timeout(FINISH_STEP, consumer.close()).await, "leave the group") {
        logs::LeaveFailed { service: &service, error: &error.report() }.log();
    }
}

/// Waits until the claims of dropped deliveries are released, which also persists their attempt counts.
pub(super) async fn release_claims(shared: &Shared) {
    if let Some(claims) = &shared.backends.store
        && timeout(FINISH_STEP, claims.all_released()).await.is_err()
    {
        logs::AttemptsNotKept { service: &shared.identity.service.as_str() }.log();
    }
}

/// Stops the worker tasks. A task whose thread is blocked cannot be stopped: returns `false` without waiting for it.
async fn stopped(workers: &mut JoinSet<()>) -> bool {
    workers.abort_all();
    let stopped = async { while workers.join_next().await.is_some() {} };
    timeout(FINISH_STEP, stopped).await.is_ok()
}
