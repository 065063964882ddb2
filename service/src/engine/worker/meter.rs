//! Counts and observes what becomes of records, and reports the results of deliveries to the circuit breaker.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{StoredRecord, TopicPartition};
use tokio::time::Instant;

use super::laps::{Lap, Laps};
use crate::engine::assigned::Assigned;
use crate::engine::circuit_breaker::Change;
use crate::engine::counters::{Counts, counts};
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
    counts: Box<[Counts]>,
    has_counted: bool,
    laps: Laps,
    /// Deliveries that were pending and have ended since the last reading of the clock: the handler, and when it began.
    ended: Vec<(Option<usize>, Option<Instant>)>,
    /// Handled deliveries that are not reported to the circuit breaker yet.
    unreported: usize,
}

impl Meter {
    pub(super) fn new(shared: &Arc<Shared>, events: Events, worker: usize) -> Self {
        let (counts, laps) = (counts(shared.table.len()), Laps::new(shared.table.len()));
        Self {
            shared: shared.clone(),
            events,
            worker,
            counts,
            has_counted: false,
            laps,
            ended: Vec::new(),
            unreported: 0,
        }
    }

    /// Returns the counts of a handler, or of records without one.
    fn count(&mut self, handler: Option<usize>) -> &mut Totals {
        &mut self.counts(handler).totals
    }

    fn counts(&mut self, handler: Option<usize>) -> &mut Counts {
        self.has_counted = true;
        &mut self.counts[handler.unwrap_or(self.shared.table.len())]
    }

    /// Begins to measure the deliveries that follow.
    pub(super) fn begin_lap(&mut self, now: Instant) {
        self.laps.begin(now);
    }

    /// Ends the measurement of the deliveries that were begun, if any were.
    pub(super) fn end_lap(&mut self) -> Option<(Instant, Lap)> {
        if !self.laps.any() {
            return None;
        }
        let now = Instant::now();
        self.has_counted = true;
        Some((now, self.laps.end(now, &mut self.counts)))
    }

    /// Counts a record that was handled at once, in a delivery of its own.
    pub(super) fn handled_at_once(&mut self, handler: usize) {
        self.laps.single(handler);
        self.unreported += 1;
    }

    /// Counts another delivery that was done at once.
    pub(super) fn done_at_once(&mut self, handler: Option<usize>) {
        if let Some(handler) = handler {
            self.laps.other(handler);
        }
    }

    /// Counts a delivery that is pending after its first poll; returns its number in the lap.
    pub(super) fn pending(&mut self) -> u32 {
        self.laps.pending()
    }

    /// Counts a delivery that was pending since it began, and has ended.
    pub(super) fn ended(&mut self, handler: Option<usize>, since: Option<Instant>) {
        self.ended.push((handler, since));
    }

    /// Measures the deliveries that have ended, by one reading of the clock. Returns whether there were any.
    pub(super) fn measure_ended(&mut self) -> bool {
        if self.ended.is_empty() {
            return false;
        }
        let now = Instant::now();
        self.has_counted = true;
        for (handler, since) in self.ended.drain(..) {
            let counts = &mut self.counts[handler.unwrap_or(self.shared.table.len())];
            counts.durations.record(since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)), 1);
        }
        self.laps.begin(now);
        true
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
        self.observe(RecordOutcome::Handled, Some(handler), (&assigned.origin, assigned.epoch), record, 1, None);
    }

    /// Counts and observes a record that is settled.
    pub(super) fn settled(&mut self, record: &PendingRecord, outcome: RecordOutcome, reason: Option<&str>) {
        let handler = record.handler.map(|handler| handler as usize);
        match outcome {
            RecordOutcome::Skipped => self.count(handler).skipped += 1,
            RecordOutcome::Duplicate => self.count(handler).duplicates += 1,
            RecordOutcome::DeadLettered => self.count(handler).dead_lettered += 1,
            RecordOutcome::Forwarded => self.count(handler).forwarded += 1,
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
        let from = (record.origin(), record.id.assigned.epoch);
        self.observe(outcome, handler, from, record.stored(), runs, reason);
    }

    fn observe(
        &self,
        outcome: RecordOutcome,
        handler: Option<usize>,
        (origin, epoch): (&TopicPartition, u64),
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
            origin,
            record,
            epoch,
            attempt,
            reason,
        });
    }

    /// Counts a failed delivery.
    pub(super) fn delivery_failed(&mut self, handler: Option<usize>) {
        self.counts(handler).failures += 1;
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
