//! The assignments as they are shown: in snapshots, in the status, and in the log of stalls.

use std::ops::Range;
use std::time::Duration;

use tidings_core::TopicPartition;
use tokio::time::Instant;

use super::Assignments;
use crate::engine::assigned::AssignmentId;
use crate::engine::board::{HoldingView, PartitionView, ServiceView};
use crate::engine::coordinator::partition::Partition;
use crate::engine::coordinator::watch::Change;
use crate::engine::messages::{Located, WorkerCommand};
use crate::engine::routing::Verdict;
use crate::engine::shared::Shared;
use crate::status::{PartitionStatus, ReturnedPartition};
use crate::telemetry::{HoldCause, PartitionState};

/// A partition whose lowest unsettled offset is the same for this long is looked into.
const LOOK_INTO_AFTER: Duration = Duration::from_secs(5);
/// How long a worker's report on a stalled record is waited for before the stall is logged without it.
const REPORT_TIME: Duration = Duration::from_secs(2);

impl Assignments {
    /// Shows what has changed since the last call.
    pub(crate) fn show(&mut self, service: Option<ServiceView>, now: Instant) {
        let touched: Vec<_> = self.partitions.iter_mut().filter_map(|(id, p)| shown(id, p, now)).collect();
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
        let mut unknown = Vec::new();
        for (id, partition) in self.partitions.iter_mut().filter(|(_, partition)| !partition.is_leaving()) {
            let age = self.shared.board.age(partition.lowest().map(|record| record.timestamp), now);
            partition.sample(age >= stall_after, stall_after, now);
            let look_after = LOOK_INTO_AFTER.min(stall_after);
            if let Some(offset) = partition.watch.unmoved_for(look_after, now)
                && partition.is_free()
                && look_into(partition, offset, &self.shared)
            {
                unknown.push((id, offset));
            }
            let view = partition.view();
            let since = view.unmoved.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            let is_known = view.holding.as_ref().is_some_and(|holding| holding.cause != HoldCause::Unknown);
            if view.state(now, stall_after, starts_held) == PartitionState::Stalled
                && (is_known || since >= stall_after + REPORT_TIME)
                && partition.watch.log_stall()
            {
                log_stall(&self.shared, &view.origin, view.holding.as_ref(), since);
            }
        }
        if !unknown.is_empty() {
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
                text: located.error.map(|(_, text)| text.into()),
                due: located.due,
            });
        }
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bounds.bytes()
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

fn shown(
    id: AssignmentId,
    partition: &mut Partition,
    now: Instant,
) -> Option<(AssignmentId, PartitionView, Vec<Change>)> {
    partition.watch.take_touched().then(|| {
        let changes = partition.look(now);
        (id, partition.view(), changes)
    })
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
    tracing::error!(
        service = %shared.identity.service,
        topic = %partition.topic,
        partition = partition.partition,
        offset = holding.map(|holding| holding.offset),
        handler,
        attempt = holding.and_then(|holding| holding.attempt),
        cause = holding.map_or(HoldCause::Unknown, |holding| holding.cause).as_str(),
        error = holding.and_then(|holding| holding.text.as_deref()),
        seconds = since.as_secs(),
        "the partition is stalled: its lowest unsettled record has not moved"
    );
}
