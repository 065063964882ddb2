//! Isolation: records that crashed processes run with nothing else in flight, one after the other (rule E5e).

use std::collections::VecDeque;

/// The workers whose record waits to run isolated, and the progress of the current one.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    waiting: VecDeque<usize>,
    /// The worker whose turn it is.
    current: Option<usize>,
    /// The number of workers that still run other deliveries.
    busy: usize,
}

impl Isolation {
    pub(super) fn want(&mut self, worker: usize) {
        self.waiting.push_back(worker);
    }

    /// Begins the next turn, if none is under way: returns whether all `workers` have to become quiet.
    pub(super) fn begin(&mut self, workers: usize) -> bool {
        if self.current.is_some() {
            return false;
        }
        self.current = self.waiting.pop_front();
        self.busy = if self.current.is_some() { workers } else { 0 };
        self.current.is_some()
    }

    /// Records that a worker is quiet; returns the worker that may run its record, once all are.
    pub(super) fn quiesced(&mut self) -> Option<usize> {
        self.busy = self.busy.saturating_sub(1);
        if self.busy == 0 { self.current } else { None }
    }

    /// Ends the turn.
    pub(super) fn done(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_at_a_time_runs_when_all_workers_are_quiet() {
        let mut isolation = Isolation::default();
        assert!(!isolation.begin(2), "nothing waits");
        isolation.want(1);
        isolation.want(0);
        assert!(isolation.begin(2));
        assert!(!isolation.begin(2), "one at a time");
        assert_eq!((isolation.quiesced(), isolation.quiesced()), (None, Some(1)));
        isolation.done();
        assert!(isolation.begin(2));
        assert_eq!((isolation.quiesced(), isolation.quiesced()), (None, Some(0)));
    }
}
