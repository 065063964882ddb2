//! Interoperability with KafkaJS, run on a real broker. Without Node the tests are ignored.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "kafkajs/peer.rs"]
mod peer;

use std::process::ExitCode;

use common::{TestResult, assigned, fresh, published, records};
use peer::peer;
use serde_json::{Value, json};
use tidings_core::{ConsumerOptions, Record, Transport, partition_for};
use tidings_kafka::{Compression, GroupProtocol, KafkaConfig, KafkaTransport};
use tidings_testbed::{Kafka, Suite};

const ENVELOPE: &str = r#"{"eventId":"0190a0b0-0000-7000-8000-000000000001","eventType":"user.registered","timestamp":1,"source":"s","version":"1.0","payload":{"name":"Zoë"}}"#;

fn main() -> ExitCode {
    Suite::new()
        .with_case("the_same_key_goes_to_the_same_partition", the_same_key_goes_to_the_same_partition)
        .with_case("theirs_are_read_here", theirs_are_read_here)
        .with_case("ours_are_read_there", ours_are_read_there)
        .with_case("a_group_is_taken_over_at_its_offsets", || taken_over(GroupProtocol::Auto))
        .with_case("a_group_is_taken_over_by_the_classic_protocol", || taken_over(GroupProtocol::Classic))
        .run()
}

async fn broker() -> TestResult<String> {
    Ok(Kafka::shared().await?.bootstrap().to_owned())
}

async fn transport(compression: Compression, protocol: GroupProtocol) -> TestResult<KafkaTransport> {
    let brokers = broker().await?;
    let config = KafkaConfig::new(brokers.split(',')).with_compression(compression).with_group_protocol(protocol);
    Ok(KafkaTransport::connect(config).await?)
}

async fn the_same_key_goes_to_the_same_partition() -> TestResult {
    let kafka = transport(Compression::None, GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "js-keys", 7).await?;
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}-Zoë")).collect();
    let messages: Vec<_> = keys.iter().map(|key| json!({ "key": key, "value": "v" })).collect();
    let places = peer(&["produce", &broker().await?, &topic, "none"], &messages.into()).await?;
    for (key, place) in keys.iter().zip(places) {
        assert_eq!(place["partition"], json!(partition_for(key.as_bytes(), 7)), "{key}");
    }
    Ok(())
}

async fn theirs_are_read_here() -> TestResult {
    for codec in ["none", "gzip"] {
        let kafka = transport(Compression::None, GroupProtocol::Auto).await?;
        let topic = fresh(&kafka, "js-theirs", 1).await?;
        let message = json!({ "key": "u1", "value": ENVELOPE, "headers": { "eventType": "user.registered", "n": "" } });
        let tombstone = json!({ "key": "u1", "value": null });
        peer(&["produce", &broker().await?, &topic, codec], &json!([message, tombstone])).await?;
        let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic])).await?;
        assigned(&*consumer, 1).await?;
        let read = records(&*consumer, 2).await?;
        assert_eq!((read[0].key.as_deref(), read[0].value.as_deref()), (Some(&b"u1"[..]), Some(ENVELOPE.as_bytes())));
        assert_eq!(read[0].headers.get_str("eventType"), Some("user.registered"));
        assert_eq!(read[0].headers.get_str("n"), Some(""));
        assert_eq!(read[1].value, None);
        consumer.close().await?;
    }
    Ok(())
}

async fn ours_are_read_there() -> TestResult {
    for compression in [Compression::None, Compression::Gzip] {
        let kafka = transport(compression, GroupProtocol::Auto).await?;
        let topic = fresh(&kafka, "js-ours", 1).await?;
        let record = Record::new(topic.clone(), ENVELOPE).with_key("u1").with_header("eventType", "user.registered");
        published(&kafka, vec![record, Record::tombstone(topic.clone()).with_key("u1")]).await?;
        let group = format!("{topic}-group");
        let read = peer(&["consume", &broker().await?, &topic, &group, "2"], &Value::Null).await?;
        assert_eq!((&read[0]["key"], &read[0]["value"]), (&json!("u1"), &json!(ENVELOPE)));
        assert_eq!(read[0]["headers"], json!([["eventType", "user.registered"]]));
        assert_eq!(read[1]["value"], Value::Null);
    }
    Ok(())
}

async fn taken_over(protocol: GroupProtocol) -> TestResult {
    let kafka = transport(Compression::None, protocol).await?;
    let topic = fresh(&kafka, "js-group", 1).await?;
    published(&kafka, (0..10).map(|n| Record::new(topic.clone(), n.to_string())).collect()).await?;
    let group = format!("{topic}-group");
    peer(&["consume", &broker().await?, &topic, &group, "6"], &Value::Null).await?;
    let consumer = kafka.consumer(ConsumerOptions::new(group, [topic])).await?;
    let given = assigned(&*consumer, 1).await?;
    assert_eq!((given[0].start_offset, given[0].committed), (6, Some(6)));
    assert_eq!(records(&*consumer, 4).await?[0].value.as_deref(), Some(&b"6"[..]));
    consumer.close().await?;
    Ok(())
}
