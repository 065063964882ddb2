//! Starts of deliveries: held by the circuit breaker (rule E5d), by an operator, and for a record that runs isolated.

use std::sync::Arc;

use tokio::time::Instant;

use super::isolation::Isolation;
use super::workers::Workers;
use crate::engine::board::add;
use crate::engine::circuit_breaker::Change;
use crate::engine::messages::WorkerCommand;
use crate::engine::shared::Shared;
use crate::logs::{self, millis};
use crate::time::after;

/// Decides when workers may start deliveries.
#[derive(Debug)]
pub(super) struct Starts {
    shared: Arc<Shared>,
    workers: Workers,
    isolation: Isolation,
    /// An operator paused the service.
    is_paused: bool,
    /// When the open circuit breaker lets a probe start.
    probe_at: Option<Instant>,
    /// Since when the circuit breaker is open.
    open_since: Option<Instant>,
}

impl Starts {
    pub(super) fn new(shared: Arc<Shared>, workers: Workers) -> Self {
        Self { shared, workers, isolation: Isolation::default(), is_paused: false, probe_at: None, open_since: None }
    }

    /// Pauses the service, or resumes it.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.is_paused = paused;
        self.shared.circuit_breaker.set_paused(paused);
        self.workers.wake();
        self.isolate_next();
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) fn breaker_changed(&mut self, change: Change, now: Instant) {
        let service = &self.shared.identity.service;
        match change {
            Change::None => return,
            Change::Opened(wait) => {
                logs::CircuitOpened { service: &service.as_str(), wait_ms: &millis(wait) }.log();
                self.probe_at = Some(after(now, wait));
                if self.open_since.is_none() {
                    self.open_since = Some(now);
                    add(&self.shared.board.counts.circuit_openings, 1);
                }
                return;
            }
            Change::Closed => {
                let open_ms = self.open_since.map(|since| millis(now.saturating_duration_since(since)));
                logs::CircuitClosed { service: &service.as_str(), open_ms: &open_ms }.log();
                (self.probe_at, self.open_since) = (None, None);
            }
            Change::ProbeReturned => {}
        }
        self.workers.wake();
    }

    /// Returns the problem that the circuit breaker is open.
    pub(super) fn problem(&self) -> Option<String> {
        let is_open = !self.shared.circuit_breaker.is_closed();
        is_open.then(|| "more than half of the last deliveries failed: one at a time is tried".to_owned())
    }

    /// Returns since when the circuit breaker is open or half-open.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.open_since
    }

    /// Returns when a probe may start.
    pub(super) fn due(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Lets a probe start, if its time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.probe_at.take_if(|at| *at <= now).is_some() {
            self.shared.circuit_breaker.start_probing();
            self.workers.wake();
        }
    }

    /// A worker has a record that must run isolated.
    pub(super) fn want_isolated(&mut self, worker: usize) {
        self.isolation.want(worker);
        self.isolate_next();
    }

    /// A worker runs no delivery any more.
    pub(super) fn quiesced(&mut self) {
        if let Some(worker) = self.isolation.quiesced() {
            self.workers.send(worker, WorkerCommand::RunIsolated);
        }
    }

    /// The isolated record is settled, or has no claim any more.
    pub(super) fn isolated_done(&mut self) {
        self.isolation.done();
        self.shared.circuit_breaker.set_isolated(false);
        self.workers.wake();
        self.isolate_next();
    }

    /// Begins the next isolated delivery: first everything else must have ended.
    fn isolate_next(&mut self) {
        if !self.is_paused && self.isolation.begin(self.workers.len()) {
            self.shared.circuit_breaker.set_isolated(true);
            self.workers.send_all(|| WorkerCommand::Quiesce);
        }
    }
}
