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
    pub(super) steps: u64,
}
