//! The coordinator: reads, dispatches, tracks settled records, commits, and revokes partitions gracefully.

mod commits;
mod dispatch;
mod finish;
mod health;
mod held;
mod lease;
mod leaving;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Consumer, Error, Fetched, Result, Step, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::commits::Committing;
use self::health::Asking;
pub(super) use self::held::Skip;
use self::held::{Held, Skips};
use self::lease::{Asked, Renewing};
use self::leaving::Leaving;
use super::gate::Change;
use super::running::Command;
use super::shared::Shared;
use super::tracker::Tracker;
use crate::engine::assigned::Assigned;
use crate::engine::messages::{Cause, WorkerCommand, WorkerEvent};
use crate::settings::Options;
use crate::status::{PauseReason, ReturnedPartition, ShutdownReport, State, Status};
use crate::time::{FOR_EVER, after};

/// The maximum number of reports handled before the other sources are polled.
const REPORTS_PER_ROUND: usize = 64;
/// The pause after a transient failure of `next`.
const NEXT_RETRY: Duration = Duration::from_millis(200);
/// The resolution of timers: a shorter interval is always due, and keeps a thread busy.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Coordinator {
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    options: Options,
    workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
    reports: mpsc::UnboundedReceiver<WorkerEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    tasks: JoinSet<()>,
    slots: BTreeMap<u64, Partition>,
    /// The slot of each assigned partition.
    current: HashMap<TopicPartition, u64>,
    next_slot: u64,
    rotation: usize,
    bytes: usize,
    bytes_paused: bool,
    paused_by_operator: bool,
    operator: BTreeSet<TopicPartition>,
    /// The partitions that the consumer was asked to pause. Not per assignment: the consumer keeps a pause across
    /// assignments.
    told_paused: BTreeSet<TopicPartition>,
    committing: Option<Committing>,
    asking: Option<Asking>,
    skips: Skips,
    waiters: Vec<oneshot::Sender<()>>,
    gate_opens_at: Option<Instant>,
    lone: VecDeque<usize>,
    lone_current: Option<usize>,
    unquiesced: usize,
    /// The last read failure, and its time.
    next_error: Option<(Instant, String)>,
    next_not_before: Option<Instant>,
    /// A caller waits for the service to catch up.
    look_again_at: Option<Instant>,
    stopping: Option<Instant>,
    /// The partitions that the shutdown gave back with unsettled records.
    returned: Vec<ReturnedPartition>,
    assigned_once: bool,
    health: health::Watch,
}

/// The coordinator's state of an assignment.
#[derive(Debug)]
struct Partition {
    assigned: Arc<Assigned>,
    tracker: Tracker,
    committed: Option<u64>,
    /// Its start offset is committed: its records may be dispatched.
    started: bool,
    /// A commit was refused because another member owns the partition: no other is tried.
    fenced: bool,
    /// An earlier assignment of the partition to this service still has work in flight.
    behind: bool,
    /// The batches that arrived before that work ended.
    early: Vec<Fetched>,
    end: u64,
    troubles: BTreeMap<Cause, (usize, String)>,
    pauses: BTreeSet<PauseReason>,
    held: Held,
    leaving: Option<Leaving>,
}

impl Coordinator {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Arc<dyn Consumer>,
        options: Options,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        reports: mpsc::UnboundedReceiver<WorkerEvent>,
        commands: mpsc::UnboundedReceiver<Command>,
        tasks: JoinSet<()>,
    ) -> Self {
        Self {
            shared,
            consumer,
            options,
            workers,
            reports,
            commands,
            tasks,
            slots: BTreeMap::new(),
            current: HashMap::new(),
            next_slot: 1,
            rotation: 0,
            bytes: 0,
            bytes_paused: false,
            paused_by_operator: false,
            operator: BTreeSet::new(),
            told_paused: BTreeSet::new(),
            committing: None,
            asking: None,
            skips: Skips::default(),
            waiters: Vec::new(),
            gate_opens_at: None,
            lone: VecDeque::new(),
            lone_current: None,
            unquiesced: 0,
            next_error: None,
            next_not_before: None,
            look_again_at: None,
            stopping: None,
            returned: Vec::new(),
            assigned_once: false,
            health: health::Watch::default(),
        }
    }

    /// Runs until it is stopped or a non-transient error occurs.
    pub(super) async fn run(mut self) -> Result<(Status, ShutdownReport)> {
        let mut renewing = self.keep_lease();
        let ended = self.work(&mut renewing).await;
        renewing.iter_mut().for_each(Renewing::stop_asking);
        if let Err(error) = &ended {
            tracing::error!(service = %self.shared.identity.service, error = %error.report(), "the service failed");
            self.begin_stopping(Duration::ZERO);
            self.apply_pauses().await;
            self.drain().await;
        }
        self.give_claims_back().await;
        drop(renewing);
        self.finish().await;
        ended?;
        let status = self.status(State::Stopped);
        Ok((status, self.report_shutdown()))
    }

    async fn work(&mut self, renewing: &mut Option<Renewing>) -> Result<()> {
        let mut ticks = interval(self.options.commit_interval.clamp(SHORTEST_TICK, FOR_EVER));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let consumer = self.consumer.clone();
        let mut next = consumer.next();
        let (mut asked, mut look_anyway) = (None, false);
        loop {
            let wake_at = self.wake_at();
            let may_read = look_anyway || self.next_not_before.is_none();
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.take_reports(report),
                command = self.commands.recv() => self.obey(command),
                ask = Renewing::wants_to_know(renewing) => {
                    next = consumer.next();
                    (asked, look_anyway) = (Some(ask), true);
                }
                done = Committing::wait(&mut self.committing) => self.committed(done),
                done = Asking::wait(&mut self.asking) => self.asked(done),
                sought = self.skips.sought() => self.sought(sought),
                Some(ended) = self.tasks.join_next() => return Err(worker_ended(ended)),
                step = &mut next, if may_read => {
                    next = consumer.next();
                    look_anyway &= step.is_ok();
                    self.take_step(step)?;
                }
                () = Asked::had_time(&asked) => {
                    look_anyway = false;
                    asked.take().into_iter().for_each(Asked::done);
                }
                _ = ticks.tick() => self.tick(),
                () = sleep_until(wake_at) => self.wake(),
            }
            self.commit_starts();
            self.advance_leaving();
            self.check_caught_up();
            self.apply_pauses().await;
            self.release_left().await;
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    /// As `work`, without reading: after a failure.
    async fn drain(&mut self) {
        while !self.is_drained() {
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.take_reports(report),
                done = Committing::wait(&mut self.committing) => self.committed(done),
                () = sleep_until(wake_at) => self.wake(),
            }
            self.advance_leaving();
        }
    }

    fn take_step(&mut self, step: Result<Step>) -> Result<()> {
        match step {
            Ok(step) => {
                self.next_error = None;
                self.step(step);
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(service = %self.shared.identity.service, error = %error.report(), "reading failed; trying again");
                self.next_error = Some((Instant::now(), error.report()));
                self.next_not_before = Some(Instant::now() + NEXT_RETRY);
                Ok(())
            }
            Err(error) => Err(Error::caused_by(error.kind(), "read from the group", error)),
        }
    }

    fn take_reports(&mut self, first: WorkerEvent) {
        self.report(first);
        for _ in 0..REPORTS_PER_ROUND {
            match self.reports.try_recv() {
                Ok(report) => self.report(report),
                Err(_) => break,
            }
        }
    }

    fn report(&mut self, report: WorkerEvent) {
        match report {
            WorkerEvent::Settled(settled) => self.settled(settled),
            WorkerEvent::Released => {}
            WorkerEvent::Trouble { assignment: slot, cause, raised, text } => self.trouble(slot, cause, raised, text),
            WorkerEvent::Unburied { assignment: slot, offset, error } => self.unburied(slot, offset, error),
            WorkerEvent::Skipped { assignment: slot, offset } => self.letter_skipped(slot, offset),
            WorkerEvent::Breaker(Change::Closed(wait)) => {
                tracing::error!(service = %self.shared.identity.service, ?wait, "most deliveries fail; waiting before the next one");
                self.gate_opens_at = Some(after(Instant::now(), wait));
            }
            WorkerEvent::Breaker(Change::Opened) => {
                tracing::info!(service = %self.shared.identity.service, "deliveries succeed again");
                self.gate_opens_at = None;
                self.order_all(|| WorkerCommand::Wake);
            }
            WorkerEvent::Breaker(Change::ProbeReturned) => self.order_all(|| WorkerCommand::Wake),
            WorkerEvent::Breaker(Change::None) => {}
            WorkerEvent::WantIsolated { worker } => {
                self.lone.push_back(worker);
                self.next_lone();
            }
            WorkerEvent::Quiesced => {
                self.unquiesced = self.unquiesced.saturating_sub(1);
                if self.unquiesced == 0
                    && let Some(worker) = self.lone_current
                {
                    self.order(worker, WorkerCommand::RunIsolated);
                }
            }
            WorkerEvent::IsolatedDone => {
                self.lone_current = None;
                self.shared.gate.set_lone(false);
                self.order_all(|| WorkerCommand::Wake);
                self.next_lone();
            }
        }
    }

    /// Starts the next lone delivery: first everything else must have ended.
    fn next_lone(&mut self) {
        if self.lone_current.is_some() || self.paused_by_operator {
            return;
        }
        if let Some(worker) = self.lone.pop_front() {
            self.lone_current = Some(worker);
            self.shared.gate.set_lone(true);
            self.unquiesced = self.workers.len();
            self.order_all(|| WorkerCommand::Quiesce);
        }
    }

    fn order(&self, worker: usize, order: WorkerCommand) {
        // A worker that is gone is noticed when its task is joined.
        let _ = self.workers[worker].send(order);
    }

    fn order_all(&self, order: impl Fn() -> WorkerCommand) {
        for worker in 0..self.workers.len() {
            self.order(worker, order());
        }
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Status(reply)) => {
                let _ = reply.send(self.status(self.state()));
            }
            Some(Command::CaughtUp(reply)) => self.waiters.push(reply),
            Some(Command::Pause(partitions)) => self.operator_paused(partitions, true),
            Some(Command::Resume(partitions)) => self.operator_paused(partitions, false),
            Some(Command::Skip(skip)) => self.skip(skip),
            Some(Command::Shutdown(deadline)) => self.begin_stopping(deadline),
            // The handle is gone: this task will end at once, too.
            None => self.begin_stopping(Duration::ZERO),
        }
    }

    fn operator_paused(&mut self, partitions: Option<Vec<TopicPartition>>, paused: bool) {
        match partitions {
            None => {
                self.paused_by_operator = paused;
                self.shared.gate.set_paused(paused);
                self.order_all(|| WorkerCommand::Wake);
                self.next_lone();
            }
            Some(partitions) if paused => self.operator.extend(partitions),
            Some(partitions) => partitions.iter().for_each(|partition| drop(self.operator.take(partition))),
        }
    }

    /// Returns the earliest time at which something is due.
    fn wake_at(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        let leaving = self.slots.values().filter_map(|p| p.leaving.as_ref()?.due(p.assigned.is_cancelled()));
        leaving
            .chain(self.gate_opens_at)
            .chain(self.next_not_before)
            .chain(self.look_again_at)
            .chain(self.stops_at())
            .min()
            .unwrap_or(far)
            .max(
                // Anything due was handled when it became due; checking again is not urgent.
                Instant::now() + Duration::from_millis(1),
            )
    }

    fn wake(&mut self) {
        let now = Instant::now();
        if self.next_not_before.is_some_and(|at| at <= now) {
            self.next_not_before = None;
        }
        if self.look_again_at.is_some_and(|at| at <= now) {
            self.look_again_at = None;
        }
        if self.gate_opens_at.is_some_and(|at| at <= now) {
            self.gate_opens_at = None;
            self.shared.gate.start_probing();
            self.order_all(|| WorkerCommand::Wake);
        }
    }

    fn tick(&mut self) {
        self.start_commit();
        self.watch_progress();
    }
}

fn worker_ended(ended: std::result::Result<(), tokio::task::JoinError>) -> Error {
    let error = Error::new(tidings_core::ErrorKind::Failed, "run the workers: one of them ended");
    match ended {
        Ok(()) => error,
        Err(source) => error.with_source(source),
    }
}
