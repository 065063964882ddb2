//! Clocks of a store, and a time that never goes back.
//!
//! Two clocks are needed. Retention and stored times follow the wall clock, so that they mean
//! something to people; leases follow the monotonic clock, so that setting the wall clock neither
//! ends nor extends one.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use tidings_core::Timestamp;

/// Time source of a store.
///
/// A test replaces both clocks by [`SledConfig::with_clock`](crate::SledConfig::with_clock):
///
/// ```
/// use std::time::Duration;
/// use tidings_core::Timestamp;
/// use tidings_sled::{Clock, SledConfig};
///
/// #[derive(Debug)]
/// struct Fixed;
///
/// impl Clock for Fixed {
///     fn wall(&self) -> Timestamp {
///         Timestamp::from_millis(1_700_000_000_000)
///     }
///
///     fn monotonic(&self) -> Duration {
///         Duration::from_secs(5)
///     }
/// }
///
/// let config = SledConfig::new("orders.sled").with_clock(Fixed);
/// assert_eq!(config.clock.monotonic(), Duration::from_secs(5));
/// ```
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the wall clock's time, which users and NTP may set forward and back.
    fn wall(&self) -> Timestamp;
    /// Returns the time since an arbitrary moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The system's clocks, the default.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The store's own time: the wall clock's, unless that was set back; then it advances by the monotonic clock. It is
/// stored with every commit, so that it does not go back over restarts either.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreTime {
    /// The time when the clocks were last read.
    at: Timestamp,
    /// The monotonic clock's reading then.
    read: Duration,
}

impl StoreTime {
    /// Resumes from `highest`, the latest stored time.
    pub(crate) fn resume(clock: &dyn Clock, highest: Timestamp) -> Self {
        Self { at: highest.max(clock.wall()), read: clock.monotonic() }
    }

    /// Returns the time, which is at least as late as all before.
    pub(crate) fn now(&mut self, clock: &dyn Clock) -> Timestamp {
        let read = clock.monotonic();
        let steady = self.at.saturating_add(read.saturating_sub(self.read));
        // Time is kept in milliseconds: moving the anchor by less would lose the rest of each.
        if steady > self.at || clock.wall() > steady {
            *self = Self { at: steady.max(clock.wall()), read };
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Hands(Mutex<(i64, u64)>);
    impl Clock for Hands {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(self.0.lock().unwrap().0)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.lock().unwrap().1)
        }
    }

    #[test]
    fn time_goes_on_while_the_wall_clock_is_set_back() {
        let clock = Hands(Mutex::new((10_000_000, 0)));
        let mut time = StoreTime::resume(&clock, Timestamp::from_millis(0));
        *clock.0.lock().unwrap() = (10_000_000 - 3_600_000, 500);
        assert_eq!(time.now(&clock).millis(), 10_000_500);
        *clock.0.lock().unwrap() = (20_000_000, 501);
        assert_eq!(time.now(&clock).millis(), 20_000_000);
    }

    /// A monotonic clock of microseconds, and a wall clock that stands still.
    #[derive(Debug)]
    struct Fine(Mutex<u64>);
    impl Clock for Fine {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_micros(*self.0.lock().unwrap())
        }
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let clock = Fine(Mutex::new(0));
        let mut time = StoreTime::resume(&clock, Timestamp::from_millis(0));
        for _ in 0..1_000 {
            *clock.0.lock().unwrap() += 400;
            time.now(&clock);
        }
        // Every third read advances the time by 1 ms, and drops the remaining 0.2 ms.
        assert_eq!(time.now(&clock).millis(), 333);
    }

    #[test]
    fn time_follows_the_wall_clock_that_is_set_forward() {
        let clock = Hands(Mutex::new((100, 7)));
        let mut time = StoreTime::resume(&clock, Timestamp::from_millis(0));
        *clock.0.lock().unwrap() = (5_000, 7);
        assert_eq!(time.now(&clock).millis(), 5_000);
    }

    #[test]
    fn the_clocks_of_the_system_advance() {
        let (clock, before) = (SystemClock::default(), Timestamp::now());
        assert!(clock.wall() >= before && before.millis() > 1_700_000_000_000);
        let first = clock.monotonic();
        assert!((0..10_000_000).any(|_| clock.monotonic() > first));
    }

    #[test]
    fn time_starts_no_earlier_than_it_was() {
        let clock = Hands(Mutex::new((5, 0)));
        assert_eq!(StoreTime::resume(&clock, Timestamp::from_millis(9)).now(&clock).millis(), 9);
    }
}
