//! Processing the broker's answers, and waiting for more.
//!
//! Failures are counted twice: per lane, and for all attempts together. One lane that fails while
//! others succeed waits alone; if nothing succeeds, the broker is down and all wait.

use std::sync::Arc;

use tidings_core::{Error, ErrorKind, Result};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};

use super::{Cooling, FIRST_LOOKS, LOOK_AGAIN, RECENT, Worker};
use crate::outbox::relay::RelayState;
use crate::outbox::relay::flight::Landed;
use crate::outbox::relay::link::{Link, Refusal};

impl Worker {
    /// Waits for an answer of the broker, a wake-up, or periodic work.
    ///
    /// Everything that is available is processed before the next turn, in one go.
    pub(super) async fn wait(&mut self) {
        let due = self.due();
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            Some(landed) = self.flights.join_next() => self.landed(landed),
            () = shared.wake.notified() => self.idle_turns = 0,
            () = sleep_until(due) => {}
        }
        self.drain();
    }

    /// Returns when the next periodic work is due: a poll, the balance of shards, the lag, or the
    /// end of a backoff.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let poll = match FIRST_LOOKS.get(self.idle_turns.saturating_sub(1)) {
            Some(look) if self.idle_turns > 0 => self.config.poll_interval.min(*look),
            _ => self.config.poll_interval,
        };
        let warm = self.cooling.values().map(|cooling| cooling.until).filter(|until| *until > now).min();
        let mut due = (now + poll).min(self.balance_at).min(self.lag_at).min(self.promote_at);
        due = warm.map_or(due, |warm| due.min(warm.max(now + LOOK_AGAIN)));
        self.not_before.filter(|at| *at > now).map_or(due, |at| due.min(at))
    }

    /// Processes available answers without waiting.
    ///
    /// An empty set of flights also corrects the counters, should a publisher have panicked.
    pub(super) fn drain(&mut self) {
        while let Some(landed) = self.flights.try_join_next() {
            self.landed(landed);
        }
        if self.flights.is_empty() {
            // After a panic of a publisher, its lane is unknown.
            self.busy.clear();
            (self.in_flight, self.bytes_in_flight) = (0, 0);
        }
    }

    /// Records a lane's result. Held records are deleted in the next turn, before anything is
    /// fetched.
    pub(super) fn landed(&mut self, landed: Result<Landed, JoinError>) {
        let landed = match landed {
            Ok(landed) => landed,
            Err(error) => return self.lost(&error),
        };
        self.busy.remove(&landed.lane);
        self.in_flight -= landed.records;
        self.bytes_in_flight -= landed.bytes;
        if !landed.held.is_empty() || landed.failed.is_none() {
            (self.failures, self.not_before, self.succeeded_at) = (0, None, Some(Instant::now()));
            self.cooling.remove(&landed.lane);
        }
        self.held.extend(landed.held.iter().map(|id| (landed.shard, *id)));
        match landed.failed {
            None if self.cooling.is_empty() => self.problem(None),
            None => {}
            Some((id, error)) if error.is_infrastructure() => self.later(landed.lane, id, &error),
            Some((id, error)) => {
                self.cooling.remove(&landed.lane);
                let report = error.report();
                tracing::error!(target: "tidings::outbox", id, error = %report, "the broker refused a record of the outbox; it is set aside");
                self.refused.push(Refusal { shard: landed.shard, id, kind: error.kind(), error: report });
            }
        }
    }

    /// Handles a panic of a publisher, whose lane is unknown. It is retried once all lanes have landed.
    fn lost(&mut self, error: &JoinError) {
        self.problem(Some(format!("publish: {error}")));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + self.config.backoff(self.failures));
    }

    /// Puts the lane into backoff, and all lanes if no other publish succeeds.
    ///
    /// A publisher that was closed or fenced is replaced in the next turn.
    fn later(&mut self, lane: i64, id: i64, error: &Error) {
        let now = Instant::now();
        if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Fenced) {
            self.publisher = None;
        }
        let failures = self.cooling.get(&lane).map_or(1, |cooling| cooling.failures.saturating_add(1));
        self.cooling.insert(lane, Cooling { failures, until: now + self.config.backoff(failures) });
        // If others succeed, only this lane waits. Simultaneous failures count once.
        let others = self.succeeded_at.is_some_and(|at| now < at + RECENT);
        if !others && self.not_before.is_none_or(|at| at <= now) {
            self.failures = self.failures.saturating_add(1);
            self.not_before = Some(now + self.config.backoff(self.failures));
        }
        let report = error.report();
        tracing::debug!(target: "tidings::outbox", id, error = %report, "a record of the outbox is not stored yet; it is retried");
        self.problem(Some(report));
    }

    /// Publishes the current failure, or that there is none.
    pub(super) fn problem(&self, problem: Option<String>) {
        self.shared.board.write(|status| status.problem = problem);
    }

    /// Publishes the state for [`Relay::status`](crate::Relay::status).
    pub(super) fn show(&self) {
        let (shards, in_flight) = (self.link.as_ref().map_or(0, Link::shard_count), self.in_flight);
        let waits = self.link.is_none() || self.not_before.is_some_and(|at| Instant::now() < at);
        let idle = self.busy.is_empty() && self.idle_turns > 0 && self.cooling.is_empty();
        self.shared.board.write(|status| {
            status.shards = shards;
            status.in_flight = in_flight;
            status.state = match (waits, idle) {
                (true, _) => RelayState::Waiting,
                (false, true) => RelayState::Idle,
                (false, false) => RelayState::Publishing,
            };
            // The database answers, and nothing waits for the broker.
            if !waits && self.cooling.is_empty() {
                status.problem = None;
            }
        });
    }
}
