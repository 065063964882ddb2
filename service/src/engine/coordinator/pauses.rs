//! Pauses of fetching: those that an operator asked for, and those that the consumer was asked for.

use std::collections::BTreeSet;

use tidings_core::TopicPartition;

/// Pauses, and the pauses that the consumer was asked for.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// An operator paused the service.
    service: bool,
    /// An operator paused these partitions.
    partitions: BTreeSet<TopicPartition>,
    /// The partitions that the consumer was asked to pause. Not per assignment: the consumer keeps a pause across
    /// assignments.
    asked: BTreeSet<TopicPartition>,
}

/// The partitions whose pause in the consumer has to change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) pause: Vec<TopicPartition>,
    pub(super) resume: Vec<TopicPartition>,
}

impl Pauses {
    /// Pauses the service, or resumes it.
    pub(super) fn set_service(&mut self, paused: bool) {
        self.service = paused;
    }

    /// Pauses partitions, or resumes them.
    pub(super) fn set_partitions(&mut self, partitions: Vec<TopicPartition>, paused: bool) {
        if paused {
            self.partitions.extend(partitions);
        } else {
            partitions.iter().for_each(|partition| drop(self.partitions.take(partition)));
        }
    }

    /// Returns whether an operator paused this partition, or the service.
    pub(super) fn is_paused(&self, partition: &TopicPartition) -> bool {
        self.service || self.partitions.contains(partition)
    }

    /// Returns what to ask the consumer for, so that exactly the `wanted` ones of these partitions are paused.
    pub(super) fn changes<'a>(&mut self, wanted: impl Iterator<Item = (&'a TopicPartition, bool)>) -> Changes {
        let mut changes = Changes::default();
        for (partition, wanted) in wanted {
            if wanted && !self.asked.contains(partition) {
                self.asked.insert(partition.clone());
                changes.pause.push(partition.clone());
            } else if !wanted && self.asked.remove(partition) {
                changes.resume.push(partition.clone());
            }
        }
        changes
    }
}
