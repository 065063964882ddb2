//! Revokes partitions: work that has not begun is returned at once, work that has begun may finish until the deadline,
//! and settled offsets are committed before other members take over.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::TopicPartition;
use tokio::time::Instant;

use super::Coordinator;
use crate::engine::messages::WorkerCommand;
use crate::status::{ReturnedPartition, ShutdownReport};
use crate::time::after;

/// The part of a revocation's time reserved for the commit.
const COMMIT_TIME: Duration = Duration::from_millis(500);
/// How long after its deadline a shutdown waits for a commit's answer.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How long cancelled work may take to stop. A handler that blocks its thread may take longer: it is not waited for.
const CANCEL_TIME: Duration = Duration::from_millis(500);

/// The number of attempts of the last commit after the deadline.
const COMMITS: usize = 2;

/// The phase of a partition that is being revoked.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Nothing is committed any more: another member may own the partition already.
    pub(super) lost: bool,
    /// The time at which work that has begun is cancelled.
    cancel_at: Instant,
    /// The time at which waiting ends.
    give_up_at: Instant,
    /// The offset last committed while leaving, and the number of attempts.
    tried: (u64, usize),
    /// Only the release is left.
    left: bool,
}

impl Leaving {
    /// Records an attempt to commit `next`.
    pub(super) fn try_commit(&mut self, next: u64) {
        let times = if self.tried.0 == next { self.tried.1 } else { 0 };
        self.tried = (next, times + 1);
    }

    /// Returns whether a commit up to `settled` failed as often as there is time for.
    fn tried_enough(&self, settled: u64, now: Instant) -> bool {
        now >= self.cancel_at && self.tried.0 == settled && self.tried.1 >= COMMITS
    }

    /// Returns when the next phase is due, unless something ends before; by whether work was `cancelled`.
    pub(super) fn due(&self, cancelled: bool) -> Option<Instant> {
        if self.left {
            None
        } else if cancelled {
            Some(self.give_up_at)
        } else {
            Some(self.cancel_at)
        }
    }
}

impl Coordinator {
    /// Starts to revoke an assignment.
    pub(super) fn leave(&mut self, slot: u64, lost: bool, deadline: Duration) {
        let own = self.options.revocation_deadline;
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        if let Some(leaving) = &mut partition.leaving {
            leaving.lost |= lost;
            return;
        }
        let now = Instant::now();
        let time = deadline.saturating_sub(COMMIT_TIME + CANCEL_TIME).min(own);
        let cancel_at = after(now, time);
        partition.leaving =
            Some(Leaving { lost, cancel_at, give_up_at: cancel_at + CANCEL_TIME, tried: (0, 0), left: false });
        partition.assigned.stop();
        partition.early.clear();
        self.order_all(|| WorkerCommand::Revoke(slot));
    }

    /// Cancels the work of an assignment at once: the partition was assigned again.
    pub(super) fn hurry(&mut self, slot: u64) {
        let now = Instant::now();
        if let Some(partition) = self.slots.get_mut(&slot)
            && let Some(leaving) = partition.leaving.as_mut()
        {
            leaving.lost = true;
            if !partition.assigned.is_cancelled() {
                (leaving.cancel_at, leaving.give_up_at) = (now, now + CANCEL_TIME);
                partition.assigned.cancel();
            }
        }
        self.order_all(|| WorkerCommand::Cancel(slot));
    }

    /// Advances each leaving partition as far as possible.
    pub(super) fn advance_leaving(&mut self) {
        let now = Instant::now();
        let mut cancel = Vec::new();
        let mut commit = false;
        for (slot, partition) in &mut self.slots {
            let Some(leaving) = &mut partition.leaving else { continue };
            // Every chunk and item holds a reference; this one is ours.
            let quiet = Arc::strong_count(&partition.assigned) == 1;
            if !quiet && !partition.assigned.is_cancelled() && now >= leaving.cancel_at {
                partition.assigned.cancel();
                leaving.give_up_at = now + CANCEL_TIME;
                cancel.push(*slot);
            }
            let given_up = partition.assigned.is_cancelled() && now >= leaving.give_up_at;
            if !(quiet || given_up) {
                continue;
            }
            let settled = partition.tracker.watermark();
            let over = leaving.lost || partition.fenced;
            let committed = over || partition.committed == Some(settled) || leaving.tried_enough(settled, now);
            leaving.left = committed;
            commit |= !committed;
        }
        for slot in cancel {
            tracing::warn!(service = %self.shared.identity.service, "cancelling deliveries whose partition is given up");
            self.order_all(|| WorkerCommand::Cancel(slot));
        }
        // A refused commit is retried after a pause.
        if commit && self.next_not_before.is_none() {
            self.start_commit();
        }
        let gone = |p: &super::Partition| p.leaving.as_ref().is_some_and(|leaving| leaving.left && leaving.lost);
        let gone: Vec<u64> = self.slots.iter().filter(|(_, p)| gone(p)).map(|(slot, _)| *slot).collect();
        gone.into_iter().for_each(|slot| self.forget(slot));
    }

    /// Releases the partitions that are settled and committed, to other members.
    pub(super) async fn release_left(&mut self) {
        let left: Vec<(u64, TopicPartition)> = self
            .slots
            .iter()
            .filter(|(_, p)| is_left(p))
            .map(|(slot, p)| (*slot, p.assigned.origin.as_ref().clone()))
            .collect();
        if left.is_empty() {
            return;
        }
        let partitions: Vec<TopicPartition> = left.iter().map(|(_, partition)| partition.clone()).collect();
        // During shutdown they stay assigned, and `close` leaves all at once.
        if self.stopping.is_none()
            && let Err(error) = self.consumer.release(&partitions).await
        {
            tracing::warn!(error = %error.report(), "releasing partitions failed; they go at the deadline");
        }
        left.into_iter().for_each(|(slot, _)| self.forget(slot));
    }

    fn forget(&mut self, slot: u64) {
        if let Some(partition) = self.slots.remove(&slot) {
            if self.stopping.is_some() {
                self.returned.extend(partition.returned());
            }
            self.bytes -= partition.tracker.bytes();
            self.skips.forget(slot);
            let origin = partition.assigned.origin.as_ref();
            if self.current.get(origin) == Some(&slot) {
                self.current.remove(origin);
            }
            self.resume_when_few_bytes();
            // A later assignment of the partition may begin.
            if let Some(after) = self.current.get(origin).copied()
                && !self.slots.iter().any(|(other, p)| *other != after && *p.assigned.origin == *origin)
                && let Some(next) = self.slots.get_mut(&after)
            {
                next.behind = false;
                self.begin_early(after);
            }
        }
    }

    /// Starts the shutdown: revokes all partitions, within `deadline`.
    pub(super) fn begin_stopping(&mut self, deadline: Duration) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(after(Instant::now(), deadline));
        let slots: Vec<u64> = self.slots.keys().copied().collect();
        let with_commit = deadline.saturating_add(COMMIT_TIME + CANCEL_TIME);
        // A shutdown's deadline is the caller's; the limit for revocations does not apply.
        let own = std::mem::replace(&mut self.options.revocation_deadline, deadline);
        slots.into_iter().for_each(|slot| self.leave(slot, false, with_commit));
        self.options.revocation_deadline = own;
    }

    /// Revokes partitions that are assigned during shutdown at once: none of their work has begun.
    pub(super) fn leave_if_stopping(&mut self, slot: u64) {
        if self.stopping.is_some() {
            self.leave(slot, false, Duration::ZERO);
        }
    }

    /// Returns whether the service is stopping and nothing is left to do.
    pub(super) fn is_drained(&self) -> bool {
        let over = self.stops_at().is_some_and(|at| at <= Instant::now());
        self.stopping.is_some() && (over || self.slots.values().all(is_left) && self.committing.is_none())
    }

    /// Reports what the shutdown did not settle, also of partitions that it did not wait for.
    pub(super) fn report_shutdown(&mut self) -> ShutdownReport {
        let mut returned = std::mem::take(&mut self.returned);
        returned.extend(self.slots.values().filter_map(super::Partition::returned));
        returned.sort();
        for partition in returned.iter().filter(|partition| partition.cancelled) {
            tracing::warn!(
                service = %self.shared.identity.service,
                topic = %partition.partition.topic,
                partition = partition.partition.partition,
                records = partition.records,
                "deliveries were cancelled at the deadline of the shutdown; their records are delivered again"
            );
        }
        ShutdownReport { returned }
    }

    /// Returns when the shutdown ends, even if some calls have not answered.
    pub(super) fn stops_at(&self) -> Option<Instant> {
        self.stopping.map(|deadline| deadline + STOP_TIME)
    }
}

impl super::Partition {
    /// Returns what of it is not settled, if anything.
    fn returned(&self) -> Option<ReturnedPartition> {
        let records = self.tracker.unsettled();
        (records > 0).then(|| ReturnedPartition {
            partition: self.assigned.origin.as_ref().clone(),
            committed: self.committed,
            records,
            cancelled: self.assigned.is_cancelled(),
        })
    }

    /// Returns whether its records may be dispatched.
    pub(super) fn may_begin(&self) -> bool {
        self.started && !self.behind
    }
}

fn is_left(partition: &super::Partition) -> bool {
    partition.leaving.as_ref().is_some_and(|leaving| leaving.left)
}
