//! The assignments as they are shown: in snapshots, in the status, and in the log of stalls.

use std::ops::Range;
use std::time::Duration;

use tidings_core::{Assignment, Revocation, TopicPartition};
use tokio::time::Instant;

use super::Assignments;
use crate::engine::assigned::AssignmentId;
use crate::engine::board::{HoldingView, PartitionView, ServiceView};
use crate::engine::coordinator::partition::Partition;
use crate::engine::coordinator::watch::Change;
use crate::engine::messages::{Located, WorkerCommand};
use crate::engine::routing::Verdict;
use crate::engine::shared::Shared;
use crate::logs::{self, millis};
use crate::status::{PartitionStatus, ReturnedPartition};
use crate::telemetry::{ClockGap, HoldCause, PartitionState};

/// A partition whose lowest unsettled offset is the same for this long is looked into.
const LOOK_INTO_AFTER: Duration = Duration::from_secs(5);
/// How long a worker's report on a stalled record is waited for before the stall is logged without it.
const REPORT_TIME: Duration = Duration::from_secs(2);
/// The number of partitions that the workers are asked about at once: those that have not moved for longest.
const ASKED: usize = 100;
/// The interval of the line on a clock that differs, which is one for all partitions.
const CLOCK_LOGGED_EVERY: Duration = Duration::from_secs(3600);
/// The number of partitions that a line of the log names.
const NAMES: usize = 50;

impl Assignments {
    /// Shows what has changed since the last call.
    pub(crate) fn show(&mut self, service: Option<ServiceView>, now: Instant) {
        let touched: Vec<_> =
            self.partitions.iter_mut().filter_map(|(id, p)| shown(id, p, &self.shared, now)).collect();
        if service.is_none() && touched.is_empty() {
            return;
        }
        let mut view = self.shared.board.lock();
        if let Some(service) = service {
            view.service = service;
        }
        view.service.bytes_in_flight = self.bounds.bytes();
        for (id, partition, changes) in touched {
            view.partitions.insert(id, partition);
            for change in changes {
                if let Change::Paused(reason) = change {
                    *view.pauses.entry(reason).or_default() += 1;
                }
            }
        }
    }

    /// Looks for slow and stalled partitions: once a second.
    pub(crate) fn look_for_stalls(&mut self, starts_held: bool, now: Instant) {
        let stall_after = self.shared.board.stall_after();
        let wall = self.shared.board.wall(now);
        let mut unknown = Vec::new();
        for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.is_leaving()) {
            if starts_held || !partition.is_free() {
                partition.watch.hold_up(now);
            }
            partition.check_clock(wall, !starts_held);
            let age = self.shared.board.age(partition.oldest(), now);
            let age = age.saturating_sub(partition.clock_ahead());
            partition.sample(age >= stall_after, stall_after, now);
            let look_after = LOOK_INTO_AFTER.min(stall_after);
            if let Some(offset) = partition.watch.unmoved_for(look_after, now)
                && partition.is_free()
                && look_into(partition, offset, &self.shared)
            {
                unknown.push((partition.watch.unmoved(), id, offset));
            }
            let view = partition.view();
            let since = view.stuck.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            let is_known = view.holding.as_ref().is_some_and(|holding| holding.cause != HoldCause::Unknown);
            if view.state(now, stall_after, starts_held) == PartitionState::Stalled
                && (is_known || since >= stall_after + REPORT_TIME)
                && partition.watch.log_stall()
            {
                log_stall(&self.shared, &view.origin, view.holding.as_ref(), since);
            }
            if let Some(gap) = view.clock_gap
                && self.clock_logged.is_none_or(|at| now.saturating_duration_since(at) >= CLOCK_LOGGED_EVERY)
            {
                self.clock_logged = Some(now);
                log_clock(&self.shared, &view.origin, gap);
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            let unknown: Vec<_> = unknown.into_iter().take(ASKED).map(|(_, id, offset)| (id, offset)).collect();
            self.workers.send_all(|| WorkerCommand::Locate(unknown.clone()));
        }
    }

    /// Takes a worker's report on the record at a partition's lowest unsettled offset.
    pub(crate) fn located(&mut self, id: AssignmentId, located: Located) {
        let Some(partition) = self.partitions.get_mut(id) else { return };
        // A worker that only has a request in flight does not know whether the record is in it.
        let is_known = partition.watch.holding().is_some_and(|known| known.cause != HoldCause::Unknown);
        if located.is_certain || !is_known {
            partition.watch.hold(HoldingView {
                offset: located.offset,
                handler: located.handler.or_else(|| partition.watch.holding().and_then(|known| known.handler)),
                attempt: located.attempt,
                cause: located.cause,
                error: located.error.as_ref().map(|(kind, _)| *kind),
                text: located.error.map(|(kind, text)| logs::without_values(kind, &text).into()),
                due: located.due,
            });
        }
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bounds.bytes()
    }

    /// Returns whether a partition is assigned, or was and is not given back yet.
    pub(crate) fn has_partitions(&self) -> bool {
        self.partitions.iter().any(|partition| !partition.is_lost())
    }

    /// Returns the number of partitions and of records in flight.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let partitions = self.partitions.iter().filter(|partition| !partition.is_lost());
        partitions.fold((0, 0), |(count, records), partition| (count + 1, records + partition.in_flight()))
    }

    pub(crate) fn status(&self) -> Vec<PartitionStatus> {
        self.partitions.status()
    }

    /// Returns the problems of partitions, one line each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let missing = |(p, range): &(TopicPartition, Range<u64>)| format!("{p}: offsets {range:?} were deleted unread");
        self.partitions.iter().flat_map(Partition::problems).chain(self.missing.iter().map(missing))
    }

    /// Returns what is not settled of the assignments that are left.
    pub(crate) fn returned(&self) -> impl Iterator<Item = ReturnedPartition> {
        self.partitions.iter().filter_map(Partition::returned)
    }
}

/// An assignment to show, with what has changed since it was last shown.
type Touched = (AssignmentId, PartitionView, Vec<Change>);

/// Returns what is to be shown of an assignment, if it has changed, and logs the changes.
fn shown(id: AssignmentId, partition: &mut Partition, shared: &Shared, now: Instant) -> Option<Touched> {
    if !partition.watch.take_touched() {
        return None;
    }
    let changes = partition.look(now);
    changes.iter().for_each(|change| log_change(shared, partition, *change));
    Some((id, partition.view(), changes))
}

/// Logs a change. Pauses that are part of the normal flow are logged at DEBUG.
fn log_change(shared: &Shared, partition: &Partition, change: Change) {
    let service = shared.identity.service.as_str();
    let TopicPartition { topic, partition: number, .. } = partition.origin();
    let (topic, number) = (topic.as_str(), *number);
    match change {
        Change::Paused(reason) | Change::Resumed(reason, _) if reason.is_flow_control() => {
            tracing::debug!(target: "tidings::partition", service, topic, partition = number, ?change, "flow control");
        }
        Change::Paused(reason) => {
            let (reason, error) = (reason.as_str(), partition.pause_text(reason));
            logs::PartitionPaused {
                service: &service,
                topic: &topic,
                partition: &number,
                reason: &reason,
                error: &error,
            }
            .log();
        }
        Change::Resumed(reason, lasted) => {
            let (reason, lasted_ms) = (reason.as_str(), millis(lasted));
            let (topic, partition) = (&topic, &number);
            logs::PartitionResumed { service: &service, topic, partition, reason: &reason, lasted_ms: &lasted_ms }
                .log();
        }
        Change::Moved(stalled) => {
            let stalled_ms = millis(stalled);
            logs::Moving { service: &service, topic: &topic, partition: &number, stalled_ms: &stalled_ms }.log();
        }
    }
}

/// Notes what is known here of the record at `offset`; returns whether the workers know more.
fn look_into(partition: &mut Partition, offset: u64, shared: &Shared) -> bool {
    let lowest = partition.lowest().filter(|record| record.offset == offset);
    let handler = lowest.and_then(|record| match Verdict::of(shared, &partition.origin().topic, record) {
        Verdict::Handler(handler) => Some(handler),
        _ => None,
    });
    let is_fetched = lowest.is_some();
    if partition.watch.holding().is_none() {
        let cause = if is_fetched { HoldCause::Unknown } else { HoldCause::Fetch };
        partition.watch.hold(HoldingView { offset, handler, attempt: None, cause, error: None, text: None, due: None });
    }
    is_fetched
}

fn log_stall(shared: &Shared, partition: &TopicPartition, holding: Option<&HoldingView>, since: Duration) {
    let handler = holding.and_then(|holding| holding.handler).map(|number| shared.table.info(number).name.as_str());
    let line = logs::Stalled {
        service: &shared.identity.service.as_str(),
        topic: &partition.topic.as_str(),
        partition: &partition.partition,
        offset: &holding.map(|holding| holding.offset),
        handler: &handler,
        attempt: &holding.and_then(|holding| holding.attempt),
        cause: &holding.map_or(HoldCause::Unknown, |holding| holding.cause).as_str(),
        error: &holding.and_then(|holding| holding.text.as_deref()),
        seconds: &since.as_secs(),
    };
    line.log();
}

fn log_clock(shared: &Shared, partition: &TopicPartition, gap: ClockGap) {
    let ahead_seconds = match gap {
        ClockGap::Ahead(time) => i128::from(time.as_secs()),
        ClockGap::Behind(time) => -i128::from(time.as_secs()),
    };
    let line = logs::ClockDiffers {
        service: &shared.identity.service.as_str(),
        topic: &partition.topic.as_str(),
        partition: &partition.partition,
        ahead_seconds: &ahead_seconds,
    };
    line.log();
}

pub(super) fn log_assigned(shared: &Shared, assignments: &[Assignment]) {
    let line = logs::Assigned {
        service: &shared.identity.service.as_str(),
        group: &shared.identity.group.as_str(),
        count: &assignments.len(),
        partitions: &names(assignments.iter().map(|assignment| &assignment.partition)),
    };
    line.log();
}

pub(super) fn log_revoking(shared: &Shared, revocation: &Revocation) {
    let line = logs::Revoking {
        service: &shared.identity.service.as_str(),
        group: &shared.identity.group.as_str(),
        count: &revocation.partitions.len(),
        partitions: &names(revocation.partitions.iter()),
        deadline_ms: &millis(revocation.deadline),
    };
    line.log();
}

pub(super) fn log_lost(shared: &Shared, partitions: &[TopicPartition]) {
    let line = logs::Lost {
        service: &shared.identity.service.as_str(),
        group: &shared.identity.group.as_str(),
        count: &partitions.len(),
        partitions: &names(partitions.iter()),
    };
    line.log();
}

/// Logs that a partition is given back. At a shutdown one line has all of them.
pub(super) fn log_revoked(shared: &Shared, partition: &Partition, is_stopping: bool) {
    if is_stopping {
        return;
    }
    let line = logs::Revoked {
        service: &shared.identity.service.as_str(),
        topic: &partition.origin().topic.as_str(),
        partition: &partition.origin().partition,
        committed: &partition.committed_offset(),
        records: &partition.returned().map_or(0, |returned| returned.records),
    };
    line.log();
}

pub(super) fn log_rewound(shared: &Shared, assignment: &Assignment, position: u64, committed: Option<u64>) {
    let line = logs::LogRewound {
        service: &shared.identity.service.as_str(),
        topic: &assignment.partition.topic.as_str(),
        partition: &assignment.partition.partition,
        position: &position,
        committed: &committed,
        start: &assignment.start_offset,
    };
    line.log();
}

/// Returns the names of partitions, of the first ones where there are many.
fn names<'a>(partitions: impl ExactSizeIterator<Item = &'a TopicPartition>) -> String {
    let more = partitions.len().saturating_sub(NAMES);
    let names: Vec<_> = partitions.take(NAMES).map(ToString::to_string).collect();
    let names = names.join(", ");
    if more > 0 { format!("{names} and {more} more") } else { names }
}
