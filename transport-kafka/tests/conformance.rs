//! The contract of a transport, on one broker, by both group protocols.

use std::process::ExitCode;
use std::time::Duration;

use tidings_conformance::{Setup, Suites};
use tidings_core::{Error, ErrorKind, Result};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::Kafka;

/// The session of the newer protocol is the broker's to decide: the testbed's.
const SESSION: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    Suites::new()
        .with_transport(setup("kip-848", GroupProtocol::Consumer))
        .with_transport(setup("classic", GroupProtocol::Classic).without_case(
            "c1_a_partition_that_appears_later_starts_at_its_beginning",
            "the client does not look for new partitions between two rebalances of a classic group",
        ))
        .run()
}

fn setup(name: &str, protocol: GroupProtocol) -> Setup<KafkaTransport> {
    Setup::new(name, move || open(protocol))
        .with_lifetime(SESSION)
        .with_patience(Duration::from_secs(60))
        .with_reopen(move |_closed| open(protocol))
}

async fn open(protocol: GroupProtocol) -> Result<KafkaTransport> {
    let kafka = Kafka::shared().await.map_err(|error| {
        let kind = if error.is_unavailable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
        Error::caused_by(kind, "start a broker", error)
    })?;
    KafkaTransport::connect(KafkaConfig::new(kafka.bootstrap().split(',')).with_group_protocol(protocol)).await
}
