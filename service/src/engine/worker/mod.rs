//! A worker: runs handlers, and processes each record from its first attempt to its settlement.
//!
//! A worker is one task and owns its parts. Records arrive in chunks and settlements return in lists, so that nothing
//! is shared, locked or woken per record. This file is the loop; the parts do not know each other.

mod answers;
mod backoff;
mod batcher;
mod begin;
mod claim_requests;
mod claimer;
mod classifier;
mod conclude;
mod delivery_error;
mod fast_path;
mod invoker;
mod key_queues;
mod laps;
mod letters;
mod locate;
mod meter;
mod parts;
mod records;
mod request_queue;
mod scheduler;
mod settle_requests;
mod settler;
mod timers;
mod waited;
mod waits;

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::parts::Parts;
use self::timers::{Alarm, earliest};
use super::assigned::AssignmentId;
use super::messages::{Events, WorkerCommand, WorkerEvent};
use super::shared::Shared;
use crate::table::Routes;

/// The number of rounds before a worker yields to other tasks.
const ROUNDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Worker {
    commands: mpsc::UnboundedReceiver<WorkerCommand>,
    parts: Parts,
    alarm: Alarm,
    /// The coordinator waits until no handler runs.
    quiescing: bool,
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        shared: Arc<Shared>,
        routes: Routes,
        commands: mpsc::UnboundedReceiver<WorkerCommand>,
        events: Events,
    ) -> Self {
        let parts = Parts::new(number, shared, routes, events);
        Self { commands, parts, alarm: Alarm::default(), quiescing: false }
    }

    /// Runs until the coordinator is gone.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.parts.shared.clone();
        shared.heartbeats[self.parts.number].work();
        let polled = self.poll_rounds(cx);
        self.parts.invoker.give_unused_permits_back();
        shared.heartbeats[self.parts.number].rest();
        polled
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let now = Instant::now();
            self.parts.meter.begin_lap(now);
            let mut moved = false;
            while let Poll::Ready(command) = self.commands.poll_recv(cx) {
                let Some(command) = command else { return Poll::Ready(()) };
                self.obey(command);
                moved = true;
            }
            moved |= self.take_results(cx, now);
            moved |= self.take_answers(cx, now);
            self.parts.batcher.wake(now);
            moved |= self.parts.scheduler.wake(now);
            moved |= self.parts.begin_ready(now);
            moved |= self.parts.begin_fresh(now);
            moved |= self.parts.begin_batches();
            if let Some((now, lap)) = self.parts.meter.end_lap() {
                self.parts.invoker.set_deadlines(now, lap);
            }
            moved |= self.poll_readiness(cx);
            moved |= self.claim();
            self.report();
            if !moved && self.alarm.poll(self.due(), cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Work(chunk) if chunk.assigned.is_stopping() => self.parts.released = true,
            WorkerCommand::Work(chunk) => {
                let claim = self.parts.shared.backends.store.is_some();
                self.parts.scheduler.push(chunk, claim);
            }
            WorkerCommand::Revoke(assignment) => self.revoke(assignment),
            WorkerCommand::Cancel(assignment) => self.cancel(assignment),
            WorkerCommand::Wake => {}
            WorkerCommand::Quiesce => self.quiescing = true,
            WorkerCommand::RunIsolated => self.parts.begin_isolated(),
            WorkerCommand::Locate(wanted) => self.parts.locate(&wanted),
            WorkerCommand::Skip { assignment, offset } => {
                if let Some(record) = self.parts.settler.skip(assignment, offset) {
                    self.parts.skipped(record);
                }
            }
        }
    }

    /// Releases the work of an assignment that has not begun; work that has begun continues.
    fn revoke(&mut self, assignment: AssignmentId) {
        self.parts.released = true;
        let mut revoked = Vec::new();
        self.parts.scheduler.revoke(assignment, &mut revoked);
        self.parts.batcher.revoke(assignment, &mut revoked);
        self.parts.claimer.revoke(assignment, &mut revoked);
        revoked.into_iter().for_each(|record| self.parts.release(record));
    }

    /// Cancels the work of an assignment that has begun, too, except completions.
    fn cancel(&mut self, assignment: AssignmentId) {
        self.revoke(assignment);
        let mut cancelled = Vec::new();
        for work in self.parts.invoker.cancel(assignment) {
            if work.probe {
                self.parts.meter.return_probe();
            }
            cancelled.extend(work.records.into_vec());
        }
        self.parts.settler.revoke(assignment, &mut cancelled);
        cancelled.into_iter().for_each(|record| self.parts.release(record));
    }

    /// Takes the results of handlers. Returns whether there were any.
    fn take_results(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        while let Some(finished) = self.parts.invoker.poll_done(cx) {
            self.parts.finish(finished);
        }
        for finished in self.parts.invoker.take_expired(now) {
            self.parts.finish(finished);
        }
        self.parts.meter.measure_ended()
    }

    /// Takes the answers of stores, sinks and publishers. Returns whether there were any.
    fn take_answers(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let (mut done, mut claimed) = (Vec::new(), Vec::new());
        self.parts.settler.poll(cx, now, &mut done);
        let is_isolated = self.parts.shared.circuit_breaker.is_isolated();
        self.parts.claimer.poll(cx, now, is_isolated, &mut claimed);
        let moved = !done.is_empty() || !claimed.is_empty();
        done.into_iter().for_each(|done| self.parts.done(done));
        claimed.into_iter().for_each(|claimed| self.parts.claimed(claimed));
        moved
    }

    /// Asks the routes whose readiness deliveries wait for, as long as these may start: a route that is asked may have
    /// a permit that others wait for. Returns whether any is ready.
    fn poll_readiness(&mut self, cx: &mut Context<'_>) -> bool {
        let Parts { shared, scheduler, batcher, invoker, .. } = &mut self.parts;
        let is_full = invoker.running() >= shared.policy.worker_concurrency;
        let mut ready = false;
        for handler in invoker.not_ready() {
            let waits = scheduler.is_throttled(handler) || batcher.is_throttled(handler);
            let starts = waits && !is_full && (shared.circuit_breaker.may_pass() || scheduler.is_permitted(handler));
            if !starts {
                invoker.give_permit_back(handler, waits);
            } else if invoker.poll_ready(handler, cx) {
                scheduler.unthrottle(handler);
                ready = true;
            }
        }
        ready
    }

    /// Requests claims of arrived chunks, unless an isolated delivery runs: a claim would be lost if that crashes the
    /// process.
    fn claim(&mut self) -> bool {
        !self.parts.shared.circuit_breaker.is_isolated() && self.parts.claim_chunks()
    }

    /// Reports what was settled and released since the last report to the coordinator.
    fn report(&mut self) {
        self.parts.meter.report();
        let settled = self.parts.settler.take_settled();
        if !settled.is_empty() {
            self.parts.send(WorkerEvent::Settled(settled));
        }
        if std::mem::take(&mut self.parts.released) {
            self.parts.send(WorkerEvent::Released);
        }
        if self.quiescing && self.parts.invoker.running() == 0 && !self.parts.claimer.is_open() {
            self.quiescing = false;
            self.parts.send(WorkerEvent::Quiesced);
        }
    }

    /// Returns when any part has something to do, if nothing else happens.
    fn due(&self) -> Option<Instant> {
        let Parts { scheduler, batcher, invoker, claimer, settler, .. } = &self.parts;
        earliest([scheduler.due(), batcher.due(), invoker.due(), claimer.due(), settler.due()])
    }
}
