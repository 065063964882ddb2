//! Starts deliveries: the first poll, and its result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Waker};

use tidings_core::Delivery;
use tokio::time::Instant;
use tracing::Span;

use super::flight::{Deadline, Flight, Items, Running, Work, panicked};
use super::{Due, Worker};
use crate::engine::messages::IsolationPermit;
use crate::engine::record::PendingRecord;
use crate::route::Started;
use crate::time::after;

/// Up to this many deadlines of handlers that have ended are not worth cleaning up.
const DEADLINES_KEPT: usize = 1_024;

impl Worker {
    /// Claims the item that waits to run alone, to start it: nothing else runs now.
    pub(super) fn run_lone(&mut self) {
        let alone = IsolationPermit::new(self.reports.clone());
        match self.lone.pop_front() {
            Some(item) if !item.assigned.is_stopping() => self.claim_alone(item, alone),
            Some(item) => self.drop_item(item),
            None => {}
        }
    }

    /// Starts a delivery of `items`, which belong to one assignment and one handler.
    pub(super) fn start_items(&mut self, mut items: Items, probe: bool) {
        let handler = items.as_slice()[0].handler;
        for item in items.as_mut_slice() {
            item.runs += 1;
        }
        let delivery = self.delivery(items.as_slice());
        let span = self.shared.span_of(handler, &delivery);
        let started = self.start(handler, delivery, &span);
        self.started(Work { items, probe }, started, span);
    }

    fn delivery(&self, items: &[PendingRecord]) -> Delivery {
        let first = &items[0];
        let attempt = items.iter().map(|item| item.failures).max().unwrap_or(0) + 1;
        let runs = items.iter().map(|item| item.runs).max().unwrap_or(1);
        let mut delivery = Delivery::new(first.record.clone(), self.contexts[first.handler].clone())
            .with_attempt(attempt)
            .with_run(runs)
            .with_epoch(first.assigned.epoch);
        if items.len() > 1 {
            let more: Vec<_> = items[1..].iter().map(|item| item.record.clone()).collect();
            delivery = delivery.with_more(more);
        }
        if let Some(lease) = self.shared.backends.store.as_ref().and_then(|claims| claims.lease()) {
            delivery = delivery.with_lease(lease);
        }
        match first.event_id {
            Some(id) => delivery.with_event_id(id),
            None => delivery,
        }
    }

    /// Polls the handler once, and converts a panic to its error.
    pub(super) fn start(&mut self, handler: usize, delivery: Delivery, span: &Span) -> Started {
        self.shared.beats[self.number].runs(handler);
        let route = self.routes.route(handler);
        // A pending first poll is repeated when the future joins the others, which is where it gets its waker.
        let mut cx = Context::from_waker(Waker::noop());
        span.in_scope(|| catch_unwind(AssertUnwindSafe(|| route.start(delivery, &mut cx))))
            .unwrap_or_else(|panic| Started::Done(Err(panicked(panic))))
    }

    /// Continues after the first poll.
    pub(super) fn started(&mut self, mut work: Work, started: Started, span: Span) {
        match started {
            Started::Done(result) => self.finished(work, result),
            Started::Pending(future) => {
                for item in work.items.as_mut_slice() {
                    self.enter(item);
                }
                self.serial += 1;
                let serial = self.serial;
                let ticket = self.running.insert(Running { work, serial });
                self.flights.push(Flight::Handler { ticket, serial, future, span });
                if let Some(timeout) = self.shared.policy.handler_timeout {
                    let at = after(Instant::now(), timeout);
                    if self.deadlines.is_empty() {
                        self.deadline.set(at, ());
                    }
                    self.deadlines.push_back(Deadline { at, ticket, serial });
                    self.forget_deadlines();
                }
            }
        }
    }

    /// Drops the deadlines of handlers that have ended once they are the majority: at a million handlers a second, a
    /// minute's deadlines would take gigabytes.
    fn forget_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.running.len() + DEADLINES_KEPT {
            let runs = |d: &Deadline| self.running.get(d.ticket).is_some_and(|running| running.serial == d.serial);
            self.deadlines.retain(runs);
        }
    }

    /// Schedules an item to start again at `at`.
    ///
    /// An item of an assignment that is being revoked is dropped at once: its partition waits only for work that runs.
    pub(super) fn begin_at(&mut self, at: Instant, mut item: PendingRecord) {
        if item.assigned.is_stopping() {
            self.drop_item(item);
        } else {
            if item.suspect {
                // While it waits, others may run alone.
                self.give_claim_back(&mut item);
                item.alone = None;
            }
            self.timers.set(at, Due::Item(item));
        }
    }
}
