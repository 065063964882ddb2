//! Batches of which no record was handled, because their transaction was rolled back.

use std::collections::HashSet;

use tidings_core::ErrorKind;

use super::Worker;
use crate::engine::messages::Cause;
use crate::engine::record::{Claimed, PendingRecord};

impl Worker {
    /// Splits a batch whose transaction was rolled back: its records at `places` failed, if these are known.
    pub(super) fn rolled_back(&mut self, items: Vec<PendingRecord>, kind: ErrorKind, text: &str, places: &[usize]) {
        if places.is_empty() {
            self.bisect(items);
        } else {
            self.some_failed(items, kind, text, places);
        }
    }

    /// Starts a batch again as two halves, so that the failing record is isolated in a few steps. A step counts as no
    /// attempt of any record. Items behind a record of the first half in its lane wait for that record, so that later
    /// items of the failing record's key leave the batch with it.
    fn bisect(&mut self, mut items: Vec<PendingRecord>) {
        let second = items.split_off(items.len().div_ceil(2));
        let mut first = items;
        first.iter_mut().for_each(|item| self.enter(item));
        let lanes: HashSet<u64> = first.iter().filter_map(|item| item.lane).collect();
        let (behind, mut free): (Vec<_>, Vec<_>) =
            second.into_iter().partition(|item| item.lane.is_some_and(|lane| lanes.contains(&lane)));
        free.iter_mut().for_each(|item| self.enter(item));
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        for mut half in [first, free] {
            if let [alone] = half.as_mut_slice() {
                // Whatever the result: it is not put into another batch, which would be rolled back too.
                alone.single = true;
            }
            self.gather_again(half);
        }
    }

    /// The records at `places` failed; the others were rolled back with them and start again. Items of a failing
    /// record's lane stay before or behind it, as they were.
    fn some_failed(&mut self, items: Vec<PendingRecord>, kind: ErrorKind, text: &str, places: &[usize]) {
        self.failure_counted();
        let (mut free, mut failing, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        let (mut free_lanes, mut failing_lanes) = (HashSet::new(), HashSet::new());
        for (place, mut item) in items.into_iter().enumerate() {
            let failed = places.contains(&place);
            let waits =
                item.lane.is_some_and(|lane| failing_lanes.contains(&lane) || (failed && free_lanes.contains(&lane)));
            item.single |= failed;
            if failed {
                failing_lanes.extend(item.lane);
            }
            match (waits, failed) {
                (true, _) => {
                    if failed {
                        item.failures = item.failures.saturating_add(1);
                        item.last_error = Some((kind, text.to_owned()));
                    }
                    behind.push(item);
                }
                (false, true) => failing.push(item),
                (false, false) => {
                    free_lanes.extend(item.lane);
                    free.push(item);
                }
            }
        }
        failing.iter_mut().chain(&mut free).for_each(|item| self.enter(item));
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        failing.into_iter().for_each(|item| self.attempt_failed(item, kind, text, false));
        self.regroup(free);
    }

    /// Handles items whose claims another lease has, or may have: claims of this service are released, and all items
    /// are claimed again.
    pub(super) fn lost(&mut self, mut items: Vec<PendingRecord>, text: &str) {
        if items.iter().any(|item| matches!(item.claim, Claimed::NoStore)) {
            // Without a store there are no claims.
            self.first_of_lanes(items).into_iter().for_each(|item| self.wait_for(item, Cause::Handler, text));
            return;
        }
        // The lease may have expired: its renewal then finds out, and registers a new one.
        self.shared.fenced();
        items.iter_mut().for_each(|item| self.disclaim(item));
        self.all_held(items);
    }
}
