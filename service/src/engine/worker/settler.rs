//! Takes a record from its handler's result to settled: its events are published or its letter is written, then its
//! claim is completed. The only writer of settled lists; knows not how the effects are made.

use std::sync::Arc;
use std::task::{Context, Poll};

use tidings_core::{DeadLetter, Error, ErrorKind, Record};
use tokio::time::Instant;

use super::records::Records;
use super::request_queue::{Entry, RequestQueue, Sent};
use super::settle_requests::{Bury, Burying, Complete, Forward, Forwarding, Publish, Publishing};
use super::timers::earliest;
use crate::engine::assigned::{Assigned, AssignmentId};
use crate::engine::messages::{Cause, Events, Settled, WorkerEvent};
use crate::engine::record::{PendingRecord, Stage, raise_troubles};
use crate::engine::settlement::Output;
use crate::engine::shared::Shared;
use crate::logs;
use crate::telemetry::HoldCause;

/// The capacity of a settled list from a batch's second settled record on: 1 KiB, which allocators keep at hand.
const INDEXES: usize = 255;
/// After this many failed requests, other deliveries no longer wait for the events of an isolated one: its topic may
/// be unavailable for long, and theirs are not.
const PUBLISHED_ALONE: u32 = 3;

#[derive(Debug)]
pub(super) struct Settler {
    shared: Arc<Shared>,
    events: Events,
    publishing: RequestQueue<Publish>,
    forwarding: RequestQueue<Forward>,
    burying: RequestQueue<Bury>,
    completing: RequestQueue<Complete>,
    /// Letters in flight that an operator has skipped, if they cannot be written.
    skips: Vec<(AssignmentId, u64)>,
    settled: Vec<Settled>,
}

/// The outcome of a record.
#[derive(Debug)]
pub(super) enum Done {
    /// The events of a delivery are published.
    Published {
        records: Records,
        completed: bool,
    },
    /// An event of a delivery was refused for good.
    Refused(Records, Arc<Error>),
    Completed(PendingRecord),
    /// The broker has the record in its retry topic.
    Forwarded(PendingRecord),
    /// The record was refused by its retry topic for good.
    NotForwarded(PendingRecord, Arc<Error>),
    /// Another lease has, or may have, the claims of these records.
    LeaseLost(Vec<PendingRecord>),
    /// The dead letter is written, with this error.
    Buried(PendingRecord, ErrorKind, String),
    /// An operator skipped a letter that cannot be written.
    Skipped(PendingRecord),
    /// The assignment ended before.
    Cancelled(Records),
}

impl Settler {
    pub(super) fn new(shared: &Arc<Shared>, events: Events, random: &mut fastrand::Rng) -> Self {
        let settlement = &shared.backends.settlement;
        Self {
            shared: shared.clone(),
            events,
            publishing: RequestQueue::new(Publish(settlement.clone()), random.u64(..)),
            burying: RequestQueue::new(Bury(settlement.clone()), random.u64(..)),
            completing: RequestQueue::new(Complete(shared.clone()), random.u64(..)),
            forwarding: RequestQueue::new(Forward(settlement.clone()), random.u64(..)),
            skips: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// Settles the record at `index` of a batch.
    pub(super) fn settle(&mut self, assigned: &Arc<Assigned>, number: u64, index: u32) {
        match self.settled.last_mut() {
            Some(last) if last.assigned.id == assigned.id && last.number == number => {
                if last.indexes.len() == 1 {
                    last.indexes.reserve(INDEXES);
                }
                last.indexes.push(index);
            }
            _ => self.settled.push(Settled { assigned: assigned.clone(), number, indexes: vec![index] }),
        }
    }

    /// Settles several records of a batch.
    pub(super) fn settle_all(&mut self, assigned: &Arc<Assigned>, number: u64, indexes: impl Iterator<Item = u32>) {
        match self.settled.last_mut() {
            Some(last) if last.assigned.id == assigned.id && last.number == number => last.indexes.extend(indexes),
            _ => self.settled.push(Settled { assigned: assigned.clone(), number, indexes: indexes.collect() }),
        }
    }

    /// Returns the records that were settled since the last call.
    pub(super) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Publishes the events of a delivery.
    pub(super) fn publish(&mut self, mut records: Records, events: Vec<Record>, completed: bool) {
        records.advance(Stage::Publishing);
        let Some(first) = records.as_slice().first() else { return };
        let output = Output { assignment: first.assignment(), offset: first.stored().offset, records: events };
        self.publishing.push(Publishing { records, output, completed });
    }

    /// Forwards a record to its retry topic.
    pub(super) fn forward(&mut self, mut record: PendingRecord, forwarded: Record) {
        record.advance(Stage::Forwarding);
        self.forwarding.push(Forwarding { record, forwarded });
    }

    /// Writes a dead letter.
    pub(super) fn bury(&mut self, mut record: PendingRecord, letter: DeadLetter) {
        record.advance(Stage::Burying);
        self.burying.push(Burying { record, letter });
    }

    /// Completes a record's claim.
    pub(super) fn complete(&mut self, mut record: PendingRecord) {
        record.advance(Stage::Completing);
        self.completing.push(record);
    }

    /// Skips the letter of the record at `offset`, if it could not be written: at once, or when the request in flight
    /// fails, too.
    pub(super) fn skip(&mut self, assignment: AssignmentId, offset: u64) -> Option<PendingRecord> {
        let failed = |entry: &Entry<Burying>| entry.failures > 0 && entry.item.is_at(assignment, offset);
        let skipped = self.burying.take_where(failed).pop();
        if skipped.is_none() && self.burying.is_in_flight() {
            self.skips.push((assignment, offset));
        }
        skipped.map(|burying| burying.record)
    }

    /// Returns the records that wait for a request.
    pub(super) fn records(&self) -> impl Iterator<Item = &PendingRecord> {
        let publishing = self.publishing.items().flat_map(|publishing| publishing.records.as_slice());
        let forwarding = self.forwarding.items().map(|forwarding| &forwarding.record);
        publishing
            .chain(forwarding)
            .chain(self.burying.items().map(|burying| &burying.record))
            .chain(self.completing.items())
    }

    /// Returns what a request in flight was sent to, if there is one.
    pub(super) fn in_flight(&self) -> Option<HoldCause> {
        let requests = [
            (self.publishing.is_in_flight() || self.forwarding.is_in_flight(), HoldCause::Publisher),
            (self.burying.is_in_flight(), HoldCause::DeadLetters),
            (self.completing.is_in_flight(), HoldCause::Store),
        ];
        requests.into_iter().find(|(is_in_flight, _)| *is_in_flight).map(|(_, cause)| cause)
    }

    /// Returns when a failed request is sent again.
    pub(super) fn due(&self) -> Option<Instant> {
        earliest([self.publishing.due(), self.forwarding.due(), self.burying.due(), self.completing.due()])
    }

    /// Sends what waits, and adds what was done to `done`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, done: &mut Vec<Done>) {
        while let Poll::Ready(sent) = self.publishing.poll(cx, now, false) {
            self.published(sent, now, done);
        }
        while let Poll::Ready(sent) = self.forwarding.poll(cx, now, false) {
            self.forwarded(sent, now, done);
        }
        while let Poll::Ready(sent) = self.burying.poll(cx, now, false) {
            self.buried(sent, now, done);
        }
        while let Poll::Ready(sent) = self.completing.poll(cx, now, false) {
            self.completed(sent, now, done);
        }
    }

    fn published(&mut self, (entries, answers): Sent<Publish>, now: Instant, done: &mut Vec<Done>) {
        let mut again = Vec::new();
        for (mut entry, answer) in entries.into_iter().zip(answers) {
            let Publishing { records, completed, output } = &mut entry.item;
            match answer {
                Ok(()) => {
                    let Publishing { records, completed, .. } = entry.item;
                    done.push(Done::Published { records, completed });
                }
                Err(error) if !error.is_infrastructure() => done.push(Done::Refused(entry.item.records, error)),
                Err(_) if records.is_cancelled() => done.push(Done::Cancelled(entry.item.records)),
                Err(error) => {
                    tracing::debug!(offset = output.offset, completed, error = %error.report(), "events not published");
                    if entry.failures + 1 >= PUBLISHED_ALONE {
                        records.as_mut_slice().iter_mut().for_each(PendingRecord::drop_permit);
                    }
                    let first = records.as_mut_slice().iter_mut().take(1);
                    raise_troubles(first, &self.events, Cause::Publisher, &error.report());
                    again.push(entry);
                }
            }
        }
        self.publishing.retry(again, now);
    }

    fn forwarded(&mut self, (entries, answers): Sent<Forward>, now: Instant, done: &mut Vec<Done>) {
        let mut again = Vec::new();
        for (mut entry, answer) in entries.into_iter().zip(answers) {
            let record = &mut entry.item.record;
            match answer {
                Ok(()) => done.push(Done::Forwarded(entry.item.record)),
                Err(error) if !error.is_infrastructure() => done.push(Done::NotForwarded(entry.item.record, error)),
                Err(_) if record.id.assigned.is_cancelled() => {
                    done.push(Done::Cancelled(Records::One(entry.item.record)));
                }
                Err(error) => {
                    record.raise_trouble(&self.events, Cause::Publisher, &error.report());
                    again.push(entry);
                }
            }
        }
        self.forwarding.retry(again, now);
    }

    fn buried(&mut self, (entries, answers): Sent<Bury>, now: Instant, done: &mut Vec<Done>) {
        let mut again = Vec::new();
        for (mut entry, answer) in entries.into_iter().zip(answers) {
            let record = &mut entry.item.record;
            let (assignment, offset) = (record.assignment(), record.offset());
            match answer {
                Ok(()) => {
                    if entry.failures > 0 {
                        self.send(WorkerEvent::Unburied { assignment, offset, error: None });
                    }
                    let Burying { record, letter } = entry.item;
                    done.push(Done::Buried(record, letter.kind, letter.error));
                }
                Err(_) if record.id.assigned.is_cancelled() => {
                    done.push(Done::Cancelled(Records::One(entry.item.record)));
                }
                Err(_) if self.skips.contains(&(assignment, offset)) => done.push(Done::Skipped(entry.item.record)),
                Err(error) => {
                    self.not_buried(record, offset, &error);
                    again.push(entry);
                }
            }
        }
        self.skips.clear();
        self.burying.retry(again, now);
    }

    fn not_buried(&self, record: &mut PendingRecord, offset: u64, error: &Error) {
        let text = error.report();
        let origin = &record.id.assigned.origin;
        let about = ("letter_not_written", record.handler.map(|handler| handler as usize), error.kind().as_str());
        if let Some(held_back) = self.shared.limiter.pass(about, Instant::now()) {
            let line = logs::LetterNotWritten {
                service: &self.shared.identity.service.as_str(),
                topic: &origin.topic.as_str(),
                partition: &origin.partition,
                offset: &offset,
                error: &text,
                held_back: &held_back,
            };
            line.log();
        }
        let (assignment, error) = (record.assignment(), Some(text.clone()));
        self.send(WorkerEvent::Unburied { assignment, offset, error });
        record.raise_trouble(&self.events, Cause::DeadLetters, &format!("offset {offset}: {text}"));
    }

    /// A failed completion is repeated alone; the handler does not run again.
    fn completed(&mut self, (entries, answers): Sent<Complete>, now: Instant, done: &mut Vec<Done>) {
        let (mut again, mut lost, mut text) = (Vec::new(), Vec::new(), String::new());
        for (entry, answer) in entries.into_iter().zip(answers) {
            match answer {
                Ok(()) => done.push(Done::Completed(entry.item)),
                Err(error) if error.kind() == ErrorKind::Fenced => lost.push(entry.item),
                Err(error) => {
                    text = error.report();
                    again.push(entry);
                }
            }
        }
        if !lost.is_empty() {
            done.push(Done::LeaseLost(lost));
        }
        raise_troubles(again.iter_mut().map(|entry| &mut entry.item), &self.events, Cause::Store, &text);
        self.completing.retry(again, now);
    }

    /// Cancels what is not in flight of an assignment whose time is over. Handled events are completed for as long as
    /// their claims are valid.
    pub(super) fn revoke(&mut self, assignment: AssignmentId, out: &mut Vec<PendingRecord>) {
        let published = self.publishing.take_where(|entry| entry.item.records.is_of(assignment));
        out.extend(published.into_iter().flat_map(|publishing| publishing.records.into_vec()));
        let forwarded = self.forwarding.take_where(|entry| entry.item.record.assignment() == assignment);
        out.extend(forwarded.into_iter().map(|forwarding| forwarding.record));
        let buried = self.burying.take_where(|entry| entry.item.record.assignment() == assignment);
        out.extend(buried.into_iter().map(|burying| burying.record));
    }

    fn send(&self, event: WorkerEvent) {
        // If the coordinator is gone, no event is needed.
        let _ = self.events.send(event);
    }
}
