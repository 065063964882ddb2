//! Starts deliveries: from chunks, and from items whose turn has come.

use tidings_core::{Delivery, ErrorKind};

use super::flight::{Items, Work};
use super::gather::may_begin;
use super::{Backlog, Worker};
use crate::engine::gate::{Change, Pass};
use crate::engine::messages::{Chunk, WorkerEvent};
use crate::engine::record::{Claimed, PendingRecord};
use crate::engine::routing::Verdict;
use crate::observer::RecordOutcome;
use crate::route::Started;

/// The number of records that a worker starts before it checks its orders again.
const RECORDS_PER_ROUND: usize = 1_024;

/// A record in flight at this many lease expiries is handled with nothing else in flight.
pub(crate) const LONE_DEATHS: u32 = 2;
/// A record in flight at this many lease expiries is written to the dead-letter topic.
pub(crate) const MAX_DEATHS: u32 = 5;

/// The result of starting an item.
enum Begun {
    Yes,
    /// The item must wait for the gate.
    No(PendingRecord),
}

impl Worker {
    /// Starts deliveries that may start; returns whether any did.
    pub(super) fn begin(&mut self) -> bool {
        let mut moved = false;
        while !self.is_full()
            && let Some(item) = self.ready.pop_front()
        {
            match self.begin_item(item) {
                Begun::Yes => moved = true,
                Begun::No(item) => {
                    self.ready.push_front(item);
                    break;
                }
            }
        }
        let mut budget = RECORDS_PER_ROUND;
        while budget > 0
            && !self.is_full()
            && let Some(front) = self.backlog.pop_front()
        {
            let before = budget;
            let rest = match front {
                Backlog::Chunk(chunk) => self.run_chunk(chunk, &mut budget).map(Backlog::Chunk),
                Backlog::Items(items) => self.run_items(items, &mut budget),
            };
            moved |= budget < before;
            if let Some(rest) = rest {
                self.backlog.push_front(rest);
                if budget == before {
                    break;
                }
            } else {
                moved = true;
            }
        }
        moved | self.flush_gathers()
    }

    /// Returns whether the concurrency limit is reached by deliveries that run or are ready.
    fn is_full(&self) -> bool {
        self.runs_enough() || self.running.len() + self.due_gathers() >= self.shared.policy.worker_concurrency
    }

    pub(super) fn runs_enough(&self) -> bool {
        self.running.len() >= self.shared.policy.worker_concurrency
    }

    /// Starts the records of a chunk; returns the chunk if records are left.
    fn run_chunk(&mut self, mut chunk: Chunk, budget: &mut usize) -> Option<Chunk> {
        // Cached: finding the route of a record reads its headers.
        let batches = self.routes.table().has_batches();
        while let Some(place) = chunk.indexes.get(chunk.at) {
            if *budget == 0 || self.is_full() {
                return Some(chunk);
            }
            if chunk.assigned.is_stopping() {
                break;
            }
            let pass = self.shared.gate.pass();
            if pass == Pass::Wait {
                return Some(chunk);
            }
            let run = if batches { self.run_batch(&mut chunk, pass) } else { 0 };
            if run > 0 {
                *budget = budget.saturating_sub(run);
                continue;
            }
            chunk.at += 1;
            *budget -= 1;
            let begun = self.run_place(&chunk, place, pass);
            if pass == Pass::Probe && !begun {
                self.return_probe();
            }
        }
        self.dropped |= chunk.assigned.is_stopping();
        None
    }

    /// Processes the record at `place`. Every record takes this path, so nothing is allocated unless the record has to
    /// wait. Returns whether the gate's pass was used.
    fn run_place(&mut self, chunk: &Chunk, place: u32, pass: Pass) -> bool {
        let record = &chunk.batch.records()[place as usize];
        let handler = match Verdict::of(&self.shared, &chunk.assigned.origin.topic, record) {
            Verdict::Handler(handler) => handler,
            verdict => {
                let item = self.unreadable(chunk, place);
                return self.unroutable(item, verdict, pass);
            }
        };
        if self.routes.table().info(handler).batch.is_some() {
            let item = self.item(chunk, place, handler);
            self.queue_or(item, Self::gather);
            return false;
        }
        if !self.busy.is_empty() {
            let lane = self.shared.keys.of(chunk.assigned.id, record.key.as_ref());
            if let Some(lane) = lane.filter(|lane| self.busy.contains(*lane)) {
                let item = self.item(chunk, place, handler);
                self.busy.queue(lane, item);
                return false;
            }
        }
        let one = chunk.batch.slice(place as usize, place as usize + 1);
        let delivery = Delivery::new(one, self.contexts[handler].clone()).with_epoch(chunk.assigned.epoch);
        let span = self.shared.span_of(handler, &delivery);
        match self.start(handler, delivery, &span) {
            Started::Done(Ok(outcome)) if outcome.records().is_empty() && pass == Pass::Free => {
                self.counts.handled();
                if let Some(observer) = &self.shared.backends.observer {
                    self.shared.observe_record(
                        observer.as_ref(),
                        RecordOutcome::Handled,
                        handler,
                        &chunk.assigned,
                        record,
                        1,
                    );
                }
                self.settle_place(&chunk.assigned, chunk.number, place);
            }
            started => {
                let mut item = self.item(chunk, place, handler);
                item.runs = 1;
                let work = Work { items: Items::One(item), probe: pass == Pass::Probe };
                self.started(work, started, span);
            }
        }
        true
    }

    /// Settles a record without a handler. Returns whether it used its pass, as a delivery that failed.
    pub(super) fn unroutable(&mut self, item: PendingRecord, verdict: Verdict, pass: Pass) -> bool {
        match verdict {
            Verdict::Skip(why) => self.settle_item(item, RecordOutcome::Skipped, Some(why)),
            Verdict::Unwanted(error) => self.bury(item, ErrorKind::Undecodable, error.report()),
            Verdict::Undecodable(error) => {
                let probe = pass == Pass::Probe;
                if probe {
                    self.probe_ended(true, false);
                } else {
                    self.failure_counted();
                }
                self.bury(item, ErrorKind::Undecodable, error.report());
                return probe;
            }
            // The callers handle records with a handler themselves.
            Verdict::Handler(_) => self.ready.push_back(item),
        }
        false
    }

    /// Returns an item of a record without a handler, which needs no claim.
    pub(super) fn unreadable(&self, chunk: &Chunk, place: u32) -> PendingRecord {
        PendingRecord { claim: Claimed::NoStore, ..self.item(chunk, place, usize::MAX) }
    }

    /// Settles a record without a handler that had to wait for the gate.
    fn begin_unreadable(&mut self, item: PendingRecord) -> Begun {
        let pass = self.shared.gate.pass();
        if pass == Pass::Wait {
            return Begun::No(item);
        }
        let verdict = Verdict::of(&self.shared, &item.assigned.origin.topic, &item.record.records()[0]);
        if !self.unroutable(item, verdict, pass) && pass == Pass::Probe {
            self.return_probe();
        }
        Begun::Yes
    }

    /// Creates an item of a chunk's record that has to wait.
    pub(super) fn item(&self, chunk: &Chunk, place: u32, handler: usize) -> PendingRecord {
        let record = chunk.batch.slice(place as usize, place as usize + 1);
        let lane = self.shared.keys.of(chunk.assigned.id, record.records()[0].key.as_ref());
        PendingRecord {
            assigned: chunk.assigned.clone(),
            number: chunk.number,
            place,
            record,
            handler,
            lane,
            entered: false,
            claim: if self.shared.backends.store.is_some() { Claimed::No } else { Claimed::NoStore },
            event_id: None,
            failures: 0,
            told: 0,
            runs: 0,
            waits: 0,
            single: false,
            suspect: false,
            alone: None,
            trouble: None,
            last_error: None,
        }
    }

    /// Queues the item if its lane is busy; otherwise enters the lane and calls `then`.
    pub(super) fn queue_or(&mut self, mut item: PendingRecord, then: fn(&mut Self, PendingRecord)) {
        if !item.entered
            && let Some(lane) = item.lane
            && self.busy.contains(lane)
            && !self.joins_gather(&item)
        {
            self.busy.queue(lane, item);
            return;
        }
        self.enter(&mut item);
        then(self, item);
    }

    /// Counts the item in its lane.
    pub(super) fn enter(&mut self, item: &mut PendingRecord) {
        if !item.entered
            && let Some(lane) = item.lane
        {
            self.busy.enter(lane);
            item.entered = true;
        }
    }

    /// Returns the probe, for whichever worker has a delivery for it.
    pub(super) fn return_probe(&self) {
        self.shared.gate.return_probe();
        self.send(WorkerEvent::Breaker(Change::ProbeReturned));
    }

    fn run_items(
        &mut self,
        mut items: std::collections::VecDeque<PendingRecord>,
        budget: &mut usize,
    ) -> Option<Backlog> {
        while *budget > 0
            && !self.is_full()
            && let Some(item) = items.pop_front()
        {
            let unreadable = item.handler >= self.routes.table().len();
            let busy = item.lane.filter(|lane| !item.entered && !unreadable && self.busy.contains(*lane));
            if let Some(lane) = busy {
                *budget -= 1;
                self.follow(lane, item);
                continue;
            }
            match self.begin_item(item) {
                Begun::Yes => *budget -= 1,
                Begun::No(item) => {
                    items.push_front(item);
                    break;
                }
            }
        }
        (!items.is_empty()).then_some(Backlog::Items(items))
    }

    /// Puts an item behind the in-flight items of its lane: into the same batch if it is still open, else into the
    /// queue. It joins the batch at once: by the time a queue is read, the batch might have started.
    fn follow(&mut self, lane: u64, mut item: PendingRecord) {
        if may_begin(&item) && self.joins_gather(&item) {
            self.enter(&mut item);
            self.gather(item);
        } else {
            self.busy.queue(lane, item);
        }
    }

    /// Starts an item whose turn has come.
    fn begin_item(&mut self, mut item: PendingRecord) -> Begun {
        if item.assigned.is_stopping() {
            self.drop_item(item);
            return Begun::Yes;
        }
        if item.handler >= self.routes.table().len() {
            return self.begin_unreadable(item);
        }
        if item.entered && item.lane.is_some_and(|lane| self.busy.active(lane) > 1) {
            // Its predecessor in the batch is handled, but not settled yet.
            self.wait_behind(item);
            return Begun::Yes;
        }
        if item.suspect {
            self.enter(&mut item);
            self.lone.push_back(item);
            self.send(WorkerEvent::WantIsolated { worker: self.number });
            return Begun::Yes;
        }
        if let Claimed::Granted(_, hold) = &item.claim
            && !hold.is_current()
        {
            self.disclaim(&mut item);
        }
        let crashes = match &item.claim {
            Claimed::NoStore => 0,
            Claimed::Granted(history, _) => history.crashes,
            Claimed::No => {
                self.enter(&mut item);
                self.to_claim.push(item);
                return Begun::Yes;
            }
        };
        if crashes >= MAX_DEATHS {
            self.bury_killer(item, crashes);
            return Begun::Yes;
        }
        if self.is_given_up(&item)
            && let Some((kind, text)) = item.last_error.take()
        {
            self.bury(item, kind, text);
            return Begun::Yes;
        }
        if self.routes.table().info(item.handler).batch.is_some() {
            self.enter(&mut item);
            self.gather(item);
            return Begun::Yes;
        }
        match self.shared.gate.pass() {
            Pass::Wait => return Begun::No(item),
            pass => self.start_items(Items::One(item), pass == Pass::Probe),
        }
        Begun::Yes
    }
    /// Writes a record to the dead-letter topic after repeated lease expiries.
    pub(super) fn bury_killer(&mut self, item: PendingRecord, crashes: u32) {
        self.bury(item, ErrorKind::Failed, format!("{crashes} processes crashed with this record in hand"));
    }
}
