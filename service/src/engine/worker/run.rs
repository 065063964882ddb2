//! Batches directly from a chunk: the path of a backlog, which creates no item per record.

use tidings_core::{Delivery, Name};

use super::Worker;
use super::flight::{Items, Work};
use crate::engine::gate::Pass;
use crate::engine::messages::{Chunk, Indexes};
use crate::engine::routing::Verdict;
use crate::observer::RecordOutcome;
use crate::route::Started;

impl Worker {
    /// Starts a full batch of the chunk's next records, if they belong to one batch handler and fill the batch, and
    /// cannot overtake an in-flight item. Returns the number of records taken.
    pub(super) fn run_batch(&mut self, chunk: &mut Chunk, pass: Pass) -> usize {
        if chunk.at < chunk.scattered_until || !self.busy.is_empty() || !self.gathers.is_empty() || pass != Pass::Free {
            return 0;
        }
        let topic = &chunk.assigned.origin.topic;
        let Some((handler, size, waits)) = self.batch_handler(topic, chunk, chunk.at) else { return 0 };
        let same = |index: &usize| self.batch_handler(topic, chunk, *index).is_some_and(|(h, ..)| h == handler);
        let count = (chunk.at..chunk.indexes.len()).take(size).take_while(same).count();
        let at_end = chunk.at + count == chunk.indexes.len();
        if count < size && (waits || !at_end) {
            // An incomplete batch at the end, or alternating types: these are gathered, and not checked twice.
            chunk.scattered_until = chunk.at + count;
            return 0;
        }
        self.deliver_run(chunk, handler, count);
        chunk.at += count;
        count
    }

    /// Returns the batch handler of the chunk's record number `index`, its size, and whether it waits for a full
    /// batch.
    fn batch_handler(&self, topic: &Name, chunk: &Chunk, index: usize) -> Option<(usize, usize, bool)> {
        let record = &chunk.batch.records()[chunk.indexes.get(index)? as usize];
        let Verdict::Handler(handler) = Verdict::of(&self.shared, topic, record) else { return None };
        let options = self.routes.table().info(handler).batch?;
        Some((handler, options.size.max(1), !options.wait.is_zero()))
    }

    fn deliver_run(&mut self, chunk: &Chunk, handler: usize, count: usize) {
        let context = self.contexts[handler].clone();
        let delivery = match &chunk.indexes {
            Indexes::All(_) => Delivery::new(chunk.batch.slice(chunk.at, chunk.at + count), context),
            Indexes::Some(places) => {
                Delivery::new(chunk.batch.clone(), context).with_places(&places[chunk.at..chunk.at + count])
            }
        };
        let delivery = delivery.with_epoch(chunk.assigned.epoch);
        let span = self.shared.span_of(handler, &delivery);
        let places = (chunk.at..chunk.at + count).filter_map(|index| chunk.indexes.get(index));
        match self.start(handler, delivery, &span) {
            Started::Done(Ok(outcome)) if outcome.records().is_empty() => {
                self.counts.handled_many(count);
                for place in places {
                    if let Some(observer) = &self.shared.backends.observer {
                        let record = &chunk.batch.records()[place as usize];
                        self.shared.observe_record(
                            observer.as_ref(),
                            RecordOutcome::Handled,
                            handler,
                            &chunk.assigned,
                            record,
                            1,
                        );
                    }
                    self.settle_place(&chunk.assigned, chunk.number, place);
                }
            }
            started => {
                let mut items: Vec<_> = places.map(|place| self.item(chunk, place, handler)).collect();
                items.iter_mut().for_each(|item| item.runs = 1);
                self.started(Work { items: Items::Many(items), probe: false }, started, span);
            }
        }
    }
}
