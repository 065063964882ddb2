//! Interoperability with KafkaJS, run on a real broker. Without Node the tests are ignored.

#[expect(dead_code, reason = "the other test files use the rest")]
mod common;
#[path = "kafkajs/peer.rs"]
mod peer;

use std::process::ExitCode;

use common::{TestResult, assigned, fresh, published, records};
use peer::peer;
use serde_json::{Value, json};
use tidings_core::codec::{self, EventFormat};
use tidings_core::{ConsumerOptions, Envelope, Event, Name, Record, StoredRecord, Transport, partition_for};
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
        .with_case("cloud_events_are_passed_on_unchanged", cloud_events_are_passed_on_unchanged)
        .with_case("our_cloud_events_are_read_by_their_sdk", our_cloud_events_are_read_by_their_sdk)
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

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Registered {
    age: u8,
    name: String,
}

impl Event for Registered {
    type Codec = codec::CloudEvents;
    const TOPIC: &'static str = "unused";
    const TYPE: &'static str = "com.acme.registered";
    fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
}

const MODES: [(&str, EventFormat); 2] =
    [("binary", EventFormat::CloudEvents), ("structured", EventFormat::StructuredCloudEvents)];

/// The records of `topic`, read by this library.
async fn read_here(kafka: &KafkaTransport, topic: &Name, count: usize) -> TestResult<Vec<StoredRecord>> {
    let consumer = kafka.consumer(ConsumerOptions::new(format!("{topic}-group"), [topic.clone()])).await?;
    assigned(&*consumer, 1).await?;
    let read = records(&*consumer, count).await?;
    consumer.close().await?;
    Ok(read)
}

async fn cloud_events_are_passed_on_unchanged() -> TestResult {
    let kafka = transport(Compression::None, GroupProtocol::Auto).await?;
    let data = json!({ "name": "Zoë", "age": 41 });
    let events = json!([
        { "id": "A-1", "source": "/users", "type": "com.acme.registered", "time": "2025-11-26T09:20:00.123Z",
          "datacontenttype": "application/json", "data": data },
        { "id": "01939BD5-7B6C-7000-8000-000000000001", "source": "urn:acme:users", "type": "com.acme.registered",
          "time": "2025-11-26T09:20:00.000Z", "datacontenttype": "application/json; charset=utf-8", "subject": "ü/7",
          "dataschema": "https://acme.example/user.json", "sampledrate": "30", "traceparent": "00-a-b-01", "data": data },
    ]);
    for (mode, format) in MODES {
        let [theirs, ours] = [fresh(&kafka, "ce-theirs", 1).await?, fresh(&kafka, "ce-ours", 1).await?];
        peer(&["produceEvents", &broker().await?, &theirs, mode], &events).await?;
        let mut passed_on = Vec::new();
        for record in read_here(&kafka, &theirs, 2).await? {
            let event: Envelope<Registered> = codec::decode(&record)?;
            assert_eq!((event.payload.name.as_str(), event.payload.age), ("Zoë", 41));
            let written = codec::encode_as(format, event.as_ref(), "")?;
            passed_on.push(Record::new(ours.clone(), written.value.unwrap_or_default()).with_headers(written.headers));
        }
        published(&kafka, passed_on).await?;
        let read = async |topic: &str| {
            let group = format!("{topic}-there");
            peer(&["consume", &broker().await?, topic, &group, "2"], &Value::Null).await
        };
        let (before, after) = (read(&theirs).await?, read(&ours).await?);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(sorted(&before["headers"], mode), sorted(&after["headers"], mode));
            match mode {
                "binary" => assert_eq!(before["value"], after["value"]),
                // The order of an object's members is not specified.
                _ => assert_eq!(parsed(&before["value"])?, parsed(&after["value"])?),
            }
        }
        assert_eq!((before.len(), after.len()), (2, 2));
    }
    Ok(())
}

/// The headers in an order of their own, without `ce_datacontenttype`: the SDK writes it in addition to `content-type`,
/// which alone the binding for Kafka has. The structured mode has no parameters of the content type to compare.
fn sorted(headers: &Value, mode: &str) -> Vec<String> {
    let is_compared = |header: &&Value| header[0] != "ce_datacontenttype";
    let text = |header: &Value| match mode {
        "structured" => header.to_string().replace("; charset=utf-8\"]", "\"]"),
        _ => header.to_string(),
    };
    let mut texts: Vec<_> = headers.as_array().into_iter().flatten().filter(is_compared).map(text).collect();
    texts.sort();
    texts
}

fn parsed(value: &Value) -> TestResult<Value> {
    Ok(serde_json::from_str(value.as_str().unwrap_or_default())?)
}

async fn our_cloud_events_are_read_by_their_sdk() -> TestResult {
    let kafka = transport(Compression::None, GroupProtocol::Auto).await?;
    let topic = fresh(&kafka, "ce-sdk", 1).await?;
    let event = Envelope::new(Registered { name: "Zoë".into(), age: 41 }).with_source("users");
    let event = event.with_attribute("subject", "ü/7")?.with_attribute("tries", 3)?;
    let mut records = Vec::new();
    for (_, format) in MODES {
        let written = codec::encode_as(format, event.as_ref(), "")?;
        records.push(Record::new(topic.clone(), written.value.unwrap_or_default()).with_headers(written.headers));
    }
    published(&kafka, records).await?;
    let group = format!("{topic}-there");
    let read = peer(&["consumeEvents", &broker().await?, &topic, &group, "2"], &Value::Null).await?;
    assert_eq!(read.len(), 2);
    for read in read {
        assert_eq!((&read["id"], &read["source"]), (&json!(event.id), &json!("users")));
        assert_eq!((&read["type"], &read["subject"]), (&json!("com.acme.registered"), &json!("ü/7")));
        assert_eq!(read["data"], json!({ "name": "Zoë", "age": 41 }));
        assert_eq!(read["datacontenttype"], json!("application/json"));
        assert_eq!(read["tries"].to_string().trim_matches('"'), "3");
    }
    Ok(())
}
