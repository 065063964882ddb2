//! Dispatches batches to the workers, and enforces the limits of records in flight.

use std::sync::Arc;

use tidings_core::{Fetched, RecordBatch};

use super::Coordinator;
use crate::engine::messages::{Chunk, Indexes, Settled, WorkerCommand};
use crate::settings::DeliveryOrder;
use crate::status::PauseReason;

impl Coordinator {
    /// Dispatches a fetched batch to the workers.
    pub(super) fn dispatch(&mut self, slot: u64, fetched: Fetched) {
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        let assigned = partition.assigned.clone();
        let batch = fetched.batch.clone();
        let before = partition.tracker.bytes();
        let number = partition.tracker.push(fetched);
        self.bytes = self.bytes + partition.tracker.bytes() - before;
        if partition.tracker.span() >= self.options.max_span {
            partition.pauses.insert(PauseReason::Span);
        }
        if self.bytes >= self.bytes_bound() {
            self.bytes_paused = true;
        }
        for (worker, indexes) in self.split(slot, &batch) {
            let chunk = Chunk::new(Arc::clone(&assigned), number, batch.clone(), indexes);
            self.order(worker, WorkerCommand::Work(chunk));
        }
    }

    /// Dispatches the records that arrived before the partition could start, if it can start now.
    pub(super) fn begin_early(&mut self, slot: u64) {
        let Some(partition) = self.slots.get_mut(&slot).filter(|partition| partition.may_begin()) else { return };
        partition.pauses.remove(&PauseReason::Starting);
        for fetched in std::mem::take(&mut partition.early) {
            self.dispatch(slot, fetched);
        }
    }

    /// Partitions are paused from here on: the prefetched bytes, a quarter, fit in as well.
    fn bytes_bound(&self) -> usize {
        self.options.max_bytes - self.options.max_bytes / 4
    }

    fn split(&mut self, slot: u64, batch: &RecordBatch) -> Vec<(usize, Indexes)> {
        let (workers, len) = (self.workers.len(), batch.len());
        if len == 0 {
            return Vec::new();
        }
        let all = || Indexes::All(u32::try_from(len).unwrap_or(u32::MAX));
        if workers == 1 {
            return vec![(0, all())];
        }
        if self.options.order == DeliveryOrder::Partition {
            return vec![((slot % workers as u64) as usize, all())];
        }
        let mut shares: Vec<Vec<u32>> = (0..workers).map(|_| Vec::with_capacity(len / workers + 8)).collect();
        self.rotation = self.rotation.wrapping_add(1);
        for (place, record) in (0_u32..).zip(batch.records()) {
            let worker = match self.shared.keys.of(slot, record.key.as_ref()) {
                Some(lane) => (lane % workers as u64) as usize,
                // Records without order go in runs, so that neighbours stay together.
                None => (place as usize * workers / len + self.rotation) % workers,
            };
            shares[worker].push(place);
        }
        let shares = shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty());
        shares.map(|(worker, share)| (worker, Indexes::Some(share))).collect()
    }

    /// Records settlements reported by workers. Those of a former assignment are ignored.
    pub(super) fn settled(&mut self, settled: Vec<Settled>) {
        for Settled { assigned, number, indexes } in settled {
            let Some(partition) = self.slots.get_mut(&assigned.id) else { continue };
            let before = partition.tracker.bytes();
            partition.tracker.settle(number, indexes);
            self.bytes -= before - partition.tracker.bytes();
            if partition.tracker.span() <= self.options.max_span / 2 {
                partition.pauses.remove(&PauseReason::Span);
            }
        }
        self.resume_when_few_bytes();
    }

    /// Ends the pause for bytes when half of them are settled, or dropped with their assignments.
    pub(super) fn resume_when_few_bytes(&mut self) {
        if self.bytes <= self.options.max_bytes / 2 {
            self.bytes_paused = false;
        }
    }

    /// Updates the consumer's paused partitions, if they have changed.
    pub(super) async fn apply_pauses(&mut self) {
        let (mut pause, mut resume, mut is_bounded) = (Vec::new(), Vec::new(), false);
        for partition in self.slots.values_mut().filter(|p| !p.leaving.as_ref().is_some_and(|leaving| leaving.lost)) {
            let origin = partition.assigned.origin.as_ref();
            let operator = self.paused_by_operator || self.operator.contains(origin);
            set(&mut partition.pauses, PauseReason::Operator, operator);
            set(&mut partition.pauses, PauseReason::Bytes, self.bytes_paused);
            let at_bound = self.bytes_paused || partition.pauses.contains(&PauseReason::Span);
            is_bounded |= partition.assigned.set_at_bound(at_bound) && at_bound;
            // A partition that is being revoked is not read further: its records would not be handled here.
            let wanted = !partition.pauses.is_empty() || partition.leaving.is_some() || self.stopping.is_some();
            if wanted != self.told_paused.contains(origin) {
                if wanted {
                    self.told_paused.insert(origin.clone());
                    pause.push(origin.clone());
                } else {
                    self.told_paused.remove(origin);
                    resume.push(origin.clone());
                }
            }
        }
        if is_bounded {
            // For batches that wait for more records.
            self.order_all(|| WorkerCommand::Wake);
        }
        let paused = if pause.is_empty() { Ok(()) } else { self.consumer.pause(&pause).await };
        let resumed = if resume.is_empty() { Ok(()) } else { self.consumer.resume(&resume).await };
        if let Err(error) = paused.and(resumed) {
            tracing::warn!(error = %error.report(), "pausing or resuming partitions failed");
        }
    }
}

pub(super) fn set(reasons: &mut std::collections::BTreeSet<PauseReason>, reason: PauseReason, on: bool) {
    if on {
        reasons.insert(reason);
    } else {
        reasons.remove(&reason);
    }
}
