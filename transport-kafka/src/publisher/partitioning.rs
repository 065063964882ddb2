//! Choice of a record's partition.
//!
//! Keys are hashed as Kafka's Java client does, so that all clients agree on a key's partition.
//! Keyless records stay with a partition until a batch is full, then move to another at random
//! (KIP-480, KIP-794).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use foldhash::fast::RandomState as Hasher;
use tidings_core::{Name, Record, partition_for};
use tokio::time::Instant;

/// Pause before brokers that reported nothing about known topics are asked again: queued calls wait for each request.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Bytes of a batch in addition to its records.
const BATCH_OVERHEAD: usize = 128;
/// Pause before the limit of a topic that refused a batch as too large is requested again.
const ASK_LIMIT_AGAIN: Duration = Duration::from_secs(1);

/// Known topics: their partition counts, and the current partition of records without a key.
#[derive(Debug)]
pub(super) struct Partitioning {
    topics: HashMap<Name, TopicState, Hasher>,
    /// How long a topic's partition count is cached.
    max_age: Duration,
    /// When the brokers last failed to answer.
    unanswered_at: Option<Instant>,
    chooser: KeylessChooser,
}

/// Chooses partitions for records without a key.
#[derive(Debug)]
pub(super) struct KeylessChooser {
    /// Bytes after which the partition changes: a full batch.
    sticky_bytes: usize,
    random: RandomState,
    /// Number of changes, hashed into the next step.
    turns: u64,
}

/// Knowledge of a topic. It is kept when the topic disappears, for the numbers of its queued
/// records.
#[derive(Debug)]
pub(super) struct TopicState {
    count: u32,
    /// When the brokers were asked for it; `None`, if they have since reported that the topic does not exist.
    asked: Option<Instant>,
    /// Whether a record was placed since.
    used: bool,
    // Records without a key stay with a partition until a batch is full, so that batches fill up.
    sticky: u32,
    sticky_left: usize,
    /// Number of records queued for each partition.
    queued: Vec<u64>,
    /// The topic's batch limit in bytes, if it is below the configured one.
    max_batch_bytes: Option<NonZeroU32>,
    /// When a batch was last found to be too large.
    too_large: Option<Instant>,
}

impl Partitioning {
    /// Creates an empty cache.
    pub(super) fn new(sticky_bytes: usize, max_age: Duration) -> Self {
        let chooser = KeylessChooser { sticky_bytes, random: RandomState::new(), turns: 0 };
        Self { topics: HashMap::default(), max_age, unanswered_at: None, chooser }
    }

    /// Returns a topic's partition count, if it is recent enough.
    pub(super) fn count(&self, topic: &str) -> Option<u32> {
        self.topics.get(topic).filter(|state| state.age(Instant::now()) < self.max_age).map(|state| state.count)
    }

    /// Checks whether the brokers were asked for the topic after `since`.
    pub(super) fn is_known_since(&self, topic: &str, since: Instant) -> bool {
        self.topics.get(topic).and_then(|state| state.asked).is_some_and(|asked| asked >= since)
    }

    /// Returns this topic, and those in use that must be refreshed soon.
    pub(super) fn aging(&self, topic: &Name) -> Vec<Name> {
        let now = Instant::now();
        let soon = self.topics.iter().filter(|(name, state)| {
            state.used && state.age(now) >= self.max_age / 2 && state.asked.is_some() && *name != topic
        });
        std::iter::once(topic).chain(soon.map(|(name, _)| name)).cloned().collect()
    }

    /// Returns a topic's partition count, regardless of its age.
    pub(super) fn known(&self, topic: &str) -> Option<u32> {
        self.topics.get(topic).map(|state| state.count)
    }

    /// Records a partition count reported by brokers that were asked at `asked`.
    pub(super) fn learn(&mut self, topic: &Name, count: u32, asked: Instant) {
        let fresh = TopicState {
            count,
            asked: None,
            used: false,
            sticky: 0,
            sticky_left: 0,
            queued: Vec::new(),
            max_batch_bytes: None,
            too_large: None,
        };
        let state = self.topics.entry(topic.clone()).or_insert(fresh);
        self.unanswered_at = None;
        state.asked = Some(asked);
        state.used = false;
        state.count = count;
        state.sticky_left = if state.sticky < count { state.sticky_left } else { 0 };
    }

    /// Records that the brokers did not answer: known counts keep their age.
    pub(super) fn note_unanswered(&mut self) {
        self.unanswered_at = Some(Instant::now());
    }

    /// Checks whether the brokers may be asked for known topics, or recently failed to answer.
    pub(super) fn may_ask(&self) -> bool {
        self.unanswered_at.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN_AFTER.min(self.max_age))
    }

    /// Records that a topic no longer exists. The numbers of its queued records are kept.
    pub(super) fn mark_missing(&mut self, topic: &str) {
        if let Some(state) = self.topics.get_mut(topic) {
            state.asked = None;
        }
    }

    /// Returns how many records were queued for a partition of a known topic.
    pub(super) fn queued(&self, topic: &str, partition: u32) -> u64 {
        self.topics.get(topic).and_then(|state| state.queued.get(partition as usize)).copied().unwrap_or(0)
    }

    /// Counts one more record; returns the new number, and the batch limit of the topic in bytes.
    pub(super) fn note_queued(&mut self, topic: &str, partition: u32) -> (u64, Option<NonZeroU32>) {
        self.topics.get_mut(topic).map_or((1, None), |state| (state.note_queued(partition), state.max_batch_bytes))
    }

    /// Sets the batch limit of a topic, as a broker just reported it.
    pub(super) fn set_limit(&mut self, topic: &str, told: usize) {
        let batch_bytes = self.chooser.sticky_bytes;
        if let Some(state) = self.topics.get_mut(topic) {
            let max_batch_bytes = told.saturating_sub(BATCH_OVERHEAD).max(1);
            state.max_batch_bytes = if max_batch_bytes < batch_bytes { limit(max_batch_bytes) } else { None };
        }
    }

    /// Checks whether a batch that was too large under this limit is new information: each refused batch has many
    /// records.
    pub(super) fn note_too_large(&mut self, topic: &str, made_by: Option<NonZeroU32>) -> bool {
        let Some(state) = self.topics.get_mut(topic) else { return false };
        let (now, before) = (Instant::now(), state.too_large);
        let is_new = state.max_batch_bytes == made_by && before.is_none_or(|before| now - before >= ASK_LIMIT_AGAIN);
        if is_new {
            state.too_large = Some(now);
        }
        is_new
    }

    /// Lowers the limit after a batch was too large, when no broker reports the limit.
    ///
    /// Each refused batch halves the limit, until batches are accepted.
    pub(super) fn lower_limit(&mut self, topic: &str) {
        let batch_bytes = self.chooser.sticky_bytes;
        if let Some(state) = self.topics.get_mut(topic) {
            // The client has tried a half and a quarter.
            let max_batch_bytes =
                state.max_batch_bytes.map_or(batch_bytes / 8, |max_batch_bytes| max_batch_bytes.get() as usize / 2);
            state.max_batch_bytes = limit(max_batch_bytes.max(1));
        }
    }

    /// Returns the partition of a record that names none, on a known topic.
    pub(super) fn choose(&mut self, record: &Record) -> u32 {
        let Some(state) = self.topics.get_mut(&record.topic) else { return 0 };
        state.choose(record, &mut self.chooser)
    }

    /// Returns a topic that is recent enough at `now`, and the partition chooser.
    pub(super) fn known_at(&mut self, topic: &Name, now: Instant) -> Option<(&mut TopicState, &mut KeylessChooser)> {
        let state = self.topics.get_mut(topic)?;
        (state.age(now) < self.max_age).then_some((state, &mut self.chooser))
    }
}

fn limit(bytes: usize) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX))
}

impl TopicState {
    /// Returns the number of partitions.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the topic's batch limit in bytes, if it is below the configured one.
    pub(super) fn max_batch_bytes(&self) -> Option<NonZeroU32> {
        self.max_batch_bytes
    }

    /// Returns the partition of a record, if no broker has to be asked.
    pub(super) fn partition_now(&mut self, record: &Record, chooser: &mut KeylessChooser) -> Option<u32> {
        match record.partition {
            Some(partition) => (partition < self.count).then_some(partition),
            None => Some(self.choose(record, chooser)),
        }
    }

    /// Never the same partition twice in a row, if there are several.
    fn choose(&mut self, record: &Record, chooser: &mut KeylessChooser) -> u32 {
        if let Some(key) = &record.key {
            return partition_for(key, self.count);
        }
        if self.sticky_left == 0 {
            chooser.turns = chooser.turns.wrapping_add(1);
            let other = u64::from(self.count.saturating_sub(1)).max(1);
            let step = 1 + chooser.random.hash_one(chooser.turns) % other;
            self.sticky = ((u64::from(self.sticky) + step) % u64::from(self.count.max(1))) as u32;
            self.sticky_left = chooser.sticky_bytes;
        }
        self.sticky_left = self.sticky_left.saturating_sub(record.size());
        self.sticky
    }

    /// Counts one more record of a partition; returns the new number.
    pub(super) fn note_queued(&mut self, partition: u32) -> u64 {
        let partition = partition as usize;
        if self.queued.len() <= partition {
            self.queued.resize(partition + 1, 0);
        }
        self.queued[partition] += 1;
        self.used = true;
        self.queued[partition]
    }

    /// A topic that does not exist is older than any limit.
    fn age(&self, now: Instant) -> Duration {
        self.asked.map_or(Duration::MAX, |asked| now.saturating_duration_since(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn partitioning(count: u32) -> Partitioning {
        let mut partitioning = Partitioning::new(1_000, Duration::from_secs(30));
        partitioning.learn(&"t".into(), count, Instant::now());
        partitioning
    }

    #[test]
    fn a_key_has_its_partition() {
        let record = Record::new("t", "v").with_key("foobar");
        assert_eq!(partitioning(7).choose(&record), partition_for(b"foobar", 7));
    }

    #[test]
    fn records_without_a_key_stay_for_a_batch_and_then_move_on() {
        let mut partitioning = partitioning(3);
        let chosen: Vec<u32> = (0..200).map(|_| partitioning.choose(&Record::new("t", vec![0; 36]))).collect();
        assert!(chosen.chunks(10).all(|batch| batch.iter().all(|p| p == &batch[0])), "{chosen:?}");
        assert!(chosen.chunks(10).zip(chosen.chunks(10).skip(1)).all(|(a, b)| a[0] != b[0]), "{chosen:?}");
        assert_eq!(chosen.into_iter().collect::<HashSet<_>>().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_use_is_asked_for_together_and_in_time() {
        let (mut partitioning, [a, b, idle]) = (partitioning(2), ["a", "b", "idle"].map(Name::from));
        for topic in [&a, &b, &idle] {
            partitioning.learn(topic, 2, Instant::now());
        }
        partitioning.note_queued("b", 1);
        assert_eq!((partitioning.count("a"), partitioning.aging(&a)), (Some(2), vec![a.clone()]));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!((partitioning.count("a"), partitioning.aging(&a)), (Some(2), vec![a.clone(), b.clone()]));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!((partitioning.count("a"), partitioning.known("a")), (None, Some(2)));
        partitioning.learn(&a, 4, Instant::now());
        assert_eq!(partitioning.count("a"), Some(4));
        partitioning.mark_missing("a");
        assert_eq!((partitioning.count("a"), partitioning.known("a")), (None, Some(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn asking_in_vain_makes_nothing_known() {
        let mut partitioning = partitioning(2);
        tokio::time::advance(Duration::from_secs(29)).await;
        let since = Instant::now();
        assert!(partitioning.may_ask());
        partitioning.note_unanswered();
        assert!(!partitioning.may_ask() && !partitioning.is_known_since("t", since));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!((partitioning.count("t"), partitioning.known("t"), partitioning.may_ask()), (None, Some(2), false));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(partitioning.may_ask());
        partitioning.note_unanswered();
        partitioning.learn(&"other".into(), 1, Instant::now());
        assert!(partitioning.may_ask(), "they tell again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_takes_less_than_a_batch_is_known_or_found_out() {
        let mut partitioning = partitioning(1);
        partitioning.set_limit("t", 1_048_588);
        assert_eq!(partitioning.note_queued("t", 0), (1, None));
        assert!(partitioning.note_too_large("t", None) && !partitioning.note_too_large("t", None));
        partitioning.set_limit("t", 628);
        assert_eq!(partitioning.note_queued("t", 0), (2, limit(500)));
        tokio::time::advance(ASK_LIMIT_AGAIN).await;
        // A record of the previous batch.
        assert!(!partitioning.note_too_large("t", None) && partitioning.note_too_large("t", limit(500)));
        partitioning.lower_limit("t");
        assert_eq!(partitioning.note_queued("t", 0), (3, limit(250)));
    }

    #[test]
    fn a_topic_with_one_partition_has_one_place() {
        let mut partitioning = partitioning(1);
        assert_eq!((0..100).map(|_| partitioning.choose(&Record::new("t", vec![0; 500]))).max(), Some(0));
    }
}
