//! The history of an assignment that the snapshot needs beyond its present state: since when, and in which direction.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::clock_check::ClockCheck;
use crate::engine::board::HoldingView;
use crate::status::PauseReason;

/// The number of samples of the lag within the time after which an assignment is slow.
const SAMPLES: u32 = 6;

/// The memory of an assignment.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Something has changed since the assignment was last shown.
    touched: bool,
    /// The lowest unsettled offset, and since when it is the same.
    unmoved: Option<(u64, Instant)>,
    /// When it was last seen held up: by a pause, or because no delivery may start.
    held_up: Option<Instant>,
    pauses: Vec<(PauseReason, Instant)>,
    trend: Trend,
    /// The record at the lowest unsettled offset, as a worker reported it.
    holding: Option<HoldingView>,
    /// Below this position the log is read again.
    rewound_to: Option<u64>,
    is_stall_logged: bool,
    pub(super) clock: ClockCheck,
}

/// A change of an assignment that is counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Paused(PauseReason),
    /// A pause ended after this time.
    Resumed(PauseReason, Duration),
    /// A stall that was logged ended after this time.
    Moved(Duration),
}

impl Watch {
    /// Creates the memory of an assignment that reads a log again from below `reached`.
    pub(super) fn new(reached: Option<u64>) -> Self {
        Self { touched: true, rewound_to: reached, ..Self::default() }
    }

    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// Returns whether anything has changed since the last call.
    pub(super) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    /// Takes the lowest unsettled offset; `None` if everything is settled. Returns the change if that ends a stall.
    pub(super) fn moved(&mut self, lowest: Option<u64>, now: Instant) -> Option<Change> {
        if self.unmoved.map(|(offset, _)| offset) == lowest {
            return None;
        }
        let before = std::mem::replace(&mut self.unmoved, lowest.map(|offset| (offset, now)));
        self.holding = None;
        let was_logged = std::mem::take(&mut self.is_stall_logged);
        before.filter(|_| was_logged).map(|(_, since)| Change::Moved(now.saturating_duration_since(since)))
    }

    pub(super) fn unmoved(&self) -> Option<Instant> {
        self.unmoved.map(|(_, since)| since)
    }

    /// Records that something explains that nothing moves now.
    pub(super) fn hold_up(&mut self, now: Instant) {
        self.held_up = Some(now);
        self.touched = true;
    }

    /// Returns since when nothing explains that the lowest offset does not move.
    pub(super) fn stuck(&self) -> Option<Instant> {
        self.unmoved.map(|(_, since)| self.held_up.map_or(since, |at| at.max(since)))
    }

    /// Returns the lowest unsettled offset if it has been the same for `time`.
    pub(super) fn unmoved_for(&self, time: Duration, now: Instant) -> Option<u64> {
        self.unmoved.filter(|(_, since)| now.saturating_duration_since(*since) >= time).map(|(offset, _)| offset)
    }

    /// Takes the reasons why the assignment is paused; returns what has changed.
    pub(super) fn paused(&mut self, reasons: &BTreeSet<PauseReason>, now: Instant) -> Vec<Change> {
        if self.pauses.iter().map(|(reason, _)| reason).eq(reasons) {
            return Vec::new();
        }
        let ended = self.pauses.extract_if(.., |(reason, _)| !reasons.contains(reason));
        let ended = ended.map(|(reason, since)| Change::Resumed(reason, now.saturating_duration_since(since)));
        let mut changes: Vec<_> = ended.collect();
        for reason in reasons {
            if self.pauses.iter().all(|(known, _)| known != reason) {
                self.pauses.push((*reason, now));
                changes.push(Change::Paused(*reason));
            }
        }
        self.pauses.sort_by_key(|(reason, _)| *reason);
        changes
    }

    pub(super) fn pauses(&self) -> &[(PauseReason, Instant)] {
        &self.pauses
    }

    /// Takes a sample of the lag, if one is due.
    pub(super) fn sample(&mut self, lag: u64, window: Duration, now: Instant) {
        self.trend.sample(lag, window, now);
    }

    /// Returns whether the lag has not fallen for long.
    pub(super) fn is_rising(&self) -> bool {
        self.trend.is_rising()
    }

    /// Takes a worker's report on the record at `offset`.
    pub(super) fn hold(&mut self, holding: HoldingView) {
        if self.unmoved.is_some_and(|(lowest, _)| lowest == holding.offset) {
            self.holding = Some(holding);
        }
    }

    pub(super) fn holding(&self) -> Option<&HoldingView> {
        self.holding.as_ref()
    }

    /// Records that everything up to `settled` is settled.
    pub(super) fn is_rewound(&mut self, settled: u64, is_caught_up: bool) -> bool {
        self.rewound_to.take_if(|reached| settled >= *reached || is_caught_up);
        self.rewound_to.is_some()
    }

    /// Returns whether the stall at the current offset was not logged before.
    pub(super) fn log_stall(&mut self) -> bool {
        !std::mem::replace(&mut self.is_stall_logged, true)
    }
}

/// The last samples of a lag.
#[derive(Debug, Default)]
struct Trend {
    samples: VecDeque<u64>,
    sampled: Option<Instant>,
}

impl Trend {
    fn sample(&mut self, lag: u64, window: Duration, now: Instant) {
        let is_due = |last: Instant| now.saturating_duration_since(last) >= window / SAMPLES;
        if lag > 0 && !self.sampled.is_none_or(is_due) {
            return;
        }
        self.sampled = Some(now);
        if lag == 0 {
            self.samples.clear();
        }
        self.samples.push_back(lag);
        if self.samples.len() > SAMPLES as usize + 1 {
            self.samples.pop_front();
        }
    }

    fn is_rising(&self) -> bool {
        let half = self.samples.len().div_ceil(2);
        let lowest = |samples: Range<usize>| self.samples.range(samples).min();
        // A single sample that is lower shows nothing: keys that are handled side by side settle in bursts.
        self.samples.len() > SAMPLES as usize
            && self.samples.front().is_some_and(|lag| *lag > 0)
            && self.samples.back() >= self.samples.front()
            && lowest(half..self.samples.len()) >= lowest(0..half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// Returns whether the lag counts as rising after these samples, one each ten seconds.
    fn is_rising(lags: &[u64]) -> bool {
        let (mut trend, start) = (Trend::default(), Instant::now());
        for (at, lag) in (0..).zip(lags) {
            trend.sample(*lag, WINDOW, start + Duration::from_secs(10 * at));
        }
        trend.is_rising()
    }

    #[test]
    fn a_lag_that_does_not_fall_within_the_window_is_rising() {
        assert!(is_rising(&[5, 5, 6, 6, 7, 8, 8]));
        assert!(!is_rising(&[5, 5, 6, 6, 7, 8]), "the window is not over");
        assert!(!is_rising(&[9, 8, 8, 7, 6, 6, 5]), "it falls");
        assert!(!is_rising(&[5, 5, 6, 6, 3, 4, 5]), "it fell");
        assert!(is_rising(&[5, 6, 7, 6, 7, 8, 7]), "it falls for moments only");
        assert!(!is_rising(&[9, 8, 5, 5, 5, 5, 5]), "it fell within the window");
        assert!(!is_rising(&[0, 5, 6, 6, 7, 8, 8]), "it was zero");
        assert!(is_rising(&[9, 8, 5, 5, 5, 5, 5, 5, 5]));
    }

    #[test]
    fn the_time_counts_from_when_the_lowest_offset_became_the_lowest() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((watch.moved(Some(7), at(0)), watch.moved(Some(7), at(50))), (None, None));
        assert_eq!(watch.unmoved_for(WINDOW, at(59)), None);
        assert_eq!(watch.unmoved_for(WINDOW, at(60)), Some(7));
        assert!(watch.log_stall() && !watch.log_stall(), "it is logged once");
        assert_eq!(watch.moved(Some(8), at(61)), Some(Change::Moved(Duration::from_secs(61))));
        assert_eq!(watch.unmoved_for(WINDOW, at(70)), None);
        assert!(watch.log_stall(), "another one");
        assert!(watch.moved(None, at(62)).is_some() && watch.unmoved().is_none());
    }

    #[test]
    fn what_was_held_up_is_stuck_only_from_then_on() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        watch.moved(Some(7), at(0));
        assert_eq!(watch.stuck(), Some(at(0)));
        watch.hold_up(at(600));
        assert_eq!((watch.stuck(), watch.unmoved()), (Some(at(600)), Some(at(0))));
        watch.moved(Some(8), at(601));
        assert_eq!(watch.stuck(), Some(at(601)));
        watch.moved(None, at(602));
        assert_eq!(watch.stuck(), None);
    }

    #[test]
    fn a_pause_lasts_from_its_first_look_to_its_last() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let reasons = |all: &[PauseReason]| all.iter().copied().collect();
        let (store, bytes) = (PauseReason::Store, PauseReason::Bytes);
        assert_eq!(watch.paused(&reasons(&[store]), at(0)), [Change::Paused(store)]);
        assert_eq!(watch.paused(&reasons(&[store, bytes]), at(1)), [Change::Paused(bytes)]);
        assert_eq!(watch.paused(&reasons(&[store, bytes]), at(2)), []);
        assert_eq!(watch.paused(&reasons(&[bytes]), at(5)), [Change::Resumed(store, Duration::from_secs(5))]);
        assert_eq!(watch.pauses(), [(bytes, at(1))]);
    }
}
