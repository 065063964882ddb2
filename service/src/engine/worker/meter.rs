//! Counts and observes what becomes of records, and reports the results of deliveries to the circuit breaker.

use std::sync::Arc;

use tidings_core::StoredRecord;

use crate::engine::assigned::Assigned;
use crate::engine::circuit_breaker::Change;
use crate::engine::counters::counts;
use crate::engine::messages::{Events, WorkerEvent};
use crate::engine::record::PendingRecord;
use crate::engine::shared::Shared;
use crate::observer::{RecordEvent, RecordOutcome};
use crate::status::Totals;

#[derive(Debug)]
pub(super) struct Meter {
    shared: Arc<Shared>,
    events: Events,
    /// The worker's number.
    worker: usize,
    /// Since the last report, by handler.
    counts: Box<[Totals]>,
    has_counted: bool,
    /// Handled deliveries that are not reported to the circuit breaker yet.
    unreported: usize,
}

impl Meter {
    pub(super) fn new(shared: &Arc<Shared>, events: Events, worker: usize) -> Self {
        let counts = counts(shared.table.len());
        Self { shared: shared.clone(), events, worker, counts, has_counted: false, unreported: 0 }
    }

    /// Returns the counts of a handler, or of records without one.
    fn count(&mut self, handler: Option<usize>) -> &mut Totals {
        self.has_counted = true;
        &mut self.counts[handler.unwrap_or(self.shared.table.len())]
    }

    /// Counts handled records.
    pub(super) fn handled(&mut self, handler: Option<usize>, count: usize) {
        self.count(handler).handled += count as u64;
        self.unreported += count;
    }

    /// Returns whether records are observed.
    pub(super) fn observes(&self) -> bool {
        self.shared.backends.observer.is_some()
    }

    /// Observes a record that was handled at once.
    pub(super) fn observe_handled(&self, handler: usize, assigned: &Assigned, record: &StoredRecord) {
        self.observe(RecordOutcome::Handled, Some(handler), assigned, record, 1, None);
    }

    /// Counts and observes a record that is settled.
    pub(super) fn settled(&mut self, record: &PendingRecord, outcome: RecordOutcome, reason: Option<&str>) {
        let handler = record.handler.map(|handler| handler as usize);
        match outcome {
            RecordOutcome::Skipped => self.count(handler).skipped += 1,
            RecordOutcome::Duplicate => self.count(handler).duplicates += 1,
            RecordOutcome::DeadLettered => self.count(handler).dead_lettered += 1,
            _ => {}
        }
        self.observe_pending(record, outcome, reason);
    }

    /// Counts and observes a failed attempt that is followed by another.
    pub(super) fn retried(&mut self, record: &PendingRecord, reason: &str) {
        self.count(record.handler.map(|handler| handler as usize)).retried += 1;
        self.observe_pending(record, RecordOutcome::Retried, Some(reason));
    }

    fn observe_pending(&self, record: &PendingRecord, outcome: RecordOutcome, reason: Option<&str>) {
        let (handler, runs) = (record.handler.map(|handler| handler as usize), record.runs.max(1));
        self.observe(outcome, handler, &record.id.assigned, record.stored(), runs, reason);
    }

    fn observe(
        &self,
        outcome: RecordOutcome,
        handler: Option<usize>,
        assigned: &Assigned,
        record: &StoredRecord,
        attempt: u32,
        reason: Option<&str>,
    ) {
        let Some(observer) = &self.shared.backends.observer else { return };
        observer.observe(&RecordEvent {
            outcome,
            service: &self.shared.identity.service,
            group: &self.shared.identity.group,
            handler: handler.map(|handler| &self.shared.table.info(handler).name),
            origin: &assigned.origin,
            record,
            epoch: assigned.epoch,
            attempt,
            reason,
        });
    }

    /// Reports a failed delivery to the circuit breaker; too many open it.
    pub(super) fn failed(&mut self) {
        self.shared.circuit_breaker.succeeded(std::mem::take(&mut self.unreported));
        if let change @ Change::Opened(_) = self.shared.circuit_breaker.failed() {
            self.send(change);
        }
    }

    /// Reports the result of the circuit breaker's probe.
    pub(super) fn probed(&self, handled: bool) {
        self.send(self.shared.circuit_breaker.probed(handled));
    }

    /// Returns the unused probe, for whichever worker has a delivery for it.
    pub(super) fn return_probe(&self) {
        self.shared.circuit_breaker.return_probe();
        self.send(Change::ProbeReturned);
    }

    fn send(&self, change: Change) {
        // If the coordinator is gone, no delivery starts any more.
        let _ = self.events.send(WorkerEvent::Breaker(change));
    }

    /// Adds the counts to those of the service.
    pub(super) fn report(&mut self) {
        let handled = std::mem::take(&mut self.unreported);
        if handled > 0 {
            self.shared.circuit_breaker.succeeded(handled);
        }
        if std::mem::take(&mut self.has_counted) {
            self.shared.counters.add(self.worker, &mut self.counts);
        }
    }
}
