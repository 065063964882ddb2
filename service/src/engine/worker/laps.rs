//! The durations of deliveries, by few readings of the clock.
//!
//! A lap is the time between two readings. The deliveries that were begun within it share it in equal parts. So a round
//! that delivers 1,000 records to handlers that are ready costs one reading, and not 1,000.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::counters::Counts;

/// The deliveries of the current lap, by handler.
#[derive(Debug)]
pub(super) struct Laps {
    since: Instant,
    /// Records that were handled in a delivery of their own; their outcome is not counted yet.
    singles: Box<[u64]>,
    /// Other deliveries that were done at once.
    others: Box<[u64]>,
    /// All deliveries that were begun, and done at once or not.
    begun: u32,
}

/// A lap that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    since: Instant,
    share: Duration,
}

impl Lap {
    /// Returns when its delivery of this number began.
    pub(super) fn began(&self, number: u32) -> Instant {
        self.since + self.share * number
    }
}

impl Laps {
    pub(super) fn new(handlers: usize) -> Self {
        let zeros = || vec![0; handlers].into();
        Self { since: Instant::now(), singles: zeros(), others: zeros(), begun: 0 }
    }

    /// Begins a lap, unless a delivery was already begun in the current one.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.begun == 0 {
            self.since = now;
        }
    }

    /// Counts a record that was handled at once, in a delivery of its own.
    pub(super) fn single(&mut self, handler: usize) {
        self.begun += 1;
        self.singles[handler] += 1;
    }

    /// Counts another delivery that was done at once.
    pub(super) fn other(&mut self, handler: usize) {
        self.begun += 1;
        self.others[handler] += 1;
    }

    /// Counts a delivery that is pending after its first poll; returns its number in the lap.
    pub(super) fn pending(&mut self) -> u32 {
        self.begun += 1;
        self.begun - 1
    }

    /// Returns whether any delivery was begun within the lap.
    pub(super) fn any(&self) -> bool {
        self.begun > 0
    }

    /// Ends the lap, and begins the next one: adds outcomes and durations to `counts`.
    pub(super) fn end(&mut self, now: Instant, counts: &mut [Counts]) -> Lap {
        let begun = std::mem::take(&mut self.begun).max(1);
        let lap = Lap { since: self.since, share: now.saturating_duration_since(self.since) / begun };
        self.since = now;
        for ((single, other), counts) in self.singles.iter_mut().zip(&mut self.others).zip(counts) {
            let (single, other) = (std::mem::take(single), std::mem::take(other));
            if single + other > 0 {
                counts.totals.handled += single;
                counts.durations.record(lap.share, single + other);
            }
        }
        lap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::counters::counts;

    #[test]
    fn the_deliveries_of_a_lap_share_its_time() {
        let (mut laps, mut counts, start) = (Laps::new(2), counts(2), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        laps.begin(at(0));
        laps.single(0);
        laps.single(0);
        laps.begin(at(5));
        laps.other(1);
        assert_eq!((laps.pending(), laps.any()), (3, true));
        let lap = laps.end(at(40), &mut counts);
        assert_eq!(lap.began(3), at(30), "the fourth, which is pending");
        assert_eq!((counts[0].totals.handled, counts[1].totals.handled), (2, 0));
        assert_eq!((counts[0].durations.count(), counts[0].durations.sum()), (2, Duration::from_millis(20)));
        assert_eq!((counts[1].durations.count(), counts[1].durations.sum()), (1, Duration::from_millis(10)));
        assert!(!laps.any());
        laps.begin(at(60));
        assert_eq!((laps.pending(), laps.end(at(70), &mut counts).began(0)), (0, at(60)));
        assert_eq!(counts[0].durations.count(), 2);
    }
}
