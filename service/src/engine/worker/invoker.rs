//! Runs handlers: their futures, deadlines and readiness. Knows no retries, offsets or claims.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tidings_core::{BoxError, Delivery, DeliveryContext, Outcome};
use tokio::time::Instant;
use tracing::Span;

use super::delivery_error::{TimedOut, panicked};
use super::laps::Lap;
use super::records::Work;
use super::timers::Timers;
use crate::begun::Begun;
use crate::engine::assigned::AssignmentId;
use crate::engine::record::{PendingRecord, Stage};
use crate::engine::shared::Shared;
use crate::engine::watchdog::Heartbeat;
use crate::logs;
use crate::route::{BoxFuture, Started};
use crate::table::Routes;
use crate::time::after;

/// Up to this many deadlines of handlers that have ended are not worth cleaning up.
const DEADLINES_KEPT: usize = 1_024;

/// The result of a handler.
pub(super) type HandlerResult = Result<Outcome, BoxError>;

/// A delivery that was pending, and is done or has timed out.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) work: Work,
    pub(super) result: HandlerResult,
    /// When it began.
    pub(super) since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Invoker {
    heartbeat: Arc<Heartbeat>,
    shared: Arc<Shared>,
    routes: Routes,
    contexts: Vec<Arc<DeliveryContext>>,
    futures: FuturesUnordered<Flight>,
    running: Slab<Running>,
    next_serial: u64,
    /// The deliveries of the current lap, with their numbers in it.
    started: Vec<(Ticket, u32)>,
    /// The deadlines of handlers that have begun. All have the same timeout, so they are in order.
    deadlines: VecDeque<Deadline>,
    /// Deliveries that wait in a layer: whether their handler has begun is looked at after each timeout.
    waiting: Timers<Ticket>,
    readiness: Vec<Readiness>,
}

/// A delivery whose handler is pending.
#[derive(Debug)]
struct Running {
    work: Work,
    /// When it began; known at the end of its lap.
    since: Option<Instant>,
    serial: u64,
    begun: Option<Begun>,
}

/// The place of a pending delivery. Places are used again, serials are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticket {
    place: usize,
    serial: u64,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    /// `None` until the end of the round in which the handler began.
    at: Option<Instant>,
    ticket: Ticket,
}

/// Whether a route accepts a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// Unknown until the next delivery.
    Unknown,
    /// It is not ready; `asked`: it was asked, and may have a place in a queue or a permit.
    NotReady { asked: bool },
    /// It was not ready, and is now: it may have a permit.
    Granted,
}

/// A pending handler.
struct Flight {
    ticket: Ticket,
    handler: usize,
    /// The worker's: its reference count stays on one core.
    heartbeat: Arc<Heartbeat>,
    future: BoxFuture,
    span: Span,
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flight({:?})", self.ticket)
    }
}

impl Future for Flight {
    type Output = (Ticket, HandlerResult);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { ticket, handler, heartbeat, future, span } = self.get_mut();
        heartbeat.runs(*handler);
        let polled = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready((*ticket, result)),
            Err(panic) => Poll::Ready((*ticket, Err(panicked(panic)))),
        }
    }
}

impl Invoker {
    pub(super) fn new(number: usize, shared: &Arc<Shared>, routes: Routes) -> Self {
        let handlers = routes.table().len();
        Self {
            heartbeat: shared.heartbeats[number].clone(),
            shared: shared.clone(),
            contexts: shared.contexts(),
            routes,
            futures: FuturesUnordered::new(),
            running: Slab::new(),
            next_serial: 0,
            started: Vec::new(),
            deadlines: VecDeque::new(),
            waiting: Timers::new(),
            readiness: vec![Readiness::Unknown; handlers],
        }
    }

    /// Returns the number of pending deliveries.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns the context of a handler's deliveries.
    pub(super) fn context(&self, handler: usize) -> Arc<DeliveryContext> {
        self.contexts[handler].clone()
    }

    /// Returns a delivery of records of one assignment and one handler.
    pub(super) fn delivery(&self, handler: usize, records: &[PendingRecord]) -> Delivery {
        let first = &records[0];
        let attempt = records.iter().map(PendingRecord::own_failures).max().unwrap_or(0).saturating_add(1);
        let runs = records.iter().map(|record| record.runs).max().unwrap_or(1);
        let mut delivery = Delivery::new(first.record.clone(), self.context(handler))
            .with_attempt(attempt)
            .with_run(runs)
            .with_epoch(first.id.assigned.epoch);
        if records.len() > 1 {
            let more: Vec<_> = records[1..].iter().map(|record| record.record.clone()).collect();
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
        self.heartbeat.runs(handler);
        let readiness = &mut self.readiness[handler];
        *readiness = Readiness::Unknown;
        let route = self.routes.route(handler);
        // A pending first poll is repeated when the future joins the others, which is where it gets its waker.
        let mut cx = Context::from_waker(Waker::noop());
        let start = || {
            let started = route.start(delivery, &mut cx);
            if matches!(started, Started::NotReady) {
                *readiness = Readiness::NotReady { asked: true };
            }
            started
        };
        span.in_scope(|| catch_unwind(AssertUnwindSafe(start)))
            .unwrap_or_else(|panic| Started::Done(Err(panicked(panic))))
    }

    /// Keeps a delivery, which has this number in its lap, until its handler is done. Its timeout starts when the
    /// innermost handler begins.
    pub(super) fn keep(&mut self, mut work: Work, future: BoxFuture, begun: Option<Begun>, span: Span, number: u32) {
        work.records.advance(Stage::Running);
        self.next_serial += 1;
        let serial = self.next_serial;
        let handler = work.records.as_slice()[0].handler.map_or(usize::MAX, |handler| handler as usize);
        let has_begun = begun.as_ref().is_none_or(|begun| begun.at().is_some());
        let running = Running { work, since: None, serial, begun };
        let ticket = Ticket { place: self.running.insert(running), serial };
        self.started.push((ticket, number));
        self.futures.push(Flight { ticket, handler, heartbeat: self.heartbeat.clone(), future, span });
        let Some(timeout) = self.shared.policy.handler_timeout else { return };
        if has_begun {
            self.deadlines.push_back(Deadline { at: None, ticket });
            self.forget_deadlines();
        } else {
            self.waiting.set(after(Instant::now(), timeout), ticket);
        }
    }

    /// Sets the deadlines of the handlers that have begun within a lap, which ends `now`: one reading of the clock for
    /// all. A handler has its whole timeout, and at most the rest of its round in addition.
    pub(super) fn set_deadlines(&mut self, now: Instant, lap: Lap) {
        for (ticket, number) in self.started.drain(..) {
            if let Some(running) = self.running.get_mut(ticket.place) {
                running.since = Some(lap.began(number));
            }
        }
        let Some(timeout) = self.shared.policy.handler_timeout else { return };
        let at = Some(after(now, timeout));
        let begun = self.deadlines.iter_mut().rev().take_while(|deadline| deadline.at.is_none());
        begun.for_each(|deadline| deadline.at = at);
    }

    fn get(&self, ticket: Ticket) -> Option<&Running> {
        self.running.get(ticket.place).filter(|running| running.serial == ticket.serial)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Running> {
        self.get(ticket)?;
        Some(self.running.remove(ticket.place))
    }

    /// Drops the deadlines of handlers that have ended once they are the majority: at a million handlers a second, a
    /// minute's deadlines would take gigabytes.
    fn forget_deadlines(&mut self) {
        if self.deadlines.len() > 2 * self.running.len() + DEADLINES_KEPT {
            let running = &self.running;
            let runs = |d: &Deadline| running.get(d.ticket.place).is_some_and(|run| run.serial == d.ticket.serial);
            self.deadlines.retain(runs);
        }
    }

    /// Returns when the next deadline is due, at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let deadline = self.deadlines.front().and_then(|deadline| deadline.at);
        [deadline, self.waiting.due()].into_iter().flatten().min()
    }

    /// Returns the next delivery that is done.
    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> Option<Finished> {
        while let Poll::Ready(Some((ticket, result))) = self.futures.poll_next_unpin(cx) {
            if let Some(Running { work, since, .. }) = self.remove(ticket) {
                return Some(Finished { work, result, since });
            }
        }
        None
    }

    /// Cancels and returns the deliveries that have timed out, with their error.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Finished> {
        let expired = self.expired(now);
        if expired.is_empty() {
            return Vec::new();
        }
        self.drop_futures(|ticket| expired.contains(&ticket));
        let limit = self.shared.policy.handler_timeout.unwrap_or_default();
        let timed_out = |Running { work, since, .. }| {
            let result = Err::<Outcome, BoxError>(Box::new(TimedOut(limit)));
            Finished { work, result, since }
        };
        expired.into_iter().filter_map(|ticket| self.remove(ticket)).map(timed_out).collect()
    }

    /// Returns the deliveries whose time is over.
    fn expired(&mut self, now: Instant) -> Vec<Ticket> {
        let mut expired = Vec::new();
        while let Some(Deadline { at, ticket }) = self.deadlines.front().copied() {
            let runs = self.get(ticket).is_some();
            if runs && at.is_none_or(|at| at > now) {
                break;
            }
            self.deadlines.pop_front();
            if runs {
                expired.push(ticket);
            }
        }
        while let Some(ticket) = self.waiting.pop_due(now) {
            let Some(running) = self.get(ticket) else { continue };
            let timeout = self.shared.policy.handler_timeout.unwrap_or_default();
            // A handler begins later than its deadline is looked at, so that no deadline is missed. If no layer can
            // begin it any more, its time starts now.
            let begun = running.begun.as_ref().and_then(|begun| begun.at().or(begun.is_abandoned().then_some(now)));
            match begun {
                Some(begun) if after(begun, timeout) <= now => expired.push(ticket),
                Some(begun) => {
                    if let Some(running) = self.running.get_mut(ticket.place) {
                        running.begun = Some(Begun::since(begun));
                    }
                    self.waiting.set(after(begun, timeout), ticket);
                }
                None => self.waiting.set(after(now, timeout), ticket),
            }
        }
        expired
    }

    /// Drops the futures of handlers; their resources are released before any other work begins.
    fn drop_futures(&mut self, unwanted: impl Fn(Ticket) -> bool) {
        for flight in std::mem::take(&mut self.futures) {
            if !unwanted(flight.ticket) {
                self.futures.push(flight);
                continue;
            }
            self.heartbeat.runs(flight.handler);
            // A destructor of the handler's own may panic; that must not stop the worker.
            if catch_unwind(AssertUnwindSafe(|| drop(flight.future))).is_err() {
                logs::FuturePanicked { service: &self.shared.identity.service.as_str() }.log();
            }
        }
    }

    /// Cancels the deliveries of an assignment.
    pub(super) fn cancel(&mut self, assignment: AssignmentId) -> Vec<Work> {
        let of = self.running.iter().filter(|(_, running)| running.work.records.is_of(assignment));
        let tickets: Vec<_> = of.map(|(place, running)| Ticket { place, serial: running.serial }).collect();
        if !tickets.is_empty() {
            self.drop_futures(|ticket| tickets.contains(&ticket));
        }
        tickets.into_iter().filter_map(|ticket| Some(self.remove(ticket)?.work)).collect()
    }

    /// Returns the records of the pending deliveries.
    pub(super) fn records(&self) -> impl Iterator<Item = &PendingRecord> {
        self.running.iter().flat_map(|(_, running)| running.work.records.as_slice())
    }

    // Readiness.

    /// Returns whether the route may be ready: it was not found unready since it last was.
    pub(super) fn may_be_ready(&self, handler: usize) -> bool {
        !matches!(self.readiness[handler], Readiness::NotReady { .. })
    }

    /// Returns the handlers whose routes are not ready.
    pub(super) fn not_ready(&self) -> impl Iterator<Item = usize> + use<> {
        let not_ready = |(handler, readiness): (usize, &Readiness)| {
            matches!(readiness, Readiness::NotReady { .. }).then_some(handler)
        };
        self.readiness.iter().enumerate().filter_map(not_ready).collect::<Vec<_>>().into_iter()
    }

    /// Asks a route for whose readiness a delivery waits, which is then started at once.
    pub(super) fn poll_ready(&mut self, handler: usize, cx: &mut Context<'_>) -> bool {
        self.heartbeat.runs(handler);
        let route = self.routes.route(handler);
        // A panic is the next delivery's error, as every error of a layer is.
        let polled = catch_unwind(AssertUnwindSafe(|| route.is_ready(cx))).unwrap_or(true);
        self.readiness[handler] = if polled { Readiness::Granted } else { Readiness::NotReady { asked: true } };
        polled
    }

    /// Gives a route's permit, or its place in a queue, back, since no delivery may start. `wanted`: a delivery waits.
    pub(super) fn give_permit_back(&mut self, handler: usize, wanted: bool) {
        if matches!(self.readiness[handler], Readiness::NotReady { asked: true } | Readiness::Granted) {
            self.routes.renew(handler);
        }
        self.readiness[handler] = if wanted { Readiness::NotReady { asked: false } } else { Readiness::Unknown };
    }

    /// Gives the permits back that no delivery has used.
    pub(super) fn give_unused_permits_back(&mut self) {
        for handler in 0..self.readiness.len() {
            if self.readiness[handler] == Readiness::Granted {
                self.give_permit_back(handler, false);
            }
        }
    }
}
