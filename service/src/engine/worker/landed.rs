//! Handles completed futures: handlers, and answers of stores, sinks and publishers.

use tidings_core::{Claim, ErrorKind, History, Position, Redriven, Result};

use super::flight::{Asked, Deadline, Flight, Items, Landed, TimedOut};
use super::intake::{LONE_DEATHS, MAX_DEATHS};
use super::{Burying, Due, Publishing, Worker};
use crate::engine::claims::{Answered, Hold};
use crate::engine::messages::Cause;
use crate::engine::record::{Claimed, PendingRecord};
use crate::observer::RecordOutcome;
use crate::time::after;

/// An event found held this often is released before it is claimed again: if the claim is this service's own, which a
/// store may grant after its release, no other caller would ever end it.
const OFTEN_HELD: u32 = 4;
/// After this many failed calls, other deliveries no longer wait for the returned events of a suspect: its topic may
/// be unavailable for long, and theirs are not.
const PUBLISHED_ALONE: u32 = 3;
/// How often a redriven record may start anew. The number of redrives is a header, which any producer can write.
const FORGIVEN: u32 = 8;

impl Worker {
    pub(super) fn landed(&mut self, landed: Landed) {
        match landed {
            Landed::Handler { ticket, serial, result } => {
                if self.running.get(ticket).is_some_and(|running| running.serial == serial) {
                    let running = self.running.remove(ticket);
                    self.finished(running.work, result);
                }
            }
            Landed::Published { work, answers } => self.published(work, answers),
            Landed::Completed { items, answer } => self.completed(items, answer),
            Landed::Buried { letters, answers } => self.buried(letters, answers),
            Landed::Claimed { items, answered, asked } => {
                self.calls.claims -= 1;
                match asked {
                    Asked::Alone => self.claimed_alone(items, answered),
                    asked => self.claimed(items, answered, asked == Asked::Chunk),
                }
            }
            Landed::Released { releases, answer } => self.released(releases, answer),
        }
    }

    /// Cancels the handlers that have timed out: each has ended before its record is retried.
    pub(super) fn expire(&mut self) {
        let now = tokio::time::Instant::now();
        let mut expired = Vec::new();
        while let Some(Deadline { at, ticket, serial }) = self.deadlines.front().copied() {
            let runs = self.running.get(ticket).is_some_and(|running| running.serial == serial);
            if runs && at > now {
                self.deadline.set(at, ());
                break;
            }
            self.deadlines.pop_front();
            if runs {
                expired.push(ticket);
            }
        }
        if expired.is_empty() {
            return;
        }
        self.drop_flights(|ticket| expired.contains(&ticket));
        let limit = self.shared.policy.handler_timeout.unwrap_or_default();
        for ticket in expired {
            let running = self.running.remove(ticket);
            self.finished(running.work, Err(Box::new(TimedOut(limit))));
        }
    }

    /// Drops the futures of handlers; their resources are released before any other work begins.
    pub(super) fn drop_flights(&mut self, unwanted: impl Fn(usize) -> bool) {
        for flight in std::mem::take(&mut self.flights) {
            match flight {
                Flight::Handler { ticket, future, .. } if unwanted(ticket) => {
                    // A destructor of the handler's own may panic; that must not stop the worker.
                    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(future)));
                    if dropped.is_err() {
                        tracing::error!("a handler's future panicked while it was dropped");
                    }
                }
                flight => self.flights.push(flight),
            }
        }
    }

    fn published(&mut self, work: Vec<Publishing>, answers: Vec<Result<Position>>) {
        self.calls.publishing = false;
        let mut answers = answers.into_iter();
        let mut again = Vec::new();
        for mut publishing in work {
            let mut left = Vec::new();
            let mut down = None;
            let mut refused = None;
            for record in std::mem::take(&mut publishing.records) {
                match answers.next() {
                    Some(Ok(_)) => {}
                    Some(Err(error)) if error.is_infrastructure() => {
                        down = Some(error.report());
                        left.push(record);
                    }
                    Some(Err(error)) => refused = Some((error.kind(), error.report())),
                    None => left.push(record),
                }
            }
            if let Some((kind, text)) = refused {
                let text = format!("publish what the handler returned: {text}");
                // The record that caused it is unknown here: each record is passed to the handler alone.
                self.wholly_failed(publishing.work.items, kind, &text, false);
            } else if left.is_empty() {
                self.handled(publishing.work.items.into_vec(), publishing.completed);
            } else if publishing.work.items.as_slice().iter().any(|item| item.assigned.is_cancelled()) {
                self.abandon(publishing.work);
            } else {
                publishing.records = left;
                publishing.attempts += 1;
                if publishing.attempts >= PUBLISHED_ALONE {
                    publishing.work.items.as_mut_slice().iter_mut().for_each(|item| item.alone = None);
                }
                let text = down.unwrap_or_else(|| "the publisher gave no answer".to_owned());
                if let Some(first) = publishing.work.items.as_mut_slice().first_mut() {
                    Self::raise(&self.reports, first, Cause::Publisher, &text);
                }
                again.push(publishing);
            }
        }
        if !again.is_empty() {
            let attempts = again.iter().map(|p| p.attempts).max().unwrap_or(1);
            let at = self.later(attempts);
            self.timers.set(at, Due::Publish(again));
        }
    }

    fn completed(&mut self, items: Vec<PendingRecord>, answer: Result<Vec<Result<()>>>) {
        self.calls.completing = false;
        match answer {
            Ok(answers) => {
                let mut fenced = Vec::new();
                let mut answers = answers.into_iter();
                for item in items {
                    match answers.next() {
                        Some(Ok(())) => self.settle_item(item, RecordOutcome::Handled, None),
                        Some(Err(error)) if error.kind() == ErrorKind::Fenced => fenced.push(item),
                        Some(Err(error)) => self.complete_later(vec![item], &error.report()),
                        None => self.complete_later(vec![item], "the idempotency store gave no answer"),
                    }
                }
                self.all_held(fenced);
            }
            // The lease has expired, and its claims with it: the current owner of each event decides.
            Err(error) if error.kind() == ErrorKind::Fenced => {
                self.shared.fenced();
                self.all_held(items);
            }
            Err(error) => self.complete_later(items, &error.report()),
        }
    }

    /// Retries only the completion; the handler does not run again.
    fn complete_later(&mut self, mut items: Vec<PendingRecord>, text: &str) {
        let Some(first) = items.first_mut() else { return };
        first.waits = first.waits.saturating_add(1);
        let waits = first.waits;
        Self::raise(&self.reports, first, Cause::Store, text);
        let at = self.later(waits);
        self.timers.set(at, Due::Complete(items));
    }

    /// As [`held`](Self::held), for several items that were handled together: the first of each lane is claimed first.
    pub(super) fn all_held(&mut self, mut items: Vec<PendingRecord>) {
        items.iter_mut().for_each(|item| item.claim = Claimed::No);
        self.first_of_lanes(items).into_iter().for_each(|item| self.held(item, None));
    }

    /// Handles an event that another lease has, or may have: it is claimed again later, and its lane waits.
    fn held(&mut self, mut item: PendingRecord, at_most: Option<std::time::Duration>) {
        (item.claim, item.alone) = (Claimed::No, None);
        if item.assigned.is_stopping() {
            self.drop_item(item);
            return;
        }
        self.enter(&mut item);
        self.give_back_behind(&item);
        item.waits = item.waits.saturating_add(1);
        let mut at = self.later(item.waits);
        if let Some(at_most) = at_most {
            at = at.min(after(tokio::time::Instant::now(), at_most.max(super::INFRASTRUCTURE_BASE)));
        }
        self.timers.set(at, Due::Claim(item));
    }

    /// Releases the claims behind a held event: one may be a repeat of it, or two services could wait for each other.
    fn give_back_behind(&mut self, item: &PendingRecord) {
        let Some(lane) = item.lane else { return };
        let mut given_back = Vec::new();
        for waiting in self.busy.waiting_mut(lane) {
            if let Claimed::Granted(_, hold) = waiting.claim.take() {
                given_back.push(hold);
            }
        }
        given_back.into_iter().for_each(|hold| self.release(hold, 0));
    }

    fn buried(&mut self, letters: Vec<Burying>, answers: Vec<Result<()>>) {
        self.calls.burying = false;
        let mut answers = answers.into_iter();
        let mut again = Vec::new();
        for mut burying in letters {
            match answers.next() {
                Some(Ok(())) => {
                    self.tell_unburied(&burying, None);
                    // The record is finished: a redriven letter starts anew.
                    burying.item.told = burying.item.failures;
                    self.give_claim_back(&mut burying.item);
                    let text = burying.letter.error;
                    self.settle_item(burying.item, RecordOutcome::DeadLettered, Some(&text));
                }
                _ if burying.item.assigned.is_cancelled() => self.drop_item(burying.item),
                _ if self.is_to_skip(&burying) => self.skip_letter(burying),
                answer => {
                    let text = match answer {
                        Some(Err(error)) => error.report(),
                        _ => "the dead-letter sink gave no answer".to_owned(),
                    };
                    burying.attempts += 1;
                    self.tell_unburied(&burying, Some(&text));
                    tracing::warn!(
                        topic = %burying.item.assigned.origin.topic,
                        partition = burying.item.assigned.origin.partition,
                        offset = burying.letter.record.offset,
                        error = %text,
                        "a dead letter could not be written; its partition waits"
                    );
                    let text = format!("offset {}: {text}", burying.letter.record.offset);
                    Self::raise(&self.reports, &mut burying.item, Cause::DeadLetters, &text);
                    again.push(burying);
                }
            }
        }
        self.to_skip.clear();
        if !again.is_empty() {
            let attempts = again.iter().map(|b| b.attempts).max().unwrap_or(1);
            let at = self.later(attempts);
            self.timers.set(at, Due::Bury(again));
        }
    }

    fn claimed(&mut self, items: Vec<PendingRecord>, (holds, answer): Answered, chunk: bool) {
        if chunk {
            self.calls.claiming_chunk = false;
        } else {
            self.calls.claiming = false;
        }
        let claims = match answer {
            Ok(claims) => claims,
            Err(error) => return self.claim_later(items, holds, &error, chunk),
        };
        let mut free = std::collections::VecDeque::with_capacity(items.len());
        let mut held_lanes = std::collections::HashSet::new();
        for ((mut item, claim), hold) in items.into_iter().zip(claims).zip(holds) {
            self.set_trouble(&mut item, None, "");
            if item.assigned.is_stopping() && claim != Claim::Done {
                // Released at once, not when its turn comes among the remaining items: the next owner waits for it.
                if let (Claim::Granted(history), Some(hold)) = (claim, hold) {
                    item.claim = Claimed::Granted(history, hold);
                }
                self.drop_item(item);
                continue;
            }
            let behind_held = item.lane.is_some_and(|lane| held_lanes.contains(&lane));
            let claim = self.since_redriven(claim, &item);
            item.suspect = false;
            match (claim, hold) {
                (Claim::Done, _) => self.settle_item(item, RecordOutcome::Duplicate, None),
                (Claim::Granted(_), Some(hold)) if behind_held => {
                    // Behind a held event no claim is kept: two services could wait for each other.
                    self.release(hold, 0);
                    free.push_back(item);
                }
                // It runs alone, and is claimed just before: while others run alone, their crash must not end its
                // claim.
                (Claim::Granted(history), Some(hold)) if (LONE_DEATHS..MAX_DEATHS).contains(&history.crashes) => {
                    self.release(hold, 0);
                    item.suspect = true;
                    free.push_back(item);
                }
                (Claim::Granted(history), Some(hold)) => {
                    item.waits = 0;
                    item.claim = Claimed::Granted(history, hold);
                    free.push_back(item);
                }
                // At the head of its lane it waits there; in a chunk it first waits for its turn, and is claimed again
                // then.
                (Claim::Held { at_most }, hold) if !chunk => {
                    if let Some(hold) = hold.filter(|_| item.waits >= OFTEN_HELD) {
                        self.release(hold, 0);
                    }
                    self.held(item, Some(at_most));
                }
                _ => {
                    held_lanes.extend(item.lane);
                    free.push_back(item);
                }
            }
        }
        if chunk {
            self.backlog.push_back(super::Backlog::Items(free));
        } else {
            self.ready.extend(free);
        }
    }

    /// Starts the lone item if it was claimed; otherwise other deliveries may run again.
    fn claimed_alone(&mut self, mut items: Vec<PendingRecord>, (mut holds, answer): Answered) {
        let claim = match answer {
            Ok(claims) => claims.into_iter().next(),
            Err(error) => return self.claim_later(items, holds, &error, false),
        };
        let Some(mut item) = items.pop() else { return };
        self.set_trouble(&mut item, None, "");
        match (claim.map(|claim| self.since_redriven(claim, &item)), holds.pop().flatten()) {
            (Some(Claim::Granted(history)), Some(hold)) => {
                let begins = hold.is_current();
                (item.waits, item.claim) = (0, Claimed::Granted(history, hold));
                if item.assigned.is_stopping() {
                    self.drop_item(item);
                } else if !begins {
                    // The answer took longer than its lease is certainly valid.
                    self.disclaim(&mut item);
                    self.held(item, None);
                } else if history.crashes >= MAX_DEATHS {
                    self.bury_killer(item, history.crashes);
                } else {
                    self.start_items(Items::One(item), false);
                }
            }
            (Some(Claim::Done), _) => self.settle_item(item, RecordOutcome::Duplicate, None),
            _ => self.held(item, None),
        }
    }

    /// Returns a claim without the history from before the record's last redrive: a redriven record starts anew. The
    /// store keeps lease expiries and attempts also after the record was dead-lettered for them.
    fn since_redriven(&self, claim: Claim, item: &PendingRecord) -> Claim {
        let Claim::Granted(history) = claim else { return claim };
        if history == History::default() {
            return claim;
        }
        let redriven = Redriven::of(&item.assigned.origin.topic, &item.record.records()[0].headers);
        let redriven = redriven.filter(|redriven| redriven.is_for(&self.shared.identity.service));
        let times = redriven.map_or(0, |redriven| redriven.count.min(FORGIVEN));
        let crashes = history.crashes.saturating_sub(times * MAX_DEATHS);
        let attempts = times.saturating_mul(self.shared.policy.retry.max_retries.saturating_add(1));
        Claim::Granted(History::new(crashes, history.attempts.saturating_sub(attempts)))
    }

    fn claim_later(
        &mut self,
        items: Vec<PendingRecord>,
        holds: Vec<Option<Hold>>,
        error: &tidings_core::Error,
        chunk: bool,
    ) {
        match error.kind() {
            ErrorKind::Fenced => self.shared.fenced(),
            // This lease may have claimed them, and they would stay held as long as it is renewed.
            ErrorKind::Indeterminate => holds.into_iter().flatten().for_each(|hold| self.release(hold, 0)),
            _ => {}
        }
        // Items whose partition is being revoked are not claimed again.
        let (stopping, mut items): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.assigned.is_stopping());
        stopping.into_iter().for_each(|item| self.drop_item(item));
        let Some(first) = items.first_mut() else { return };
        first.waits = first.waits.saturating_add(1);
        let waits = first.waits;
        Self::raise(&self.reports, first, Cause::Store, &error.report());
        let at = self.later(waits);
        items.iter_mut().for_each(|item| item.alone = None);
        if chunk {
            // Chunks are claimed in order: the next one waits for this one.
            self.calls.claiming_chunk = true;
            self.timers.set(at, Due::ClaimChunk(items));
        } else {
            items.into_iter().for_each(|item| self.timers.set(at, Due::Claim(item)));
        }
    }
}
