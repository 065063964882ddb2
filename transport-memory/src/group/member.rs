//! A member of a group: its assigned partitions and pending steps.
//!
//! A member queues two kinds of steps. Steps of the group (assigned, revoking, lost) are delivered
//! first and in order; records are read from its assigned partitions only when none is pending. So a consumer
//! never gets records of a partition before it is told of the assignment, nor after it is told of
//! its loss.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tidings_core::{ConsumerOptions, Name, RecordBatch, Step, Timestamp, TopicPartition};
use tokio::time::Instant;

use crate::faults::FaultState;
use crate::log::{PartitionLog, Read};
use crate::signal::Signal;

/// A consumer's part in its group. The group's lock guards it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) options: ConsumerOptions,
    pub(super) topics: BTreeSet<Name>,
    /// Decides whether it takes part in assignments, and when it expires.
    pub(super) life: Life,
    /// Steps that it was not handed yet.
    pub(super) steps: VecDeque<Step>,
    assigned: Vec<AssignedPartition>,
    /// Partition to read first, so that no partition starves the others.
    turn: usize,
    /// Partitions paused by the consumer, owned or not: a pause outlives a revocation.
    paused: BTreeSet<TopicPartition>,
    /// Wakes the consumer; registered with the log of each assigned partition that is read.
    signal: Arc<Signal>,
}

/// Liveness of a member, as Kafka's poll interval and session timeout define it. A consumer within
/// `next` is alive; between two calls it may be busy for at most
/// [`max_idle`](ConsumerOptions::max_idle).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// In a call of `next`.
    Pending,
    /// Between two calls, since then.
    Busy(Instant),
    /// Expired between two calls: the next call joins again.
    Dead,
    /// A static member whose consumer was closed or dropped then.
    Away(Instant),
}

/// A partition that the member owns.
#[derive(Debug)]
pub(super) struct AssignedPartition {
    pub(super) log: Arc<PartitionLog>,
    /// Epoch of this assignment; a commit with another one is fenced.
    pub(super) epoch: u64,
    /// Offset of the next record to read.
    pub(super) position: u64,
    pub(super) paused: bool,
    /// Whether its revocation is pending: then no more records are read, but commits are accepted.
    pub(super) revoking: bool,
    /// Whether the unreadable position was reported.
    ///
    /// The member waits for a seek beyond it and is not told again with each look.
    pub(super) told_unreadable: bool,
}

/// Records of an assigned partition, or the beginning of its log if that is beyond its position.
///
/// Result of reading one assigned partition.
#[derive(Debug)]
pub(super) enum Found {
    /// Records from the position on; `next` is the assigned partition's position after them.
    Records { batch: RecordBatch, epoch: u64, next: u64 },
    /// Retention has dropped the records from `position` to `start` before they were read.
    Overtaken { partition: TopicPartition, position: u64, start: u64 },
    /// Offsets that no reader can decode, as injected.
    Unreadable { partition: TopicPartition, epoch: u64, range: Range<u64> },
}

impl Member {
    pub(super) fn new(options: ConsumerOptions, signal: Arc<Signal>, now: Instant) -> Self {
        Self {
            topics: options.topics.iter().cloned().collect(),
            options,
            life: Life::Busy(now),
            steps: VecDeque::new(),
            assigned: Vec::new(),
            turn: 0,
            paused: BTreeSet::new(),
            signal,
        }
    }

    /// Returns whether it may be assigned partitions.
    pub(super) fn takes_part(&self) -> bool {
        self.life != Life::Dead
    }

    /// Returns when it expires unless it acts before; `None` if it has expired.
    pub(super) fn dies_at(&self, now: Instant) -> Option<Instant> {
        match self.life {
            // It may be handed a step right now.
            Life::Pending => now.checked_add(self.options.max_idle),
            Life::Busy(since) => since.checked_add(self.options.max_idle),
            Life::Away(since) => since.checked_add(self.options.session_timeout),
            Life::Dead => None,
        }
    }

    /// Appends a step and wakes the consumer.
    pub(super) fn queue(&mut self, step: Step) {
        self.steps.push_back(step);
        self.signal.wake();
    }

    pub(super) fn wake(&self) {
        self.signal.wake();
    }

    pub(super) fn assigned(&self) -> &[AssignedPartition] {
        &self.assigned
    }

    /// Returns the state of `partition`. A scan is enough: members own few partitions.
    pub(super) fn assigned_mut(&mut self, partition: &TopicPartition) -> Option<&mut AssignedPartition> {
        self.assigned.iter_mut().find(|assigned| assigned.log.origin() == partition)
    }

    /// Adds a partition that was assigned. If the consumer had paused it, it stays paused.
    pub(super) fn add_partition(&mut self, log: Arc<PartitionLog>, epoch: u64, position: u64) {
        let paused = self.paused.contains(log.origin());
        if !paused {
            log.add_reader(&self.signal);
        }
        self.assigned.push(AssignedPartition { log, epoch, position, paused, revoking: false, told_unreadable: false });
    }

    /// Removes a partition; its log no longer wakes the consumer.
    pub(super) fn remove_partition(&mut self, partition: &TopicPartition) {
        if let Some(at) = self.assigned.iter().position(|assigned| assigned.log.origin() == partition) {
            let assigned = self.assigned.remove(at);
            assigned.log.remove_reader(&self.signal);
        }
    }

    /// Stops reading a partition that is being revoked.
    pub(super) fn stop_reading(&mut self, partition: &TopicPartition) {
        let signal = Arc::clone(&self.signal);
        if let Some(assigned) = self.assigned_mut(partition) {
            assigned.revoking = true;
            assigned.log.remove_reader(&signal);
        }
    }

    /// Stops reading partitions, owned now or later, until `resume`.
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.paused.insert(partition.clone());
            let signal = Arc::clone(&self.signal);
            if let Some(assigned) = self.assigned_mut(partition) {
                assigned.paused = true;
                // A partition without readers must not wake a consumer with each record.
                assigned.log.remove_reader(&signal);
            }
        }
    }

    /// Reads paused partitions again, except those that are being revoked meanwhile.
    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.paused.remove(partition);
            let signal = Arc::clone(&self.signal);
            if let Some(assigned) = self.assigned_mut(partition).filter(|assigned| assigned.paused) {
                assigned.paused = false;
                if !assigned.revoking {
                    assigned.log.add_reader(&signal);
                }
            }
        }
        self.signal.wake();
    }

    /// Drops all its partitions; a static member's place stays.
    pub(super) fn empty(&mut self) {
        for assigned in self.assigned.drain(..) {
            assigned.log.remove_reader(&self.signal);
        }
        self.steps.clear();
    }

    /// Reads from the next of its partitions that has records.
    ///
    /// Starts with the assigned partition after the last one read. A batch ends before the next unreadable
    /// offset, so that readable records in front of it are delivered first. An unreadable position
    /// is reported once for each visit and then skipped, so that other partitions go on.
    pub(super) fn read(&mut self, faults: &FaultState, now: Timestamp) -> Option<Found> {
        let count = self.assigned.len();
        for i in 0..count {
            let at = (self.turn + i) % count;
            let assigned = &mut self.assigned[at];
            if assigned.paused || assigned.revoking || assigned.log.stable_end() <= assigned.position {
                continue;
            }
            let (records, bytes) = (self.options.max_batch_records, self.options.max_buffered_bytes);
            let unreadable = faults.unreadable(assigned.log.origin(), assigned.position);
            let held = unreadable.as_ref().is_some_and(|range| range.start <= assigned.position);
            if held && assigned.told_unreadable {
                continue;
            }
            let until = unreadable.as_ref().filter(|_| !held).map_or(u64::MAX, |range| range.start);
            match assigned.log.read(assigned.position, until, records, bytes, now) {
                Read::Nothing => {}
                Read::Records(..) if held => {
                    assigned.told_unreadable = true;
                    self.turn = at + 1;
                    let end = unreadable.map_or(assigned.position, |range| range.end);
                    let (partition, range) = (assigned.log.origin().clone(), assigned.position..end);
                    return Some(Found::Unreadable { partition, epoch: assigned.epoch, range });
                }
                Read::Records(batch, next) => {
                    (assigned.position, assigned.told_unreadable) = (next, false);
                    self.turn = at + 1;
                    return Some(Found::Records { batch, epoch: assigned.epoch, next });
                }
                Read::Overtaken(start) => {
                    let partition = assigned.log.origin().clone();
                    return Some(Found::Overtaken { partition, position: assigned.position, start });
                }
            }
        }
        None
    }
}
