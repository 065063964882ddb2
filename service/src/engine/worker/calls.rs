//! Calls to publishers, stores and sinks: gathered, so that each carries as much as there is, and one of a kind at a time.

use tidings_core::{EventRef, Name, Release, event_id_of};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::flight::{Call, Flight, Items, Landed, Work};
use super::intake::Verdict;
use super::{Burying, Publishing, Worker};
use crate::engine::work::{Cause, Chunk, Claimed, Item, Report};

/// How many events one call claims or completes at most.
const CALL_EVENTS: usize = 5_000;

/// Which calls wait for their answer.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) publishing: bool,
    pub(super) completing: bool,
    pub(super) burying: bool,
    pub(super) claiming: bool,
    pub(super) claiming_chunk: bool,
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
            self.claim_chunk(),
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
        let publisher = self.shared.publisher.clone();
        self.fly(Box::pin(async move {
            let answers = publisher.publish(records).await;
            Landed::Published { work, answers }
        }));
        true
    }

    fn call_complete(&mut self) -> bool {
        let Some(claims) = self.shared.store.clone().filter(|_| !self.calls.completing && !self.to_complete.is_empty())
        else {
            return false;
        };
        let take = self.to_complete.len().min(CALL_EVENTS);
        let items: Vec<Item> = self.to_complete.drain(..take).collect();
        let Some(holder) = claims.holder() else {
            // Without a holder nothing can be asked; a new one is on its way.
            self.calls.completing = true;
            self.fly(Box::pin(async move { Landed::Completed { items, answer: Err(claims.no_holder()) } }));
            return true;
        };
        // What an earlier holder claimed is not this one's to complete: another delivery of the same event, of a later
        // assignment, may have claimed it by now.
        let claimed = |item: &Item| matches!(item.claim, Claimed::Granted(_, by) if by == holder.id);
        let (mut items, stale): (Vec<_>, Vec<_>) = items.into_iter().partition(claimed);
        self.all_held(stale);
        if items.is_empty() {
            return true;
        }
        self.calls.completing = true;
        let events: Vec<EventRef> = items.iter_mut().map(|item| self.event_ref(item)).collect();
        self.fly(Box::pin(async move {
            let answer = claims.store.complete(&holder, &events).await;
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
        let sink = self.shared.sink.clone();
        self.fly(Box::pin(async move {
            let answers = sink.bury(sent).await;
            Landed::Buried { letters, answers }
        }));
        true
    }

    /// Claims the items that are at the head of their lanes.
    fn call_claim(&mut self) -> bool {
        if self.calls.claiming || self.to_claim.is_empty() {
            return false;
        }
        self.calls.claiming = true;
        let take = self.to_claim.len().min(CALL_EVENTS);
        let items = self.to_claim.drain(..take).collect();
        self.claim(items, false);
        true
    }

    /// Claims the next chunk whole.
    fn claim_chunk(&mut self) -> bool {
        if self.calls.claiming_chunk {
            return false;
        }
        let Some(chunk) = self.unclaimed.pop_front() else { return false };
        if chunk.assigned.is_stopping() {
            self.dropped = true;
            return true;
        }
        let items = self.itemise(&chunk);
        self.claim_items(items);
        true
    }

    /// Makes items of the records of a chunk that have a handler, and ends the others.
    fn itemise(&mut self, chunk: &Chunk) -> Vec<Item> {
        let mut items = Vec::with_capacity(chunk.places.len());
        for index in chunk.at..chunk.places.len() {
            let Some(place) = chunk.places.get(index) else { break };
            let record = &chunk.batch.records()[place as usize];
            match self.verdict(&chunk.assigned.origin.topic, record) {
                Verdict::Handler(handler) => items.push(self.item(chunk, place, handler)),
                verdict => {
                    let item = self.item(chunk, place, usize::MAX);
                    self.unroutable(item, verdict);
                }
            }
        }
        items
    }

    pub(super) fn claim_items(&mut self, items: Vec<Item>) {
        self.calls.claiming_chunk = true;
        self.claim(items, true);
    }

    fn claim(&self, mut items: Vec<Item>, chunk: bool) {
        let Some(claims) = self.shared.store.clone() else { return };
        let events: Vec<EventRef> = items.iter_mut().map(|item| self.event_ref(item)).collect();
        let holder = claims.holder();
        self.fly(Box::pin(async move {
            let (id, answer) = match holder {
                Some(holder) => (holder.id, claims.store.claim(&holder, &events).await),
                None => (Uuid::nil(), Err(claims.no_holder())),
            };
            Landed::Claimed { items, events, answer, holder: id, chunk }
        }));
    }

    fn call_release(&mut self) -> bool {
        if self.calls.releasing || self.to_release.is_empty() {
            return false;
        }
        let releases: Vec<Release> = std::mem::take(&mut self.to_release);
        let Some((claims, holder)) = self.shared.store.clone().and_then(|claims| claims.holder().map(|h| (claims, h)))
        else {
            return false;
        };
        self.calls.releasing = true;
        self.fly(Box::pin(async move {
            let answer = claims.store.release(&holder, &releases).await;
            Landed::Released { releases, answer }
        }));
        true
    }

    /// The item's event id, read from its record once.
    pub(super) fn event_id(&self, item: &mut Item) -> Uuid {
        *item.event_id.get_or_insert_with(|| event_id_of(&item.assigned.origin, &item.record.records()[0]))
    }

    fn event_ref(&self, item: &mut Item) -> EventRef {
        let id = self.event_id(item);
        let table = self.routes.table();
        let known = (item.handler < table.len()).then(|| table.info(item.handler).event_type.clone()).flatten();
        EventRef::new(id, known.unwrap_or_else(|| Name::from_static("")))
    }

    /// As `set_trouble`, for an item within a list that is borrowed apart from the worker.
    pub(super) fn raise(reports: &mpsc::UnboundedSender<Report>, item: &mut Item, cause: Cause, text: &str) {
        if item.trouble == Some(cause) {
            return;
        }
        let slot = item.assigned.slot;
        if let Some(over) = item.trouble.replace(cause) {
            let _ = reports.send(Report::Trouble { slot, cause: over, raised: false, text: String::new() });
        }
        let _ = reports.send(Report::Trouble { slot, cause, raised: true, text: text.to_owned() });
    }

    /// A delivery that is over without its handler's end: what it held goes back.
    pub(super) fn abandon(&mut self, work: Work) {
        if work.probe {
            self.return_probe();
        }
        if work.lone {
            self.lone_running = false;
            self.send(Report::LoneDone);
        }
        match work.items {
            Items::One(item) => self.drop_item(item),
            Items::Many(items) => items.into_iter().for_each(|item| self.drop_item(item)),
        }
    }

    /// Whether an item's claim is this service's, and has to be given back when it is dropped.
    pub(super) fn is_claimed(item: &Item) -> bool {
        matches!(item.claim, Claimed::Granted(..))
    }
}
