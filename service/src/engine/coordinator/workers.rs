//! The workers, as the coordinator reaches them: by commands, and by shares of batches.

use std::sync::Arc;

use tidings_core::RecordBatch;
use tokio::sync::mpsc;

use crate::engine::assigned::{Assigned, AssignmentId};
use crate::engine::keys::KeyHasher;
use crate::engine::messages::{Chunk, Indexes, WorkerCommand};
use crate::settings::DeliveryOrder;

/// Sends commands to the workers.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<[mpsc::UnboundedSender<WorkerCommand>]>);

impl Workers {
    pub(super) fn new(senders: Vec<mpsc::UnboundedSender<WorkerCommand>>) -> Self {
        Self(senders.into())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn send(&self, worker: usize, command: WorkerCommand) {
        // A worker that is gone is noticed when its task is joined.
        let _ = self.0[worker].send(command);
    }

    pub(super) fn send_all(&self, command: impl Fn() -> WorkerCommand) {
        for worker in 0..self.len() {
            self.send(worker, command());
        }
    }

    /// Lets all workers check again whether deliveries may start.
    pub(super) fn wake(&self) {
        self.send_all(|| WorkerCommand::Wake);
    }

    /// Ends work of an assignment that has not begun.
    pub(super) fn revoke(&self, id: AssignmentId) {
        self.send_all(|| WorkerCommand::Revoke(id));
    }

    /// Ends all work of an assignment.
    pub(super) fn cancel(&self, id: AssignmentId) {
        self.send_all(|| WorkerCommand::Cancel(id));
    }
}

/// Splits batches among the workers, so that all records of a key go to one.
#[derive(Debug)]
pub(super) struct Splitter {
    workers: Workers,
    keys: KeyHasher,
    order: DeliveryOrder,
    /// Shifts the shares of records without order from batch to batch.
    rotation: usize,
}

impl Splitter {
    pub(super) fn new(workers: Workers, keys: KeyHasher, order: DeliveryOrder) -> Self {
        Self { workers, keys, order, rotation: 0 }
    }

    /// Sends each worker its share of a batch, which has this `number` in its tracker.
    pub(super) fn dispatch(&mut self, assigned: &Arc<Assigned>, number: u64, batch: &RecordBatch) {
        for (worker, indexes) in self.split(assigned.id, batch) {
            let chunk = Chunk::new(Arc::clone(assigned), number, batch.clone(), indexes);
            self.workers.send(worker, WorkerCommand::Work(chunk));
        }
    }

    fn split(&mut self, id: AssignmentId, batch: &RecordBatch) -> Vec<(usize, Indexes)> {
        let (workers, len) = (self.workers.len(), batch.len());
        if len == 0 {
            return Vec::new();
        }
        let all = || Indexes::All(u32::try_from(len).unwrap_or(u32::MAX));
        if workers == 1 {
            return vec![(0, all())];
        }
        if self.order == DeliveryOrder::Partition {
            return vec![((id % workers as u64) as usize, all())];
        }
        let mut shares: Vec<Vec<u32>> = (0..workers).map(|_| Vec::with_capacity(len / workers + 8)).collect();
        self.rotation = self.rotation.wrapping_add(1);
        for (index, record) in (0_u32..).zip(batch.records()) {
            let worker = match self.keys.of(id, record.key.as_ref()) {
                Some(key) => (key % workers as u64) as usize,
                // Records without order go in runs, so that neighbours stay together.
                None => (index as usize * workers / len + self.rotation) % workers,
            };
            shares[worker].push(index);
        }
        let shares = shares.into_iter().enumerate().filter(|(_, share)| !share.is_empty());
        shares.map(|(worker, share)| (worker, Indexes::Some(share))).collect()
    }
}
