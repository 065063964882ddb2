//! Counters of records and deliveries by handler.

use std::sync::{Mutex, PoisonError};

use tidings_core::ErrorKind;

use crate::status::Totals;
use crate::telemetry::Histogram;

/// The counters of all workers: each has an array of its own, under its own lock, so that no worker waits for another.
#[derive(Debug)]
pub(crate) struct Counters {
    workers: Vec<Mutex<Box<[Counts]>>>,
    /// Dead letters by the handler's number and the kind of error: rare, and so under one lock.
    dead_letters: Mutex<Vec<((usize, ErrorKind), u64)>>,
}

/// The counts of one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// The outcomes of records.
    pub(crate) totals: Totals,
    /// Failed deliveries.
    pub(crate) failures: u64,
    /// The durations of deliveries.
    pub(crate) durations: Histogram,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        self.failures += other.failures;
        if other.durations != Histogram::default() {
            self.durations.add(&other.durations);
        }
    }
}

/// The counts of a worker since its last report, by handler; the last ones are those of records without a handler.
pub(crate) fn counts(handlers: usize) -> Box<[Counts]> {
    vec![Counts::default(); handlers + 1].into()
}

impl Counters {
    pub(crate) fn new(workers: usize, handlers: usize) -> Self {
        let workers = (0..workers).map(|_| Mutex::new(counts(handlers))).collect();
        Self { workers, dead_letters: Mutex::default() }
    }

    /// Adds a worker's counts, which begin again at zero.
    pub(crate) fn add(&self, worker: usize, since: &mut [Counts]) {
        let mut all = self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
        for (total, since) in all.iter_mut().zip(since) {
            total.add(&std::mem::take(since));
        }
    }

    /// Counts a dead letter of a handler.
    pub(crate) fn dead_lettered(&self, handler: usize, kind: ErrorKind) {
        let mut letters = self.dead_letters.lock().unwrap_or_else(PoisonError::into_inner);
        match letters.iter_mut().find(|(key, _)| *key == (handler, kind)) {
            Some((_, count)) => *count += 1,
            None => letters.push(((handler, kind), 1)),
        }
    }

    /// Returns the dead letters of a handler by the kinds that occurred.
    pub(crate) fn dead_letters(&self, handler: usize) -> Vec<(ErrorKind, u64)> {
        let letters = self.dead_letters.lock().unwrap_or_else(PoisonError::into_inner);
        let of_handler =
            |((number, kind), count): &((usize, ErrorKind), u64)| (*number == handler).then_some((*kind, *count));
        letters.iter().filter_map(of_handler).collect()
    }

    /// Returns the counts of all workers, by handler.
    pub(crate) fn snapshot(&self) -> Vec<Counts> {
        let mut sums = Vec::new();
        for worker in &self.workers {
            let all = worker.lock().unwrap_or_else(PoisonError::into_inner);
            sums.resize(all.len(), Counts::default());
            sums.iter_mut().zip(all.iter()).for_each(|(sum, total)| sum.add(total));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_sums_the_workers_by_handler() {
        let counters = Counters::new(2, 1);
        for worker in [0, 1, 1] {
            let mut since = counts(1);
            (since[0].totals.handled, since[1].totals.skipped, since[0].failures) = (2, 1, 3);
            since[0].durations.record(Duration::from_millis(1), 5);
            counters.add(worker, &mut since);
            assert_eq!(since[0], Counts::default());
        }
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.len(), snapshot[0].totals.handled, snapshot[1].totals.skipped), (2, 6, 3));
        assert_eq!((snapshot[0].failures, snapshot[0].durations.count()), (9, 15));
    }
}
