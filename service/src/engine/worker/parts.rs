//! The parts of a worker, and the steps that concern several of them. The parts do not know each other.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{DeadLetter, ErrorKind};
use tokio::time::Instant;

use super::backoff::{BASE, backoff};
use super::batcher::Batcher;
use super::claimer::Claimer;
use super::invoker::Invoker;
use super::meter::Meter;
use super::scheduler::{Scheduler, Wait};
use super::settler::Settler;
use crate::engine::messages::{Cause, Events};
use crate::engine::record::PendingRecord;
use crate::engine::shared::Shared;
use crate::observer::RecordOutcome;
use crate::table::Routes;
use crate::time::after;

#[derive(Debug)]
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
    pub(super) events: Events,
    pub(super) scheduler: Scheduler,
    pub(super) batcher: Batcher,
    pub(super) invoker: Invoker,
    pub(super) claimer: Claimer,
    pub(super) settler: Settler,
    pub(super) meter: Meter,
    pub(super) random: fastrand::Rng,
    /// Work of an assignment that is being revoked was released since the last report.
    pub(super) released: bool,
}

impl Parts {
    pub(super) fn new(number: usize, shared: Arc<Shared>, routes: Routes, events: Events) -> Self {
        let mut random = fastrand::Rng::with_seed(shared.seed(number));
        Self {
            number,
            scheduler: Scheduler::new(shared.table.len()),
            batcher: Batcher::new(),
            invoker: Invoker::new(number, &shared, routes),
            claimer: Claimer::new(&shared, events.clone(), &mut random),
            settler: Settler::new(&shared, events.clone(), &mut random),
            meter: Meter::new(&shared, events.clone(), number),
            random,
            released: false,
            events,
            shared,
        }
    }

    /// Ends a record: it is settled, and the next one of its key follows.
    pub(super) fn settle(&mut self, mut record: PendingRecord, outcome: RecordOutcome, reason: Option<&str>) {
        record.end_trouble();
        self.meter.settled(&record, outcome, reason);
        self.settler.settle(&record.id.assigned, record.id.number, record.id.index);
        self.scheduler.release(&mut record);
    }

    /// Ends a record that is not settled: the partition's next owner processes it again.
    pub(super) fn release(&mut self, mut record: PendingRecord) {
        self.released = true;
        record.end_trouble();
        if let Some((guard, attempts)) = record.take_claim_with_attempts() {
            self.claimer.release(guard, attempts);
        }
        self.scheduler.release(&mut record);
    }

    /// Dead-letters a record: it is settled when the letter is written.
    pub(super) fn bury(&mut self, mut record: PendingRecord, kind: ErrorKind, text: String) {
        self.scheduler.hold(&mut record);
        // It has failed: later crashes with its claim blame no innocent record, and a sink may be down for long.
        record.drop_permit();
        let (stored, service) = (record.stored().clone(), &self.shared.identity.service);
        let origin = record.id.assigned.origin.as_ref();
        tracing::warn!(
            service = %service,
            topic = %origin.topic,
            partition = origin.partition,
            offset = stored.offset,
            kind = %kind,
            error = %text,
            "giving a record up: it goes to the dead letters"
        );
        let mut letter = DeadLetter::new(service.clone(), origin.clone(), stored, kind)
            .with_error(text)
            .with_attempts(record.failures());
        if let Some(handler) = record.handler {
            letter = letter.with_handler(self.shared.table.info(handler as usize).name.clone());
        }
        self.settler.bury(record, letter);
    }

    /// Makes a record wait for a dependency that is down.
    pub(super) fn wait_for(&mut self, mut record: PendingRecord, cause: Cause, text: &str) {
        record.raise_trouble(&self.events, cause, text);
        let wait = self.next_wait(&mut record);
        self.delay(record, wait);
    }

    /// Makes a record wait, which holds its key. One of an assignment that is being revoked is released at once: its
    /// partition waits only for work that runs.
    pub(super) fn delay(&mut self, mut record: PendingRecord, wait: Duration) {
        if record.id.assigned.is_stopping() {
            self.scheduler.hold(&mut record);
            self.release(record);
            return;
        }
        if record.is_isolated() {
            // While it waits, others may run isolated.
            if let Some((guard, attempts)) = record.take_claim_with_attempts() {
                self.claimer.release(guard, attempts);
            }
            record.drop_permit();
        }
        self.scheduler.put(record, Wait::Until(after(Instant::now(), wait)));
    }

    fn next_wait(&mut self, record: &mut PendingRecord) -> Duration {
        record.waits = record.waits.saturating_add(1);
        backoff(record.waits, &mut self.random)
    }

    /// Makes a record wait whose event another lease has, or may have: it is claimed again later, and its key waits.
    pub(super) fn held(&mut self, mut record: PendingRecord, at_most: Option<Duration>) {
        // Without its claim, which has ended.
        drop(record.take_claim());
        record.drop_permit();
        self.scheduler.hold(&mut record);
        if let Some(key) = record.key.hash().filter(|_| !record.id.assigned.is_stopping()) {
            // One behind it may be a repeat of its event, or two services could wait for each other.
            for guard in self.scheduler.take_claims_behind(key) {
                self.claimer.release(guard, 0);
            }
        }
        let wait = self.next_wait(&mut record);
        let wait = at_most.map_or(wait, |at_most| wait.min(at_most.max(BASE)));
        self.delay(record, wait);
    }

    /// Makes records wait that were handled together and whose claims another lease has: the first of each key is
    /// claimed first.
    pub(super) fn all_held(&mut self, mut records: Vec<PendingRecord>) {
        records.iter_mut().for_each(|record| drop(record.take_claim()));
        for record in self.scheduler.first_of_keys(records) {
            self.held(record, None);
        }
    }
}
