//! The suite of audit sinks on topics of a real Kafka. Ignored without a broker.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings::audit::{AuditPage, AuditPosition, AuditSink, StoredAudit, TopicAudit};
use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::record::Timestamp;
use tidings::transport::{Guarantees, async_trait};
use tidings::{Error, ErrorKind, Result, Transport};
use tidings_conformance::{Setup, Suites};
use tidings_testbed::Kafka;

/// Number of cases at once: most of their time is waiting.
const THREADS: usize = 4;

fn main() -> ExitCode {
    Suites::new()
        .with_threads(THREADS)
        .with_audit(setup("kafka", 1))
        .with_audit(setup("kafka-of-three-partitions", 3))
        .run()
}

/// A sink with the name of its topic, to open it again.
#[derive(Debug)]
struct OnKafka {
    sink: TopicAudit,
    topic: String,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AuditSink for OnKafka {
    async fn append(&self, records: Vec<StoredAudit>) -> Vec<Result<()>> {
        self.sink.append(records).await
    }

    async fn read(&self, after: Option<&AuditPosition>, limit: usize) -> Result<AuditPage> {
        self.sink.read(after, limit).await
    }

    fn guarantees(&self) -> Guarantees {
        self.sink.guarantees()
    }
}

fn setup(name: &'static str, partitions: u32) -> Setup<OnKafka> {
    Setup::new(name, move || async move { create(fresh(), partitions).await })
        .with_patience(Duration::from_secs(60))
        .with_reopen(|closed: Arc<OnKafka>| async move { open(closed.topic.clone()).await })
}

fn fresh() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("trail-{}-{count}-{}", std::process::id(), Timestamp::now().millis())
}

async fn connect() -> Result<KafkaTransport> {
    let kafka = Kafka::shared().await.map_err(|error| {
        let kind = if error.is_unavailable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
        Error::caused_by(kind, "start a broker", error)
    })?;
    KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await
}

async fn create(topic: String, partitions: u32) -> Result<OnKafka> {
    let created = TopicAudit::topic(topic.clone()).with_partitions(partitions);
    connect().await?.admin().await?.create_topics(&[created]).await?.remove(0)?;
    open(topic).await
}

async fn open(topic: String) -> Result<OnKafka> {
    Ok(OnKafka { sink: TopicAudit::open(&connect().await?, topic.clone()).await?, topic })
}
