//! The assignments of the service: they take records in, hand them to the workers, and give partitions back.

mod operator;
mod view;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Assignment, Commit, Consumer, Error, Fetched, Progress, Step, TopicPartition};
use tokio::time::Instant;

use super::bounds::Bounds;
use super::partition::{Admitted, Dispatch, Partition};
use super::partitions::{Partitions, Removed};
use super::pauses::{Changes, Pauses};
use super::revocation::Leave;
use super::seeks::Seeks;
use super::skips::Skips;
use super::watch::Watch;
use super::workers::{Splitter, Workers};
use crate::engine::assigned::AssignmentId;
use crate::engine::board::add;
use crate::engine::messages::{Settled, WorkerEvent};
use crate::engine::shared::Shared;
use crate::logs;
use crate::settings::Options;
use crate::status::{PauseReason, ReturnedPartition};

/// The number of ranges of missing records kept for the status.
const MISSING_KEPT: usize = 16;

/// The progress of the assignments that end.
#[derive(Debug)]
pub(super) struct Advanced {
    /// Something is settled, and has to be committed first.
    pub(super) commit: bool,
    /// Positions that may be moved.
    pub(super) moves: Vec<AssignmentId>,
    /// What was given back of partitions that the group has taken.
    pub(super) returned: Vec<Option<ReturnedPartition>>,
}

/// All assignments, with the bounds and pauses that apply to them.
#[derive(Debug)]
pub(super) struct Assignments {
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    workers: Workers,
    splitter: Splitter,
    partitions: Partitions,
    bounds: Bounds,
    pauses: Pauses,
    skips: Skips,
    seeks: Seeks,
    /// Records that were deleted before they were read.
    missing: VecDeque<(TopicPartition, Range<u64>)>,
    /// A partition was assigned once.
    has_started: bool,
    is_stopping: bool,
    /// When a clock that differs was logged.
    clock_logged: Option<Instant>,
}

impl Assignments {
    pub(super) fn new(shared: Arc<Shared>, consumer: Arc<dyn Consumer>, workers: Workers, options: &Options) -> Self {
        Self {
            splitter: Splitter::new(workers.clone(), shared.keys.clone(), options.flow.order),
            partitions: Partitions::new(options.membership.revocation_deadline),
            bounds: Bounds::new(options.flow.max_bytes, options.flow.max_span),
            pauses: Pauses::default(),
            skips: Skips::default(),
            seeks: Seeks::default(),
            missing: VecDeque::new(),
            has_started: false,
            is_stopping: false,
            clock_logged: None,
            shared,
            consumer,
            workers,
        }
    }

    /// Takes a step of the group.
    pub(super) fn step(&mut self, step: Step, now: Instant) {
        if matches!(step, Step::Assigned(_) | Step::Revoking(_) | Step::Lost(_)) {
            add(&self.shared.board.counts.rebalances, 1);
        }
        match step {
            Step::Assigned(assignments) => {
                view::log_assigned(&self.shared, &assignments);
                self.has_started = true;
                for assignment in assignments {
                    self.report_gap(&assignment);
                    self.assigned(assignment, now);
                }
            }
            Step::Records(fetched) => self.records(fetched, now),
            Step::Revoking(revocation) => {
                view::log_revoking(&self.shared, &revocation);
                for partition in &revocation.partitions {
                    let id = self.partitions.current(partition).map(|(id, _)| id);
                    self.leave(id, Leave::Revoking(revocation.deadline), now);
                }
            }
            Step::Lost(partitions) => {
                view::log_lost(&self.shared, &partitions);
                for partition in &partitions {
                    let id = self.partitions.lose(partition);
                    self.leave(id, Leave::Lost, now);
                }
            }
            Step::Unreadable(unreadable) => {
                if let Some((_, partition)) = self.partitions.current(&unreadable.partition) {
                    partition.unreadable(&unreadable, &self.shared.identity.service);
                }
            }
            step => tracing::debug!(?step, "a step that this version does not know"),
        }
    }

    /// Reports records that are lost, and a committed offset that is of a former log.
    fn report_gap(&mut self, assignment: &Assignment) {
        let Assignment { partition, missing, committed, start_offset, .. } = assignment;
        let service = self.shared.identity.service.as_str();
        if let Some(missing) = missing {
            let line = logs::RecordsMissing {
                service: &service,
                topic: &partition.topic.as_str(),
                partition: &partition.partition,
                from: &missing.start,
                to: &missing.end,
            };
            line.log();
            self.missing.truncate(MISSING_KEPT - 1);
            self.missing.push_front((partition.clone(), missing.clone()));
        } else if let Some(committed) = committed.filter(|committed| committed > start_offset) {
            let line = logs::CommittedBeyondEnd {
                service: &service,
                topic: &partition.topic.as_str(),
                partition: &partition.partition,
                committed: &committed,
                start: start_offset,
            };
            line.log();
        }
    }

    fn assigned(&mut self, assignment: Assignment, now: Instant) {
        let tiers = self.shared.policy.tiers.as_ref();
        let tier = tiers.and_then(|tiers| tiers.place(&assignment.partition.topic)).map(|(_, level)| *level);
        let (id, replaced) = self.partitions.assign(assignment, tier, now);
        replaced.into_iter().for_each(|id| self.workers.revoke(id));
        if self.is_stopping {
            // None of its work has begun.
            self.leave(Some(id), Leave::Shutdown(Duration::ZERO), now);
        }
    }

    fn records(&mut self, fetched: Fetched, now: Instant) {
        let Some((id, partition)) = self.partitions.current(fetched.batch.origin()) else { return };
        match partition.admit(fetched) {
            Admitted::Dispatch(dispatch) => self.dispatch(id, [dispatch]),
            Admitted::Nothing => {}
            Admitted::Waiting => self.dispatch_due(id, now),
            Admitted::Rewound(assignment, fetched) => {
                let reached = partition.reached();
                let committed = partition.committed_offset();
                view::log_rewound(&self.shared, &assignment, reached, committed);
                self.assigned(assignment, now);
                if let Some((_, partition)) = self.partitions.current(fetched.batch.origin()) {
                    partition.watch = Watch::new(Some(reached));
                }
                self.records(fetched, now);
            }
        }
    }

    /// Dispatches the records of retry topics that are due; checks `all` partitions in case the wall clock was set.
    pub(super) fn wake(&mut self, all: bool, now: Instant) {
        if self.shared.policy.tiers.is_some() {
            let ids = if all { self.partitions.ids() } else { self.partitions.due_now(now) };
            ids.into_iter().for_each(|id| self.dispatch_due(id, now));
        }
    }

    /// Dispatches the records of an assignment of a retry topic that are due, until a bound is reached.
    fn dispatch_due(&mut self, id: AssignmentId, now: Instant) {
        let Some(tiers) = self.shared.policy.tiers.clone() else { return };
        while let Some(partition) = self.partitions.get_mut(id) {
            let has_room = !self.bounds.is_full();
            let Some(dispatch) = partition.take_due(has_room, now, &tiers) else { return };
            self.dispatch(id, [dispatch]);
        }
    }

    fn dispatch(&mut self, id: AssignmentId, dispatches: impl IntoIterator<Item = Dispatch>) {
        for Dispatch { assigned, number, batch, bytes } in dispatches {
            let counts = &self.shared.board.counts;
            add(&counts.fetches, 1);
            add(&counts.records_fetched, batch.len());
            add(&counts.bytes_fetched, bytes);
            self.bounds.add(bytes);
            self.splitter.dispatch(&assigned, number, &batch);
        }
        self.check_span(id);
    }

    fn check_span(&mut self, id: AssignmentId) {
        if let Some(partition) = self.partitions.get_mut(id) {
            let is_full = self.bounds.is_span_full(partition.span(), partition.is_paused_by(PauseReason::Span));
            partition.pause(PauseReason::Span, is_full);
        }
    }

    /// Settles records. Those of a former assignment are ignored.
    pub(super) fn settled(&mut self, settled: Vec<Settled>) {
        for Settled { assigned, number, indexes } in settled {
            let Some(partition) = self.partitions.get_mut(assigned.id) else { continue };
            self.bounds.remove(partition.settle(number, indexes));
            self.check_span(assigned.id);
        }
    }

    /// Takes an event of a worker about one assignment.
    pub(super) fn event(&mut self, id: AssignmentId, event: WorkerEvent) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        match event {
            WorkerEvent::Trouble { cause, raised, text, .. } => partition.trouble(cause, raised, text),
            WorkerEvent::Unburied { offset, error, .. } => {
                if error.is_none() {
                    self.skips.letter_written(id, offset);
                }
                partition.unburied(offset, error);
            }
            WorkerEvent::Skipped { offset, .. } => {
                partition.unburied(offset, None);
                self.skips.letter_skipped(id, offset, &self.shared.identity.service);
            }
            _ => {}
        }
    }

    fn leave(&mut self, id: Option<AssignmentId>, leave: Leave, now: Instant) {
        if let Some(id) = id.filter(|id| self.partitions.leave(*id, leave, now)) {
            self.workers.revoke(id);
        }
    }

    /// Begins the end of all assignments, and of those still to come.
    pub(super) fn stop(&mut self, time: Duration, now: Instant) {
        self.is_stopping = true;
        for id in self.partitions.ids() {
            self.leave(Some(id), Leave::Shutdown(time), now);
        }
    }

    /// Advances the assignments that end. Returns whether something that is settled has to be committed first.
    pub(super) fn advance_endings(&mut self, now: Instant) -> Advanced {
        let endings = self.partitions.advance(now);
        for id in endings.cancel {
            logs::DeliveriesCancelled { service: &self.shared.identity.service.as_str() }.log();
            self.workers.cancel(id);
        }
        let returned = endings.forget.into_iter().map(|id| self.forget(id)).collect();
        Advanced { commit: endings.commit, moves: endings.moves, returned }
    }

    /// Releases the partitions that are settled and committed, to other members; returns what was given back.
    pub(super) async fn release_ended(&mut self) -> Vec<Option<ReturnedPartition>> {
        let (ids, partitions) = self.partitions.ended();
        // During shutdown they stay assigned, and `close` leaves all at once.
        if !partitions.is_empty()
            && !self.is_stopping
            && let Err(error) = self.consumer.release(&partitions).await
        {
            let service = self.shared.identity.service.as_str();
            logs::ReleaseFailed { service: &service, error: &error.report() }.log();
        }
        ids.into_iter().map(|id| self.forget(id)).collect()
    }

    /// Forgets an assignment; a later one of its partition may begin.
    fn forget(&mut self, id: AssignmentId) -> Option<ReturnedPartition> {
        if let Some(partition) = self.partitions.get_mut(id).filter(|partition| !partition.is_lost()) {
            view::log_revoked(&self.shared, partition, self.is_stopping);
        }
        let Removed { bytes, returned, begun } = self.partitions.remove(id)?;
        self.shared.board.lock().partitions.remove(&id);
        self.bounds.remove(bytes);
        self.skips.forget(id);
        self.seeks.forget(id);
        for (later, dispatches) in begun {
            self.dispatch(later, dispatches);
        }
        returned
    }

    /// Returns whether only releases are left.
    pub(super) fn have_ended(&self) -> bool {
        self.partitions.iter().all(Partition::has_ended)
    }

    /// Returns whether an assignment waits for the commit of its start.
    pub(super) fn wait_for_commit(&self) -> bool {
        self.partitions.iter().any(Partition::waits_for_commit)
    }

    /// Returns the commits of all positions that have changed, which are attempted now.
    pub(super) fn next_commits(&mut self) -> Vec<(AssignmentId, Commit)> {
        self.partitions.next_commits()
    }

    /// Records that the position `next` is committed.
    pub(super) fn committed(&mut self, id: AssignmentId, next: u64) {
        let begun = self.partitions.get_mut(id).map(|partition| partition.committed(next));
        self.dispatch(id, begun.unwrap_or_default());
    }

    /// Records that a commit failed; returns whether it may be repeated.
    pub(super) fn not_committed(&mut self, id: AssignmentId, next: u64, error: &Error) -> bool {
        let Some(partition) = self.partitions.get_mut(id) else { return false };
        let about = ("not_committed", None, error.kind().as_str());
        if let Some(held_back) = self.shared.limiter.pass(about, Instant::now()) {
            let line = logs::NotCommitted {
                service: &self.shared.identity.service.as_str(),
                topic: &partition.origin().topic.as_str(),
                partition: &partition.origin().partition,
                next_offset: &next,
                error: &error.report(),
                held_back: &held_back,
            };
            line.log();
        }
        partition.not_committed(error)
    }

    /// Updates the consumer's paused partitions, if they have changed.
    pub(super) async fn apply_pauses(&mut self) {
        let mut is_bounded = false;
        for (_, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.is_lost()) {
            partition.pause(PauseReason::Operator, self.pauses.is_paused(partition.origin()));
            partition.pause(PauseReason::Bytes, self.bounds.is_full());
            is_bounded |= partition.reached_bound();
        }
        if is_bounded {
            // For batches that wait for more records.
            self.workers.wake();
        }
        let stopping = self.is_stopping;
        let owned = self.partitions.iter().filter(|partition| !partition.is_lost());
        let Changes { pause, resume } =
            self.pauses.changes(owned.map(|partition| (partition.origin(), partition.wants_pause() || stopping)));
        let paused = if pause.is_empty() { Ok(()) } else { self.consumer.pause(&pause).await };
        let resumed = if resume.is_empty() { Ok(()) } else { self.consumer.resume(&resume).await };
        if let Err(error) = paused.and(resumed) {
            let service = self.shared.identity.service.as_str();
            logs::PauseFailed { service: &service, error: &error.report() }.log();
        }
    }

    /// Updates the ends of the logs; returns whether everything up to there is committed.
    pub(super) fn progressed(&mut self, progress: &[Progress]) -> bool {
        self.partitions.progressed(progress) && self.is_idle()
    }

    /// Returns whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.has_started && self.partitions.iter().all(Partition::is_idle)
    }

    /// Returns whether all that was settled is committed.
    pub(super) fn are_committed(&self) -> bool {
        self.partitions.iter().all(Partition::is_committed)
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    /// Returns whether progress is expected.
    pub(super) fn have_lag(&self) -> bool {
        self.partitions.iter().any(Partition::has_lag)
    }

    pub(super) fn are_troubled(&self) -> bool {
        self.partitions.iter().any(Partition::is_troubled)
    }

    /// Returns when the next step of an assignment that ends, or a record of a retry topic, is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.partitions.due()
    }
}
