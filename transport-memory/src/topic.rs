//! A topic: its partitions and limits.
//!
//! A topic outlives its entry in the broker's map: publishers cache it, and its partitions, to save
//! a lookup for each record. They compare one number to learn that partitions were added or that
//! the topic is gone ([`TopicLog::has_just`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    Cleanup, DEAD_LETTER_STATE_SUFFIX, DEAD_LETTER_SUFFIX, Error, ErrorKind, Name, PartitionDescription, Result,
    Timestamp, Topic, TopicDescription, TopicPartition, check_topic_name,
};

use crate::alter;
use crate::config::MemoryConfig;
use crate::error::lock;
use crate::log::{PartitionLog, Retention};

/// Number of bytes for which records without a key stay with a partition, as Kafka's batches do by default.
const STICKY_BYTES: u64 = 16 << 10;
/// Extra size of a dead letter over its topic's largest record, for the headers that describe the failure.
const LETTER_ROOM: u64 = 64 << 10;

/// Multiple of a topic's records that the topic of letters' states keeps: leased, given back, closed, and one to spare.
const STATE_ENTRIES: u64 = 4;

/// The logs of a topic, by partition number. Growing replaces the whole slice, so that a reader of
/// one never waits.
pub(crate) type Logs = Arc<[Arc<PartitionLog>]>;

/// A topic: its limits, fixed at creation, and its partitions, which may become more.
#[derive(Debug)]
pub(crate) struct TopicLog {
    pub(crate) name: Name,
    /// By the topic's own setting, or else the transport's; larger records are refused as
    /// `TooLarge`.
    max_record_bytes: AtomicU64,
    /// What the topic was created with, and its changes since.
    spec: Mutex<Topic>,
    logs: Mutex<Logs>,
    /// Number of `logs`, so that callers that cache them can check for more; zero once the topic is deleted.
    partitions: AtomicU32,
    deleted: AtomicBool,
    /// Whether a record with a key was ever published; then partitions can't be added without
    /// consent.
    keyed: AtomicBool,
    /// Bytes published without a key, from which the sticky partition follows.
    keyless_bytes: AtomicU64,
}

impl TopicLog {
    /// Creates a topic that is in no map yet.
    ///
    /// A compacted topic has no age limit and only the transport's own size limit, since compaction
    /// is not implemented. A dead-letter topic accepts larger records than others.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming what is wrong.
    pub(crate) fn new(spec: &Topic, config: &MemoryConfig) -> Result<Self> {
        check_topic_name(&spec.name)?;
        check_partitions(&spec.name, spec.partitions)?;
        let spec = &alter::created(spec)?;
        let topic = Self {
            name: spec.name.clone(),
            max_record_bytes: AtomicU64::new(max_record_bytes(spec, config)),
            spec: Mutex::new(spec.clone()),
            logs: Mutex::new(Arc::new([])),
            partitions: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            keyed: AtomicBool::new(false),
            keyless_bytes: AtomicU64::new(0),
        };
        topic.grow(spec.partitions, config);
        Ok(topic)
    }

    pub(crate) fn logs(&self) -> Logs {
        Arc::clone(&lock(&self.logs))
    }

    pub(crate) fn log(&self, partition: u32) -> Option<Arc<PartitionLog>> {
        lock(&self.logs).get(partition as usize).cloned()
    }

    /// Raises the number of partitions to `partitions`; never lowers it.
    ///
    /// A deleted topic stays as it is: a publisher that still holds it must not revive it.
    pub(crate) fn grow(&self, partitions: u32, config: &MemoryConfig) {
        // Held until the end, so that a change of the settings reaches the new partitions, too.
        let spec = lock(&self.spec);
        let retention = retention(&spec, config);
        let mut logs = lock(&self.logs);
        if self.deleted.load(Ordering::Acquire) {
            return;
        }
        let new = logs.len() as u32..partitions;
        let new = new.map(|p| Arc::new(PartitionLog::new(TopicPartition::new(&self.name, p), retention)));
        *logs = logs.iter().cloned().chain(new).collect();
        self.partitions.store(logs.len() as u32, Ordering::Release);
    }

    /// Returns whether `logs` are still complete and the topic is not deleted.
    pub(crate) fn has_just(&self, logs: &Logs) -> bool {
        self.partitions.load(Ordering::Acquire) == logs.len() as u32
    }

    /// Marks the topic as deleted and drops its records: its last publisher may keep the topic itself.
    pub(crate) fn set_deleted(&self) {
        let logs = lock(&self.logs);
        self.deleted.store(true, Ordering::Release);
        self.partitions.store(0, Ordering::Release);
        logs.iter().for_each(|log| log.drop_before(u64::MAX));
    }

    pub(crate) fn max_record_bytes(&self) -> u64 {
        self.max_record_bytes.load(Ordering::Relaxed)
    }

    /// Changes settings, all or none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the setting.
    pub(crate) fn alter(&self, changes: &[(String, Option<String>)], config: &MemoryConfig) -> Result<()> {
        let mut spec = lock(&self.spec);
        let mut changed = spec.clone();
        for (name, value) in changes {
            alter::change(&mut changed, name, value.as_deref())?;
        }
        *spec = changed;
        let retention = retention(&spec, config);
        self.max_record_bytes.store(max_record_bytes(&spec, config), Ordering::Relaxed);
        self.logs().iter().for_each(|log| log.set_retention(retention));
        Ok(())
    }

    /// Returns the names of the settings that the topic has itself.
    pub(crate) fn own_settings(&self) -> Vec<String> {
        alter::own(&lock(&self.spec))
    }

    /// Returns whether a record with a key was ever published to it.
    pub(crate) fn is_keyed(&self) -> bool {
        self.keyed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_keyed(&self) {
        if !self.is_keyed() {
            self.keyed.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the partition of a record of `size` bytes without a key.
    ///
    /// It changes after each [`STICKY_BYTES`], so that consecutive records share a batch, yet all
    /// partitions get their share.
    pub(crate) fn sticky(&self, size: usize, partitions: u32) -> u32 {
        let before = self.keyless_bytes.fetch_add(size as u64, Ordering::Relaxed);
        ((before / STICKY_BYTES) % u64::from(partitions.max(1))) as u32
    }

    /// Describes the topic with the bounds of its partitions; broker 0 leads them all.
    pub(crate) fn describe(&self, config: &MemoryConfig, now: Timestamp) -> TopicDescription {
        let logs = self.logs();
        let partitions = logs.iter().map(|log| {
            let (start, end) = log.bounds(now);
            let mut description = PartitionDescription::new(log.origin().partition, start, end);
            (description.leader, description.replicas, description.in_sync) = (Some(0), vec![0], vec![0]);
            description
        });
        let mut description = TopicDescription::new(&self.name, partitions.collect());
        description.settings = settings(&lock(&self.spec), config);
        description
    }
}

/// Returns the limits of a partition of a topic.
fn retention(spec: &Topic, config: &MemoryConfig) -> Retention {
    let deletes = !matches!(spec.cleanup, Some(Cleanup::Compact));
    // Each letter has up to three entries in the topic of states, which must not be dropped before the letter.
    let entries = if spec.name.ends_with(DEAD_LETTER_STATE_SUFFIX) { STATE_ENTRIES } else { 1 };
    Retention {
        records: config.retention_records.saturating_mul(entries),
        bytes: spec.retention_bytes.filter(|_| deletes).unwrap_or(config.retention_bytes),
        age: spec.retention.or(config.retention).filter(|age| deletes && *age != Duration::MAX),
    }
}

fn max_record_bytes(spec: &Topic, config: &MemoryConfig) -> u64 {
    let room = if spec.name.ends_with(DEAD_LETTER_SUFFIX) { LETTER_ROOM } else { 0 };
    spec.max_record_bytes.unwrap_or(config.max_record_bytes.saturating_add(room))
}

/// Returns the settings of a topic, by Kafka's names where one exists.
///
/// Settings of the spec that are not implemented are kept as they came, so that a test sees what a
/// real broker would be asked for.
fn settings(spec: &Topic, config: &MemoryConfig) -> BTreeMap<String, String> {
    let retention = retention(spec, config);
    let mut settings = spec.settings.clone();
    let mut tell = |name: &str, value: String| settings.insert(name.into(), value);
    // As they are set, also where the cleanup policy ignores them.
    let age = spec.retention.or(config.retention).filter(|age| *age != Duration::MAX);
    tell("retention.ms", age.map_or("-1".into(), |age| age.as_millis().to_string()));
    tell("retention.bytes", spec.retention_bytes.unwrap_or(config.retention_bytes).to_string());
    tell("retention.records", retention.records.to_string());
    let cleanup = match spec.cleanup {
        Some(Cleanup::Compact) => "compact",
        Some(Cleanup::CompactAndDelete) => "compact,delete",
        _ => "delete",
    };
    tell("cleanup.policy", cleanup.into());
    settings
}

/// Checks a number of partitions.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for zero or too many: each one costs memory.
pub(crate) fn check_partitions(name: &str, partitions: u32) -> Result<()> {
    if (1..=MemoryConfig::MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let max = MemoryConfig::MAX_PARTITIONS;
    let text = format!("topic {name:?}: {partitions} partitions, expected 1 to {max}");
    Err(Error::new(ErrorKind::Invalid, text))
}
