//! Helpers shared by the tests against a real broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_core::{
    Assignment, BoxError, Commit, Consumer, Name, Record, Step, StoredRecord, Topic, TopicPartition, Transport,
};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::Kafka;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) type TestResult<T = ()> = Result<T, BoxError>;

/// Time limit of any operation.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn transport(protocol: GroupProtocol) -> TestResult<KafkaTransport> {
    let kafka = Kafka::shared().await?;
    let brokers: Vec<_> = kafka.bootstrap().split(',').collect();
    Ok(KafkaTransport::connect(KafkaConfig::new(brokers).with_group_protocol(protocol)).await?)
}

/// Creates a topic with a unique name.
pub(crate) async fn fresh(kafka: &KafkaTransport, what: &str, partitions: u32) -> TestResult<Name> {
    let name = fresh_name(what);
    make(kafka, &[Topic::new(name.clone()).with_partitions(partitions)]).await?;
    Ok(name)
}

pub(crate) fn fresh_name(what: &str) -> Name {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = tidings_core::Timestamp::now().millis();
    format!("{what}-{}-{count}-{now}", std::process::id()).into()
}

pub(crate) async fn make(kafka: &KafkaTransport, topics: &[Topic]) -> TestResult {
    for answer in kafka.admin().await?.create_topics(topics).await? {
        answer?;
    }
    Ok(())
}

pub(crate) async fn published(kafka: &KafkaTransport, records: Vec<Record>) -> TestResult {
    let publisher = kafka.publisher().await?;
    for answer in publisher.publish(records).await {
        answer?;
    }
    publisher.close(LIMIT).await?;
    Ok(())
}

/// Returns the next step; transient errors are not failures.
pub(crate) async fn next(consumer: &dyn Consumer) -> TestResult<Step> {
    let ends = Instant::now() + LIMIT;
    let mut last = None;
    // The clock is checked too: a timeout never fires on errors that are always ready.
    while Instant::now() < ends {
        match timeout_at(ends, consumer.next()).await {
            Ok(Err(error)) if error.is_retryable() => last = Some(error),
            Ok(step) => return Ok(step?),
            Err(_) => break,
        }
    }
    Err(format!("no step in time; the last error: {:?}", last.map(|error| error.report())).into())
}

/// Reads steps until `count` partitions are assigned.
pub(crate) async fn assigned(consumer: &dyn Consumer, count: usize) -> TestResult<Vec<Assignment>> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(consumer).await? {
            Step::Assigned(assignments) => all.extend(assignments),
            other => return Err(format!("expected partitions, got {other:?}").into()),
        }
    }
    Ok(all)
}

/// Reads `count` records.
pub(crate) async fn records(consumer: &dyn Consumer, count: usize) -> TestResult<Vec<StoredRecord>> {
    let mut all = Vec::new();
    while all.len() < count {
        if let Step::Records(fetched) = next(consumer).await? {
            all.extend_from_slice(fetched.batch.records());
        }
    }
    Ok(all)
}

/// A member that behaves like a service: it commits the records it read, and releases revoked partitions.
pub(crate) struct Joined {
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) epochs: BTreeMap<TopicPartition, u64>,
    pub(crate) read: Vec<(TopicPartition, String)>,
    pub(crate) last: BTreeMap<TopicPartition, u64>,
    /// Position of each record, by topic and partition, and its offset.
    pub(crate) places: BTreeMap<(String, u64), String>,
    /// Whether commits may fail, because brokers are killed.
    pub(crate) patient: bool,
}

impl Joined {
    pub(crate) fn new(consumer: Arc<dyn Consumer>) -> Self {
        Self {
            consumer,
            epochs: BTreeMap::new(),
            read: Vec::new(),
            last: BTreeMap::new(),
            places: BTreeMap::new(),
            patient: false,
        }
    }

    /// Handles one step, if there is one soon.
    pub(crate) async fn step(&mut self) -> TestResult {
        let Ok(step) = timeout(Duration::from_millis(200), self.consumer.next()).await else { return Ok(()) };
        let step = match step {
            Err(error) if error.is_retryable() => return Ok(()),
            step => step?,
        };
        match step {
            Step::Assigned(given) => {
                for assignment in given {
                    // Uncommitted records come again.
                    self.last.remove(&assignment.partition);
                    self.epochs.insert(assignment.partition, assignment.epoch);
                }
            }
            Step::Records(fetched) => {
                let at = (**fetched.batch.origin()).clone();
                assert_eq!(self.epochs.get(&at), Some(&fetched.epoch), "records of {at} that is not ours");
                for record in fetched.batch.records() {
                    let before = self.last.insert(at.clone(), record.offset);
                    assert!(before.is_none_or(|b| b < record.offset), "{at}: {before:?} then {}", record.offset);
                    let value = record.value.as_deref().unwrap_or_default();
                    let value = String::from_utf8_lossy(value).into_owned();
                    self.places.insert((at.to_string(), record.offset), value.clone());
                    self.read.push((at.clone(), value));
                }
                for answer in self.consumer.commit(vec![Commit::new(at, fetched.epoch, fetched.next_offset)]).await {
                    match answer {
                        Err(_) if self.patient => {}
                        answer => answer?,
                    }
                }
            }
            Step::Revoking(revocation) => {
                for partition in &revocation.partitions {
                    self.epochs.remove(partition);
                }
                self.consumer.release(&revocation.partitions).await?;
            }
            Step::Lost(partitions) => {
                for partition in &partitions {
                    self.epochs.remove(partition);
                }
            }
            other => return Err(format!("a step that is not known: {other:?}").into()),
        }
        Ok(())
    }

    pub(crate) async fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> TestResult {
        let ends = Instant::now() + LIMIT;
        while !done(self) {
            if Instant::now() > ends {
                return Err(format!("not in time: {what}; has {:?}, read {:?}", self.epochs, self.read).into());
            }
            self.step().await?;
        }
        Ok(())
    }
}
