//! Detects tasks that do not run: workers whose handler blocks its thread, and a coordinator that is dead.
//!
//! A coordinator that does not run is dead only if that is its own fault: its poll does not return, its task is gone, or
//! it waits although the runtime works. One that waits for a thread is not dead, whoever has the threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

/// The interval at which the coordinator's task is looked at. The coordinator itself runs at least as often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// No handler.
const NONE: usize = usize::MAX;

/// The time at which a worker's task last got its thread, and the handler that it polls.
///
/// Each has a cache line of its own: its worker writes it with each poll of a handler.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Heartbeat {
    polled: Beat,
    handler: AtomicUsize,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { polled: Beat::default(), handler: AtomicUsize::new(NONE) }
    }
}

/// A time that may be set: milliseconds since the first beat of the process, plus one, or 0.
#[derive(Debug, Default)]
struct Beat(AtomicU64);

/// Uses the real clock: threads block in real time, also where tokio's clock is paused.
fn millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Beat {
    fn start(&self) {
        self.0.store(millis() + 1, Ordering::Relaxed);
    }

    fn stop(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns the time since the start, unless it was stopped.
    fn elapsed(&self) -> Option<Duration> {
        let since = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(millis().saturating_sub(since)))
    }
}

impl Heartbeat {
    /// Records that a poll of the worker begins, with no handler.
    pub(crate) fn work(&self) {
        self.handler.store(NONE, Ordering::Relaxed);
        self.polled.start();
    }

    /// Records that the poll of the worker has ended.
    pub(crate) fn rest(&self) {
        self.polled.stop();
    }

    /// Records that the handler, or what belongs to it, gets the thread.
    pub(crate) fn runs(&self, handler: usize) {
        self.handler.store(handler, Ordering::Relaxed);
    }

    /// Returns the handler that got the thread last in this poll, and how long the poll has lasted, if that is at least
    /// `limit`.
    pub(crate) fn blocked_for(&self, limit: Duration) -> Option<(Option<usize>, Duration)> {
        let time = self.polled.elapsed().filter(|time| *time >= limit)?;
        let handler = self.handler.load(Ordering::Relaxed);
        Some(((handler != NONE).then_some(handler), time))
    }
}

/// The state of the coordinator's task, as others can see it.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When the last poll began.
    polled: Beat,
    /// That poll has not returned.
    is_polled: AtomicBool,
    /// When the task was dropped, if that was before its end.
    dropped: Beat,
    /// The task was woken and not polled since: it waits for a thread.
    woken: AtomicBool,
    /// How often it was looked at since its last turn and found to wait for something else than a thread.
    waits: AtomicU64,
}

impl Pulse {
    /// Records that the coordinator has done a turn of its loop.
    pub(crate) fn turn(&self) {
        self.waits.store(0, Ordering::Relaxed);
    }

    /// Returns for how long the coordinator has not run by its own fault; zero while it waits for a thread.
    pub(crate) fn dead_for(&self) -> Duration {
        if let Some(gone) = self.dropped.elapsed() {
            return gone;
        }
        let waits = u32::try_from(self.waits.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        // One look may come right after the turn.
        let waited = LOOK_INTERVAL.saturating_mul(waits.saturating_sub(1));
        if self.is_polled.load(Ordering::Acquire) { self.since_poll().max(waited) } else { waited }
    }

    /// Returns the time since the last poll began.
    fn since_poll(&self) -> Duration {
        self.polled.elapsed().unwrap_or_default()
    }

    /// Returns how long the coordinator has waited for a thread.
    pub(crate) fn starved_for(&self) -> Duration {
        self.since_poll().saturating_sub(self.dead_for() + LOOK_INTERVAL)
    }

    /// Looks at the task at intervals by the runtime's timers. While all threads are blocked it does not look, and that
    /// time does not count.
    async fn watch(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if !self.woken.load(Ordering::Acquire) {
                self.waits.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The coordinator's future, with its pulse.
pub(crate) struct Watched<F> {
    future: Pin<Box<F>>,
    pulse: Arc<Pulse>,
    /// The waker of the task, and the one that passes its calls on to it.
    wakers: Option<(Waker, Waker)>,
    watcher: tokio::task::AbortHandle,
    has_ended: bool,
}

impl<F> Watched<F> {
    /// Watches `future`, which is to be spawned on the current runtime.
    pub(crate) fn new(future: F, pulse: Arc<Pulse>) -> Self {
        let watcher = tokio::spawn(pulse.clone().watch()).abort_handle();
        Self { future: Box::pin(future), pulse, wakers: None, watcher, has_ended: false }
    }

    /// Returns the waker that passes on to the task's.
    fn waker(&mut self, task: &Waker) -> &Waker {
        let is_current = self.wakers.as_ref().is_some_and(|(known, _)| known.will_wake(task));
        if !is_current {
            self.wakers = None;
        }
        let (_, passing) = self.wakers.get_or_insert_with(|| {
            let passing = Passing { pulse: self.pulse.clone(), task: task.clone() };
            (task.clone(), Waker::from(Arc::new(passing)))
        });
        passing
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.pulse.woken.store(false, Ordering::Release);
        this.pulse.polled.start();
        this.pulse.is_polled.store(true, Ordering::Release);
        let waker = this.waker(cx.waker()).clone();
        let polled = this.future.as_mut().poll(&mut Context::from_waker(&waker));
        this.pulse.is_polled.store(false, Ordering::Release);
        this.has_ended = polled.is_ready();
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.watcher.abort();
        if !self.has_ended {
            self.pulse.dropped.start();
        }
    }
}

/// Passes wake-ups on to the task, and records them.
struct Passing {
    pulse: Arc<Pulse>,
    task: Waker,
}

impl Wake for Passing {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.pulse.woken.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}
