//! Starts the deliveries whose turn has come: records that waited, and batches.

use tidings_core::ErrorKind;
use tokio::time::Instant;
use tracing::Span;

use super::batcher::Batch;
use super::parts::Parts;
use super::records::{Records, Work};
use super::scheduler::Wait;
use crate::engine::circuit_breaker::Pass;
use crate::engine::messages::{IsolationPermit, WorkerEvent};
use crate::engine::record::{ClaimState, MAX_CRASHES, PendingRecord, Stage};
use crate::engine::routing::Verdict;
use crate::observer::RecordOutcome;
use crate::route::Started;

/// The result of starting a record.
pub(super) enum Turn {
    Taken,
    /// The record must wait until deliveries may start.
    Kept(PendingRecord),
}

impl Parts {
    /// Returns whether the concurrency limit is reached by deliveries that run or are ready.
    pub(super) fn is_full(&self) -> bool {
        let ready = self.batcher.due_count(|handler| self.invoker.may_be_ready(handler));
        self.invoker.running() + ready >= self.shared.policy.worker_concurrency
    }

    /// Starts the records whose turn has come. Returns whether it started any.
    pub(super) fn begin_ready(&mut self, now: Instant) -> bool {
        let mut begun = self.begin_permitted(now);
        while !self.is_full()
            && let Some(record) = self.next_ready()
        {
            match self.begin(record, now) {
                Turn::Taken => begun = true,
                Turn::Kept(record) => {
                    self.scheduler.put_back_ready(record);
                    break;
                }
            }
        }
        begun
    }

    /// Starts the record that runs isolated once its handler is ready. Batches that are due do not count as running:
    /// they wait for it.
    fn begin_permitted(&mut self, now: Instant) -> bool {
        let invoker = &self.invoker;
        let is_open = |handler, record: &PendingRecord| record.has_permit() && invoker.may_be_ready(handler);
        let Some(record) = self.scheduler.next_throttled(is_open) else { return false };
        if let Turn::Kept(record) = self.begin(record, now) {
            self.scheduler.put_back_ready(record);
        }
        true
    }

    /// Returns the next record that is ready; one that waited for its handler goes first.
    fn next_ready(&mut self) -> Option<PendingRecord> {
        let (invoker, breaker) = (&self.invoker, &self.shared.circuit_breaker);
        let is_open = |handler, record: &PendingRecord| {
            invoker.may_be_ready(handler) && (record.has_permit() || breaker.may_pass())
        };
        self.scheduler.next_throttled(is_open).or_else(|| self.scheduler.next_ready())
    }

    /// Starts a record whose turn has come.
    pub(super) fn begin(&mut self, mut record: PendingRecord, now: Instant) -> Turn {
        if record.id.assigned.is_stopping() {
            self.release(record);
            return Turn::Taken;
        }
        let Some(handler) = record.handler.map(|handler| handler as usize) else {
            return self.begin_unroutable(record);
        };
        if record.key.held().is_some_and(|key| self.scheduler.is_shared(key)) {
            // Its predecessor in the batch is handled, but not settled yet.
            self.scheduler.queue_again(vec![record]);
            return Turn::Taken;
        }
        if record.is_isolated() && !record.has_permit() {
            self.scheduler.put(record, Wait::Isolation);
            self.send(WorkerEvent::WantIsolated { worker: self.number });
            return Turn::Taken;
        }
        if let ClaimState::Granted(_, guard) = &record.claim
            && !guard.is_current()
        {
            self.claimer.disclaim(&mut record);
            record.drop_permit();
        }
        let crashes = match &record.claim {
            ClaimState::NotNeeded => 0,
            ClaimState::Granted(history, _) => history.crashes,
            ClaimState::Unclaimed => {
                self.scheduler.hold(&mut record);
                self.claimer.claim(record);
                return Turn::Taken;
            }
        };
        if crashes >= MAX_CRASHES {
            self.bury_crashed(record, crashes);
            return Turn::Taken;
        }
        // A batch error that names no record counts against none of them.
        if record.has_failed()
            && record.failures() > self.shared.policy.retry.max_retries
            && let Some((kind, text)) = record.take_error()
        {
            self.give_up(record, kind, text);
            return Turn::Taken;
        }
        if self.shared.table.info(handler).batch.is_some() && !record.has_permit() {
            self.scheduler.hold(&mut record);
            self.gather(record, handler, now);
            return Turn::Taken;
        }
        self.begin_alone(record, handler)
    }

    fn begin_alone(&mut self, record: PendingRecord, handler: usize) -> Turn {
        if !self.invoker.may_be_ready(handler) {
            self.scheduler.put(record, Wait::Handler);
            return Turn::Taken;
        }
        let pass = if record.has_permit() { Pass::Free } else { self.shared.circuit_breaker.pass() };
        if pass == Pass::Wait {
            return Turn::Kept(record);
        }
        if let Some(Records::One(record)) = self.start(Records::One(record), handler, pass == Pass::Probe) {
            self.scheduler.put(record, Wait::Handler);
        }
        Turn::Taken
    }

    /// Settles a record without a handler that had to wait until deliveries may start.
    fn begin_unroutable(&mut self, record: PendingRecord) -> Turn {
        let pass = self.shared.circuit_breaker.pass();
        if pass == Pass::Wait {
            return Turn::Kept(record);
        }
        let verdict = Verdict::of(&self.shared, &record.origin().topic, record.stored());
        if !self.unroutable(record, verdict, pass) && pass == Pass::Probe {
            self.meter.return_probe();
        }
        Turn::Taken
    }

    /// Settles a record without a handler. Returns whether it used its pass, as a delivery that failed.
    pub(super) fn unroutable(&mut self, record: PendingRecord, verdict: Verdict, pass: Pass) -> bool {
        match verdict {
            Verdict::Skip(why) => self.settle(record, RecordOutcome::Skipped, Some(why)),
            Verdict::Unwanted(error) => self.bury(record, ErrorKind::Undecodable, error.report()),
            Verdict::Undecodable(error) => {
                let probe = pass == Pass::Probe;
                if probe {
                    self.meter.probed(false);
                } else {
                    self.meter.failed();
                }
                self.bury(record, ErrorKind::Undecodable, error.report());
                return probe;
            }
            // The callers handle records with a handler themselves.
            Verdict::Handler(_) => self.scheduler.put(record, Wait::Nothing),
        }
        false
    }

    /// Adds a record, which holds its key, to the batch of its handler, and those behind it as far as there is room.
    pub(super) fn gather(&mut self, record: PendingRecord, handler: usize, now: Instant) {
        let options = self.shared.table.info(handler).batch.unwrap_or_default();
        let key = record.key.hash();
        self.batcher.add(record, options, now);
        let batcher = &mut self.batcher;
        while let Some(key) = key
            && let Some(next) = self.scheduler.pop_queued_if(key, |next| batcher.takes(next) && next.may_begin())
        {
            batcher.add(next, options, now);
        }
    }

    /// Starts the batches that are full, due, or of handlers that do not wait. Returns whether it started any.
    pub(super) fn begin_batches(&mut self) -> bool {
        let mut begun = false;
        while self.invoker.running() < self.shared.policy.worker_concurrency {
            let invoker = &self.invoker;
            let Some(at) = self.batcher.next(|handler| invoker.may_be_ready(handler)) else { break };
            let pass = self.shared.circuit_breaker.pass();
            if pass == Pass::Wait {
                break;
            }
            let batch = self.batcher.take(at);
            begun = true;
            if !self.begin_batch(batch, pass == Pass::Probe) && pass == Pass::Probe {
                self.meter.return_probe();
            }
        }
        begun
    }

    /// Returns whether the batch was started.
    fn begin_batch(&mut self, batch: Batch, probe: bool) -> bool {
        if batch.assigned().is_stopping() {
            batch.into_records().into_iter().for_each(|record| self.release(record));
            return false;
        }
        if !batch.records().iter().all(PendingRecord::may_begin) {
            // The lease may have expired since they were gathered: its claims are then made again.
            self.claim_again(batch.into_records());
            return false;
        }
        let handler = batch.handler();
        if let Some(records) = self.start(Records::Many(batch.into_records()), handler, probe) {
            // Its probe was returned.
            self.batcher.put_back(records.into_vec());
        }
        true
    }

    fn claim_again(&mut self, mut records: Vec<PendingRecord>) {
        for record in &mut records {
            if !record.may_begin() {
                self.claimer.disclaim(record);
            }
        }
        for record in self.scheduler.first_of_keys(records) {
            match record.claim {
                ClaimState::Unclaimed => self.claimer.claim(record),
                _ => self.scheduler.put(record, Wait::Nothing),
            }
        }
    }

    /// Starts a delivery of records of one assignment and one handler; returns them if the handler is not ready.
    pub(super) fn start(&mut self, mut records: Records, handler: usize, probe: bool) -> Option<Records> {
        records.as_mut_slice().iter_mut().for_each(|record| record.runs += 1);
        let delivery = self.invoker.delivery(handler, records.as_slice());
        let span = self.shared.span_of(handler, &delivery);
        let started = self.invoker.start(handler, delivery, &span);
        if matches!(started, Started::NotReady) {
            records.as_mut_slice().iter_mut().for_each(|record| record.runs -= 1);
            if probe {
                self.meter.return_probe();
            }
            return Some(records);
        }
        self.started(Work { records, probe }, started, span);
        None
    }

    /// Goes on after the first poll of a handler that was ready.
    pub(super) fn started(&mut self, mut work: Work, started: Started, span: Span) {
        match started {
            Started::Done(result) => {
                self.meter.done_at_once(work.records.handler());
                work.records.advance(Stage::Running);
                self.conclude(work, result);
            }
            Started::Pending(future, begun) => {
                work.records.as_mut_slice().iter_mut().for_each(|record| self.scheduler.hold(record));
                let number = self.meter.pending();
                self.invoker.keep(work, future, begun, span, number);
            }
            Started::NotReady => {}
        }
    }

    /// Claims the record that waits to run isolated, to start it: nothing else runs now.
    pub(super) fn begin_isolated(&mut self) {
        let permit = IsolationPermit::new(self.events.clone());
        match self.scheduler.next_isolated() {
            Some(record) if !record.id.assigned.is_stopping() => self.claimer.claim_isolated(record, permit),
            Some(record) => self.release(record),
            None => {}
        }
    }

    pub(super) fn send(&self, event: WorkerEvent) {
        // If the coordinator is gone, no event is needed; the worker ends when it next reads its commands.
        let _ = self.events.send(event);
    }
}
