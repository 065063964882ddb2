//! The same with other clients: KafkaJS and rskafka.

use std::collections::BTreeMap;

use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::{Value, json};
use tidings_kafka::ReaderKind;
use tidings_testbed::Kafka;
use tokio::time::timeout;

use crate::cases::{Fate, UNPACKED};
use crate::common::{LIMIT, TestResult};
use crate::peer::peer;
use crate::scene::{Behind, HIT, Scene, reader, verdict};

const MIB: usize = 1 << 20;

async fn scene() -> TestResult<Scene> {
    let shared = Kafka::shared().await?;
    let scene =
        Scene::open(&reader(shared.bootstrap(), UNPACKED, ReaderKind::Client).await?, shared.bootstrap(), None).await?;
    scene.good("before").await?;
    Ok(scene)
}

/// Returns the inputs of KafkaJS: a name, a codec, a fate, the number of records, and the specification of each.
pub(crate) fn by_kafkajs() -> Vec<(&'static str, &'static str, Fate, usize, Value)> {
    vec![
        ("kafkajs_a_gzip_batch_over_the_readers_limit", "gzip", Fate::Held, 20, json!({ "size": MIB })),
        ("kafkajs_20_000_records_in_a_gzip_batch", "gzip", Fate::Handled, 20_000, json!({ "size": 500 })),
        ("kafkajs_a_record_with_100_001_headers", "none", Fate::Held, 1, json!({ "headers": 100_001 })),
        (
            "kafkajs_9_991_headers_for_the_dead_letters",
            "gzip",
            Fate::Buried,
            1,
            json!({ "headers": 9_991, "key": "bury" }),
        ),
        (
            "kafkajs_9_000_headers_for_the_dead_letters",
            "gzip",
            Fate::Buried,
            1,
            json!({ "headers": 9_000, "key": "bury" }),
        ),
        ("kafkajs_a_key_of_900_kib", "none", Fate::Handled, 1, json!({ "key": 900 << 10 })),
        (
            "kafkajs_a_header_name_of_900_kib",
            "none",
            Fate::Handled,
            1,
            json!({ "headers": 1, "headerName": "n".repeat(900 << 10) }),
        ),
        ("kafkajs_500_records_in_a_batch", "none", Fate::Handled, 500, json!({ "size": 1_500 })),
    ]
}

pub(crate) async fn kafkajs(codec: &str, fate: Fate, records: usize, mut each: Value) -> TestResult {
    let scene = scene().await?;
    each["count"] = json!(records);
    peer(&["batch", &scene.brokers, &scene.topic, &HIT.to_string(), codec], &each).await?;
    verdict(fate, scene.outcome(records, Behind::After).await?)
}

type Records = fn() -> Vec<Record>;

/// Returns the inputs of rskafka.
pub(crate) fn by_rskafka() -> Vec<(&'static str, Compression, Fate, Records)> {
    vec![
        ("rskafka_a_gzip_batch_over_the_readers_limit", Compression::Gzip, Fate::Held, || alike(20, record(MIB))),
        ("rskafka_a_snappy_batch_that_unpacks_to_15_mib", Compression::Snappy, Fate::Handled, || {
            alike(15, record(MIB))
        }),
        ("rskafka_50_000_records_in_a_gzip_batch", Compression::Gzip, Fate::Handled, || alike(50_000, record(250))),
        ("rskafka_a_record_with_100_001_headers", Compression::Gzip, Fate::Held, || alike(1, with_headers(100_001))),
        ("rskafka_a_record_with_20_000_headers", Compression::NoCompression, Fate::Handled, || {
            alike(1, with_headers(20_000))
        }),
        ("rskafka_9_991_headers_for_the_dead_letters", Compression::NoCompression, Fate::Buried, || {
            alike(1, Record { key: Some(b"bury".to_vec()), ..with_headers(9_991) })
        }),
    ]
}

pub(crate) async fn rskafka(codec: Compression, fate: Fate, records: Records) -> TestResult {
    let (scene, records) = (scene().await?, records());
    let brokers = scene.brokers.split(',').map(str::to_owned).collect();
    let client = timeout(LIMIT, ClientBuilder::new(brokers).build()).await??;
    let partition = client.partition_client(scene.topic.to_string(), HIT as i32, UnknownTopicHandling::Error);
    let partition = timeout(LIMIT, partition).await??;
    let count = records.len();
    timeout(LIMIT, partition.produce(records, codec)).await??;
    verdict(fate, scene.outcome(count, Behind::After).await?)
}

fn alike(count: usize, record: Record) -> Vec<Record> {
    vec![record; count]
}

fn record(size: usize) -> Record {
    Record { key: None, value: Some(vec![b'0'; size]), headers: BTreeMap::new(), timestamp: Default::default() }
}

fn with_headers(count: usize) -> Record {
    let headers = (0..count).map(|n| (format!("{n:x}"), Vec::new())).collect();
    Record { headers, ..record(1) }
}
