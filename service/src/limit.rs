//! Limits of one handler: its concurrency and its rate, shared by all workers.
//!
//! A limit is expressed as readiness, as in tower: a handler that has reached it is not ready, its worker keeps the
//! records, and the handler's timeout has not begun. So a limit delays records and fails none. Each worker has its own
//! instance of the handler, with one place in the queue for a permit; the semaphore and the window are shared.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidings_core::{BoxError, Delivery, Outcome};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::options::HandlerOptions;
use crate::route::{BoxFuture, Route};
use crate::time::after;

/// The limits that all instances of one handler share.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Permits of deliveries in flight; `None` is no limit.
    concurrency: Option<Arc<Semaphore>>,
    /// Deliveries of the last period; `None` is no limit.
    rate: Option<Arc<RateWindow>>,
}

impl Limits {
    /// Returns the limits that a handler's options set, if there are any.
    pub(crate) fn of(options: &HandlerOptions) -> Option<Self> {
        let concurrency = options.concurrency.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))));
        let rate = options.rate.map(|rate| Arc::new(RateWindow::new(rate.deliveries, rate.per)));
        (concurrency.is_some() || rate.is_some()).then_some(Self { concurrency, rate })
    }

    /// Wraps a handler, which is ready only within the limits.
    pub(crate) fn limit(self, route: Route) -> Limited {
        Limited { route, limits: self, queued: None, permit: None, slot: None, sleep: None }
    }
}

/// A place in the queue for a permit.
type Acquire = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A handler within its limits.
pub(crate) struct Limited {
    route: Route,
    limits: Limits,
    /// The place in the queue, kept while the instance is not ready: a new one would be behind all others.
    queued: Option<Acquire>,
    /// The permit of the next call, which it keeps until it ends.
    permit: Option<OwnedSemaphorePermit>,
    /// The slot of the next call, which is used up when it starts.
    slot: Option<RateSlot>,
    /// The timer until the next slot is free.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Clone for Limited {
    fn clone(&self) -> Self {
        // A permit is of one instance, and for one call.
        self.limits.clone().limit(self.route.clone())
    }
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Limited {
    /// Acquires the permit of the next call, unless the instance has it already.
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if let (Some(semaphore), None) = (&self.limits.concurrency, &self.permit) {
            let queued = self.queued.get_or_insert_with(|| Box::pin(semaphore.clone().acquire_owned()));
            let permit = ready!(queued.as_mut().poll(cx));
            self.queued = None;
            self.permit = Some(permit?);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the slot of the next call, or sleeps until one is free. Another worker may be faster: then it sleeps
    /// again.
    fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let (Some(rate), None) = (&self.limits.rate, &self.slot) {
            match RateWindow::take(rate, Instant::now()) {
                Ok(slot) => self.slot = Some(slot),
                Err(at) => {
                    let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    ready!(sleep.as_mut().poll(cx));
                    self.sleep = None;
                }
            }
        }
        Poll::Ready(())
    }
}

impl Service<Delivery> for Limited {
    type Response = Outcome;
    type Error = BoxError;
    type Future = BoxFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.route.poll_ready(cx))?;
        ready!(self.poll_permit(cx))?;
        // Last: a slot is of the time at which it is taken.
        ready!(self.poll_slot(cx));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> BoxFuture {
        if let Some(slot) = self.slot.take() {
            slot.use_up();
        }
        let (permit, call) = (self.permit.take(), self.route.call(delivery));
        match permit {
            None => call,
            Some(permit) => Box::pin(async move {
                let result = call.await;
                drop(permit);
                result
            }),
        }
    }
}

/// Allows at most `most` deliveries in any period of `per`.
#[derive(Debug)]
struct RateWindow {
    /// The limit of deliveries in a period.
    most: usize,
    /// The length of the period.
    per: Duration,
    /// The times of the last deliveries, within the period.
    taken: Mutex<VecDeque<Instant>>,
}

impl RateWindow {
    /// Creates an empty window. Memory is bounded by `most` instants.
    fn new(most: usize, per: Duration) -> Self {
        Self { most, per, taken: Mutex::default() }
    }

    /// Locks the window. A panic while it is locked leaves a list that is valid.
    fn taken(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot of the period before `now`; else returns when the next one is free.
    fn take(this: &Arc<Self>, now: Instant) -> Result<RateSlot, Instant> {
        let mut taken = this.taken();
        while taken.front().is_some_and(|at| after(*at, this.per) <= now) {
            taken.pop_front();
        }
        match taken.front() {
            Some(first) if taken.len() >= this.most => Err(after(*first, this.per)),
            _ => {
                taken.push_back(now);
                Ok(RateSlot { window: this.clone(), at: Some(now) })
            }
        }
    }
}

/// The right to one delivery. Dropped unused, it goes back.
#[derive(Debug)]
struct RateSlot {
    /// The window that it goes back to.
    window: Arc<RateWindow>,
    /// The time at which it was taken; `None` once it is used up.
    at: Option<Instant>,
}

impl RateSlot {
    /// Uses the slot up: its time stays in the window until the period is over.
    fn use_up(mut self) {
        self.at = None;
    }
}

impl Drop for RateSlot {
    fn drop(&mut self) {
        let Some(unused) = self.at else { return };
        let mut taken = self.window.taken();
        if let Some(place) = taken.iter().rposition(|at| *at == unused) {
            taken.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_allows_at_most_so_many_in_any_period() {
        let window = Arc::new(RateWindow::new(2, Duration::from_secs(10)));
        let start = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < 6 {
            match RateWindow::take(&window, Instant::now()) {
                Ok(slot) => {
                    slot.use_up();
                    taken.push(start.elapsed().as_secs());
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                Err(at) => sleep_until(at).await,
            }
        }
        assert_eq!(taken, [0, 3, 10, 13, 20, 23]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_slot_goes_back() {
        let window = Arc::new(RateWindow::new(1, Duration::from_secs(10)));
        let slot = RateWindow::take(&window, Instant::now()).unwrap();
        assert!(RateWindow::take(&window, Instant::now()).is_err());
        drop(slot);
        assert!(RateWindow::take(&window, Instant::now()).is_ok());
    }
}
