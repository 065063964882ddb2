//! The requests of the settler: to publish events, forward records, write letters and complete claims.

use std::sync::Arc;

use tidings_core::{DeadLetter, Error, ErrorKind, EventRef, Record};

use super::records::Records;
use super::request_queue::{Answer, Entry, MAX_EVENTS, Request, Sending, all_failed};
use crate::engine::assigned::AssignmentId;
use crate::engine::claims::ClaimGuard;
use crate::engine::record::{ClaimState, PendingRecord};
use crate::engine::settlement::{Output, Settlement};
use crate::engine::shared::Shared;

/// A handled delivery, with its events.
#[derive(Debug)]
pub(super) struct Publishing {
    pub(super) records: Records,
    pub(super) output: Output,
    pub(super) completed: bool,
}

/// A record that failed, as it goes to its retry topic.
#[derive(Debug)]
pub(super) struct Forwarding {
    pub(super) record: PendingRecord,
    pub(super) forwarded: Record,
}

/// A record that failed, with its dead letter.
#[derive(Debug)]
pub(super) struct Burying {
    pub(super) record: PendingRecord,
    pub(super) letter: DeadLetter,
}

impl Burying {
    pub(super) fn is_at(&self, assignment: AssignmentId, offset: u64) -> bool {
        self.record.assignment() == assignment && self.record.offset() == offset
    }
}

/// Publishes events.
#[derive(Debug)]
pub(super) struct Publish(pub(super) Arc<dyn Settlement>);

impl Request for Publish {
    type Item = Publishing;
    type Answer = ();
    const PEER: &'static str = "the publisher";

    fn send(&self, mut items: Vec<Entry<Publishing>>) -> Sending<Self> {
        let settlement = self.0.clone();
        Box::pin(async move {
            let take = |entry: &mut Entry<Publishing>| {
                let output = &mut entry.item.output;
                let records = std::mem::take(&mut output.records);
                Output { assignment: output.assignment, offset: output.offset, records }
            };
            let outputs = settlement.publish(items.iter_mut().map(take).collect()).await;
            let answer = |(entry, (output, result)): (&mut Entry<Publishing>, (Output, Result<(), Error>))| {
                entry.item.output = output;
                result.map_err(Arc::new)
            };
            let answers = items.iter_mut().zip(outputs).map(answer).collect();
            (items, answers)
        })
    }
}

/// Forwards records to retry topics.
#[derive(Debug)]
pub(super) struct Forward(pub(super) Arc<dyn Settlement>);

impl Request for Forward {
    type Item = Forwarding;
    type Answer = ();
    const PEER: &'static str = "the publisher";

    fn send(&self, items: Vec<Entry<Forwarding>>) -> Sending<Self> {
        let settlement = self.0.clone();
        Box::pin(async move {
            let records = items.iter().map(|entry| entry.item.forwarded.clone()).collect();
            let answers = settlement.forward(records).await;
            (items, answers.into_iter().map(|answer| answer.map_err(Arc::new)).collect())
        })
    }
}

/// Writes dead letters.
#[derive(Debug)]
pub(super) struct Bury(pub(super) Arc<dyn Settlement>);

impl Request for Bury {
    type Item = Burying;
    type Answer = ();
    const PEER: &'static str = "the dead-letter sink";

    fn send(&self, items: Vec<Entry<Burying>>) -> Sending<Self> {
        let settlement = self.0.clone();
        Box::pin(async move {
            let letters = items.iter().map(|entry| entry.item.letter.clone()).collect();
            let answers = settlement.bury(letters).await;
            (items, answers.into_iter().map(|answer| answer.map_err(Arc::new)).collect())
        })
    }
}

/// Completes claims.
#[derive(Debug)]
pub(super) struct Complete(pub(super) Arc<Shared>);

impl Request for Complete {
    type Item = PendingRecord;
    type Answer = ();
    const PEER: &'static str = "the idempotency store";

    /// Takes events of one lease: they are completed under the lease that claimed them, even if it has expired. An
    /// event that no other lease has claimed since still belongs to it, and need not be handled again.
    fn take(&self, waiting: &mut Vec<Entry<PendingRecord>>) -> Vec<Entry<PendingRecord>> {
        let lease = |entry: &Entry<PendingRecord>| guard(&entry.item).map(|guard| guard.lease().id);
        let first = waiting.first().and_then(lease);
        if waiting.len() <= MAX_EVENTS && waiting.iter().all(|entry| lease(entry) == first) {
            return std::mem::take(waiting);
        }
        let mut room = MAX_EVENTS;
        let takes = |entry: &mut Entry<PendingRecord>| {
            let takes = room > 0 && lease(entry) == first;
            room -= usize::from(takes);
            takes
        };
        waiting.extract_if(.., takes).collect()
    }

    fn send(&self, mut items: Vec<Entry<PendingRecord>>) -> Sending<Self> {
        let shared = self.0.clone();
        Box::pin(async move {
            let lease = items.first().and_then(|entry| guard(&entry.item)).map(|guard| guard.lease().clone());
            let (Some(claims), Some(lease)) = (&shared.backends.store, lease) else {
                // An event handled without a claim is never completed; none reaches this point.
                let count = items.len();
                return (items, all_failed(count, Error::new(ErrorKind::Fenced, "complete events without a claim")));
            };
            let events: Vec<EventRef> = items.iter_mut().map(|entry| shared.event_ref(&mut entry.item)).collect();
            let answers: Vec<Answer<Self>> = match claims.store.complete(&lease, &events).await {
                Ok(answers) => answers.into_iter().map(|answer| answer.map_err(Arc::new)).collect(),
                Err(error) => {
                    if error.kind() == ErrorKind::Fenced {
                        // The lease has expired, and its claims with it: the current owner of each event decides.
                        shared.fenced();
                    }
                    all_failed(items.len(), error)
                }
            };
            (items, answers)
        })
    }
}

fn guard(record: &PendingRecord) -> Option<&ClaimGuard> {
    match &record.claim {
        ClaimState::Granted(_, guard) => Some(guard),
        _ => None,
    }
}
