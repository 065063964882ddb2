//! Health of the service: status, problems, stalls, and catching up.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, pending};
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use tidings_core::{Progress, Result, TopicPartition};
use tokio::time::Instant;

use super::Coordinator;
use super::dispatch::set;
use crate::engine::messages::Cause;
use crate::status::{PartitionStatus, PauseReason, State, Status};

/// How long a read failure counts as the current state.
const FAILURE_HOLDS: Duration = Duration::from_secs(15);
/// The interval of querying the log ends.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while a caller waits for the service to catch up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(20);
/// The number of ranges of missing records kept for the status.
const MISSING_KEPT: usize = 16;
/// A worker whose handler has not yielded for this long counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// A position query to the broker.
pub(super) struct Asking(Pin<Box<dyn Future<Output = Result<Vec<Progress>>> + Send>>);

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}

impl Asking {
    /// Waits for the answer, if a query is in flight. Cancel-safe.
    pub(super) async fn wait(this: &mut Option<Self>) -> Result<Vec<Progress>> {
        let Some(asking) = this else { return pending().await };
        let answer = asking.0.as_mut().await;
        *this = None;
        answer
    }
}

/// The inputs of the health check.
#[derive(Debug)]
pub(super) struct Watch {
    asked_at: Option<Instant>,
    progress_at: Instant,
    stalled: bool,
    missing: VecDeque<(TopicPartition, Range<u64>)>,
    blocked: Vec<String>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            asked_at: None,
            progress_at: Instant::now(),
            stalled: false,
            missing: VecDeque::new(),
            blocked: Vec::new(),
        }
    }
}

impl Watch {
    pub(super) fn missing(&mut self, partition: &TopicPartition, range: Range<u64>) {
        self.missing.truncate(MISSING_KEPT - 1);
        self.missing.push_front((partition.clone(), range));
    }

    /// Records that something was committed: there is no stall.
    pub(super) fn progressed(&mut self) {
        self.progress_at = Instant::now();
        self.stalled = false;
    }
}

impl Coordinator {
    pub(super) fn trouble(&mut self, slot: u64, cause: Cause, raised: bool, text: String) {
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        let count = {
            let (count, last) = partition.troubles.entry(cause).or_default();
            if raised {
                *count += 1;
                *last = text;
            } else {
                *count = count.saturating_sub(1);
            }
            *count
        };
        if count == 0 {
            partition.troubles.remove(&cause);
        }
        set(&mut partition.pauses, reason(cause), count > 0);
    }

    /// Returns why reading fails. If neither a record nor an error has arrived since, reading works again.
    fn reading_failed(&self) -> Option<&str> {
        self.next_error.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_HOLDS).map(|(_, error)| &**error)
    }

    pub(super) fn state(&self) -> State {
        let troubled = self.reading_failed().is_some()
            || !self.shared.gate.is_open()
            || self.slots.values().any(|p| !p.troubles.is_empty() || p.held.is_unreadable())
            || self.health.stalled;
        if self.stopping.is_some() {
            State::Stopping
        } else if self.paused_by_operator {
            State::Paused
        } else if troubled {
            State::Degraded
        } else if self.assigned_once {
            State::Running
        } else {
            State::Starting
        }
    }

    pub(super) fn status(&self, state: State) -> Status {
        let mut problems: Vec<String> = Vec::new();
        problems.extend(self.reading_failed().map(|error| format!("reading failed: {error}")));
        if !self.shared.gate.is_open() {
            problems.push("more than half of the last deliveries failed: one at a time is tried".to_owned());
        }
        for partition in self.slots.values() {
            let origin = &partition.assigned.origin;
            let line = |(cause, (_, text)): (&Cause, &(usize, String))| format!("{origin}: {}: {text}", reason(*cause));
            problems.extend(partition.troubles.iter().map(line));
            problems.extend(super::held::problem(partition));
        }
        let missing = |(p, range): &(TopicPartition, Range<u64>)| format!("{p}: offsets {range:?} were deleted unread");
        problems.extend(self.health.missing.iter().map(missing));
        problems.extend(self.health.blocked.iter().cloned());
        if self.health.stalled {
            problems.push(format!("there is lag, and nothing was committed for {:?}", Status::STALL_AFTER));
        }
        let mut partitions: Vec<_> =
            self.slots.values().filter(|p| p.leaving.is_none()).map(partition_status).collect();
        partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        Status { state, problems, partitions, totals: self.shared.totals(), bytes_in_flight: self.bytes }
    }

    /// Queries the positions periodically; checks for stalls and blocked threads.
    pub(super) fn watch_progress(&mut self) {
        let now = Instant::now();
        if self.health.asked_at.is_none_or(|at| now.duration_since(at) >= PROGRESS_INTERVAL) {
            self.ask();
        }
        // A partition that cannot be read on is expected to make no progress; it has a problem of its own.
        let due = |p: &super::Partition| if p.held.is_unreadable() { p.tracker.next() } else { p.end };
        let lag = self.slots.values().any(|p| due(p) > p.tracker.watermark());
        let allowed = !self.paused_by_operator && self.stopping.is_none();
        if !lag || !allowed {
            self.health.progressed();
        } else if !self.health.stalled && now.duration_since(self.health.progress_at) >= Status::STALL_AFTER {
            self.health.stalled = true;
            tracing::error!(service = %self.shared.identity.service, "stalled: there is lag, and nothing is committed");
        }
        self.watch_threads();
    }

    fn watch_threads(&mut self) {
        let blocked: Vec<String> = self
            .shared
            .beats
            .iter()
            .filter_map(|beat| beat.blocked_for(BLOCKED_AFTER))
            .map(|(handler, time)| {
                let table = &self.shared.table;
                let name = if handler < table.len() { table.info(handler).name.as_str() } else { "a handler" };
                format!("{name} has blocked its thread for {} s", time.as_secs())
            })
            .collect();
        if self.health.blocked.is_empty() {
            for line in &blocked {
                tracing::error!(service = %self.shared.identity.service, "{line}");
            }
        }
        self.health.blocked = blocked;
    }

    fn ask(&mut self) {
        if self.asking.is_none() {
            self.health.asked_at = Some(Instant::now());
            let consumer = self.consumer.clone();
            self.asking = Some(Asking(Box::pin(async move { consumer.progress().await })));
        }
    }

    pub(super) fn asked(&mut self, answer: Result<Vec<Progress>>) {
        let progress = match answer {
            Ok(progress) => progress,
            Err(error) => {
                tracing::debug!(error = %error.report(), "how far the partitions are is not known");
                return;
            }
        };
        for Progress { partition, end, .. } in &progress {
            if let Some(partition) = self.current.get(partition).and_then(|slot| self.slots.get_mut(slot)) {
                partition.end = partition.tracker.next().max(*end);
            }
        }
        let done = |p: &super::Partition| p.committed.is_some_and(|committed| committed >= p.end);
        let all_known = self.current.len() == progress.len();
        if self.is_idle() && all_known && self.slots.values().all(done) {
            for waiter in self.waiters.drain(..) {
                // A caller that has stopped waiting needs no answer.
                let _ = waiter.send(());
            }
        }
    }

    fn is_idle(&self) -> bool {
        let idle = |p: &super::Partition| p.tracker.unsettled() == 0 && p.early.is_empty() && p.leaving.is_none();
        self.assigned_once && self.slots.values().all(idle)
    }

    /// For callers that wait for catching up: commits, then checks whether the end is reached.
    pub(super) fn check_caught_up(&mut self) {
        self.waiters.retain(|waiter| !waiter.is_closed());
        if self.waiters.is_empty() || !self.is_idle() {
            return;
        }
        if self.slots.values().any(|p| p.committed != Some(p.tracker.watermark())) {
            if self.next_not_before.is_none() {
                self.start_commit();
            }
        } else if self.health.asked_at.is_none_or(|at| at.elapsed() >= CATCH_UP_INTERVAL) {
            self.ask();
        } else {
            let again = self.health.asked_at.map_or_else(Instant::now, |at| at + CATCH_UP_INTERVAL);
            self.look_again_at = Some(again);
        }
    }
}

fn reason(cause: Cause) -> PauseReason {
    match cause {
        Cause::Handler => PauseReason::Handler,
        Cause::Store => PauseReason::Store,
        Cause::DeadLetters => PauseReason::DeadLetters,
        Cause::Publisher => PauseReason::Publisher,
    }
}

fn partition_status(partition: &super::Partition) -> PartitionStatus {
    let unreadable = partition.held.is_unreadable().then_some(PauseReason::Unreadable);
    PartitionStatus {
        partition: partition.assigned.origin.as_ref().clone(),
        epoch: partition.assigned.epoch,
        position: partition.tracker.next(),
        settled: partition.tracker.watermark(),
        committed: partition.committed,
        end: partition.end,
        in_flight: partition.tracker.unsettled(),
        paused: partition.pauses.iter().copied().chain(unreadable).collect(),
        held: partition.held.all(),
    }
}
