//! A worker: runs handlers, and processes each record from its first attempt to its settlement.
//!
//! A worker is one task and owns its routes, lanes and timers. Records arrive in chunks and settlements return in
//! lists, so that nothing is shared, locked or woken per record. A record whose handler is ready at once passes
//! through [`Worker::run_chunk`] without an allocation; only a record that has to wait becomes an [`PendingRecord`].

mod calls;
mod flight;
mod gather;
pub(super) mod intake;
mod landed;
pub(super) mod lanes;
mod outcome;
mod rolled_back;
mod run;
mod skip;
mod starting;
mod sweep;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tidings_core::{DeliveryContext, Record, ReleasedClaim};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::flight::{Flight, Work};
use self::gather::Gather;
use self::lanes::Busy;
use self::timers::Timers;
use super::claims::Hold;
use super::shared::{Counts, Shared};
use crate::engine::assigned::Assigned;
use crate::engine::messages::{Cause, Chunk, Settled, WorkerCommand, WorkerEvent};
use crate::engine::record::PendingRecord;
use crate::table::Routes;

/// The number of rounds before a worker yields to other tasks.
const ROUNDS: usize = 16;
/// The capacity of a settled list from a batch's second settled place on: 1 KiB, which allocators keep at hand.
const PLACES: usize = 255;

/// The payload of a timer.
#[derive(Debug)]
enum Due {
    /// An item to start again.
    Item(PendingRecord),
    /// An item to claim again.
    Claim(PendingRecord),
    /// A batch that is due.
    Gather(u64),
    /// Calls to repeat.
    Publish(Vec<Publishing>),
    Complete(Vec<PendingRecord>),
    Bury(Vec<Burying>),
    ClaimChunk(Vec<PendingRecord>),
    ReleasedClaim,
}

/// A handled delivery, with events to publish before it is settled.
#[derive(Debug)]
struct Publishing {
    work: Work,
    /// The records that are still to be published.
    records: Vec<Record>,
    completed: bool,
    attempts: u32,
}

/// A failed delivery, with its dead letter.
#[derive(Debug)]
struct Burying {
    item: PendingRecord,
    letter: tidings_core::DeadLetter,
    attempts: u32,
}

/// Chunks, and items of chunks whose claims are answered.
#[derive(Debug)]
enum Backlog {
    Chunk(Chunk),
    Items(VecDeque<PendingRecord>),
}

#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    shared: Arc<Shared>,
    routes: Routes,
    contexts: Vec<Arc<DeliveryContext>>,
    orders: mpsc::UnboundedReceiver<WorkerCommand>,
    reports: mpsc::UnboundedSender<WorkerEvent>,
    /// Received records that have not started.
    backlog: VecDeque<Backlog>,
    /// Chunks that must be claimed first.
    unclaimed: VecDeque<Chunk>,
    /// A chunk's items that must be claimed again.
    reclaim: Option<Vec<PendingRecord>>,
    /// Items whose turn has come: before the backlog.
    ready: VecDeque<PendingRecord>,
    busy: Busy,
    gathers: Vec<Gather>,
    next_gather: u64,
    flights: FuturesUnordered<Flight>,
    running: Slab<flight::Running>,
    serial: u64,
    deadlines: VecDeque<flight::Deadline>,
    deadline: Timers<()>,
    timers: Timers<Due>,
    to_publish: Vec<Publishing>,
    to_complete: Vec<PendingRecord>,
    to_bury: Vec<Burying>,
    /// Slots and offsets of letters being written that are skipped if the write fails.
    to_skip: Vec<(u64, u64)>,
    to_claim: Vec<PendingRecord>,
    /// Claims to release.
    to_release: Vec<(Hold, ReleasedClaim)>,
    /// Claims whose release failed, until it is retried.
    release_again: Vec<(Hold, ReleasedClaim)>,
    release_failures: u32,
    calls: calls::UnderWay,
    /// Items that wait to run with nothing else in flight.
    lone: VecDeque<PendingRecord>,
    quiescing: bool,
    settled: Vec<Settled>,
    dropped: bool,
    counts: Counts,
    random: fastrand::Rng,
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        shared: Arc<Shared>,
        routes: Routes,
        orders: mpsc::UnboundedReceiver<WorkerCommand>,
        reports: mpsc::UnboundedSender<WorkerEvent>,
    ) -> Self {
        let contexts = shared.contexts(&routes);
        Self {
            number,
            routes,
            contexts,
            orders,
            reports,
            backlog: VecDeque::new(),
            unclaimed: VecDeque::new(),
            reclaim: None,
            ready: VecDeque::new(),
            busy: Busy::default(),
            gathers: Vec::new(),
            next_gather: 0,
            flights: FuturesUnordered::new(),
            running: Slab::new(),
            serial: 0,
            deadlines: VecDeque::new(),
            deadline: Timers::new(),
            timers: Timers::new(),
            to_publish: Vec::new(),
            to_complete: Vec::new(),
            to_bury: Vec::new(),
            to_skip: Vec::new(),
            to_claim: Vec::new(),
            to_release: Vec::new(),
            release_again: Vec::new(),
            release_failures: 0,
            calls: calls::UnderWay::default(),
            lone: VecDeque::new(),
            quiescing: false,
            settled: Vec::new(),
            dropped: false,
            counts: Counts::default(),
            random: fastrand::Rng::with_seed(shared.seed(number)),
            shared,
        }
    }

    /// Runs until the coordinator is gone.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        shared.beats[self.number].work();
        let polled = self.poll_rounds(cx);
        shared.beats[self.number].rest();
        polled
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mut moved = false;
            while let Poll::Ready(order) = self.orders.poll_recv(cx) {
                let Some(order) = order else { return Poll::Ready(()) };
                self.obey(order);
                moved = true;
            }
            while let Poll::Ready(Some(landed)) = self.flights.poll_next_unpin(cx) {
                self.landed(landed);
                moved = true;
            }
            moved |= self.poll_timers(cx);
            moved |= self.begin();
            moved |= self.make_calls();
            self.report();
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn obey(&mut self, order: WorkerCommand) {
        match order {
            WorkerCommand::Work(chunk) if chunk.assigned.is_stopping() => self.dropped = true,
            WorkerCommand::Work(chunk) if self.shared.backends.store.is_some() => self.unclaimed.push_back(chunk),
            WorkerCommand::Work(chunk) => self.backlog.push_back(Backlog::Chunk(chunk)),
            WorkerCommand::Revoke(slot) => self.give_back(slot),
            WorkerCommand::Cancel(slot) => self.cancel(slot),
            WorkerCommand::Wake => {}
            WorkerCommand::Quiesce => self.quiescing = true,
            WorkerCommand::RunIsolated => self.run_lone(),
            WorkerCommand::Skip { assignment: slot, offset } => self.skip(slot, offset),
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(due) = self.timers.poll_due(cx) {
            moved = true;
            match due {
                Due::Item(item) => self.ready.push_back(item),
                Due::Claim(item) => self.to_claim.push(item),
                Due::Gather(number) => self.flush_gather(number),
                Due::Publish(work) => self.to_publish.extend(work),
                Due::Complete(items) => self.to_complete.extend(items),
                Due::Bury(letters) => self.to_bury.extend(letters),
                Due::ClaimChunk(items) => self.reclaim = Some(items),
                Due::ReleasedClaim => self.to_release.append(&mut self.release_again),
            }
        }
        while let Poll::Ready(()) = self.deadline.poll_due(cx) {
            moved = true;
            self.expire();
        }
        moved
    }

    /// Reports the items settled and dropped since the last report to the coordinator.
    fn report(&mut self) {
        let handled = self.counts.take_handled();
        if handled > 0 {
            self.shared.gate.succeeded(handled);
        }
        self.shared.add_counts(&mut self.counts);
        if !self.settled.is_empty() {
            let settled = std::mem::take(&mut self.settled);
            self.send(WorkerEvent::Settled(settled));
        }
        if std::mem::take(&mut self.dropped) {
            self.send(WorkerEvent::Released);
        }
        if self.quiescing && self.running.is_empty() && !self.claims_are_open() {
            self.quiescing = false;
            self.send(WorkerEvent::Quiesced);
        }
    }

    fn send(&self, report: WorkerEvent) {
        // If the coordinator is gone, no report is needed; the worker ends when it next checks its orders.
        let _ = self.reports.send(report);
    }

    /// Settles a place of a batch: adds it to the list that goes to the coordinator.
    fn settle_place(&mut self, assigned: &Arc<Assigned>, number: u64, place: u32) {
        match self.settled.last_mut() {
            Some(last) if last.assigned.id == assigned.id && last.number == number => {
                if last.indexes.len() == 1 {
                    last.indexes.reserve(PLACES);
                }
                last.indexes.push(place);
            }
            _ => {
                self.settled.push(Settled { assigned: assigned.clone(), number, indexes: vec![place] });
            }
        }
    }

    /// Sets or clears the dependency that an item waits for, and reports the change to the coordinator.
    fn set_trouble(&mut self, item: &mut PendingRecord, cause: Option<Cause>, text: &str) {
        if item.trouble == cause {
            return;
        }
        let slot = item.assigned.id;
        if let Some(over) = item.trouble.take() {
            self.send(WorkerEvent::Trouble { assignment: slot, cause: over, raised: false, text: String::new() });
        }
        item.trouble = cause;
        if let Some(cause) = cause {
            self.send(WorkerEvent::Trouble { assignment: slot, cause, raised: true, text: text.to_owned() });
        }
    }

    /// Returns when to repeat a call to a dependency that was down at the `n`th consecutive call, from 1.
    fn later(&mut self, n: u32) -> Instant {
        let longest = INFRASTRUCTURE_BASE.saturating_mul(1 << n.clamp(1, 16).saturating_sub(1)).min(INFRASTRUCTURE_CAP);
        // At least half of it: a dependency that is down must not be called in a tight loop.
        Instant::now() + longest.mul_f64(0.5 + self.random.f64() / 2.0)
    }
}

/// The longest wait before the first retry of a dependency that was down; doubled each time.
const INFRASTRUCTURE_BASE: Duration = Duration::from_millis(100);
/// The longest wait before any retry of a dependency that was down.
const INFRASTRUCTURE_CAP: Duration = Duration::from_secs(10);
