//! The parts of the coordinator: passes what happened from one to another.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Consumer, Error, Progress, Result, Step, TopicPartition};
use tokio::time::Instant;

use super::assignments::{Advanced, Assignments};
use super::commits::{Commits, Committed};
use super::health::Health;
use super::shutdown::Shutdown;
use super::standby::Standby;
use super::starts::Starts;
use super::workers::Workers;
use crate::engine::board::{ServiceView, add};
use crate::engine::commands::Command;
use crate::engine::messages::WorkerEvent;
use crate::engine::shared::Shared;
use crate::logs::{self, millis};
use crate::settings::Options;
use crate::status::{ReturnedPartition, ShutdownReport, State, Status};

/// The resolution of timers: a shorter one is always due, and keeps a thread busy.
pub(super) const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// The interval at which partitions are looked at for stalls.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Where the transport does not know whether it is a member, a service that could query its positions after this time
/// counts as one, with or without partitions.
const JOIN_TIME: Duration = Duration::from_secs(5);

/// The parts, none of which knows another one's state.
#[derive(Debug)]
pub(super) struct Parts {
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    pub(super) assignments: Assignments,
    pub(super) commits: Commits,
    pub(super) health: Health,
    starts: Starts,
    shutdown: Shutdown,
    pub(super) standby: Standby,
    shown: Shown,
}

/// The last state shown to other threads, and its time.
#[derive(Debug)]
struct Shown {
    /// The time of the last turn.
    now: Instant,
    /// When partitions are looked at for stalls.
    look_at: Instant,
    /// The state of the service may have changed.
    is_changed: bool,
    /// The service has joined its group, with or without partitions.
    has_joined: bool,
}

impl Parts {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Arc<dyn Consumer>,
        standby: Standby,
        workers: &Workers,
        options: &Options,
    ) -> Self {
        Self {
            standby,
            assignments: Assignments::new(shared.clone(), consumer.clone(), workers.clone(), options),
            commits: Commits::default(),
            health: Health::new(shared.identity.service.clone()),
            starts: Starts::new(shared.clone(), workers.clone()),
            shutdown: Shutdown::default(),
            shown: Shown { now: Instant::now(), look_at: Instant::now(), is_changed: true, has_joined: false },
            shared,
            consumer,
        }
    }

    /// Takes a step of the group, or the failure of reading one.
    pub(super) fn take_step(&mut self, step: Result<Step>) -> Result<()> {
        let now = Instant::now();
        self.shown.is_changed = true;
        match step {
            Ok(step) => {
                // The loss of partitions is known without the broker: it does not show that reading works.
                let has_read = !matches!(step, Step::Lost(_));
                if has_read && let Some(since) = self.health.read() {
                    let failed_ms = millis(now.saturating_duration_since(since));
                    logs::ReadAgain { service: &self.shared.identity.service.as_str(), failed_ms: &failed_ms }.log();
                }
                self.assignments.step(step, now);
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                add(&self.shared.board.counts.read_failures, 1);
                let about = ("read_failed", None, error.kind().as_str());
                if let Some(held_back) = self.shared.limiter.pass(about, now) {
                    let (service, error) = (self.shared.identity.service.as_str(), error.report());
                    logs::ReadFailed { service: &service, error: &error, held_back: &held_back }.log();
                }
                self.health.read_failed(error.report(), now);
                Ok(())
            }
            Err(error) => Err(Error::caused_by(error.kind(), "read from the group", error)),
        }
    }

    /// Takes an event of a worker.
    pub(super) fn event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Settled(settled) => self.assignments.settled(settled),
            WorkerEvent::Trouble { assignment, .. }
            | WorkerEvent::Unburied { assignment, .. }
            | WorkerEvent::Skipped { assignment, .. } => self.assignments.event(assignment, event),
            WorkerEvent::Located { assignment, located } => self.assignments.located(assignment, located),
            WorkerEvent::Breaker(change) => {
                self.shown.is_changed = true;
                self.starts.breaker_changed(change, Instant::now());
            }
            WorkerEvent::WantIsolated { worker } => self.starts.want_isolated(worker),
            WorkerEvent::Quiesced => self.starts.quiesced(),
            WorkerEvent::IsolatedDone => self.starts.isolated_done(),
            WorkerEvent::Released => {}
        }
    }

    /// Carries out a command of the handle.
    pub(super) fn obey(&mut self, command: Option<Command>) {
        self.shown.is_changed = true;
        match command {
            Some(Command::Status(reply)) => {
                let _ = reply.send(self.status(self.state()));
            }
            Some(Command::CaughtUp(reply)) => self.health.wait_for_catching_up(reply),
            Some(Command::Pause(partitions)) => self.pause(partitions, true),
            Some(Command::Resume(partitions)) => self.pause(partitions, false),
            Some(Command::Skip(skip)) => self.assignments.skip(skip),
            Some(Command::Seek(seek)) => self.assignments.seek(seek, Instant::now()),
            Some(Command::Shutdown(time)) => self.shut_down(time),
            // The handle is gone: this task will end at once, too.
            None => self.shut_down(Duration::ZERO),
        }
    }

    fn pause(&mut self, partitions: Option<Vec<TopicPartition>>, paused: bool) {
        if partitions.is_none() && self.starts.is_paused() != paused {
            let service = self.shared.identity.service.as_str();
            if paused { logs::Paused { service: &service }.log() } else { logs::Resumed { service: &service }.log() }
        }
        if partitions.is_none() {
            self.starts.set_paused(paused);
        }
        self.assignments.pause(partitions, paused);
    }

    /// Begins the shutdown, or shortens it.
    pub(super) fn shut_down(&mut self, time: Duration) {
        let now = Instant::now();
        self.shown.is_changed = true;
        if !self.shutdown.has_begun() {
            let (partitions, records) = self.assignments.in_flight();
            let (service, timeout_ms) = (self.shared.identity.service.as_str(), millis(time));
            let (partitions, records, timeout_ms) = (&partitions, &records, &timeout_ms);
            logs::Draining { service: &service, partitions, records, timeout_ms }.log();
        }
        if self.shutdown.begin(time, now) {
            self.assignments.stop(time, now);
        }
    }

    /// Returns whether the service is stopping and nothing is left to do.
    pub(super) fn is_drained(&self) -> bool {
        let is_quiet = !self.commits.is_in_flight() && self.assignments.have_ended();
        self.shutdown.is_drained(is_quiet, Instant::now())
    }

    /// Reports the end of the service.
    pub(super) fn ended(&mut self) -> (Status, ShutdownReport) {
        let report = self.shutdown.report(&self.shared.identity.service, self.assignments.returned());
        let status = self.status(State::Stopped);
        let began = self.shutdown.begun_at().unwrap_or_else(Instant::now);
        let line = logs::Drained {
            service: &self.shared.identity.service.as_str(),
            handled: &status.totals.handled,
            dead_lettered: &status.totals.dead_lettered,
            returned: &report.records(),
            took_ms: &millis(began.elapsed()),
        };
        line.log();
        (status, report)
    }

    /// Does what may have become possible, after each input.
    pub(super) async fn advance(&mut self) {
        self.commit_starts();
        self.advance_endings();
        self.check_caught_up();
        self.assignments.apply_pauses().await;
        let returned = self.assignments.release_ended().await;
        self.gave_back(returned);
        self.show();
    }

    /// Shows the present state to other threads.
    pub(super) fn show(&mut self) {
        let now = Instant::now();
        self.shown.now = now;
        self.shared.pulse.turn();
        let looks = now >= self.shown.look_at;
        if looks {
            self.shown.look_at = now + LOOK_INTERVAL;
            self.shown.has_joined = self.shown.has_joined || self.consumer.is_member() == Some(true);
            self.log_held_back(now);
            let has_partitions = self.assignments.has_partitions() || self.shutdown.has_begun();
            self.standby.watch(has_partitions, now);
            let is_cut_off = self.health.failing_since().is_some();
            let starts_held = self.starts.is_paused() || self.starts.open_since().is_some() || is_cut_off;
            self.assignments.wake(true, now);
            self.assignments.look_for_stalls(starts_held, now);
        }
        let is_changed = std::mem::take(&mut self.shown.is_changed) || looks;
        let service = is_changed.then(|| self.service_view());
        self.assignments.show(service, now);
    }

    /// Logs how many lines were held back of those that do not come any more.
    fn log_held_back(&self, now: Instant) {
        for ((_, handler, kind), held_back) in self.shared.limiter.flush(now) {
            let handler = handler.map(|number| self.shared.table.info(number).name.as_str());
            let service = self.shared.identity.service.as_str();
            logs::HeldBack { service: &service, handler: &handler, kind: &kind, held_back: &held_back }.log();
        }
    }

    fn service_view(&self) -> ServiceView {
        ServiceView {
            state: self.state(),
            joined: self.shown.has_joined || self.assignments.has_started(),
            members: self.standby.members(),
            draining: self.shutdown.begun_at(),
            reading_failed: self.health.failing_since(),
            circuit_open: self.starts.open_since(),
            bytes_in_flight: self.assignments.bytes_in_flight(),
        }
    }

    /// Commits the start offset of partitions that have none, before their first record is dispatched.
    fn commit_starts(&mut self) {
        if self.assignments.wait_for_commit() && !self.commits.is_backing_off() {
            self.commit();
        }
    }

    /// Commits the positions that have changed, unless a commit is in flight.
    fn commit(&mut self) {
        if !self.commits.is_in_flight() {
            self.commits.start(self.shared.backends.settlement.clone(), self.assignments.next_commits());
        }
    }

    /// Takes the answer to a commit.
    pub(super) fn committed(&mut self, committed: Committed) {
        let failed = committed.iter().filter(|(.., answer)| answer.is_err()).count();
        add(&self.shared.board.counts.commits, committed.len() - failed);
        add(&self.shared.board.counts.commit_failures, failed);
        for (id, next, answer) in committed {
            match answer {
                Ok(()) => {
                    self.health.progressed();
                    self.assignments.committed(id, next);
                }
                Err(error) if self.assignments.not_committed(id, next, &error) => self.commits.failed(Instant::now()),
                Err(_) => {}
            }
        }
    }

    /// Advances the assignments that end.
    pub(super) fn advance_endings(&mut self) {
        let Advanced { commit, moves, returned } = self.assignments.advance_endings(Instant::now());
        if commit && !self.commits.is_backing_off() {
            self.commit();
        }
        if !self.commits.is_in_flight() {
            self.assignments.begin_moves(moves);
        }
        self.gave_back(returned);
    }

    /// Records what was given back.
    fn gave_back(&mut self, returned: Vec<Option<ReturnedPartition>>) {
        returned.into_iter().for_each(|returned| self.shutdown.gave_back(returned));
    }

    /// For callers that wait for catching up: commits, then checks whether the end is reached.
    fn check_caught_up(&mut self) {
        if !self.health.is_waited_for() || !self.assignments.is_idle() {
            return;
        }
        if self.assignments.are_committed() {
            self.health.query_for_waiters(&self.consumer, Instant::now());
        } else if !self.commits.is_backing_off() {
            self.commit();
        }
    }

    /// Takes the answer to a query of the positions.
    pub(super) fn progressed(&mut self, progress: Option<Vec<Progress>>) {
        let has_had_time = self.shared.board.uptime(self.shown.now) >= JOIN_TIME;
        let may_have_joined = has_had_time && progress.is_some() && self.health.failing_since().is_none();
        self.shown.has_joined |= self.consumer.is_member().unwrap_or(may_have_joined);
        if progress.is_some_and(|progress| self.assignments.progressed(&progress)) {
            self.health.caught_up();
        }
    }

    /// Commits, and watches the progress, at each commit interval.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.commit();
        self.health.query_periodically(&self.consumer, now);
        let allowed = !self.starts.is_paused() && !self.shutdown.has_begun();
        self.health.watch_progress(allowed && self.assignments.have_lag(), now);
        self.health.watch_threads(&self.shared.heartbeats, &self.shared.table);
    }

    /// Returns the earliest time at which something is due.
    pub(super) fn wake_at(&self) -> Instant {
        let times = [
            self.assignments.due(),
            self.starts.due(),
            self.commits.retry_at(),
            self.health.due(),
            self.shutdown.ends_at(),
        ];
        let next = times.into_iter().flatten().fold(self.shown.look_at, Instant::min);
        // Anything due was handled when it became due; checking again is not urgent.
        next.max(self.shown.now + SHORTEST_SLEEP)
    }

    /// Does what is due.
    pub(super) fn wake(&mut self) {
        let now = Instant::now();
        self.commits.wake(now);
        self.health.wake(now);
        self.starts.wake(now);
        self.assignments.wake(false, now);
    }

    fn state(&self) -> State {
        let is_troubled =
            self.health.is_troubled() || self.starts.problem().is_some() || self.assignments.are_troubled();
        if self.shutdown.has_begun() {
            State::Stopping
        } else if self.starts.is_paused() {
            State::Paused
        } else if is_troubled {
            State::Degraded
        } else if self.assignments.has_started() {
            State::Running
        } else {
            State::Starting
        }
    }

    fn status(&self, state: State) -> Status {
        Status {
            state,
            problems: self.health.problems(self.starts.problem().into_iter().chain(self.assignments.problems())),
            partitions: self.assignments.status(),
            totals: self.shared.totals(),
            handlers: self.shared.handler_totals(),
            bytes_in_flight: self.assignments.bytes_in_flight(),
        }
    }
}
