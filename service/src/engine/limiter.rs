//! Limits of repeated log lines: one in a while for each cause, with the number of those held back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The subject of a line: the name of the line, the handler, and the kind of the error. There are few of each.
pub(crate) type About = (&'static str, Option<usize>, &'static str);

/// The lines that were logged not long ago.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<HashMap<About, Recent>>);

#[derive(Debug)]
struct Recent {
    logged: Instant,
    held_back: u64,
}

impl Limiter {
    /// The time in which a line about one thing is logged once.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(10);

    /// Returns whether to log a line now, by the number of lines held back since the last one.
    pub(crate) fn pass(&self, about: About, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(recent) = all.get_mut(&about) else {
            all.insert(about, Recent { logged: now, held_back: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(recent.logged) < Self::INTERVAL {
            recent.held_back += 1;
            return None;
        }
        recent.logged = now;
        Some(std::mem::take(&mut recent.held_back))
    }

    /// Returns the lines that were held back, and after which none came any more.
    pub(crate) fn flush(&self, now: Instant) -> Vec<(About, u64)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |_: &About, recent: &mut Recent| now.saturating_duration_since(recent.logged) >= Self::INTERVAL;
        all.extract_if(over)
            .filter(|(_, recent)| recent.held_back > 0)
            .map(|(about, recent)| (about, recent.held_back))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_and_the_next_says_how_many_did_not() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (a, b) = (("failed", Some(0), "denied"), ("failed", Some(0), "unavailable"));
        assert_eq!((limiter.pass(a, at(0)), limiter.pass(b, at(0))), (Some(0), Some(0)));
        assert_eq!((limiter.pass(a, at(1)), limiter.pass(a, at(9))), (None, None));
        assert_eq!(limiter.pass(a, at(10)), Some(2));
        assert_eq!(limiter.pass(a, at(11)), None);
        assert_eq!(limiter.flush(at(19)), [], "b had none");
        assert_eq!(limiter.flush(at(20)), [(a, 1)]);
        assert_eq!(limiter.pass(a, at(21)), Some(0));
    }
}
