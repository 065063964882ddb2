//! Calls to publishers, stores and sinks: batched, with at most one call of each kind in flight.

use std::collections::VecDeque;

use tidings_core::{ErrorKind, EventRef, Name, ReleasedClaim, Result, event_id_of};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::flight::{Asked, Call, Flight, Items, Landed, Work};
use super::{Backlog, Burying, Due, Publishing, Worker};
use crate::engine::claims::Hold;
use crate::engine::gate::Pass;
use crate::engine::messages::{Cause, Chunk, IsolationPermit, WorkerEvent};
use crate::engine::record::{Claimed, PendingRecord};
use crate::engine::routing::Verdict;

/// The maximum number of events that one call claims or completes.
const CALL_EVENTS: usize = 5_000;
/// After this many consecutive failed release calls, deliveries that must run alone no longer wait for the next one.
const RELEASES_AWAITED: u32 = 3;

/// The calls in flight, by kind.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) publishing: bool,
    pub(super) completing: bool,
    pub(super) burying: bool,
    pub(super) claiming: bool,
    pub(super) claiming_chunk: bool,
    /// The number of `claim` calls in flight.
    pub(super) claims: usize,
    pub(super) releasing: bool,
}

impl Worker {
    /// Makes the calls that have gathered. Returns whether any was made.
    pub(super) fn make_calls(&mut self) -> bool {
        let made = [
            self.publish_returned(),
            self.call_complete(),
            self.call_bury(),
            self.call_claim(),
            self.claim_chunks(),
            self.call_release(),
        ];
        made.into_iter().any(|made| made)
    }

    fn fly(&self, call: Call) {
        self.flights.push(Flight::Call(call));
    }

    fn publish_returned(&mut self) -> bool {
        if self.calls.publishing || self.to_publish.is_empty() {
            return false;
        }
        self.calls.publishing = true;
        let work: Vec<Publishing> = std::mem::take(&mut self.to_publish);
        let records: Vec<_> = work.iter().flat_map(|publishing| publishing.records.iter().cloned()).collect();
        let publisher = self.shared.backends.publisher.clone();
        self.fly(Box::pin(async move {
            let answers = publisher.publish(records).await;
            Landed::Published { work, answers }
        }));
        true
    }

    fn call_complete(&mut self) -> bool {
        let Some(claims) =
            self.shared.backends.store.clone().filter(|_| !self.calls.completing && !self.to_complete.is_empty())
        else {
            return false;
        };
        let mut items = up_to_a_call(&mut self.to_complete);
        let by = |item: &PendingRecord| match &item.claim {
            Claimed::Granted(_, hold) => Some(hold.lease().clone()),
            _ => None,
        };
        let Some(lease) = items.first().and_then(by) else {
            // An event handled without a claim is never completed; none reaches this point.
            self.all_held(items);
            return true;
        };
        // Completes under the lease that claimed the events, even if it has expired: an event that no other lease has
        // claimed since still belongs to it, and need not be handled again. The other items follow in later calls.
        if items.iter().any(|item| by(item).is_none_or(|by| by.id != lease.id)) {
            let others: Vec<PendingRecord>;
            (items, others) = items.into_iter().partition(|item| by(item).is_some_and(|by| by.id == lease.id));
            self.to_complete.extend(others);
        }
        self.calls.completing = true;
        let events: Vec<EventRef> = items.iter_mut().map(|item| self.event_ref(item)).collect();
        self.fly(Box::pin(async move {
            let answer = claims.store.complete(&lease, &events).await;
            Landed::Completed { items, answer }
        }));
        true
    }

    fn call_bury(&mut self) -> bool {
        if self.calls.burying || self.to_bury.is_empty() {
            return false;
        }
        self.calls.burying = true;
        let letters: Vec<Burying> = std::mem::take(&mut self.to_bury);
        let sent = letters.iter().map(|burying| burying.letter.clone()).collect();
        let sink = self.shared.backends.sink.clone();
        self.fly(Box::pin(async move {
            let answers = sink.bury(sent).await;
            Landed::Buried { letters, answers }
        }));
        true
    }

    /// Claims the items at the heads of their lanes.
    fn call_claim(&mut self) -> bool {
        if self.calls.claiming || self.to_claim.is_empty() || self.shared.gate.is_lone() {
            return false;
        }
        self.calls.claiming = true;
        let items = up_to_a_call(&mut self.to_claim);
        self.claim(items, Asked::Heads);
        true
    }

    /// Claims the waiting chunks, in one call as far as they fit: chunks that arrive during a call share the next one,
    /// so a slow store gets larger calls.
    fn claim_chunks(&mut self) -> bool {
        // A claim made while a lone delivery runs would be lost if that delivery crashes the process.
        if self.shared.gate.is_lone() {
            return false;
        }
        if let Some(items) = self.reclaim.take() {
            self.claim(items, Asked::Chunk);
            return true;
        }
        if self.calls.claiming_chunk || self.unclaimed.is_empty() {
            return false;
        }
        let mut items = Vec::new();
        while let Some(chunk) = self.unclaimed.pop_front() {
            if chunk.assigned.is_stopping() {
                self.dropped = true;
            } else {
                self.itemise(&chunk, &mut items);
            }
            let next = self.unclaimed.front().map_or(0, |chunk| chunk.indexes.len());
            if items.len() + next > CALL_EVENTS {
                break;
            }
        }
        if !items.is_empty() {
            self.calls.claiming_chunk = true;
            self.claim(items, Asked::Chunk);
        }
        true
    }

    /// Creates items of a chunk's records that have a handler. The others are settled, or wait for the gate.
    fn itemise(&mut self, chunk: &Chunk, items: &mut Vec<PendingRecord>) {
        items.reserve(chunk.indexes.len());
        let mut unreadable = VecDeque::new();
        for index in chunk.at..chunk.indexes.len() {
            let Some(place) = chunk.indexes.get(index) else { break };
            let record = &chunk.batch.records()[place as usize];
            match Verdict::of(&self.shared, &chunk.assigned.origin.topic, record) {
                Verdict::Handler(handler) => items.push(self.item(chunk, place, handler)),
                Verdict::Undecodable(_) => unreadable.push_back(self.unreadable(chunk, place)),
                verdict => {
                    let item = self.unreadable(chunk, place);
                    self.unroutable(item, verdict, Pass::Free);
                }
            }
        }
        if !unreadable.is_empty() {
            self.backlog.push_back(Backlog::Items(unreadable));
        }
    }

    /// Claims an item that runs alone.
    pub(super) fn claim_alone(&mut self, item: PendingRecord, alone: IsolationPermit) {
        self.claim(vec![PendingRecord { alone: Some(alone), ..item }], Asked::Alone);
    }

    /// Returns whether a call that claims or releases is unanswered.
    ///
    /// A store that refuses releases repeatedly is not waited for: otherwise suspects would never run. At worst an
    /// innocent event is counted as claimed by a lease that expired.
    pub(super) fn claims_are_open(&self) -> bool {
        let given_back = self.calls.releasing || !self.to_release.is_empty() || !self.release_again.is_empty();
        self.calls.claims > 0 || given_back && self.release_failures < RELEASES_AWAITED
    }

    fn claim(&mut self, mut items: Vec<PendingRecord>, asked: Asked) {
        let Some(claims) = self.shared.backends.store.clone() else { return };
        self.calls.claims += 1;
        let events: Vec<EventRef> = items.iter_mut().map(|item| self.event_ref(item)).collect();
        let lease = claims.lease();
        self.fly(Box::pin(async move {
            let answered = match lease {
                Some(lease) => claims.claim(&lease, &events).await,
                None => (Vec::new(), Err(claims.no_lease())),
            };
            Landed::Claimed { items, answered, asked }
        }));
    }

    fn call_release(&mut self) -> bool {
        if self.calls.releasing || self.to_release.is_empty() {
            return false;
        }
        let Some((claims, lease)) =
            self.shared.backends.store.clone().and_then(|claims| claims.lease().map(|h| (claims, h)))
        else {
            return false;
        };
        // An earlier lease's claims ended with it; this lease may have claimed the same events itself.
        let mut releases = std::mem::take(&mut self.to_release);
        releases.retain(|(hold, _)| hold.lease().id == lease.id);
        if releases.is_empty() {
            return true;
        }
        self.calls.releasing = true;
        self.fly(Box::pin(async move {
            let events: Vec<ReleasedClaim> = releases.iter().map(|(_, release)| *release).collect();
            let answer = claims.store.release(&lease, &events).await;
            Landed::Released { releases, answer }
        }));
        true
    }

    pub(super) fn released(&mut self, releases: Vec<(Hold, ReleasedClaim)>, answer: Result<()>) {
        self.calls.releasing = false;
        match answer {
            Ok(()) => self.release_failures = 0,
            // The lease has expired, and its claims with it.
            Err(error) if error.kind() == ErrorKind::Fenced => self.shared.fenced(),
            Err(error) => {
                // This lease is still valid: a claim that is not released would block every other consumer.
                tracing::warn!(error = %error.report(), claims = releases.len(), "claims could not be given back yet");
                self.release_failures = self.release_failures.saturating_add(1);
                self.release_again.extend(releases);
                let at = self.later(self.release_failures);
                self.timers.set(at, Due::ReleasedClaim);
            }
        }
    }

    /// Releases the item's claim, if it has one, and reports the attempts that were made under it.
    pub(super) fn give_claim_back(&mut self, item: &mut PendingRecord) {
        let Claimed::Granted(_, hold) = item.claim.take() else { return };
        let attempts = item.failures - item.told;
        item.told = item.failures;
        self.release(hold, attempts);
    }

    /// Drops a claim that may have ended with its lease, and releases it in case it has not: a lease that stays valid
    /// would keep it, and this service would find the event held by itself. The release may not reach the store, so
    /// the attempts are kept here and reported later.
    pub(super) fn disclaim(&mut self, item: &mut PendingRecord) {
        if let Claimed::Granted(_, hold) = item.claim.take() {
            self.release(hold, 0);
        }
    }

    pub(super) fn release(&mut self, hold: Hold, attempts: u32) {
        let release = ReleasedClaim::new(hold.event(), attempts);
        self.to_release.push((hold.giving_back(), release));
    }

    /// Returns the item's event id, which is read from its record once.
    pub(super) fn event_id(&self, item: &mut PendingRecord) -> Uuid {
        *item.event_id.get_or_insert_with(|| event_id_of(&item.assigned.origin, &item.record.records()[0]))
    }

    fn event_ref(&self, item: &mut PendingRecord) -> EventRef {
        let id = self.event_id(item);
        let table = self.routes.table();
        let known = (item.handler < table.len()).then(|| table.info(item.handler).event_type.clone()).flatten();
        let context = self.contexts.get(item.handler);
        let id = context.map_or(id, |context| context.id_in_store(&item.assigned.origin.topic, id));
        EventRef::new(id, known.unwrap_or_else(|| Name::from_static("")))
    }

    /// As `set_trouble`, for an item in a list that is borrowed separately from the worker.
    pub(super) fn raise(
        reports: &mpsc::UnboundedSender<WorkerEvent>,
        item: &mut PendingRecord,
        cause: Cause,
        text: &str,
    ) {
        if item.trouble == Some(cause) {
            return;
        }
        let slot = item.assigned.id;
        if let Some(over) = item.trouble.replace(cause) {
            let _ = reports.send(WorkerEvent::Trouble {
                assignment: slot,
                cause: over,
                raised: false,
                text: String::new(),
            });
        }
        let _ = reports.send(WorkerEvent::Trouble { assignment: slot, cause, raised: true, text: text.to_owned() });
    }

    /// Ends a delivery whose handler did not finish: its permits are returned.
    pub(super) fn abandon(&mut self, work: Work) {
        if work.probe {
            self.return_probe();
        }
        match work.items {
            Items::One(item) => self.drop_item(item),
            Items::Many(items) => items.into_iter().for_each(|item| self.drop_item(item)),
        }
    }
}

/// Takes the items of one call from `items`. Usually these are all, and nothing is moved.
fn up_to_a_call(items: &mut Vec<PendingRecord>) -> Vec<PendingRecord> {
    if items.len() <= CALL_EVENTS {
        return std::mem::take(items);
    }
    items.drain(..CALL_EVENTS).collect()
}
