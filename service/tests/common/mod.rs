//! Helpers shared by the engine's tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    ConsumerOptions, DeadLetter, Publisher, Record, Step, StoredRecord, Topic, Transport, dead_letter_topic,
};
use tidings_memory::MemoryTransport;
use tidings_service::{Observer, RecordEvent, Retry, Service, ServiceHandle};

/// A log of test steps, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("no test panics with the log").push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no test panics with the log").clone()
    }
}

impl Observer for Log {
    fn observe(&self, event: &RecordEvent<'_>) {
        self.add(format!("{} {}", event.outcome.as_str(), event.record.offset));
    }
}

/// Creates topics of one partition, each with its dead-letter topic.
pub(crate) async fn topics(transport: &MemoryTransport, names: &[&'static str]) {
    let admin = transport.admin().await.expect("memory has an admin");
    let both = |name: &&'static str| [Topic::new(*name), Topic::new(dead_letter_topic(name))];
    let topics: Vec<Topic> = names.iter().flat_map(both).collect();
    for answer in admin.create_topics(&topics).await.expect("memory is up") {
        answer.expect("a new topic");
    }
}

/// Publishes records, each of which must be accepted.
pub(crate) async fn publish(transport: &MemoryTransport, records: Vec<Record>) {
    let publisher: Arc<dyn Publisher> = transport.publisher().await.expect("memory is up");
    for answer in publisher.publish(records).await {
        answer.expect("memory takes it");
    }
}

/// Starts a service whose retries wait for a fixed time.
pub(crate) async fn start(service: Service, transport: &MemoryTransport) -> ServiceHandle {
    let retry = Retry::exponential(Duration::from_millis(100)).without_jitter();
    service.with_retry(retry).start(transport).await.expect("it starts")
}

/// Waits until the service has caught up; panics with its status if it does not.
pub(crate) async fn caught_up(service: &ServiceHandle) {
    match tokio::time::timeout(Duration::from_secs(300), service.caught_up()).await {
        Ok(done) => done.expect("it runs"),
        Err(_) => panic!("it did not catch up: {:#?}", service.status().await),
    }
}

/// Returns all records of a topic of one partition.
pub(crate) async fn records(transport: &MemoryTransport, topic: &'static str) -> Vec<StoredRecord> {
    let admin = transport.admin().await.expect("memory is up");
    let found = admin.describe_topics(&[topic.into()]).await.expect("memory is up").remove(0).expect("it exists");
    let end = found.partitions[0].end;
    let group = format!("reader-{}", uuid::Uuid::new_v4());
    let consumer = transport.consumer(ConsumerOptions::new(group, [topic])).await.expect("memory is up");
    let mut records = Vec::new();
    while (records.len() as u64) < end {
        if let Step::Records(fetched) = consumer.next().await.expect("memory is up") {
            records.extend(fetched.batch.records().iter().cloned());
        }
    }
    records
}

/// Returns the dead letters of a topic.
pub(crate) async fn letters(transport: &MemoryTransport, topic: &'static str) -> Vec<DeadLetter> {
    let records = records(transport, topic).await;
    records.iter().map(|record| DeadLetter::from_record(record).expect("a letter")).collect()
}
