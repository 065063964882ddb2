//! Codecs: round trips, the error of each kind of bad input, and the codec by which each record is read.
#![cfg(feature = "json")]

use std::borrow::Cow;

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Json};
use tidings_core::{
    Envelope, EnvelopeRef, ErrorKind, Event, Headers, Name, Record, StoredRecord, Timestamp, Version, report,
};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Registered {
    user_id: String,
    age: u32,
}

impl Event for Registered {
    type Codec = Json;
    const TOPIC: &'static str = "users";
    const TYPE: &'static str = "user.registered";
    const VERSION: Version = Version::new(2, 1);
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.user_id.as_bytes()))
    }
}

/// The same, in the other codec.
#[cfg(feature = "postcard")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Packed(Registered);

#[cfg(feature = "postcard")]
impl Event for Packed {
    type Codec = codec::Postcard;
    const TOPIC: &'static str = "users";
    const TYPE: &'static str = "user.packed";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn envelope<E: Event>(payload: E) -> Envelope<E> {
    Envelope::new(payload).with_id(Uuid::from_u128(7)).with_timestamp(Timestamp::from_millis(-3)).with_source("api")
}

fn registered() -> Registered {
    Registered { user_id: "u\"1".into(), age: 40 }
}

fn stored(record: Record) -> StoredRecord {
    StoredRecord::from_record(record, 0, Timestamp::default())
}

fn written<E: Event>(event: E) -> StoredRecord {
    stored(codec::encode(envelope(event).as_ref(), "").expect("it can be written"))
}

fn json(body: &str) -> StoredRecord {
    StoredRecord::new(0, Timestamp::default()).with_value(body.to_owned())
}

/// The error of reading `record`, in one line.
#[track_caller]
fn refused<E: Event + std::fmt::Debug>(record: &StoredRecord) -> String {
    let error = codec::decode::<E>(record).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    report(&error)
}

const WHOLE: &str = r#"{"eventId":"00000000-0000-0000-0000-000000000007","eventType":"user.registered","timestamp":5,"version":"1.0","payload":{"user_id":"u1","age":1}}"#;

#[test]
fn json_is_the_envelope_that_others_write_and_read() {
    let record = written(registered());
    let body: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    let expected = serde_json::json!({
        "eventId": "00000000-0000-0000-0000-000000000007", "eventType": "user.registered", "timestamp": -3,
        "source": "api", "version": "2.1", "payload": { "user_id": "u\"1", "age": 40 },
    });
    assert_eq!(body, expected);
    assert_eq!(record.key.as_deref(), Some(&b"u\"1"[..]));
    let expected = Headers::new()
        .with("eventType", "user.registered")
        .with("version", "2.1")
        .with("content-type", "application/json");
    assert_eq!(record.headers, expected);
    assert_eq!(codec::decode::<Registered>(&record).unwrap(), envelope(registered()));
}

#[test]
fn a_topic_prefix_stands_before_the_topic() {
    let envelope = envelope(registered());
    assert_eq!(codec::encode(envelope.as_ref(), "").unwrap().topic, "users");
    assert_eq!(codec::encode(envelope.as_ref(), "test.").unwrap().topic, "test.users");
}

#[test]
fn a_body_without_source_version_and_headers_is_read() {
    let record = json(&WHOLE.replace("\"version\":\"1.0\"", "\"unknown\":[1]"));
    let read = codec::decode::<Registered>(&record).unwrap();
    assert_eq!((read.version, &*read.source, read.timestamp.millis()), (Version::new(1, 0), "", 5));
    let head = codec::peek(&record).unwrap();
    assert_eq!((head.id, &*head.event_type, head.version), (Uuid::from_u128(7), "user.registered", Version::new(1, 0)));
}

#[test]
fn bad_json_is_told_with_its_field() {
    let cases = [
        (WHOLE.replace("\"eventId\":\"00000000-0000-0000-0000-000000000007\",", ""), "eventId"),
        (WHOLE.replace("00000000-", "x"), "UUID"),
        (WHOLE.replace("\"eventType\":\"user.registered\",", ""), "eventType"),
        (WHOLE.replace("\"timestamp\":5,", ""), "timestamp"),
        (WHOLE.replace(":5,", ":\"5\","), "expected i64"),
        (WHOLE.replace("\"1.0\"", "\"one\""), "version \\\"one\\\""),
        (WHOLE.replace(",\"payload\":{\"user_id\":\"u1\",\"age\":1}", ""), "payload"),
        (WHOLE.replace(",\"age\":1", ""), "age"),
        (WHOLE.replace("\"age\":1", "\"age\":-1"), "expected u32"),
        (WHOLE[..40].to_owned(), "EOF"),
        (String::new(), "EOF"),
    ];
    for (body, part) in cases {
        let error = refused::<Registered>(&json(&body));
        assert!(error.contains("read user.registered from JSON") && error.contains(part), "{part:?}: {error}");
    }
}

#[test]
fn another_type_in_the_body_than_in_the_headers_is_refused_and_shown_shortened() {
    let long = "x".repeat(100);
    let record = json(&WHOLE.replace("user.registered", &long));
    let error = refused::<Registered>(&record.with_headers(Headers::new().with("eventType", "user.registered")));
    assert!(error.contains("eventType is \"xxx") && !error.contains(&long), "{error}");
}

#[test]
fn a_null_value_is_refused() {
    assert!(refused::<Registered>(&StoredRecord::new(0, Timestamp::default())).contains("value is null"));
}

#[test]
fn the_content_type_chooses_the_codec_and_an_unknown_one_is_named() {
    let with = |content_type: &str| {
        let mut record = written(registered());
        record.headers.set("content-type", content_type.to_owned());
        record
    };
    for json in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        assert!(codec::decode::<Registered>(&with(json)).is_ok(), "{json}");
    }
    assert!(refused::<Registered>(&with("application/xml")).contains("application/xml"));
    let mut garbage = written(registered());
    garbage.headers.set("content-type", &b"\xff"[..]);
    assert!(refused::<Registered>(&garbage).contains("content-type"));
}

#[test]
fn headers_tell_the_route_without_a_look_at_the_value() {
    let with = |headers: Headers| json("{").with_headers(headers);
    let typed = || Headers::new().with("eventType", "a");
    assert_eq!(codec::route_by_headers(&with(Headers::new())).unwrap(), None);
    assert_eq!(codec::route_by_headers(&with(typed())).unwrap(), Some(("a", Version::new(1, 0))));
    let versioned = with(typed().with("version", "3.2"));
    assert_eq!(codec::route_by_headers(&versioned).unwrap(), Some(("a", Version::new(3, 2))));
    for (bad, part) in [
        (typed().with("version", "x"), "version"),
        (typed().with("version", &b"\xff"[..]), "version"),
        (Headers::new().with("eventType", &b"\xff"[..]), "eventType"),
    ] {
        let record = with(bad);
        let error = codec::route_by_headers(&record).unwrap_err();
        assert!(error.kind() == ErrorKind::Undecodable && error.report().contains(part), "{error:?}");
    }
}

#[cfg(feature = "postcard")]
#[test]
fn postcard_is_the_bare_payload_with_its_envelope_in_the_headers() {
    let record = written(Packed(registered()));
    assert_eq!(record.headers.get_str("content-type"), Some("application/postcard"));
    assert_eq!(record.headers.get_str("eventId"), Some("00000000-0000-0000-0000-000000000007"));
    assert_eq!(codec::decode::<Packed>(&record).unwrap(), envelope(Packed(registered())));
    assert_eq!(codec::peek(&record).unwrap().id, Uuid::from_u128(7));
}

#[cfg(feature = "postcard")]
#[test]
fn bad_postcard_is_told_with_its_header() {
    for name in ["eventId", "eventType", "timestamp"] {
        let mut record = written(Packed(registered()));
        record.headers.remove_where(|header| header.name == name.as_bytes());
        assert!(refused::<Packed>(&record).contains(&format!("header {name}: it is missing")), "{name}");
    }
    for (name, value) in [("eventId", "7"), ("timestamp", "soon"), ("version", "x"), ("eventType", "user.other")] {
        let mut record = written(Packed(registered()));
        record.headers.set(name, value);
        assert!(refused::<Packed>(&record).contains(name), "{name}");
    }
    let value = written(Packed(registered())).value.unwrap();
    let cut = written(Packed(registered())).with_value(value.slice(..value.len() - 1));
    assert!(refused::<Packed>(&cut).contains("from postcard"));
    let longer = written(Packed(registered())).with_value([&value[..], b"x"].concat());
    assert!(refused::<Packed>(&longer).contains("trailing data (1 B)"));
}

#[cfg(feature = "postcard")]
#[test]
fn a_type_that_changed_its_codec_reads_both() {
    use tidings_core::codec::Codec;

    let mut record = written(registered());
    let mut headers = Headers::new();
    let value = codec::Postcard::encode(envelope(registered()).as_ref(), &mut headers).unwrap();
    (record.value, record.headers) = (Some(value), headers);
    assert_eq!(codec::decode::<Registered>(&record).unwrap(), envelope(registered()));
}

/// Reads back an event that was written with these fields.
fn round_trip<E: Event>(id: Uuid, millis: i64, source: &Name, event: &E) -> (Uuid, i64, Name, E) {
    let made = EnvelopeRef::new(id, Timestamp::from_millis(millis), source, event);
    let read = codec::decode::<E>(&stored(codec::encode(made, "").expect("written"))).expect("read");
    (read.id, read.timestamp.millis(), read.source, read.payload)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_comes_back_as_it_was(
        id in any::<u128>(), millis in any::<i64>(), source in any::<String>(), user_id in any::<String>(), age in any::<u32>(),
    ) {
        let (id, source, event) = (Uuid::from_u128(id), Name::from(source), Registered { user_id, age });
        prop_assert_eq!(round_trip(id, millis, &source, &event), (id, millis, source.clone(), event.clone()));
        #[cfg(feature = "postcard")]
        prop_assert_eq!(round_trip(id, millis, &source, &Packed(event.clone())), (id, millis, source, Packed(event)));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        value in any::<Vec<u8>>(), name in "eventType|version|eventId|timestamp|content-type", header in any::<Vec<u8>>(),
    ) {
        for content_type in ["application/json", "application/postcard"] {
            let headers = Headers::new().with("content-type", content_type).with("eventType", "user.registered");
            let headers = headers.with(name.clone(), header.clone());
            let record = StoredRecord::new(0, Timestamp::default()).with_value(value.clone()).with_headers(headers);
            let _ = (codec::decode::<Registered>(&record), codec::peek(&record).map(|head| head.id));
        }
    }
}
