//! The end of a delivery's attempt: its result decides the next step of each record.

use tidings_core::event_id_of;
use tokio::time::Instant;
use tracing::field::display;

use super::classifier::{Attempt, Delivered, Next, Step, breaker_failures, classify};
use super::delivery_error::{DeliveryError, FailureCause};
use super::invoker::{Finished, HandlerResult};
use super::parts::Parts;
use super::records::{Records, Work};
use super::scheduler::Wait;
use crate::engine::messages::Cause;
use crate::engine::record::{ClaimState, DeliveryMode, PendingRecord};
use crate::engine::shared::Shared;
use crate::logs;
use crate::observer::RecordOutcome;

impl Parts {
    /// Processes the result of a delivery that was pending.
    pub(super) fn finish(&mut self, Finished { work, result, since }: Finished) {
        self.meter.ended(work.records.handler(), since);
        self.conclude(work, result);
    }

    /// Processes a handler's result.
    pub(super) fn conclude(&mut self, work: Work, result: HandlerResult) {
        if work.probe {
            self.meter.probed(result.is_ok());
        }
        match result {
            Ok(mut outcome) => {
                let (completed, events) = (outcome.is_completed(), outcome.take_records());
                if events.is_empty() {
                    self.handled(work.records, completed);
                } else {
                    let mut records = work.records;
                    records.as_mut_slice().iter_mut().for_each(|record| self.scheduler.hold(record));
                    self.settler.publish(records, events, completed);
                }
            }
            Err(error) => self.failed(work.records, &DeliveryError::read(error.as_ref())),
        }
    }

    /// Goes on with records that are handled and whose events are published.
    pub(super) fn handled(&mut self, records: Records, completed: bool) {
        match records {
            Records::One(record) => self.record_handled(record, completed),
            Records::Many(records) => records.into_iter().for_each(|record| self.record_handled(record, completed)),
        }
    }

    fn record_handled(&mut self, mut record: PendingRecord, completed: bool) {
        self.meter.handled(record.handler.map(|handler| handler as usize), 1);
        record.end_trouble();
        record.waits = 0;
        if record.is_claimed() && !completed {
            self.scheduler.hold(&mut record);
            self.settler.complete(record);
        } else {
            self.settle(record, RecordOutcome::Handled, None);
        }
    }

    /// Goes on with the records of a failed delivery, each by its own step.
    pub(super) fn failed(&mut self, records: Records, error: &DeliveryError) {
        self.meter.delivery_failed(records.handler());
        let delivered: Vec<_> = records.as_slice().iter().map(|record| self.delivered(record)).collect();
        let steps = classify(&delivered, error, &self.shared.policy.retry, &mut || self.random.f64());
        log_failure(&self.shared, records.as_slice(), &steps, error);
        let mut records = records.into_vec();
        // All that goes on holds its key first, so that nothing behind it begins when another record ends.
        for (record, step) in records.iter_mut().zip(&steps) {
            if step.next != Next::Handled {
                self.scheduler.hold(record);
            }
        }
        let (mut behind, mut others) = (Vec::new(), Vec::with_capacity(records.len()));
        for (at, (mut record, step)) in records.into_iter().zip(steps).enumerate() {
            self.note(&mut record, step, error);
            match step.next {
                Next::Handled => self.record_handled(record, false),
                Next::Behind => behind.push(record),
                next => others.push((at, record, next)),
            }
        }
        for _ in 0..breaker_failures(error, delivered.len()) {
            self.meter.failed();
        }
        if others.iter().any(|(_, _, next)| *next == Next::LeaseLost) {
            // The lease may have expired: its renewal then finds out, and registers a new one.
            self.shared.fenced();
            behind.iter_mut().for_each(|record| self.claimer.disclaim(record));
        }
        self.scheduler.queue_again(behind);
        self.go_on(others, error);
    }

    /// Notes on a record what it has from the delivery.
    fn note(&mut self, record: &mut PendingRecord, step: Step, error: &DeliveryError) {
        if step.single {
            record.mode = DeliveryMode::Single;
        }
        match step.attempt {
            Attempt::Unchanged => return,
            Attempt::Noted => record.note_error(error.kind, &error.text),
            Attempt::Failed => record.attempt_failed(error.kind, &error.text),
        }
        if step.attempt == Attempt::Noted || matches!(step.next, Next::Retry(_) | Next::Forward(..)) {
            self.meter.retried(record, &error.text);
        }
    }

    fn delivered(&self, record: &PendingRecord) -> Delivered {
        Delivered {
            key: record.key.hash(),
            failures: record.failures(),
            needs_claim: !matches!(record.claim, ClaimState::NotNeeded),
            waited: record.past().is_some(),
            next_tier: self.next_tier(record),
        }
    }

    fn go_on(&mut self, records: Vec<(usize, PendingRecord, Next)>, error: &DeliveryError) {
        let mut batches = [Vec::new(), Vec::new()];
        for (at, mut record, next) in records {
            match next {
                Next::Retry(wait) => {
                    record.waits = 0;
                    self.delay(record, wait);
                }
                Next::Forward(level, delay) => self.forward(record, (level, delay), error.kind, error.text.clone()),
                Next::Bury => {
                    let text = undecodable(error, at).unwrap_or(&error.text).to_owned();
                    self.bury(record, error.kind, text);
                }
                Next::Outage => self.wait_for(record, Cause::Handler, &error.text),
                Next::Again(batch) => batches[batch].push(record),
                Next::LeaseLost => {
                    self.claimer.disclaim(&mut record);
                    self.held(record, None);
                }
                Next::Alone | Next::Handled | Next::Behind => self.scheduler.put(record, Wait::Nothing),
            }
        }
        for batch in batches {
            let batch = self.scheduler.unblocked(batch);
            self.batcher.again(batch);
        }
    }
}

/// Returns why the record at this index cannot be decoded.
fn undecodable(error: &DeliveryError, at: usize) -> Option<&String> {
    let FailureCause::Undecodable(records) = &error.cause else { return None };
    records.iter().find(|(index, _)| *index == at).map(|(_, text)| text)
}

/// Logs a failed attempt, by its first record that is not handled, unless one of the kind was logged not long ago.
fn log_failure(shared: &Shared, records: &[PendingRecord], steps: &[Step], error: &DeliveryError) {
    let mut failed = records.iter().zip(steps).enumerate().filter(|(_, (_, step))| step.next != Next::Handled);
    let Some((at, (record, step))) = failed.next() else { return };
    let handler = record.handler.map(|handler| handler as usize);
    let Some(held_back) = shared.limiter.pass(("attempt_failed", handler, error.kind.as_str()), Instant::now()) else {
        return;
    };
    let origin = record.origin();
    let (next, wait) = step.next.text();
    let line = logs::AttemptFailed {
        service: &shared.identity.service.as_str(),
        handler: &handler.map(|handler| shared.table.info(handler).name.as_str()),
        topic: &origin.topic.as_str(),
        partition: &origin.partition,
        offset: &record.stored().offset,
        records: &records.len(),
        event_id: &display(event_id_of(origin, record.stored())),
        attempt: &record.failures().saturating_add(1),
        kind: &error.kind.as_str(),
        error: &&*logs::without_values(error.kind, undecodable(error, at).unwrap_or(&error.text)),
        next: &next,
        next_ms: &wait.map(logs::millis),
        held_back: &held_back,
    };
    line.log();
}
