//! Batches of which nothing was handled, because their transaction was rolled back.

use std::collections::HashSet;

use tidings_core::ErrorKind;

use super::Worker;
use crate::engine::work::{Cause, Claimed, Item};

impl Worker {
    /// Takes a batch apart whose transaction was rolled back: of its records those at `places` failed, if that is known.
    pub(super) fn rolled_back(&mut self, items: Vec<Item>, kind: ErrorKind, text: &str, places: &[usize]) {
        if places.is_empty() {
            self.bisect(items);
        } else {
            self.some_failed(items, kind, text, places);
        }
    }

    /// Begins a batch again in two halves, so that in a few steps the failing record is alone. Nobody is blamed for a step:
    /// it counts as no attempt. What is behind a record of the first half in its lane waits for that, so that the later
    /// ones of the failing record's key leave the batch with it.
    fn bisect(&mut self, mut items: Vec<Item>) {
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
                // Whatever comes of it: it is not put into another batch, to have that rolled back too.
                alone.single = true;
            }
            self.gather_again(half);
        }
    }

    /// The records at `places` failed, the others were undone with them and are begun again: those of a failing record's
    /// lane before it, or behind it, as they were.
    fn some_failed(&mut self, items: Vec<Item>, kind: ErrorKind, text: &str, places: &[usize]) {
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

    /// The claims of these items are another's, or may be: what is still this service's is given back, and all are asked
    /// for again.
    pub(super) fn lost(&mut self, mut items: Vec<Item>, text: &str) {
        if items.iter().any(|item| matches!(item.claim, Claimed::NoStore)) {
            // Then there is nobody to ask.
            self.first_of_lanes(items).into_iter().for_each(|item| self.wait_for(item, Cause::Handler, text));
            return;
        }
        // The lease may be dead: then its renewal says so, and makes a new one.
        self.shared.fenced();
        items.iter_mut().for_each(|item| self.disclaim(item));
        self.all_held(items);
    }
}
