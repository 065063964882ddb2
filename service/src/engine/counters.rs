//! Counters of records by handler.

use std::sync::{Mutex, PoisonError};

use crate::status::Totals;

/// The counters of all workers: each has an array of its own, under its own lock, so that no worker waits for another.
#[derive(Debug)]
pub(crate) struct Counters(Vec<Mutex<Box<[Totals]>>>);

/// The counts of a worker since its last report, by handler; the last ones are those of records without a handler.
pub(crate) fn counts(handlers: usize) -> Box<[Totals]> {
    vec![Totals::default(); handlers + 1].into()
}

impl Counters {
    pub(crate) fn new(workers: usize, handlers: usize) -> Self {
        Self((0..workers).map(|_| Mutex::new(counts(handlers))).collect())
    }

    /// Adds a worker's counts, which begin again at zero.
    pub(crate) fn add(&self, worker: usize, since: &mut [Totals]) {
        let mut all = self.0[worker].lock().unwrap_or_else(PoisonError::into_inner);
        for (total, since) in all.iter_mut().zip(since) {
            total.add(&std::mem::take(since));
        }
    }

    /// Returns the counts of all workers, by handler.
    pub(crate) fn snapshot(&self) -> Vec<Totals> {
        let mut sums = Vec::new();
        for worker in &self.0 {
            let all = worker.lock().unwrap_or_else(PoisonError::into_inner);
            sums.resize(all.len(), Totals::default());
            sums.iter_mut().zip(all.iter()).for_each(|(sum, total)| sum.add(total));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_the_workers_by_handler() {
        let counters = Counters::new(2, 1);
        for worker in [0, 1, 1] {
            let mut since = counts(1);
            (since[0].handled, since[1].skipped) = (2, 1);
            counters.add(worker, &mut since);
            assert_eq!(since[0], Totals::default());
        }
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.len(), snapshot[0].handled, snapshot[1].skipped), (2, 6, 3));
    }
}
