//! A wall clock that advances with tokio's clock.
//!
//! Records wait by it for a time that another process has written. In a test that pauses tokio's clock it advances
//! exactly, and is the same for all services. If the system's wall clock is set, it follows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as RealInstant};

use tidings_core::Timestamp;
use tokio::time::Instant;

use crate::time::after;

/// The smallest difference between the system's wall clock and the time that has passed that counts as a step.
const STEP: Duration = Duration::from_millis(250);
/// A reading of the system's wall clock that took longer is not used to detect a step.
const READING: Duration = Duration::from_millis(20);

/// The wall clock at a time of the monotonic clock. One for the process, so that its services agree.
#[derive(Debug, Clone, Copy)]
struct Reading {
    wall: Timestamp,
    at: RealInstant,
}

static LAST: Mutex<Option<Reading>> = Mutex::new(None);

/// Returns the wall clock's time at `instant`.
pub(crate) fn time_at(instant: Instant) -> Timestamp {
    let Reading { wall, at } = read();
    let instant = instant.into_std();
    match instant.checked_duration_since(at) {
        Some(passed) => wall.saturating_add(passed),
        // Rounded up, so that times on both sides of the reading are rounded in one direction.
        None => wall.saturating_sub(at.saturating_duration_since(instant) + Duration::from_nanos(999_999)),
    }
}

/// Returns when the wall clock shows `time`; an instant in the past if that time has passed.
pub(crate) fn instant_of(time: Timestamp) -> Instant {
    let Reading { wall, at } = read();
    let wait = u64::try_from(time.millis().saturating_sub(wall.millis())).unwrap_or(0);
    after(Instant::from_std(at), Duration::from_millis(wait))
}

fn read() -> Reading {
    let mut last = lock();
    let begun = RealInstant::now();
    let wall = Timestamp::now();
    let new = Reading { wall, at: begun };
    let reading = last.get_or_insert(new);
    let passed = begun.saturating_duration_since(reading.at);
    let steps = wall.millis().abs_diff(reading.wall.saturating_add(passed).millis());
    if u128::from(steps) > STEP.as_millis() && begun.elapsed() < READING {
        *reading = new;
    }
    *reading
}

fn lock() -> MutexGuard<'static, Option<Reading>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_moves_exactly_with_a_paused_clock() {
        let before = Instant::now();
        let shown = time_at(before);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let after = time_at(before + Duration::from_secs(3_600));
        assert_eq!(after, shown.saturating_add(Duration::from_secs(3_600)));
        assert!(time_at(Instant::now()) >= after);
        assert!(instant_of(after) <= Instant::now(), "it has been shown");
        let due = after.saturating_add(Duration::from_secs(5));
        assert!(time_at(instant_of(due)) >= due, "never early");
    }

    #[test]
    fn times_before_the_first_reading_are_times() {
        let first = lock().get_or_insert(Reading { wall: Timestamp::now(), at: RealInstant::now() }).at;
        let Some(earlier) = first.checked_sub(Duration::from_secs(1)) else { return };
        assert!(time_at(Instant::from_std(earlier)) < time_at(Instant::from_std(first)));
    }
}
