//! The Kafka that the tests share, and topics on it.

use tidings::kafka::{KafkaConfig, KafkaTransport};
use tidings::record::{Name, Timestamp};
use tidings::{BoxError, Topic, Transport};
use tidings_testbed::Kafka;

type TestResult<T = ()> = Result<T, BoxError>;

pub(crate) async fn transport() -> TestResult<KafkaTransport> {
    let kafka = Kafka::shared().await?;
    Ok(KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(','))).await?)
}

pub(crate) fn fresh(what: &str) -> Name {
    Name::from(format!("{what}-{}-{}", std::process::id(), Timestamp::now().millis()))
}

pub(crate) async fn create(transport: &dyn Transport, topics: &[Topic]) -> TestResult {
    for answer in transport.admin().await?.create_topics(topics).await? {
        answer?;
    }
    Ok(())
}
