//! A topic: its partitions and limits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    Cleanup, DEAD_LETTER_SUFFIX, Error, ErrorKind, Name, PartitionDescription, Result, Timestamp, Topic,
    TopicDescription, TopicPartition, check_topic_name,
};

use crate::config::MemoryConfig;
use crate::error::lock;
use crate::log::{PartitionLog, Retention};

/// Number of bytes for which records without a key stay with a partition, as Kafka's batches do by default.
const STICKY_BYTES: u64 = 16 << 10;
/// Extra size of a dead letter over its topic's largest record, for the headers that describe the failure.
const LETTER_ROOM: u64 = 64 << 10;

pub(crate) type Logs = Arc<[Arc<PartitionLog>]>;

#[derive(Debug)]
pub(crate) struct TopicLog {
    pub(crate) name: Name,
    pub(crate) max_record_bytes: u64,
    settings: BTreeMap<String, String>,
    retention: Retention,
    logs: Mutex<Logs>,
    /// Number of `logs`, so that callers that cache them can check for more; zero once the topic is deleted.
    partitions: AtomicU32,
    deleted: AtomicBool,
    keyed: AtomicBool,
    keyless_bytes: AtomicU64,
}

impl TopicLog {
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming what is wrong.
    pub(crate) fn new(spec: &Topic, config: &MemoryConfig) -> Result<Self> {
        check_topic_name(&spec.name)?;
        check_partitions(&spec.name, spec.partitions)?;
        let deletes = !matches!(spec.cleanup, Some(Cleanup::Compact));
        let age = spec.retention.or(config.retention).filter(|age| deletes && *age != Duration::MAX);
        let retention = Retention {
            records: config.retention_records,
            bytes: spec.retention_bytes.filter(|_| deletes).unwrap_or(config.retention_bytes),
            age,
        };
        let room = if spec.name.ends_with(DEAD_LETTER_SUFFIX) { LETTER_ROOM } else { 0 };
        let topic = Self {
            name: spec.name.clone(),
            max_record_bytes: spec.max_record_bytes.unwrap_or(config.max_record_bytes.saturating_add(room)),
            settings: settings(spec, retention),
            retention,
            logs: Mutex::new(Arc::new([])),
            partitions: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            keyed: AtomicBool::new(false),
            keyless_bytes: AtomicU64::new(0),
        };
        topic.grow(spec.partitions);
        Ok(topic)
    }

    pub(crate) fn logs(&self) -> Logs {
        Arc::clone(&lock(&self.logs))
    }

    pub(crate) fn log(&self, partition: u32) -> Option<Arc<PartitionLog>> {
        lock(&self.logs).get(partition as usize).cloned()
    }

    /// Raises the number of partitions to `partitions`; never lowers it.
    pub(crate) fn grow(&self, partitions: u32) {
        let mut logs = lock(&self.logs);
        if self.deleted.load(Ordering::Acquire) {
            return;
        }
        let new = logs.len() as u32..partitions;
        let new = new.map(|p| Arc::new(PartitionLog::new(TopicPartition::new(&self.name, p), self.retention)));
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
        logs.iter().for_each(|log| log.drop_before(log.end()));
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
    pub(crate) fn sticky(&self, size: usize, partitions: u32) -> u32 {
        let before = self.keyless_bytes.fetch_add(size as u64, Ordering::Relaxed);
        ((before / STICKY_BYTES) % u64::from(partitions.max(1))) as u32
    }

    pub(crate) fn describe(&self, now: Timestamp) -> TopicDescription {
        let logs = self.logs();
        let partitions = logs.iter().map(|log| {
            let (start, end) = log.bounds(now);
            let mut description = PartitionDescription::new(log.origin().partition, start, end);
            (description.leader, description.replicas, description.in_sync) = (Some(0), vec![0], vec![0]);
            description
        });
        let mut description = TopicDescription::new(&self.name, partitions.collect());
        description.settings.clone_from(&self.settings);
        description
    }
}

/// Returns the settings of a topic, by Kafka's names where one exists.
fn settings(spec: &Topic, retention: Retention) -> BTreeMap<String, String> {
    let mut settings = spec.settings.clone();
    let mut tell = |name: &str, value: String| settings.insert(name.into(), value);
    tell("retention.ms", retention.age.map_or("-1".into(), |age| age.as_millis().to_string()));
    tell("retention.bytes", retention.bytes.to_string());
    tell("retention.records", retention.records.to_string());
    let cleanup = match spec.cleanup {
        Some(Cleanup::Compact) => "compact",
        Some(Cleanup::CompactAndDelete) => "compact,delete",
        _ => "delete",
    };
    tell("cleanup.policy", cleanup.into());
    settings
}

pub(crate) fn check_partitions(name: &str, partitions: u32) -> Result<()> {
    if (1..=MemoryConfig::MAX_PARTITIONS).contains(&partitions) {
        return Ok(());
    }
    let text = format!("topic {name:?}: partitions must be 1 to {}, not {partitions}", MemoryConfig::MAX_PARTITIONS);
    Err(Error::new(ErrorKind::Invalid, text))
}
