//! The coordinator: reads, dispatches, tracks settled records, commits, and revokes partitions gracefully.
//!
//! This file is its loop: it owns the parts, and passes each what happened. No part knows another one's state.

mod assignments;
mod bounds;
mod clock_check;
mod commits;
mod health;
mod held;
mod isolation;
mod lease;
mod partition;
mod partitions;
mod parts;
mod pauses;
mod revocation;
mod seeks;
mod shutdown;
mod skips;
mod standby;
mod starts;
mod tracker;
mod troubles;
mod waiting;
mod watch;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Consumer, ConsumerOptions, Error, ErrorKind, Result, Transport};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use self::lease::{Asked, Renewing};
use self::parts::{Parts, SHORTEST_SLEEP};
use self::standby::Standby;
use self::workers::Workers;
use super::commands::Command;
use super::messages::{WorkerCommand, WorkerEvent};
use super::shared::Shared;
use crate::logs;
use crate::settings::Options;
use crate::status::{ShutdownReport, Status};
use crate::time::FOR_EVER;

/// The maximum number of workers' events handled before the other sources are polled.
const EVENTS_PER_ROUND: usize = 64;

#[derive(Debug)]
pub(super) struct Coordinator {
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    inputs: Inputs,
    workers: Workers,
    parts: Parts,
    commit_interval: Duration,
}

/// The sources of the loop, except for the consumer.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) events: mpsc::UnboundedReceiver<WorkerEvent>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// The tasks of the workers.
    pub(super) tasks: JoinSet<()>,
}

impl Coordinator {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Arc<dyn Consumer>,
        transport: Arc<dyn Transport>,
        options: &Options,
        workers: Vec<mpsc::UnboundedSender<WorkerCommand>>,
        inputs: Inputs,
    ) -> Self {
        let workers = Workers::new(workers);
        let session_timeout = options.membership.session_timeout.unwrap_or(ConsumerOptions::DEFAULT_SESSION_TIMEOUT);
        let standby = Standby::new(shared.clone(), transport, session_timeout);
        let parts = Parts::new(shared.clone(), consumer.clone(), standby, &workers, options);
        let commit_interval = options.flow.commit_interval.clamp(SHORTEST_SLEEP, FOR_EVER);
        Self { shared, consumer, inputs, workers, parts, commit_interval }
    }

    /// Runs until it is stopped or a non-transient error occurs.
    pub(super) async fn run(mut self) -> Result<(Status, ShutdownReport)> {
        let mut renewing = Renewing::start(&self.shared, self.workers.clone());
        let ended = self.work(&mut renewing).await;
        renewing.iter_mut().for_each(Renewing::stop_asking);
        if let Err(error) = &ended {
            logs::Failed { service: &self.shared.identity.service.as_str(), error: &error.report() }.log();
            self.parts.shut_down(Duration::ZERO);
            self.parts.assignments.apply_pauses().await;
            self.drain().await;
        }
        shutdown::release_claims(&self.shared).await;
        drop(renewing);
        shutdown::finish(&self.shared, self.consumer.as_ref(), &mut self.inputs.tasks).await;
        ended?;
        Ok(self.parts.ended())
    }

    async fn work(&mut self, renewing: &mut Option<Renewing>) -> Result<()> {
        let mut ticks = interval(self.commit_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let consumer = self.consumer.clone();
        let mut next = consumer.next();
        let (mut asked, mut look_anyway) = (None, false);
        loop {
            let wake_at = self.parts.wake_at();
            let may_read = look_anyway || self.parts.health.may_read();
            tokio::select! {
                biased;
                Some(event) = self.inputs.events.recv() => self.take_events(event),
                command = self.inputs.commands.recv() => self.parts.obey(command),
                ask = Renewing::wants_to_know(renewing) => {
                    next = consumer.next();
                    (asked, look_anyway) = (Some(ask), true);
                }
                committed = self.parts.commits.answered() => self.parts.committed(committed),
                progress = self.parts.health.answered() => self.parts.progressed(progress),
                members = self.parts.standby.answered() => self.parts.standby.take(members),
                answer = self.parts.assignments.answered() => self.parts.assignments.take_answer(answer, Instant::now()),
                Some(ended) = self.inputs.tasks.join_next() => return Err(worker_ended(ended)),
                step = &mut next, if may_read => {
                    next = consumer.next();
                    look_anyway &= step.is_ok();
                    self.parts.take_step(step)?;
                }
                () = Asked::had_time(&asked) => {
                    look_anyway = false;
                    asked.take().into_iter().for_each(Asked::done);
                }
                _ = ticks.tick() => self.parts.tick(),
                () = sleep_until(wake_at) => self.parts.wake(),
            }
            self.parts.advance().await;
            if self.parts.is_drained() {
                return Ok(());
            }
        }
    }

    /// As `work`, without reading: after a failure.
    async fn drain(&mut self) {
        while !self.parts.is_drained() {
            let wake_at = self.parts.wake_at();
            tokio::select! {
                biased;
                Some(event) = self.inputs.events.recv() => self.take_events(event),
                committed = self.parts.commits.answered() => self.parts.committed(committed),
                () = sleep_until(wake_at) => self.parts.wake(),
            }
            self.parts.advance_endings();
            self.parts.show();
        }
    }

    fn take_events(&mut self, first: WorkerEvent) {
        self.parts.event(first);
        for _ in 0..EVENTS_PER_ROUND {
            match self.inputs.events.try_recv() {
                Ok(event) => self.parts.event(event),
                Err(_) => break,
            }
        }
    }
}

fn worker_ended(ended: std::result::Result<(), JoinError>) -> Error {
    let error = Error::new(ErrorKind::Failed, "run the workers: one of them ended");
    match ended {
        Ok(()) => error,
        Err(source) => error.with_source(source),
    }
}
