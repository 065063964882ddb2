//! Which record begins next: arrived chunks, key queues, delays, and records that wait for their handler or for
//! isolation. Knows no results, brokers or stores.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;

use super::key_queues::KeyQueues;
use super::timers::Timers;
use crate::engine::assigned::AssignmentId;
use crate::engine::claims::ClaimGuard;
use crate::engine::keys::KeyHash;
use crate::engine::messages::Chunk;
use crate::engine::record::{PendingRecord, RecordKey, Stage};

/// Records that arrived and were not begun.
#[derive(Debug)]
pub(super) enum Fresh {
    Chunk(Chunk),
    /// Records of chunks whose claims are answered.
    Records(VecDeque<PendingRecord>),
}

/// The reason why a record waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// Its turn comes at once.
    Nothing,
    Until(Instant),
    /// Its handler is not ready.
    Handler,
    /// It runs when nothing else is in flight.
    Isolation,
}

#[derive(Debug)]
pub(super) struct Scheduler {
    /// Chunks that must be claimed first.
    unclaimed: VecDeque<Chunk>,
    fresh: VecDeque<Fresh>,
    /// Records whose turn has come: before the fresh ones.
    ready: VecDeque<PendingRecord>,
    keys: KeyQueues<PendingRecord>,
    delayed: Timers<PendingRecord>,
    isolated: VecDeque<PendingRecord>,
    /// Records and chunks that wait for a handler that is not ready, by handler.
    throttled: Vec<Throttled>,
}

/// Records and chunks that wait for one handler. Chunks are left whole where all their records wait.
#[derive(Debug, Default)]
struct Throttled {
    records: VecDeque<PendingRecord>,
    chunks: VecDeque<Chunk>,
}

impl Scheduler {
    pub(super) fn new(handlers: usize) -> Self {
        Self {
            unclaimed: VecDeque::new(),
            fresh: VecDeque::new(),
            ready: VecDeque::new(),
            keys: KeyQueues::default(),
            delayed: Timers::new(),
            isolated: VecDeque::new(),
            throttled: (0..handlers).map(|_| Throttled::default()).collect(),
        }
    }

    /// Adds an arrived chunk, which may have to be claimed first.
    pub(super) fn push(&mut self, chunk: Chunk, claim: bool) {
        if claim {
            self.unclaimed.push_back(chunk);
        } else {
            self.fresh.push_back(Fresh::Chunk(chunk));
        }
    }

    /// Adds records of a chunk, in order, that are claimed as far as they can be for now.
    pub(super) fn push_records(&mut self, mut records: VecDeque<PendingRecord>) {
        records.iter_mut().for_each(|record| record.advance(Stage::Ready));
        self.fresh.push_back(Fresh::Records(records));
    }

    /// Returns the next chunk to claim, if it has at most `most` records.
    pub(super) fn next_unclaimed(&mut self, most: usize) -> Option<Chunk> {
        self.unclaimed.pop_front_if(|chunk| chunk.indexes.len() <= most)
    }

    pub(super) fn next_fresh(&mut self) -> Option<Fresh> {
        self.fresh.pop_front()
    }

    pub(super) fn put_back_fresh(&mut self, fresh: Fresh) {
        self.fresh.push_front(fresh);
    }

    pub(super) fn next_ready(&mut self) -> Option<PendingRecord> {
        self.ready.pop_front()
    }

    pub(super) fn put_back_ready(&mut self, record: PendingRecord) {
        self.ready.push_front(record);
    }

    /// Makes a record wait, which holds its key meanwhile.
    pub(super) fn put(&mut self, mut record: PendingRecord, wait: Wait) {
        self.hold(&mut record);
        match wait {
            Wait::Nothing => {
                record.advance(Stage::Ready);
                self.ready.push_back(record);
            }
            Wait::Until(at) => {
                record.advance(Stage::Delayed);
                self.delayed.set(at, record);
            }
            Wait::Isolation => {
                record.advance(Stage::Isolated);
                self.isolated.push_back(record);
            }
            Wait::Handler => {
                record.advance(Stage::Throttled);
                let throttled = record.handler.and_then(|handler| self.throttled.get_mut(handler as usize));
                // One that runs isolated goes first, since nothing else may begin.
                match throttled {
                    Some(throttled) if record.has_permit() => throttled.records.push_front(record),
                    Some(throttled) => throttled.records.push_back(record),
                    None => self.ready.push_back(record),
                }
            }
        }
    }

    /// Makes the records ready whose time has come. Returns whether there were any.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        let mut woken = false;
        while let Some(mut record) = self.delayed.pop_due(now) {
            record.advance(Stage::Ready);
            self.ready.push_back(record);
            woken = true;
        }
        woken
    }

    /// Returns when the next delayed record is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.delayed.due()
    }

    pub(super) fn next_isolated(&mut self) -> Option<PendingRecord> {
        self.isolated.pop_front()
    }

    /// Returns the records that wait, with the time when they are due.
    pub(super) fn records(&self) -> impl Iterator<Item = (&PendingRecord, Option<Instant>)> {
        let fresh = self.fresh.iter().filter_map(|fresh| match fresh {
            Fresh::Records(records) => Some(records),
            Fresh::Chunk(_) => None,
        });
        let throttled = self.throttled.iter().flat_map(|throttled| &throttled.records);
        let others =
            fresh.flatten().chain(&self.ready).chain(&self.isolated).chain(throttled).chain(self.keys.waiting());
        let delayed = self.delayed.entries().map(|(at, record)| (record, Some(at)));
        others.map(|record| (record, None)).chain(delayed)
    }

    /// Returns the chunks that wait, and whether that is for their handler.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Chunk, bool)> {
        let fresh = self.fresh.iter().filter_map(|fresh| match fresh {
            Fresh::Chunk(chunk) => Some(chunk),
            Fresh::Records(_) => None,
        });
        let throttled = self.throttled.iter().flat_map(|throttled| &throttled.chunks);
        let others = fresh.chain(&self.unclaimed).map(|chunk| (chunk, false));
        others.chain(throttled.map(|chunk| (chunk, true)))
    }

    // Records that wait for their handler.

    /// Leaves a chunk whole, all of whose records wait for one handler.
    pub(super) fn throttle(&mut self, handler: usize, chunk: Chunk) {
        self.throttled[handler].chunks.push_back(chunk);
    }

    /// Returns the handler for which chunks of this assignment wait: all later ones have to wait behind them, since a
    /// record whose key is busy would otherwise be queued before an earlier one of its key.
    pub(super) fn throttles(&self, assignment: AssignmentId) -> Option<usize> {
        let waits = |throttled: &Throttled| throttled.chunks.iter().any(|chunk| chunk.assigned.id == assignment);
        self.throttled.iter().position(waits)
    }

    /// Returns whether anything waits for this handler.
    pub(super) fn is_throttled(&self, handler: usize) -> bool {
        let throttled = &self.throttled[handler];
        !throttled.records.is_empty() || !throttled.chunks.is_empty()
    }

    /// Returns whether a record that runs isolated waits for this handler.
    pub(super) fn is_permitted(&self, handler: usize) -> bool {
        self.throttled[handler].records.front().is_some_and(PendingRecord::has_permit)
    }

    /// Returns the next record that waits for a handler that is `open`, and the handler.
    pub(super) fn next_throttled(&mut self, open: impl Fn(usize, &PendingRecord) -> bool) -> Option<PendingRecord> {
        let mut throttled = self.throttled.iter_mut().enumerate();
        let record =
            throttled.find_map(|(handler, throttled)| throttled.records.pop_front_if(|record| open(handler, record)));
        record.map(|mut record| {
            record.advance(Stage::Ready);
            record
        })
    }

    /// Puts the chunks back that waited for this handler, before all later ones.
    pub(super) fn unthrottle(&mut self, handler: usize) {
        while let Some(chunk) = self.throttled[handler].chunks.pop_back() {
            self.fresh.push_front(Fresh::Chunk(chunk));
        }
    }

    // Keys.

    /// Returns whether no key is busy.
    pub(super) fn is_free(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns whether a record of the key is in flight.
    pub(super) fn is_busy(&self, key: KeyHash) -> bool {
        self.keys.is_busy(key)
    }

    /// Returns whether another record holds the key, too: its predecessor in a batch, which is not settled yet.
    pub(super) fn is_shared(&self, key: KeyHash) -> bool {
        self.keys.holders(key) > 1
    }

    /// Returns whether a record of the key waits for its turn.
    pub(super) fn has_waiting(&self, key: KeyHash) -> bool {
        self.keys.has_waiting(key)
    }

    /// Lets the record hold its key: no later record of the key begins.
    pub(super) fn hold(&mut self, record: &mut PendingRecord) {
        if let RecordKey::Waiting(key) = record.key {
            self.keys.hold(key);
            record.key = RecordKey::Held(key);
        }
    }

    /// Ends the record's hold of its key: the next one follows.
    pub(super) fn release(&mut self, record: &mut PendingRecord) {
        if let Some(key) = record.key.held() {
            record.key = RecordKey::Waiting(key);
            if let Some(mut next) = self.keys.release(key) {
                next.key = RecordKey::Held(key);
                next.advance(Stage::Ready);
                self.ready.push_back(next);
            }
        }
    }

    /// Queues a record behind those of its key that are in flight.
    pub(super) fn queue(&mut self, key: KeyHash, mut record: PendingRecord) {
        record.advance(Stage::Queued);
        self.keys.push(key, record);
    }

    /// Takes the next record of the key if it matches: it joins the one that holds the key.
    pub(super) fn pop_queued_if(
        &mut self,
        key: KeyHash,
        wanted: impl FnOnce(&PendingRecord) -> bool,
    ) -> Option<PendingRecord> {
        let mut record = self.keys.pop_if(key, wanted)?;
        record.advance(Stage::Ready);
        self.hold(&mut record);
        Some(record)
    }

    /// Returns begun records to the heads of their keys' queues, in order, behind a record of the key that goes on.
    pub(super) fn queue_again(&mut self, records: Vec<PendingRecord>) {
        for mut record in records.into_iter().rev() {
            let Some(key) = record.key.hash() else {
                record.advance(Stage::Ready);
                self.ready.push_back(record);
                continue;
            };
            let held = record.key.held().is_some();
            record.key = RecordKey::Waiting(key);
            record.advance(Stage::Queued);
            self.keys.push_first(key, record);
            if held && let Some(mut next) = self.keys.release(key) {
                next.key = RecordKey::Held(key);
                next.advance(Stage::Ready);
                self.ready.push_back(next);
            }
        }
    }

    /// Returns the first records of their keys; the others wait behind them. Repeated separately, each would return at
    /// a time of its own, or in another batch, and so before its predecessor.
    pub(super) fn first_of_keys(&mut self, records: Vec<PendingRecord>) -> Vec<PendingRecord> {
        let mut seen = HashSet::new();
        let is_first = |record: &PendingRecord| record.key.hash().is_none_or(|key| seen.insert(key));
        let (mut first, behind): (Vec<_>, Vec<_>) = records.into_iter().partition(is_first);
        first.iter_mut().for_each(|record| self.hold(record));
        self.queue_again(behind);
        first
    }

    /// Makes records of a batch wait whose predecessor in it is handled and not settled yet; returns the others.
    pub(super) fn unblocked(&mut self, records: Vec<PendingRecord>) -> Vec<PendingRecord> {
        let mut own: HashMap<KeyHash, usize> = HashMap::new();
        records.iter().filter_map(|record| record.key.held()).for_each(|key| *own.entry(key).or_default() += 1);
        let is_blocked =
            |key: KeyHash, keys: &KeyQueues<_>| keys.holders(key) > own.get(&key).copied().unwrap_or_default();
        let (behind, free): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.key.held().is_some_and(|key| is_blocked(key, &self.keys)));
        self.queue_again(behind);
        free
    }

    /// Takes the claims of the records that wait behind the one that holds the key.
    pub(super) fn take_claims_behind(&mut self, key: KeyHash) -> Vec<ClaimGuard> {
        self.keys.waiting_mut(key).filter_map(PendingRecord::take_claim).collect()
    }

    /// Removes everything of a revoked assignment: none of it has begun.
    pub(super) fn revoke(&mut self, assignment: AssignmentId, out: &mut Vec<PendingRecord>) {
        let is_of = |record: &PendingRecord| record.assignment() == assignment;
        self.unclaimed.retain(|chunk| chunk.assigned.id != assignment);
        self.fresh.retain_mut(|fresh| match fresh {
            Fresh::Chunk(chunk) => chunk.assigned.id != assignment,
            Fresh::Records(records) => {
                take_where(records, is_of, out);
                !records.is_empty()
            }
        });
        self.keys.take_where(is_of, out);
        take_where(&mut self.ready, is_of, out);
        take_where(&mut self.isolated, is_of, out);
        for throttled in &mut self.throttled {
            throttled.chunks.retain(|chunk| chunk.assigned.id != assignment);
            take_where(&mut throttled.records, is_of, out);
        }
        out.extend(self.delayed.take_where(is_of));
    }
}

/// Moves the records that match from `records` to `out`.
fn take_where(
    records: &mut VecDeque<PendingRecord>,
    wanted: impl Fn(&PendingRecord) -> bool,
    out: &mut Vec<PendingRecord>,
) {
    if records.iter().any(&wanted) {
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(records).into_iter().partition(wanted);
        *records = kept;
        out.extend(gone);
    }
}
