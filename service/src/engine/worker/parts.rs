//! The parts of a worker, and the two ends of a record, which concern several of them. The parts do not know each other.

use std::sync::Arc;

use super::batcher::Batcher;
use super::claimer::Claimer;
use super::invoker::Invoker;
use super::meter::Meter;
use super::scheduler::Scheduler;
use super::settler::Settler;
use crate::engine::messages::Events;
use crate::engine::record::PendingRecord;
use crate::engine::shared::Shared;
use crate::observer::RecordOutcome;
use crate::table::Routes;

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
}
