//! The memory of a consumer with a bug.

use std::collections::{HashMap, HashSet};

use tidings_core::{Fetched, Progress, Step, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) epochs: HashMap<TopicPartition, u64>,
    pub(super) positions: HashMap<TopicPartition, u64>,
    pub(super) metadata: HashMap<TopicPartition, String>,
    pub(super) pauses: HashMap<TopicPartition, u32>,
    pub(super) sought: HashSet<TopicPartition>,
    pub(super) revoking: HashSet<TopicPartition>,
    pub(super) muted: HashSet<TopicPartition>,
    pub(super) to_pause: HashSet<TopicPartition>,
    pub(super) frozen: HashMap<TopicPartition, Progress>,
    /// Steps taken from the inner consumer before they were asked for.
    pub(super) early: Vec<Step>,
    /// Records fetched under a pause.
    pub(super) held: Vec<Step>,
    pub(super) last: Option<Fetched>,
    pub(super) down: bool,
    pub(super) asked: bool,
    pub(super) steps: u64,
}

impl State {
    /// Notes that partitions are resumed. Returns all that were paused, and those that still are if pauses count.
    pub(super) fn resumed(
        &mut self,
        partitions: &[TopicPartition],
        counts: bool,
    ) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let all = self.pauses.keys().cloned().collect();
        for p in partitions {
            if let Some(count) = self.pauses.get_mut(p) {
                *count = count.saturating_sub(1);
            }
        }
        let still = self.pauses.iter().filter(|(_, n)| **n > 0).map(|(p, _)| p.clone()).collect();
        if !counts {
            self.pauses.retain(|p, _| !partitions.contains(p));
        }
        (all, still)
    }

    /// Lets the records that were fetched under a pause come next.
    pub(super) fn yield_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        held.reverse();
        self.early.extend(held);
    }
}
