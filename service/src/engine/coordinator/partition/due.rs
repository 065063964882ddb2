//! An assignment of a retry topic: its records are dispatched when they are due.

use std::time::Duration;

use tidings_core::Timestamp;
use tokio::time::Instant;

use super::{Dispatch, Partition};
use crate::status::PauseReason;

/// Due times and timers are rounded up to milliseconds. A caller that waits for a delay and then for the service to
/// catch up, as tests do, also waits for records that are due within this time.
const SOON: Duration = Duration::from_millis(10);

impl Partition {
    /// Takes the records of a retry topic that are due, if there is room for them and the partition is not paused for
    /// another reason. Pauses the partition if its next record is not due. `may_run` returns when a record that is due
    /// at a time may run.
    pub(crate) fn take_due(
        &mut self,
        has_room: bool,
        now: Instant,
        may_run: impl Fn(Timestamp) -> Instant,
    ) -> Option<Dispatch> {
        let may_take = has_room && self.may_take_due();
        let waiting = self.waiting.as_mut()?;
        let due = if may_take { waiting.take_due(now, &may_run) } else { None };
        waiting.look(now, &may_run);
        let is_waiting = waiting.is_waiting();
        self.pause(PauseReason::Waiting, is_waiting);
        due.map(|fetched| self.dispatch(fetched))
    }

    fn may_take_due(&self) -> bool {
        self.may_begin() && !self.is_leaving() && self.pauses.iter().all(|reason| *reason == PauseReason::Waiting)
    }

    /// Returns the end of what may run now: records of a retry topic that are not due are not part of the lag.
    pub(super) fn due_end(&self) -> u64 {
        let end = self.end.max(self.tracker.next());
        if self.waiting.as_ref().is_some_and(|waiting| waiting.is_waiting()) { self.tracker.next() } else { end }
    }

    /// Returns whether a record that is held may be dispatched now, or within [`SOON`].
    pub(super) fn is_due_soon(&self) -> bool {
        self.next_due().is_some_and(|due| due <= Instant::now() + SOON)
    }

    /// Returns when a record that is held may be dispatched.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let waiting = self.waiting.as_ref()?;
        let now = Instant::now();
        waiting.due(now).filter(|_| waiting.is_waiting() || self.may_take_due())
    }
}
