//! The outcome of a delivery: handled, retried, or dead-lettered.

use std::collections::HashMap;
use std::error::Error as StdError;

use tidings_core::{BoxError, DeadLetter, ErrorKind, Failure, Outcome};
use tokio::time::Instant;

use super::flight::{Items, Work, read_error};
use super::{Burying, Publishing, Worker};
use crate::engine::gate::Change;
use crate::engine::messages::{Cause, WorkerEvent};
use crate::engine::record::{Claimed, PendingRecord};
use crate::observer::RecordOutcome;
use crate::time::after;
use crate::undecodable::Undecodable;

impl Worker {
    /// Processes a handler's return value.
    pub(super) fn finished(&mut self, work: Work, result: Result<Outcome, BoxError>) {
        match result {
            Ok(outcome) => {
                self.probe_ended(work.probe, true);
                self.succeeded(work, outcome);
            }
            Err(error) => {
                self.probe_ended(work.probe, false);
                self.failed(work.items, error.as_ref());
            }
        }
    }

    pub(super) fn probe_ended(&mut self, probe: bool, handled: bool) {
        if probe {
            let change = self.shared.gate.probed(handled);
            self.send(WorkerEvent::Breaker(change));
        }
    }

    /// Counts a failed delivery; too many open the circuit breaker.
    pub(super) fn failure_counted(&mut self) {
        self.shared.gate.succeeded(self.counts.take_handled());
        if let change @ Change::Closed(_) = self.shared.gate.failed() {
            self.send(WorkerEvent::Breaker(change));
        }
    }

    fn succeeded(&mut self, mut work: Work, mut outcome: Outcome) {
        let completed = outcome.is_completed();
        let records = outcome.take_records();
        if records.is_empty() {
            // Usually one, which needs no list.
            match work.items {
                Items::One(item) => self.item_handled(item, completed),
                Items::Many(items) => self.handled(items, completed),
            }
            return;
        }
        for item in work.items.as_mut_slice() {
            self.enter(item);
        }
        self.to_publish.push(Publishing { work, records, completed, attempts: 0 });
    }

    /// Continues with items that are handled and whose events are published.
    pub(super) fn handled(&mut self, items: Vec<PendingRecord>, completed: bool) {
        for item in items {
            self.item_handled(item, completed);
        }
    }

    fn item_handled(&mut self, mut item: PendingRecord, completed: bool) {
        self.counts.handled();
        self.set_trouble(&mut item, None, "");
        item.waits = 0;
        if matches!(item.claim, Claimed::Granted(..)) && !completed {
            self.enter(&mut item);
            self.to_complete.push(item);
        } else {
            self.settle_item(item, RecordOutcome::Handled, None);
        }
    }

    /// Ends an item.
    pub(super) fn settle_item(&mut self, mut item: PendingRecord, what: RecordOutcome, why: Option<&str>) {
        self.set_trouble(&mut item, None, "");
        match what {
            RecordOutcome::Skipped => self.counts.skipped += 1,
            RecordOutcome::Duplicate => self.counts.duplicates += 1,
            RecordOutcome::DeadLettered => self.counts.dead_lettered += 1,
            _ => {}
        }
        self.observe(&item, what, why);
        self.settle_place(&item.assigned, item.number, item.place);
        self.leave(item);
    }

    /// Ends an item's turn in its lane: the next item follows.
    pub(super) fn leave(&mut self, item: PendingRecord) {
        if item.entered
            && let Some(lane) = item.lane
            && let Some(mut next) = self.busy.leave(lane)
        {
            next.entered = true;
            self.ready.push_back(next);
        }
    }

    pub(super) fn observe(&self, item: &PendingRecord, what: RecordOutcome, why: Option<&str>) {
        if let Some(observer) = &self.shared.backends.observer {
            self.shared.observe_item(observer.as_ref(), what, item, why);
        }
    }

    /// Processes a handler's error.
    pub(super) fn failed(&mut self, items: Items, error: &(dyn StdError + 'static)) {
        if let Some(errors) = Undecodable::find(error) {
            let bad: Vec<(usize, String)> =
                errors.as_slice().iter().map(|(place, error)| (*place, error.report())).collect();
            self.undecodable(items.into_vec(), &bad);
            return;
        }
        let (kind, failure, text) = read_error(error);
        let len = items.as_slice().len();
        match failure {
            Failure::Unavailable => {
                for item in self.first_of_lanes(items.into_vec()) {
                    self.wait_for(item, Cause::Handler, &text);
                }
            }
            // A place outside the batch names no record: then no record is known to be handled.
            Failure::Failed(places) if len > 1 && are_places(&places, len) => {
                self.partly_failed(items, kind, &text, |place| {
                    if places.contains(&place) { Part::Failed } else { Part::Handled }
                })
            }
            Failure::StoppedAt(at) if len > 1 && at < len => {
                self.partly_failed(items, kind, &text, |place| match place.cmp(&at) {
                    std::cmp::Ordering::Less => Part::Handled,
                    std::cmp::Ordering::Equal => Part::Failed,
                    std::cmp::Ordering::Greater => Part::Untouched,
                })
            }
            Failure::RolledBack(places) if items.as_slice().len() > 1 => {
                self.rolled_back(items.into_vec(), kind, &text, &places);
            }
            Failure::Held => self.lost(items.into_vec(), &text),
            failure => self.wholly_failed(items, kind, &text, failure == Failure::Reject),
        }
    }

    pub(super) fn wholly_failed(&mut self, items: Items, kind: ErrorKind, text: &str, reject: bool) {
        let mut items = items.into_vec();
        self.failure_counted();
        if items.len() > 1 {
            // The failing record is unknown, so the failure counts against none: from now on each record is passed to
            // the handler alone, in order.
            for item in &mut items {
                item.single = true;
                item.last_error = Some((kind, text.to_owned()));
            }
            self.counts.retried += items.len() as u64;
            items.iter().for_each(|item| self.observe(item, RecordOutcome::Retried, Some(text)));
            self.regroup(items);
        } else if let Some(item) = items.pop() {
            self.attempt_failed(item, kind, text, reject);
        }
    }

    /// Splits a batch by its handler's result per record.
    fn partly_failed(&mut self, items: Items, kind: ErrorKind, text: &str, part: impl Fn(usize) -> Part) {
        let mut again = Vec::new();
        let mut failed = Vec::new();
        for (place, item) in items.into_vec().into_iter().enumerate() {
            match part(place) {
                Part::Handled => self.handled(vec![item], false),
                Part::Failed => failed.push(item),
                Part::Untouched => again.push(item),
            }
        }
        self.failure_counted();
        // Items of a failed record's key must wait for it, so they leave the batch with it.
        let (behind, free): (Vec<_>, Vec<_>) =
            again.into_iter().partition(|item| item.lane.is_some() && failed.iter().any(|f| f.lane == item.lane));
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        self.attempts_failed(failed, kind, text);
        self.regroup(free);
    }

    /// Dead-letters the records that cannot be read, and starts the others again.
    fn undecodable(&mut self, items: Vec<PendingRecord>, bad: &[(usize, String)]) {
        let mut good = Vec::new();
        let mut buried = Vec::new();
        for (place, item) in items.into_iter().enumerate() {
            match bad.iter().find(|(at, _)| *at == place) {
                Some((_, text)) => buried.push((item, text)),
                None => good.push(item),
            }
        }
        let (behind, free): (Vec<_>, Vec<_>) =
            good.into_iter().partition(|item| item.lane.is_some() && buried.iter().any(|(b, _)| b.lane == item.lane));
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        for (mut item, text) in buried {
            self.failure_counted();
            self.enter(&mut item);
            self.bury(item, ErrorKind::Undecodable, text.clone());
        }
        self.regroup(free);
    }

    /// Returns an item to the head of its lane, behind an item of the lane that continues.
    pub(super) fn wait_behind(&mut self, mut item: PendingRecord) {
        let Some(lane) = item.lane else {
            self.ready.push_back(item);
            return;
        };
        let counted = std::mem::take(&mut item.entered);
        self.busy.queue_first(lane, item);
        if counted && let Some(mut next) = self.busy.leave(lane) {
            next.entered = true;
            self.ready.push_back(next);
        }
    }

    /// Starts items again: as one batch, so that items of a lane stay together; or each alone, beginning with the
    /// first of each lane, with the others of the lane behind it.
    pub(super) fn regroup(&mut self, items: Vec<PendingRecord>) {
        let (alone, mut together): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.single);
        together.iter_mut().for_each(|item| self.enter(item));
        let together = self.behind_what_is_handled(together);
        self.gather_again(together);
        let first = self.first_of_lanes(alone);
        self.ready.extend(first);
    }

    /// Makes items wait whose predecessor in the batch is handled but not settled yet; returns the others.
    fn behind_what_is_handled(&mut self, items: Vec<PendingRecord>) -> Vec<PendingRecord> {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        items.iter().filter_map(|item| item.lane).for_each(|lane| *counts.entry(lane).or_default() += 1);
        let follows = |lane: u64| self.busy.active(lane) > counts.get(&lane).copied().unwrap_or(0);
        let (behind, free): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.lane.is_some_and(follows));
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        free
    }

    /// Returns the first items of their lanes; the others wait behind them. Retried separately, each would return at a
    /// time of its own, or in another batch, and so before its predecessor.
    pub(super) fn first_of_lanes(&mut self, items: Vec<PendingRecord>) -> Vec<PendingRecord> {
        let mut first: Vec<PendingRecord> = Vec::with_capacity(items.len());
        let mut behind: Vec<PendingRecord> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for mut item in items {
            if item.lane.is_some_and(|lane| !seen.insert(lane)) {
                behind.push(item);
            } else {
                self.enter(&mut item);
                first.push(item);
            }
        }
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        first
    }

    /// As [`attempt_failed`](Self::attempt_failed), for several items that were tried together.
    pub(super) fn attempts_failed(&mut self, items: Vec<PendingRecord>, kind: ErrorKind, text: &str) {
        let mut seen = std::collections::HashSet::new();
        let (mut first, mut behind) = (Vec::new(), Vec::new());
        for mut item in items {
            if item.lane.is_some_and(|lane| !seen.insert(lane)) {
                item.failures = item.failures.saturating_add(1);
                item.last_error = Some((kind, text.to_owned()));
                behind.push(item);
            } else {
                self.enter(&mut item);
                first.push(item);
            }
        }
        // Whether each is dead-lettered is decided when its turn has come.
        behind.into_iter().rev().for_each(|item| self.wait_behind(item));
        first.into_iter().for_each(|item| self.attempt_failed(item, kind, text, false));
    }

    /// Returns the number of failed attempts, including those under earlier leases of its claim.
    fn all_failures(item: &PendingRecord) -> u32 {
        match &item.claim {
            Claimed::Granted(history, _) => (item.failures - item.told).saturating_add(history.attempts),
            _ => item.failures,
        }
    }

    /// Returns whether no attempt is left.
    pub(super) fn is_given_up(&self, item: &PendingRecord) -> bool {
        Self::all_failures(item) > self.shared.policy.retry.max_retries
    }

    /// Handles a failed attempt at one record: schedules a retry, or dead-letters it.
    pub(super) fn attempt_failed(&mut self, mut item: PendingRecord, kind: ErrorKind, text: &str, reject: bool) {
        item.failures = item.failures.saturating_add(1);
        let failures = Self::all_failures(&item);
        self.enter(&mut item);
        item.waits = 0;
        if reject || self.is_given_up(&item) {
            self.bury(item, kind, text.to_owned());
            return;
        }
        item.last_error = Some((kind, text.to_owned()));
        self.counts.retried += 1;
        self.observe(&item, RecordOutcome::Retried, Some(text));
        let wait = self.shared.policy.retry.wait(failures, self.random.f64());
        self.begin_at(after(Instant::now(), wait), item);
    }

    /// Handles a dependency that is down: the item is retried until the dependency is up.
    pub(super) fn wait_for(&mut self, mut item: PendingRecord, cause: Cause, text: &str) {
        self.enter(&mut item);
        item.waits = item.waits.saturating_add(1);
        self.set_trouble(&mut item, Some(cause), text);
        let at = self.later(item.waits);
        self.begin_at(at, item);
    }

    /// Dead-letters an item: it is settled when the letter is written.
    pub(super) fn bury(&mut self, mut item: PendingRecord, kind: ErrorKind, text: String) {
        self.enter(&mut item);
        // It has failed: later lease expiries with its claim blame no innocent record, and a sink may be down for
        // long.
        item.alone = None;
        let record = item.record.records()[0].clone();
        tracing::warn!(
            service = %self.shared.identity.service,
            topic = %item.assigned.origin.topic,
            partition = item.assigned.origin.partition,
            offset = record.offset,
            kind = %kind,
            error = %text,
            "giving a record up: it goes to the dead letters"
        );
        let mut letter =
            DeadLetter::new(self.shared.identity.service.clone(), item.assigned.origin.as_ref().clone(), record, kind)
                .with_error(text)
                .with_attempts(Self::all_failures(&item));
        if item.handler < self.routes.table().len() {
            letter = letter.with_handler(self.routes.table().info(item.handler).name.clone());
        }
        self.to_bury.push(Burying { item, letter, attempts: 0 });
    }
}

/// Returns whether `places` is not empty and all of them are within a batch of `len` records.
fn are_places(places: &[usize], len: usize) -> bool {
    !places.is_empty() && places.iter().all(|place| *place < len)
}

/// A batch handler's result for one record.
enum Part {
    Handled,
    Failed,
    Untouched,
}
