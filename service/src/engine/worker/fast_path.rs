//! Deliveries straight from a chunk: a record whose handler is ready at once becomes no pending record, and costs no
//! allocation. Every record takes this path first.

use std::collections::VecDeque;

use tidings_core::{Delivery, Name};
use tokio::time::Instant;

use super::begin::Turn;
use super::parts::Parts;
use super::records::{Records, Work};
use super::scheduler::{Fresh, Wait};
use crate::engine::circuit_breaker::Pass;
use crate::engine::messages::{Chunk, Indexes};
use crate::engine::record::PendingRecord;
use crate::engine::routing::Verdict;
use crate::route::Started;

/// The number of records that a worker starts before it reads its commands again.
const RECORDS_PER_ROUND: usize = 1_024;

/// The effect of a record's start on its chunk.
enum Placed {
    /// The record was started; it used the pass.
    Used,
    /// The record waits, or is settled without a handler.
    Unused,
    /// Its handler, which takes all of the chunk, is not ready.
    Throttled(usize),
}

impl Parts {
    /// Starts fresh records that may start. Returns whether it started any.
    pub(super) fn begin_fresh(&mut self, now: Instant) -> bool {
        let mut begun = false;
        let mut budget = RECORDS_PER_ROUND;
        while budget > 0
            && !self.is_full()
            && let Some(fresh) = self.scheduler.next_fresh()
        {
            let before = budget;
            let rest = match fresh {
                Fresh::Chunk(chunk) => self.begin_chunk(chunk, &mut budget, now).map(Fresh::Chunk),
                Fresh::Records(records) => self.begin_records(records, &mut budget, now).map(Fresh::Records),
            };
            begun |= budget < before;
            if let Some(rest) = rest {
                self.scheduler.put_back_fresh(rest);
                if budget == before {
                    break;
                }
            } else {
                begun = true;
            }
        }
        begun
    }

    /// Starts the records of a chunk; returns the chunk if records are left.
    fn begin_chunk(&mut self, mut chunk: Chunk, budget: &mut usize, now: Instant) -> Option<Chunk> {
        if chunk.assigned.tier.is_some() {
            self.take_waited(&chunk);
            return None;
        }
        if let Some(handler) = self.scheduler.throttles(chunk.assigned.id) {
            self.scheduler.throttle(handler, chunk);
            return None;
        }
        // Cached: finding the route of a record reads its headers.
        let batches = self.shared.table.has_batches();
        while let Some(index) = chunk.indexes.get(chunk.at) {
            if *budget == 0 || self.is_full() {
                return Some(chunk);
            }
            if chunk.assigned.is_stopping() {
                break;
            }
            let pass = self.shared.circuit_breaker.pass();
            if pass == Pass::Wait {
                return Some(chunk);
            }
            let run = if batches { self.begin_run(&mut chunk, pass) } else { 0 };
            if run > 0 {
                *budget = budget.saturating_sub(run);
                continue;
            }
            let placed = self.begin_index(&chunk, index, pass, now);
            if pass == Pass::Probe && !matches!(placed, Placed::Used) {
                self.meter.return_probe();
            }
            if let Placed::Throttled(handler) = placed {
                self.scheduler.throttle(handler, chunk);
                return None;
            }
            chunk.at += 1;
            *budget -= 1;
        }
        self.released |= chunk.assigned.is_stopping();
        None
    }

    /// Processes the record at `index`. Nothing is allocated unless the record has to wait.
    fn begin_index(&mut self, chunk: &Chunk, index: u32, pass: Pass, now: Instant) -> Placed {
        let record = &chunk.batch.records()[index as usize];
        let topic = &chunk.assigned.origin.topic;
        let handler = match Verdict::of(&self.shared, topic, record) {
            Verdict::Handler(handler) => handler,
            verdict => {
                let record = self.pending(chunk, index, None);
                return if self.unroutable(record, verdict, pass) { Placed::Used } else { Placed::Unused };
            }
        };
        if self.shared.table.info(handler).batch.is_some() {
            let record = self.pending(chunk, index, Some(handler));
            self.gather_or_queue(record, handler, now);
            return Placed::Unused;
        }
        if !self.scheduler.is_free() {
            let key = self.shared.keys.of(chunk.assigned.id, record.key.as_ref());
            if let Some(key) = key.filter(|key| self.scheduler.is_busy(*key)) {
                let record = self.pending(chunk, index, Some(handler));
                self.scheduler.queue(key, record);
                return Placed::Unused;
            }
        }
        if !self.invoker.may_be_ready(handler) {
            return self.throttle(chunk, index, handler);
        }
        let one = chunk.batch.slice(index as usize, index as usize + 1);
        let delivery = Delivery::new(one, self.invoker.context(handler)).with_epoch(chunk.assigned.epoch);
        let span = self.shared.span_of(handler, &delivery);
        match self.invoker.start(handler, delivery, &span) {
            Started::Done(Ok(outcome)) if outcome.records().is_empty() && pass == Pass::Free => {
                self.meter.handled_at_once(handler);
                self.meter.observe_handled(handler, &chunk.assigned, record);
                self.settler.settle(&chunk.assigned, chunk.number, index);
            }
            Started::NotReady => return self.throttle(chunk, index, handler),
            started => {
                let mut record = self.pending(chunk, index, Some(handler));
                record.runs = 1;
                self.started(Work { records: Records::One(record), probe: pass == Pass::Probe }, started, span);
            }
        }
        Placed::Used
    }

    /// Makes a record wait for its handler; with all of its chunk, if no other handler takes records of it.
    fn throttle(&mut self, chunk: &Chunk, index: u32, handler: usize) -> Placed {
        if self.shared.table.is_only(&chunk.assigned.origin.topic, handler) {
            return Placed::Throttled(handler);
        }
        let record = self.pending(chunk, index, Some(handler));
        self.scheduler.put(record, Wait::Handler);
        Placed::Unused
    }

    /// Creates a chunk's record that has to wait.
    pub(super) fn pending(&self, chunk: &Chunk, index: u32, handler: Option<usize>) -> PendingRecord {
        let key = chunk.batch.records()[index as usize].key.as_ref();
        let key = self.shared.keys.of(chunk.assigned.id, key);
        let claimed = handler.is_some() && self.shared.backends.store.is_some();
        let handler = handler.and_then(|handler| u32::try_from(handler).ok());
        PendingRecord::new(chunk, index, handler, key, claimed)
    }

    /// Adds a record to the batch of its handler, or queues it if its key is busy and its predecessor is not in that
    /// batch.
    fn gather_or_queue(&mut self, mut record: PendingRecord, handler: usize, now: Instant) {
        if let Some(key) = record.key.hash()
            && self.scheduler.is_busy(key)
            && !self.joins(&record)
        {
            self.scheduler.queue(key, record);
            return;
        }
        self.scheduler.hold(&mut record);
        self.gather(record, handler, now);
    }

    /// Returns whether a record may join an open batch that contains its key's predecessor. It must not pass another
    /// record of its key that waits.
    fn joins(&self, record: &PendingRecord) -> bool {
        !record.key.hash().is_some_and(|key| self.scheduler.has_waiting(key)) && self.batcher.takes(record)
    }

    /// Starts records of chunks whose claims are answered; returns those that are left.
    fn begin_records(
        &mut self,
        mut records: VecDeque<PendingRecord>,
        budget: &mut usize,
        now: Instant,
    ) -> Option<VecDeque<PendingRecord>> {
        while *budget > 0
            && !self.is_full()
            && let Some(record) = records.pop_front()
        {
            let busy = record.key.hash().filter(|key| record.handler.is_some() && self.scheduler.is_busy(*key));
            if let Some(key) = busy {
                *budget -= 1;
                self.follow(key, record, now);
                continue;
            }
            match self.begin(record, now) {
                Turn::Taken => *budget -= 1,
                Turn::Kept(record) => {
                    records.push_front(record);
                    break;
                }
            }
        }
        (!records.is_empty()).then_some(records)
    }

    /// Puts a record behind those of its key that are in flight: into the same batch if it is still open, else into the
    /// key's queue. It joins the batch at once: by the time a queue is read, the batch might have started.
    fn follow(&mut self, key: u64, mut record: PendingRecord, now: Instant) {
        match record.handler {
            Some(handler) if record.may_begin() && self.joins(&record) => {
                self.scheduler.hold(&mut record);
                self.gather(record, handler as usize, now);
            }
            _ => self.scheduler.queue(key, record),
        }
    }

    /// Starts a full batch of the chunk's next records, if they belong to one batch handler and fill the batch, and
    /// cannot overtake one in flight. Returns the number of records taken.
    fn begin_run(&mut self, chunk: &mut Chunk, pass: Pass) -> usize {
        let free = self.scheduler.is_free() && self.batcher.is_empty() && pass == Pass::Free;
        if chunk.at < chunk.scattered_until || !free {
            return 0;
        }
        let topic = &chunk.assigned.origin.topic;
        let Some((handler, size, waits)) = self.batch_handler(topic, chunk, chunk.at) else { return 0 };
        let same = |at: &usize| self.batch_handler(topic, chunk, *at).is_some_and(|(other, ..)| other == handler);
        let count = (chunk.at..chunk.indexes.len()).take(size).take_while(same).count();
        let at_end = chunk.at + count == chunk.indexes.len();
        if !self.invoker.may_be_ready(handler) || count < size && (waits || !at_end) {
            // An incomplete batch at the end, or alternating types: these are gathered, and not checked twice.
            chunk.scattered_until = chunk.at + count;
            return 0;
        }
        if !self.deliver_run(chunk, handler, count) {
            chunk.scattered_until = chunk.at + count;
            return 0;
        }
        chunk.at += count;
        count
    }

    /// Returns the batch handler of the chunk's record number `at`, its size, and whether it waits for a full batch.
    fn batch_handler(&self, topic: &Name, chunk: &Chunk, at: usize) -> Option<(usize, usize, bool)> {
        let record = &chunk.batch.records()[chunk.indexes.get(at)? as usize];
        let Verdict::Handler(handler) = Verdict::of(&self.shared, topic, record) else { return None };
        let options = self.shared.table.info(handler).batch?;
        Some((handler, options.size.max(1), !options.wait.is_zero()))
    }

    /// Returns whether the batch was delivered.
    fn deliver_run(&mut self, chunk: &Chunk, handler: usize, count: usize) -> bool {
        let context = self.invoker.context(handler);
        let delivery = match &chunk.indexes {
            Indexes::All(_) => Delivery::new(chunk.batch.slice(chunk.at, chunk.at + count), context),
            Indexes::Some(indexes) => {
                Delivery::new(chunk.batch.clone(), context).with_places(&indexes[chunk.at..chunk.at + count])
            }
        };
        let delivery = delivery.with_epoch(chunk.assigned.epoch);
        let span = self.shared.span_of(handler, &delivery);
        let indexes = || (chunk.at..chunk.at + count).filter_map(|at| chunk.indexes.get(at));
        match self.invoker.start(handler, delivery, &span) {
            Started::NotReady => return false,
            Started::Done(Ok(outcome)) if outcome.records().is_empty() => {
                self.meter.done_at_once(Some(handler));
                self.meter.handled(Some(handler), count);
                if self.meter.observes() {
                    for index in indexes() {
                        let record = &chunk.batch.records()[index as usize];
                        self.meter.observe_handled(handler, &chunk.assigned, record);
                    }
                }
                self.settler.settle_all(&chunk.assigned, chunk.number, indexes());
            }
            started => {
                let mut records: Vec<_> = indexes().map(|index| self.pending(chunk, index, Some(handler))).collect();
                records.iter_mut().for_each(|record| record.runs = 1);
                self.started(Work { records: Records::Many(records), probe: false }, started, span);
            }
        }
        true
    }

    /// Requests the claims of the chunks that have arrived, as many as fit into one request. Returns whether it took
    /// any.
    pub(super) fn claim_chunks(&mut self) -> bool {
        let mut taken = false;
        while let Some(chunk) = self.scheduler.next_unclaimed(self.claimer.room()) {
            taken = true;
            if chunk.assigned.is_stopping() {
                self.released = true;
            } else {
                self.claim_chunk(&chunk);
            }
        }
        taken
    }

    /// Claims a chunk's records that have a handler. The others are settled, or wait until deliveries may start.
    fn claim_chunk(&mut self, chunk: &Chunk) {
        if chunk.assigned.tier.is_some() {
            return self.take_waited(chunk);
        }
        let mut undecodable = VecDeque::new();
        for index in (chunk.at..chunk.indexes.len()).filter_map(|at| chunk.indexes.get(at)) {
            let record = &chunk.batch.records()[index as usize];
            match Verdict::of(&self.shared, &chunk.assigned.origin.topic, record) {
                Verdict::Handler(handler) => self.claimer.claim_fresh(self.pending(chunk, index, Some(handler))),
                Verdict::Undecodable(_) => undecodable.push_back(self.pending(chunk, index, None)),
                verdict => {
                    let record = self.pending(chunk, index, None);
                    self.unroutable(record, verdict, Pass::Free);
                }
            }
        }
        if !undecodable.is_empty() {
            self.scheduler.push_records(undecodable);
        }
    }
}
