//! Histograms of durations.

use std::time::Duration;

/// The number of buckets: one per bound, and one for what is longer.
const BUCKETS: usize = Histogram::BOUNDS.len() + 1;

/// The same bounds as [`Histogram::BOUNDS`], for comparisons without floating point.
const BOUNDS: [Duration; BUCKETS - 1] = {
    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
    [
        ms(5),
        ms(10),
        ms(25),
        ms(50),
        ms(75),
        ms(100),
        ms(250),
        ms(500),
        ms(750),
        ms(1_000),
        ms(2_500),
        ms(5_000),
        ms(7_500),
        ms(10_000),
    ]
};

/// A distribution of durations in fixed buckets.
///
/// The bounds are those that OpenTelemetry's conventions give for `messaging.process.duration`.
///
/// ```
/// use tidings_service::telemetry::Histogram;
///
/// let histogram = Histogram::default();
/// assert_eq!((histogram.count(), histogram.counts().len()), (0, Histogram::BOUNDS.len() + 1));
/// assert_eq!(histogram.buckets().last(), Some((f64::INFINITY, 0)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    /// The upper bounds of the buckets in seconds, inclusive. A last bucket, without a bound, follows.
    pub const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of the durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the number of durations in each bucket, not cumulated; the last bucket has no bound.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns each bucket's bound in seconds, with the number of durations up to it, as Prometheus shows them. The
    /// last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + use<> {
        let counts = self.counts;
        let bounds = Self::BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(counts).scan(0, |below, (bound, count)| {
            *below += count;
            Some((bound, *below))
        })
    }

    /// Adds `count` durations of `each`.
    pub(crate) fn record(&mut self, each: Duration, count: u64) {
        let bucket = BOUNDS.iter().position(|bound| each <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket] += count;
        let sum = each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        self.sum = self.sum.saturating_add(sum);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_millis(5), 2);
        histogram.record(Duration::from_micros(5_001), 1);
        histogram.record(Duration::from_secs(11), 1);
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[14], histogram.count()), (2, 1, 1, 4));
        assert_eq!(histogram.sum(), Duration::from_micros(11_015_001));
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!((buckets[0], buckets[1], buckets[13].1, buckets[14].1), ((0.005, 2), (0.01, 3), 3, 4));
    }

    #[test]
    fn the_bounds_are_the_same_in_both_forms() {
        let seconds = BOUNDS.map(|bound| bound.as_secs_f64());
        assert_eq!(seconds, Histogram::BOUNDS);
    }
}
