//! Whether deliveries may start: the breaker that stops a service most of whose deliveries fail, and lone deliveries.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The default of [`Breaker::base`].
pub const DEFAULT_BREAKER_BASE: Duration = Duration::from_secs(1);
/// The default of [`Breaker::cap`].
pub const DEFAULT_BREAKER_CAP: Duration = Duration::from_secs(60);
/// How many of the last deliveries the breaker looks at.
pub const BREAKER_WINDOW: usize = 100;

/// Stops a service of whose last [`BREAKER_WINDOW`] deliveries more than half failed, instead of draining its topics into
/// the dead letters; then tries one delivery at a time, with backoff, until one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// The wait before the first probe; doubled with each that fails: [`DEFAULT_BREAKER_BASE`].
    pub base: Duration,
    /// The longest wait between probes: [`DEFAULT_BREAKER_CAP`].
    pub cap: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { base: DEFAULT_BREAKER_BASE, cap: DEFAULT_BREAKER_CAP }
    }
}

impl Breaker {
    /// Probes after `base`, twice that and so on, at most `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const PROBING: u8 = 2;

/// One delivery has asked to run with nothing else in flight.
const LONE: u8 = 1;
/// An operator has paused the service.
const PAUSED: u8 = 2;

/// Looked at before each start: two relaxed loads while all is well.
#[derive(Debug)]
pub(crate) struct Gate {
    state: AtomicU8,
    /// While probing: whether the one delivery is still to be had.
    probe: AtomicBool,
    /// Why nothing may start, whatever the breaker says.
    held: AtomicU8,
    window: Option<Mutex<Window>>,
}

/// Whether a delivery may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It may.
    Free,
    /// It may, and its end decides whether others may again.
    Probe,
    /// It has to wait.
    Wait,
}

/// What the end of a delivery did to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Nothing starts for so long, then a probe.
    Closed(Duration),
    /// Deliveries may start again.
    Opened,
    /// The one that may start was not used: another worker may have one.
    ProbeReturned,
}

impl Gate {
    pub(crate) fn new(breaker: Option<Breaker>) -> Self {
        Self {
            state: AtomicU8::new(OPEN),
            probe: AtomicBool::new(false),
            held: AtomicU8::new(0),
            window: breaker.map(|breaker| Mutex::new(Window::new(breaker))),
        }
    }

    /// Asks whether a delivery may start; a [`Pass::Probe`] is given once per probing.
    pub(crate) fn pass(&self) -> Pass {
        if self.held.load(Ordering::Acquire) != 0 {
            return Pass::Wait;
        }
        match self.state.load(Ordering::Acquire) {
            OPEN => Pass::Free,
            PROBING if self.probe.swap(false, Ordering::AcqRel) => Pass::Probe,
            _ => Pass::Wait,
        }
    }

    /// Gives back a probe that could not be used.
    pub(crate) fn return_probe(&self) {
        self.probe.store(true, Ordering::Release);
    }

    /// Whether the breaker lets deliveries start freely.
    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// Whether nothing may start beside a delivery that runs alone.
    pub(crate) fn is_lone(&self) -> bool {
        self.held.load(Ordering::Acquire) & LONE != 0
    }

    /// Lets nothing start (or again), for a delivery that must run alone.
    pub(crate) fn set_lone(&self, lone: bool) {
        self.hold(LONE, lone);
    }

    /// Lets nothing start (or again), because an operator says so.
    pub(crate) fn set_paused(&self, paused: bool) {
        self.hold(PAUSED, paused);
    }

    fn hold(&self, why: u8, held: bool) {
        if held {
            self.held.fetch_or(why, Ordering::AcqRel);
        } else {
            self.held.fetch_and(!why, Ordering::AcqRel);
        }
    }

    /// Counts deliveries that were handled.
    pub(crate) fn succeeded(&self, count: usize) {
        if let Some(window) = &self.window {
            window.lock().unwrap_or_else(PoisonError::into_inner).add(count, false);
        }
    }

    /// Counts one that failed; closes the gate when they are too many.
    pub(crate) fn failed(&self) -> Change {
        let Some(window) = &self.window else { return Change::None };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        window.add(1, true);
        if self.is_open() && window.is_bad() {
            self.state.store(CLOSED, Ordering::Release);
            return Change::Closed(window.next_wait());
        }
        Change::None
    }

    /// The wait is over: one delivery may start.
    pub(crate) fn start_probing(&self) {
        if self.state.swap(PROBING, Ordering::AcqRel) != PROBING {
            self.probe.store(true, Ordering::Release);
        }
    }

    /// The probe ended: opens the gate, or closes it for longer.
    pub(crate) fn probed(&self, handled: bool) -> Change {
        let Some(window) = &self.window else { return Change::None };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if handled {
            window.clear();
            self.state.store(OPEN, Ordering::Release);
            return Change::Opened;
        }
        self.state.store(CLOSED, Ordering::Release);
        Change::Closed(window.next_wait())
    }
}

/// The last outcomes, and how often the gate was closed in a row.
#[derive(Debug)]
struct Window {
    breaker: Breaker,
    /// Bit 0 is the last outcome; a set bit is a failure.
    bits: u128,
    count: usize,
    closings: u32,
}

impl Window {
    const MASK: u128 = (1 << BREAKER_WINDOW) - 1;

    fn new(breaker: Breaker) -> Self {
        Self { breaker, bits: 0, count: 0, closings: 0 }
    }

    fn add(&mut self, count: usize, failure: bool) {
        let shift = count.min(BREAKER_WINDOW);
        self.bits = (self.bits << shift) & Self::MASK;
        if failure {
            self.bits |= 1;
        }
        self.count = (self.count + count).min(BREAKER_WINDOW);
    }

    fn is_bad(&self) -> bool {
        self.count == BREAKER_WINDOW && self.bits.count_ones() as usize > BREAKER_WINDOW / 2
    }

    fn next_wait(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.closings).unwrap_or(u32::MAX);
        self.closings = self.closings.saturating_add(1);
        self.breaker.base.saturating_mul(factor).min(self.breaker.cap)
    }

    fn clear(&mut self) {
        (self.bits, self.count, self.closings) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Some(Breaker::new(Duration::from_secs(1), Duration::from_secs(3))))
    }

    #[test]
    fn closes_when_more_than_half_of_the_last_hundred_failed() {
        let gate = gate();
        gate.succeeded(50);
        let changes: Vec<_> = (0..50).map(|_| gate.failed()).collect();
        assert!(changes.iter().all(|c| *c == Change::None), "half is not more than half");
        assert_eq!(gate.failed(), Change::Closed(Duration::from_secs(1)));
        assert_eq!(gate.pass(), Pass::Wait);
    }

    #[test]
    fn fewer_than_a_hundred_deliveries_close_nothing() {
        let gate = gate();
        assert!((0..99).all(|_| gate.failed() == Change::None));
    }

    #[test]
    fn one_probe_at_a_time_and_its_end_decides() {
        let gate = gate();
        assert!((0..100).any(|_| gate.failed() != Change::None));
        gate.start_probing();
        assert_eq!((gate.pass(), gate.pass()), (Pass::Probe, Pass::Wait));
        assert_eq!(gate.probed(false), Change::Closed(Duration::from_secs(2)));
        gate.start_probing();
        assert_eq!(gate.pass(), Pass::Probe);
        assert_eq!(gate.probed(false), Change::Closed(Duration::from_secs(3)), "the cap");
        gate.start_probing();
        assert_eq!(gate.pass(), Pass::Probe);
        assert_eq!(gate.probed(true), Change::Opened);
        assert_eq!(gate.pass(), Pass::Free);
    }

    #[test]
    fn without_a_breaker_nothing_closes() {
        let gate = Gate::new(None);
        assert!((0..1_000).all(|_| gate.failed() == Change::None));
    }

    #[test]
    fn a_lone_delivery_stops_all_others() {
        let gate = gate();
        gate.set_lone(true);
        assert_eq!(gate.pass(), Pass::Wait);
        gate.set_paused(true);
        gate.set_lone(false);
        assert_eq!(gate.pass(), Pass::Wait, "an operator says so, too");
        gate.set_paused(false);
        assert_eq!(gate.pass(), Pass::Free);
    }
}
