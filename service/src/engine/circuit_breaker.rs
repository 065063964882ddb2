//! The circuit breaker, by which deliveries start or wait; an isolated delivery and an operator's pause hold it, too.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::breaker::Breaker;

/// Deliveries start freely.
const CLOSED: u8 = 0;
/// Nothing starts.
const OPEN: u8 = 1;
/// One probe may start.
const HALF_OPEN: u8 = 2;

/// A delivery has to run with nothing else in flight.
const ISOLATED: u8 = 1;
/// An operator has paused the service.
const PAUSED: u8 = 2;

/// Checked before each start: two relaxed loads in the normal case.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    state: AtomicU8,
    /// While probing: whether the one probe is still available.
    probe: AtomicBool,
    /// The reasons why nothing may start, whatever the breaker's state.
    held: AtomicU8,
    window: Option<Mutex<Window>>,
}

/// The permission of a delivery to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The delivery may start.
    Free,
    /// The delivery may start as a probe: its result decides whether others may start again.
    Probe,
    /// The delivery has to wait.
    Wait,
}

/// The effect of a delivery's end on the circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// No change.
    None,
    /// Nothing starts for this long; then a probe may.
    Opened(Duration),
    /// Deliveries may start again.
    Closed,
    /// The probe was not used: another worker may have a delivery for it.
    ProbeReturned,
}

impl CircuitBreaker {
    pub(crate) fn new(breaker: Option<Breaker>) -> Self {
        Self {
            state: AtomicU8::new(CLOSED),
            probe: AtomicBool::new(false),
            held: AtomicU8::new(0),
            window: breaker.map(|breaker| Mutex::new(Window::new(breaker))),
        }
    }

    /// Requests a pass for a delivery; returns one [`Pass::Probe`] per probing phase.
    pub(crate) fn pass(&self) -> Pass {
        if self.held.load(Ordering::Acquire) != 0 {
            return Pass::Wait;
        }
        match self.state.load(Ordering::Acquire) {
            CLOSED => Pass::Free,
            HALF_OPEN if self.probe.swap(false, Ordering::AcqRel) => Pass::Probe,
            _ => Pass::Wait,
        }
    }

    /// Returns whether [`pass`](Self::pass) would let a delivery start.
    pub(crate) fn may_pass(&self) -> bool {
        self.held.load(Ordering::Acquire) == 0
            && match self.state.load(Ordering::Acquire) {
                CLOSED => true,
                HALF_OPEN => self.probe.load(Ordering::Acquire),
                _ => false,
            }
    }

    /// Returns a probe that could not be used.
    pub(crate) fn return_probe(&self) {
        self.probe.store(true, Ordering::Release);
    }

    /// Returns whether the breaker is closed: deliveries start freely.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Returns whether an isolated delivery keeps others from starting.
    pub(crate) fn is_isolated(&self) -> bool {
        self.held.load(Ordering::Acquire) & ISOLATED != 0
    }

    /// Blocks all starts (or unblocks them), for a delivery that must run isolated.
    pub(crate) fn set_isolated(&self, isolated: bool) {
        self.hold(ISOLATED, isolated);
    }

    /// Blocks all starts (or unblocks them), by an operator's order.
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

    /// Counts deliveries that succeeded.
    pub(crate) fn succeeded(&self, count: usize) {
        if let Some(window) = &self.window {
            window.lock().unwrap_or_else(PoisonError::into_inner).add(count, false);
        }
    }

    /// Counts a failed delivery; opens the breaker if too many failed.
    pub(crate) fn failed(&self) -> Change {
        let Some(window) = &self.window else { return Change::None };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        window.add(1, true);
        if self.is_closed() && window.is_bad() {
            self.state.store(OPEN, Ordering::Release);
            return Change::Opened(window.next_wait());
        }
        Change::None
    }

    /// Ends the wait: one delivery may start as a probe.
    pub(crate) fn start_probing(&self) {
        if self.state.swap(HALF_OPEN, Ordering::AcqRel) != HALF_OPEN {
            self.probe.store(true, Ordering::Release);
        }
    }

    /// Ends the probe: closes the breaker, or keeps it open for longer.
    pub(crate) fn probed(&self, handled: bool) -> Change {
        let Some(window) = &self.window else { return Change::None };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if handled {
            window.clear();
            self.state.store(CLOSED, Ordering::Release);
            return Change::Closed;
        }
        self.state.store(OPEN, Ordering::Release);
        Change::Opened(window.next_wait())
    }
}

/// The most recent outcomes, and how often the breaker opened in a row.
#[derive(Debug)]
struct Window {
    breaker: Breaker,
    /// Bit 0 is the last outcome; a set bit is a failure.
    bits: u128,
    count: usize,
    openings: u32,
}

impl Window {
    const MASK: u128 = (1 << Breaker::WINDOW) - 1;

    fn new(breaker: Breaker) -> Self {
        Self { breaker, bits: 0, count: 0, openings: 0 }
    }

    fn add(&mut self, count: usize, failure: bool) {
        let shift = count.min(Breaker::WINDOW);
        self.bits = (self.bits << shift) & Self::MASK;
        if failure {
            self.bits |= 1;
        }
        self.count = (self.count + count).min(Breaker::WINDOW);
    }

    fn is_bad(&self) -> bool {
        self.count == Breaker::WINDOW && self.bits.count_ones() as usize > Breaker::WINDOW / 2
    }

    fn next_wait(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.openings).unwrap_or(u32::MAX);
        self.openings = self.openings.saturating_add(1);
        self.breaker.base.saturating_mul(factor).min(self.breaker.cap)
    }

    fn clear(&mut self) {
        (self.bits, self.count, self.openings) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> CircuitBreaker {
        CircuitBreaker::new(Some(Breaker::new(Duration::from_secs(1), Duration::from_secs(3))))
    }

    #[test]
    fn opens_when_more_than_half_of_the_last_hundred_failed() {
        let breaker = breaker();
        breaker.succeeded(50);
        let changes: Vec<_> = (0..50).map(|_| breaker.failed()).collect();
        assert!(changes.iter().all(|c| *c == Change::None), "half is not more than half");
        assert_eq!(breaker.failed(), Change::Opened(Duration::from_secs(1)));
        assert_eq!(breaker.pass(), Pass::Wait);
    }

    #[test]
    fn fewer_than_a_hundred_deliveries_open_nothing() {
        let breaker = breaker();
        assert!((0..99).all(|_| breaker.failed() == Change::None));
    }

    #[test]
    fn one_probe_at_a_time_and_its_end_decides() {
        let breaker = breaker();
        assert!((0..100).any(|_| breaker.failed() != Change::None));
        breaker.start_probing();
        assert_eq!((breaker.pass(), breaker.pass()), (Pass::Probe, Pass::Wait));
        assert_eq!(breaker.probed(false), Change::Opened(Duration::from_secs(2)));
        breaker.start_probing();
        assert_eq!(breaker.pass(), Pass::Probe);
        assert_eq!(breaker.probed(false), Change::Opened(Duration::from_secs(3)), "the cap");
        breaker.start_probing();
        assert_eq!(breaker.pass(), Pass::Probe);
        assert_eq!(breaker.probed(true), Change::Closed);
        assert_eq!(breaker.pass(), Pass::Free);
    }

    #[test]
    fn without_a_breaker_nothing_opens() {
        let breaker = CircuitBreaker::new(None);
        assert!((0..1_000).all(|_| breaker.failed() == Change::None));
    }

    #[test]
    fn an_isolated_delivery_stops_all_others() {
        let breaker = breaker();
        breaker.set_isolated(true);
        assert_eq!(breaker.pass(), Pass::Wait);
        breaker.set_paused(true);
        breaker.set_isolated(false);
        assert_eq!(breaker.pass(), Pass::Wait, "an operator says so, too");
        breaker.set_paused(false);
        assert_eq!(breaker.pass(), Pass::Free);
    }
}
