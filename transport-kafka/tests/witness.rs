//! The contents of the broker, read by a client that shares no code with ours (rskafka).

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;

use std::process::ExitCode;

use common::{LIMIT, TestResult, fresh, published};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use tidings_core::Record;
use tidings_kafka::{Compression, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, Suite};
use tokio::time::timeout;

fn main() -> ExitCode {
    Suite::new()
        .with_case("what_is_published_is_read_by_another_client", what_is_published_is_read_by_another_client)
        .run()
}

async fn what_is_published_is_read_by_another_client() -> TestResult {
    let kafka = Kafka::shared().await?;
    let brokers: Vec<String> = kafka.bootstrap().split(',').map(str::to_owned).collect();
    // Its LZ4 and zstd are C libraries.
    let codecs = [Compression::None, Compression::Gzip, Compression::Snappy];
    let witness = timeout(LIMIT, ClientBuilder::new(brokers.clone()).build()).await??;
    for codec in codecs {
        let transport = KafkaTransport::connect(KafkaConfig::new(brokers.clone()).with_compression(codec)).await?;
        let topic = fresh(&transport, "witness", 1).await?;
        let value = |n: usize| format!("{n}-").repeat(50);
        let records = (0..200).map(|n| Record::new(topic.clone(), value(n)).with_key(n.to_string()));
        published(&transport, records.chain([Record::tombstone(topic.clone()).with_key("gone")]).collect()).await?;
        let partition = witness.partition_client(topic.to_string(), 0, UnknownTopicHandling::Error);
        let partition = timeout(LIMIT, partition).await??;
        let mut read = Vec::new();
        while read.len() < 201 {
            let next = i64::try_from(read.len())?;
            let (records, _) = timeout(LIMIT, partition.fetch_records(next, 1..1_000_000, 1_000)).await??;
            read.extend(records);
        }
        for (n, found) in read.iter().take(200).enumerate() {
            assert_eq!(found.record.key.as_deref(), Some(n.to_string().as_bytes()), "{codec:?}");
            assert_eq!(found.record.value.as_deref(), Some(value(n).as_bytes()), "{codec:?}");
        }
        assert_eq!(read[200].record.value, None, "{codec:?}");
    }
    Ok(())
}
