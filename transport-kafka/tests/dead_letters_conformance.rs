//! The contract of a dead-letter store, kept by dead-letter topics on Kafka.

use std::process::ExitCode;
use std::time::Duration;

use tidings_conformance::{Setup, Suites, dead_letters};
use tidings_core::{Error, ErrorKind, Result, Topic, Transport, ensure_topics};
use tidings_kafka::{KafkaConfig, KafkaTransport};
use tidings_service::TopicDeadLetters;
use tidings_testbed::Kafka;

/// Number of concurrent cases: they mostly wait.
const THREADS: usize = 8;

fn main() -> ExitCode {
    let setup = Setup::new("kafka-topics", open)
        .with_lifetime(Duration::from_secs(4))
        .with_patience(Duration::from_secs(60))
        .with_reopen(|closed| async move {
            closed.close().await?;
            open().await
        });
    Suites::new().with_threads(THREADS).with_dead_letters(setup).run()
}

async fn open() -> Result<TopicDeadLetters> {
    let kafka = Kafka::shared().await.map_err(|error| {
        let kind = if error.is_unavailable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
        Error::caused_by(kind, "start a broker", error)
    })?;
    let transport = KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?;
    let topics = dead_letters::TOPICS.map(|topic| Topic::new(topic).with_partitions(2));
    ensure_topics(&*transport.admin().await?, &topics).await?;
    TopicDeadLetters::open(&transport, dead_letters::TOPICS).await
}
