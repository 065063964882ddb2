//! The contract of a transport, on one broker and on three, with both group protocols, and with the native reader
//! and publisher.

#[path = "common/kinds.rs"]
mod kinds;

use std::process::ExitCode;
use std::time::Duration;

use tidings_conformance::{Setup, Suites};
use tidings_core::{Error, ErrorKind, Result};
use tidings_kafka::{GroupProtocol, KafkaConfig, KafkaTransport, ReaderKind};
use tidings_testbed::{Kafka, KafkaOptions};
use tokio::sync::OnceCell;

/// With the newer protocol, the broker decides on the session timeout: the value is the testbed's.
const SESSION: Duration = Duration::from_secs(10);

/// Number of concurrent cases: they mostly wait.
const THREADS: usize = 8;

fn main() -> ExitCode {
    let mut suites = Suites::new().with_threads(THREADS);
    for (name, three, protocol, reader) in [
        ("kip-848", false, GroupProtocol::Consumer, ReaderKind::Client),
        ("classic", false, GroupProtocol::Classic, ReaderKind::Client),
        ("native", false, GroupProtocol::Consumer, ReaderKind::Native),
        ("kip-848-on-three", true, GroupProtocol::Consumer, ReaderKind::Client),
        ("classic-on-three", true, GroupProtocol::Classic, ReaderKind::Client),
        ("native-on-three", true, GroupProtocol::Consumer, ReaderKind::Native),
    ] {
        suites = suites.with_transport(setup(name, three, protocol, reader));
    }
    suites.run()
}

fn setup(name: &str, three: bool, protocol: GroupProtocol, reader: ReaderKind) -> Setup<KafkaTransport> {
    let setup = Setup::new(name, move || open(three, protocol, reader))
        .with_lifetime(SESSION)
        .with_patience(Duration::from_secs(60))
        .with_reopen(move |_closed| open(three, protocol, reader));
    if protocol == GroupProtocol::Consumer {
        return setup;
    }
    setup.without_case(
        "c1_a_partition_that_appears_later_starts_at_its_beginning",
        "the client does not look for new partitions between two rebalances of a classic group",
    )
}

async fn open(three: bool, protocol: GroupProtocol, reader: ReaderKind) -> Result<KafkaTransport> {
    let brokers = if three { three_nodes().await } else { Kafka::shared().await.map(|k| k.bootstrap().to_owned()) };
    let brokers = brokers.map_err(|error| {
        let kind = if error.is_unavailable() { ErrorKind::Unavailable } else { ErrorKind::Failed };
        Error::caused_by(kind, "start a broker", error)
    })?;
    let config = KafkaConfig::new(brokers.split(',')).with_group_protocol(protocol);
    KafkaTransport::connect(kinds::by(reader, config)).await
}

/// Three nodes, with each record on all of them; started once, on first use.
async fn three_nodes() -> tidings_testbed::Result<String> {
    static STARTED: OnceCell<Kafka> = OnceCell::const_new();
    let kafka = STARTED.get_or_try_init(|| Kafka::start(KafkaOptions::new().with_nodes(3))).await?;
    Ok(kafka.bootstrap())
}
