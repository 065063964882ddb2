//! Health of the service: failures of reading, stalls, blocked threads, and catching up (rule E10).

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Consumer, Name, Progress, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::watchdog::Heartbeat;
use crate::logs;
use crate::status::Status;
use crate::table::RouteTable;

/// How long a read failure counts as the current state.
const FAILURE_HOLDS: Duration = Duration::from_secs(15);
/// The pause after a transient failure of reading.
const READ_RETRY: Duration = Duration::from_millis(200);
/// The interval of querying the log ends.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The interval while a caller waits for the service to catch up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(20);
/// A worker whose handler has not yielded for this long counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(5);

/// A position query to the broker.
struct Query(Pin<Box<dyn Future<Output = Result<Vec<Progress>>> + Send>>);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Query")
    }
}

/// The state of the service as a whole, for the status and the log; partitions have their own.
#[derive(Debug)]
pub(super) struct Health {
    service: Name,
    reading: Reading,
    /// The query in flight.
    query: Option<Query>,
    asked_at: Option<Instant>,
    progress_at: Instant,
    stalled: bool,
    blocked: Vec<String>,
    catching_up: CatchingUp,
}

/// The last failure of reading, and when it is tried again.
#[derive(Debug, Default)]
struct Reading {
    failed: Option<(Instant, String)>,
    /// The first of the failures in a row.
    since: Option<Instant>,
    retry_at: Option<Instant>,
}

/// The callers that wait for the service to catch up.
#[derive(Debug, Default)]
struct CatchingUp {
    waiters: Vec<oneshot::Sender<()>>,
    look_again_at: Option<Instant>,
}

impl Health {
    pub(super) fn new(service: Name) -> Self {
        Self {
            service,
            reading: Reading::default(),
            query: None,
            asked_at: None,
            progress_at: Instant::now(),
            stalled: false,
            blocked: Vec::new(),
            catching_up: CatchingUp::default(),
        }
    }

    /// Records that reading works; returns since when it failed, if it did.
    pub(super) fn read(&mut self) -> Option<Instant> {
        self.reading.failed = None;
        self.reading.since.take()
    }

    /// Records that reading failed, and is tried again after a pause.
    pub(super) fn read_failed(&mut self, error: String, now: Instant) {
        let since = self.failing_since().unwrap_or(now);
        self.reading = Reading { failed: Some((now, error)), since: Some(since), retry_at: Some(now + READ_RETRY) };
    }

    /// Returns whether the next record may be read now.
    pub(super) fn may_read(&self) -> bool {
        self.reading.retry_at.is_none()
    }

    /// Returns why reading fails. If neither a record nor an error has arrived since, reading works again.
    fn reading_failed(&self) -> Option<&str> {
        self.reading.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_HOLDS).map(|(_, error)| &**error)
    }

    /// Returns since when reading fails.
    pub(super) fn failing_since(&self) -> Option<Instant> {
        self.reading_failed().and(self.reading.since)
    }

    /// Records that something was committed: there is no stall.
    pub(super) fn progressed(&mut self) {
        self.progress_at = Instant::now();
        self.stalled = false;
    }

    /// Looks for a stall, by whether progress is `expected`.
    pub(super) fn watch_progress(&mut self, expected: bool, now: Instant) {
        if !expected {
            self.progressed();
        } else if !self.stalled && now.duration_since(self.progress_at) >= Status::STALL_AFTER {
            self.stalled = true;
        }
    }

    /// Looks for workers whose handler blocks its thread.
    pub(super) fn watch_threads(&mut self, heartbeats: &[Arc<Heartbeat>], table: &RouteTable) {
        let named = |(handler, time): (Option<usize>, Duration)| {
            let handler = handler.filter(|handler| *handler < table.len());
            (handler.map_or("a handler", |handler| table.info(handler).name.as_str()), time.as_secs())
        };
        let blocked: Vec<_> = heartbeats.iter().filter_map(|beat| beat.blocked_for(BLOCKED_AFTER)).map(named).collect();
        if self.blocked.is_empty() {
            for (handler, seconds) in &blocked {
                logs::ThreadBlocked { service: &self.service.as_str(), handler, seconds }.log();
            }
        }
        let line = |(name, seconds): &(&str, u64)| format!("{name} has blocked its thread for {seconds} s");
        self.blocked = blocked.iter().map(line).collect();
    }

    /// Queries the positions, if that is due.
    pub(super) fn query_periodically(&mut self, consumer: &Arc<dyn Consumer>, now: Instant) {
        if self.asked_at.is_none_or(|at| now.duration_since(at) >= PROGRESS_INTERVAL) {
            self.query(consumer, now);
        }
    }

    fn query(&mut self, consumer: &Arc<dyn Consumer>, now: Instant) {
        if self.query.is_none() {
            self.asked_at = Some(now);
            let consumer = consumer.clone();
            self.query = Some(Query(Box::pin(async move { consumer.progress().await })));
        }
    }

    /// Waits for the answer of a query, if one is in flight. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Option<Vec<Progress>> {
        let Some(query) = &mut self.query else { return pending().await };
        let answer = query.0.as_mut().await;
        self.query = None;
        answer.inspect_err(|error| tracing::debug!(error = %error.report(), "the ends of the logs are not known")).ok()
    }

    /// Adds a caller that waits for the service to catch up.
    pub(super) fn wait_for_catching_up(&mut self, waiter: oneshot::Sender<()>) {
        self.catching_up.waiters.push(waiter);
    }

    /// Returns whether a caller waits for the service to catch up.
    pub(super) fn is_waited_for(&mut self) -> bool {
        self.catching_up.waiters.retain(|waiter| !waiter.is_closed());
        !self.catching_up.waiters.is_empty()
    }

    /// Queries the positions for these callers, not too often.
    pub(super) fn query_for_waiters(&mut self, consumer: &Arc<dyn Consumer>, now: Instant) {
        match self.asked_at.map(|at| at + CATCH_UP_INTERVAL) {
            Some(again) if now < again => self.catching_up.look_again_at = Some(again),
            _ => self.query(consumer, now),
        }
    }

    /// Tells the callers that the service has caught up.
    pub(super) fn caught_up(&mut self) {
        for waiter in self.catching_up.waiters.drain(..) {
            // A caller that has stopped waiting needs no answer.
            let _ = waiter.send(());
        }
    }

    /// Returns when something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.reading.retry_at.into_iter().chain(self.catching_up.look_again_at).min()
    }

    /// Ends the pauses whose time is over.
    pub(super) fn wake(&mut self, now: Instant) {
        self.reading.retry_at.take_if(|at| *at <= now);
        self.catching_up.look_again_at.take_if(|at| *at <= now);
    }

    /// Returns whether reading fails, or the service is stalled.
    pub(super) fn is_troubled(&self) -> bool {
        self.stalled || self.reading_failed().is_some()
    }

    /// Returns all problems, one line each, with those of the `others` between its own.
    pub(super) fn problems(&self, others: impl Iterator<Item = String>) -> Vec<String> {
        let reading = self.reading_failed().map(|error| format!("reading failed: {error}"));
        let stalled =
            self.stalled.then(|| format!("there is lag, and nothing was committed for {:?}", Status::STALL_AFTER));
        reading.into_iter().chain(others).chain(self.blocked.iter().cloned()).chain(stalled).collect()
    }
}
