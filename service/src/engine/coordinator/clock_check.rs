//! The clock of this host, compared with the timestamps of records that have just been appended.

use std::time::Duration;

use tidings_core::Timestamp;

use crate::telemetry::ClockGap;

/// The successive observations that show a difference: after an outage, the first records are old.
const NEEDED: u8 = 2;

/// The memory of the comparison for an assignment.
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    /// The timestamp of the last record that was fetched since the last look.
    newest: Option<Timestamp>,
    /// At the last look the log was read up to its end: what is fetched after it is new.
    was_at_end: bool,
    observed: u8,
    gap: Option<ClockGap>,
}

impl ClockCheck {
    /// Takes the timestamp of the last record of a batch.
    pub(super) fn fetched(&mut self, newest: Option<Timestamp>) {
        self.newest = newest.or(self.newest);
    }

    /// Compares the last timestamp with the time of this host: once a second. `is_at_end`: the log is read up to its end.
    pub(super) fn check(&mut self, wall: Timestamp, is_at_end: bool) {
        let is_new = std::mem::replace(&mut self.was_at_end, is_at_end);
        let Some(newest) = self.newest.take().filter(|newest| newest.millis() > 0) else { return };
        match difference(wall, newest) {
            // A record that waited in the log is old by any clock.
            Some(ClockGap::Ahead(_)) if !is_new => {}
            Some(gap) => {
                self.observed = (self.observed + 1).min(NEEDED);
                self.gap = (self.observed == NEEDED).then_some(gap);
            }
            None => (self.observed, self.gap) = (0, None),
        }
    }

    /// Returns the difference, if there is one.
    pub(super) fn gap(&self) -> Option<ClockGap> {
        self.gap
    }
}

fn difference(wall: Timestamp, newest: Timestamp) -> Option<ClockGap> {
    let ahead = i128::from(wall.millis()) - i128::from(newest.millis());
    let time = Duration::from_millis(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX));
    let gap = if ahead > 0 { ClockGap::Ahead(time) } else { ClockGap::Behind(time) };
    (time > ClockGap::TOLERANCE).then_some(gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOW: i64 = 1_000 * HOUR;

    /// Returns the gap after fetches of these timestamps, relative to now, with whether the end was reached.
    fn gap(looks: &[(Option<i64>, bool)]) -> Option<ClockGap> {
        let mut check = ClockCheck::default();
        for (newest, is_at_end) in looks {
            check.fetched(newest.map(|newest| Timestamp::from_millis(NOW + newest)));
            check.check(Timestamp::from_millis(NOW), *is_at_end);
        }
        check.gap()
    }

    #[test]
    fn new_records_that_are_an_hour_old_show_that_the_clock_is_ahead() {
        let ahead = Some(ClockGap::Ahead(Duration::from_secs(3_600)));
        assert_eq!(gap(&[(None, true), (Some(-HOUR), true), (Some(-HOUR), true)]), ahead);
        assert_eq!(gap(&[(None, true), (Some(-HOUR), true), (None, true), (Some(-HOUR), true), (None, true)]), ahead);
        assert_eq!(
            gap(&[(None, true), (Some(-HOUR), true), (Some(-HOUR), true), (Some(-1), true)]),
            None,
            "it is mended"
        );
        assert_eq!(gap(&[(None, true), (Some(-299_999), true), (Some(-299_999), true)]), None, "it is tolerated");
    }

    #[test]
    fn records_that_waited_show_nothing() {
        assert_eq!(gap(&[(None, false), (Some(-HOUR), false), (Some(-HOUR), false), (Some(-HOUR), true)]), None);
        assert_eq!(gap(&[(None, true), (Some(-HOUR), true), (Some(-1), true)]), None, "the first after an outage");
    }

    #[test]
    fn records_from_the_future_show_that_the_clock_is_behind() {
        let behind = Some(ClockGap::Behind(Duration::from_secs(3_600)));
        assert_eq!(gap(&[(Some(HOUR), false), (Some(HOUR), false)]), behind, "also those that waited");
    }

    #[test]
    fn records_without_a_timestamp_show_nothing() {
        assert_eq!(gap(&[(None, true), (Some(-NOW), true), (Some(-NOW - 1), true), (Some(-NOW), true)]), None);
    }
}
