//! The end of an assignment: by when its work has to end, and what is left to do.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::after;

/// The part of a revocation's time reserved for the commit.
const COMMIT_TIME: Duration = Duration::from_millis(500);
/// How long cancelled work may take to stop. A handler that blocks its thread may take longer: it is not waited for.
const CANCEL_TIME: Duration = Duration::from_millis(500);
/// The number of attempts of the last commit after the deadline.
const COMMITS: usize = 2;

/// The reason why an assignment ends, with the time that is left.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leave {
    /// The group asks for the partition, within this time.
    Revoking(Duration),
    /// Another member may own the partition already: nothing is committed.
    Lost,
    /// The partition was assigned again, or its log went back: nothing is committed, and no work goes on.
    Replaced,
    /// The service stops; deliveries may take this long.
    Shutdown(Duration),
    /// An operator moves the position; deliveries may take this long. The partition stays.
    Seeking(Duration),
}

impl Leave {
    fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::Replaced)
    }

    /// Returns how long work that has begun may go on, given the service's own limit.
    fn time(self, limit: Duration) -> Duration {
        let reserved = COMMIT_TIME + CANCEL_TIME;
        match self {
            Self::Revoking(deadline) => deadline.saturating_sub(reserved).min(limit),
            Self::Lost => limit.saturating_sub(reserved),
            Self::Replaced => Duration::ZERO,
            // The caller's deadline: the limit for revocations does not apply.
            Self::Shutdown(deadline) | Self::Seeking(deadline) => deadline,
        }
    }
}

/// The next step of an assignment that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaveStep {
    /// Work is still in flight.
    Wait,
    /// The time is over: cancel the work in flight.
    Cancel,
    /// Nothing is in flight; what is settled is not committed yet.
    Commit,
    /// Move the position, and begin another assignment there.
    Move,
    /// Give the partition back to the group.
    Release,
    /// Forget the partition: the group has taken it.
    Forget,
}

/// The phase of an assignment that ends.
#[derive(Debug)]
pub(super) struct Revocation {
    /// Nothing is committed any more: another member may own the partition already.
    lost: bool,
    /// The time at which work that has begun is cancelled.
    cancel_at: Instant,
    /// The time at which waiting for cancelled work ends.
    give_up_at: Instant,
    cancelled: bool,
    /// The offset last committed during the revocation, and the number of attempts.
    tried: (u64, usize),
    /// Only the release is left.
    ended: bool,
    /// It ends because an operator moves the position.
    seek: Seeking,
}

/// The progress of a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeking {
    /// The partition is given back.
    No,
    /// Its work ends first.
    Draining,
    /// The consumer may move.
    Ready,
    /// The consumer moves: nothing is committed meanwhile.
    Moving,
}

/// The state of the assignment that a step of its end depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remaining {
    /// No work of the assignment is in flight.
    pub(super) quiet: bool,
    /// The lowest offset that is not settled.
    pub(super) settled: u64,
    pub(super) committed: Option<u64>,
    /// No commit is accepted any more.
    pub(super) fenced: bool,
}

impl Revocation {
    pub(super) fn new(leave: Leave, limit: Duration, now: Instant) -> Self {
        let cancel_at = after(now, leave.time(limit));
        let give_up_at = cancel_at + CANCEL_TIME;
        let seek = if matches!(leave, Leave::Seeking(_)) { Seeking::Draining } else { Seeking::No };
        Self { lost: leave.is_lost(), cancel_at, give_up_at, cancelled: false, tried: (0, 0), ended: false, seek }
    }

    /// Applies a further reason to leave. A partition that is replaced has no more time, and a shutdown, or the group
    /// that wants a partition whose position is moved, may leave less.
    pub(super) fn again(&mut self, leave: Leave, limit: Duration, now: Instant) {
        self.lost |= leave.is_lost();
        match leave {
            _ if self.cancelled => {}
            Leave::Replaced => self.cancel_at = now,
            Leave::Revoking(_) | Leave::Lost if !self.is_seeking() => {}
            leave => self.cancel_at = self.cancel_at.min(after(now, leave.time(limit))),
        }
        // Whatever else ends it goes before.
        self.seek = Seeking::No;
    }

    /// Returns whether the partition stays, and its position is moved.
    pub(super) fn is_seeking(&self) -> bool {
        self.seek != Seeking::No
    }

    /// Returns whether the consumer moves the position now.
    pub(super) fn is_moving(&self) -> bool {
        self.seek == Seeking::Moving
    }

    /// Records that the consumer moves the position now.
    pub(super) fn begin_move(&mut self) {
        self.seek = Seeking::Moving;
    }

    /// Records that work in flight was cancelled at `now`.
    pub(super) fn cancel(&mut self, now: Instant) {
        self.cancelled = true;
        self.give_up_at = now + CANCEL_TIME;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Returns whether only the release is left.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Records an attempt to commit `next`.
    pub(super) fn try_commit(&mut self, next: u64) {
        let times = if self.tried.0 == next { self.tried.1 } else { 0 };
        self.tried = (next, times + 1);
    }

    /// Returns whether a commit up to `settled` failed as often as there is time for.
    fn tried_enough(&self, settled: u64, now: Instant) -> bool {
        now >= self.cancel_at && self.tried.0 == settled && self.tried.1 >= COMMITS
    }

    /// Returns the next step; the caller carries it out.
    pub(super) fn poll(&mut self, remaining: Remaining, now: Instant) -> LeaveStep {
        if !remaining.quiet && !self.cancelled && now >= self.cancel_at {
            return LeaveStep::Cancel;
        }
        let given_up = self.cancelled && now >= self.give_up_at;
        if !(remaining.quiet || given_up) {
            return LeaveStep::Wait;
        }
        let Remaining { settled, committed, fenced, .. } = remaining;
        let is_done = self.lost || fenced || committed == Some(settled) || self.tried_enough(settled, now);
        if self.is_moving() {
            return LeaveStep::Wait;
        }
        if is_done && self.is_seeking() && !self.lost && !fenced {
            self.seek = Seeking::Ready;
            return LeaveStep::Move;
        }
        self.ended = is_done;
        match (self.ended, self.lost) {
            (false, _) => LeaveStep::Commit,
            (true, true) => LeaveStep::Forget,
            (true, false) => LeaveStep::Release,
        }
    }

    /// Returns when the next step is due, unless something ends before.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.ended || matches!(self.seek, Seeking::Ready | Seeking::Moving) {
            None
        } else if self.cancelled {
            Some(self.give_up_at)
        } else {
            Some(self.cancel_at)
        }
    }
}
