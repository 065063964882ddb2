//! Partitions that are held where they cannot be read on.

use tidings_core::Unreadable;

use super::Coordinator;
use crate::status::Held;

impl Coordinator {
    /// Holds the partition alone. All records before the range are in the tracker, and are settled and committed.
    pub(super) fn unreadable(&mut self, unreadable: Unreadable) {
        let Unreadable { partition: origin, epoch, offset, next_offset, error, .. } = unreadable;
        let Some(slot) = self.current.get(&origin) else { return };
        let Some(partition) = self.slots.get_mut(slot).filter(|p| p.assigned.epoch == epoch) else { return };
        let cause = error.report();
        tracing::error!(
            service = %self.shared.service,
            topic = %origin.topic,
            partition = origin.partition,
            offset,
            next_offset,
            error = %cause,
            "records cannot be read; the partition is held there until the range is skipped, all others go on"
        );
        partition.held = Some(Held { offset, next_offset, cause });
    }
}

/// The problem of a partition that is held.
pub(super) fn problem(origin: &tidings_core::TopicPartition, held: &Held) -> String {
    let until = held.next_offset.map_or_else(String::new, |next| format!(" to {}", next.saturating_sub(1)));
    format!("{origin}: offset {}{until} cannot be read, the partition is held there: {}", held.offset, held.cause)
}
