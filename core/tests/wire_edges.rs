//! Edge cases of the wire format: reserved headers, dead letters with many headers, nil ids, and envelopes of other writers.
#![cfg(feature = "json")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Json};
use tidings_core::{
    DeadLetter, Delivery, DeliveryContext, Envelope, Error, ErrorKind, Event, Header, Headers, IntoOutcome, Outcome,
    PublishOptions, Record, RecordBatch, StoredRecord, Timestamp, TopicPartition, Version, event_id_of,
};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Ordered {
    id: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    count: u32,
    notes: BTreeMap<String, bool>,
}

impl Event for Ordered {
    type Codec = Json;
    const TOPIC: &'static str = "orders";
    const TYPE: &'static str = "ordered";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.id.as_bytes()))
    }
}

fn ordered() -> Ordered {
    Ordered { id: "o1".into(), lines: vec![Line { count: 2, notes: BTreeMap::new() }] }
}

fn stored(record: Record, offset: u64) -> StoredRecord {
    StoredRecord::from_record(record, offset, Timestamp::default())
}

fn json(body: impl Into<String>) -> StoredRecord {
    StoredRecord::new(0, Timestamp::default()).with_value(body.into())
}

fn letter() -> DeadLetter {
    let mut record = StoredRecord::new(7, Timestamp::from_millis(99)).with_key("k").with_value("v");
    record.headers = Headers::new().with("eventType", "ordered").with("a", "1").with("a", "2");
    DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Failed).with_handler("h").with_error("bad")
}

/// `letter` as stored in its topic after another program inserted `header` at `place`; beyond the end: at the end.
fn with_header_at(letter: &DeadLetter, place: usize, header: Header) -> StoredRecord {
    let mut headers: Vec<_> = letter.to_record("t-dlq").headers.into_iter().collect();
    headers.insert(place.min(headers.len()), header);
    stored(letter.to_record("t-dlq"), 0).with_headers(headers.into_iter().collect())
}

#[test]
fn a_letter_with_one_more_header_anywhere_is_a_letter() {
    let letter = letter();
    for place in 0..=letter.to_record("t-dlq").headers.len() {
        let read = DeadLetter::from_record(&with_header_at(&letter, place, Header::new("x-trace", "1"))).unwrap();
        assert_eq!(read.id(), letter.id());
        assert_eq!((&read.error, &read.handler, read.attempts), (&letter.error, &letter.handler, letter.attempts));
        let own = read.record.headers.iter().filter(|header| header.name != "x-trace").cloned().collect::<Headers>();
        assert_eq!(own, letter.record.headers, "nothing of the original is lost at {place}");
        let redriven = read.to_redrive();
        assert!(!redriven.headers.iter().any(|header| header.name.starts_with(b"dlq-")));
        assert_eq!((redriven.topic.as_str(), redriven.headers.get_str("a")), ("t", Some("2")));
    }
}

#[test]
fn of_letter_headers_in_any_order_the_last_of_a_name_counts() {
    let letter = letter();
    let mut headers: Vec<_> = letter.to_record("t-dlq").headers.into_iter().collect();
    headers.reverse();
    headers.insert(0, Header::new("dlq-error", "an older one"));
    let read =
        DeadLetter::from_record(&stored(letter.to_record("t-dlq"), 0).with_headers(headers.into_iter().collect()));
    let read = read.unwrap();
    assert_eq!((read.id(), read.error.as_str()), (letter.id(), "bad"));
    assert_eq!(read.record.headers.get_str("eventType"), Some("ordered"));
}

#[test]
fn a_letter_about_a_letter_with_more_headers_keeps_the_inner_one() {
    let inner = with_header_at(&letter(), usize::MAX, Header::new("x-trace", "1"));
    let outer = DeadLetter::new("other", TopicPartition::new("t-dlq", 0), inner, ErrorKind::Failed).with_error("worse");
    let read = DeadLetter::from_record(&with_header_at(&outer, usize::MAX, Header::null("x-more"))).unwrap();
    assert_eq!((read.service.as_str(), read.error.as_str()), ("other", "worse"));
    assert_eq!(DeadLetter::from_record(&read.record).unwrap().id(), letter().id());
}

const RESERVED: [&str; 17] = [
    "redrive-for",
    "redrive-count",
    "redrive-topic",
    "redrive-anything",
    "retry-count",
    "audit-by",
    "dlq-error",
    "dlq-anything",
    "eventId",
    "eventType",
    "timestamp",
    "source",
    "version",
    "content-type",
    "traceparent",
    "correlation-id",
    "causation-id",
];

#[test]
fn a_reserved_header_cannot_be_published_and_is_named() {
    for name in RESERVED {
        let error = PublishOptions::default().with_header(name, "x").write_to(&mut Headers::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut headers = Headers::new();
    let options = PublishOptions::default().with_header("tenant", "acme").with_header("tracestate", "v=1");
    options.with_header("redriven", "no").write_to(&mut headers).unwrap();
    assert!(headers.get_str("tenant").is_some() && headers.get_str("redriven").is_some());
}

#[test]
fn a_record_that_a_handler_passes_on_loses_what_steers_its_delivery() {
    let redriven = letter().to_redrive().with_header("retry-at", "5").with_header("audit-by", "x");
    let mut passed_on = Record::new("elsewhere", "v").with_headers(redriven.headers);
    passed_on.headers.push(Header::new("dlq-error", "old"));
    let mut outcome = Outcome::handled();
    outcome.push(passed_on);
    let names: Vec<_> = outcome.records()[0].headers.iter().map(|header| header.name.clone()).collect();
    assert_eq!(names, ["eventType", "a", "a"]);
}

fn delivery(service: &'static str, topic: &'static str, offset: u64) -> Delivery {
    let envelope = Envelope::new(ordered()).with_id(Uuid::from_u128(9));
    let record = stored(codec::encode(envelope.as_ref(), "").expect("it can be written"), offset);
    Delivery::new(RecordBatch::new(TopicPartition::new(topic, 0), vec![record]), DeliveryContext::new(service, "check"))
}

fn derived(delivery: &Delivery) -> Uuid {
    let outcome = ordered().into_outcome(delivery).expect("it can be written");
    codec::peek(&stored(outcome.records()[0].clone(), 0)).expect("we wrote it").id
}

#[test]
fn derived_ids_tell_services_and_origin_topics_apart_and_not_offsets() {
    let id = derived(&delivery("one", "t", 3));
    assert_eq!(id, derived(&delivery("one", "t", 8)));
    assert_ne!(id, derived(&delivery("two", "t", 3)));
    assert_ne!(id, derived(&delivery("one", "u", 3)));
    // Where one name ends and the next begins is part of it.
    let named = |service, handler| {
        let context = DeliveryContext::new(service, handler);
        let record = delivery("", "t", 0).record().clone();
        derived(&Delivery::new(RecordBatch::new(TopicPartition::new("t", 0), vec![record]), context))
    };
    assert_ne!(named("a", "bc"), named("ab", "c"));
    assert_ne!(named("a\0b", "c"), named("a", "b\0c"));
}

const WHOLE: &str = r#"{"eventId":"00000000-0000-0000-0000-000000000007","eventType":"ordered","timestamp":5,"source":"s","version":"1.0","payload":{"id":"o1","lines":[]}}"#;

/// The error of reading `record`, in one line.
#[track_caller]
fn refused(record: &StoredRecord) -> String {
    let error = codec::decode::<Ordered>(record).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    error.report()
}

#[test]
fn the_nil_id_is_neither_read_nor_written() {
    let nil = json(WHOLE.replace("0000-000000000007", "0000-000000000000"));
    assert!(refused(&nil).contains("eventId"), "{}", refused(&nil));
    assert_eq!(codec::peek(&nil).unwrap_err().kind(), ErrorKind::Undecodable);
    let header = StoredRecord::new(0, Timestamp::default()).with_headers(
        Headers::new()
            .with("eventType", "ordered")
            .with("eventId", Uuid::nil().to_string())
            .with("content-type", "x/y"),
    );
    assert!(codec::peek(&header).unwrap_err().report().contains("eventId"));
    let envelope = Envelope::new(ordered()).with_id(Uuid::nil());
    assert_eq!(codec::encode(envelope.as_ref(), "").unwrap_err().kind(), ErrorKind::Invalid);
    let caused = PublishOptions::default().with_causation_id(Uuid::nil()).write_to(&mut Headers::new());
    assert_eq!(caused.unwrap_err().kind(), ErrorKind::Invalid);
    // Two records with the nil id are two events.
    let at = |offset| {
        let mut record = nil.clone();
        record.offset = offset;
        record
    };
    let origin = TopicPartition::new("t", 0);
    assert_ne!(event_id_of(&origin, &at(1)), event_id_of(&origin, &at(2)));
}

#[test]
fn null_is_absent_where_a_field_may_be_absent() {
    let record = json(WHOLE.replace("\"s\"", "null").replace("\"1.0\"", "null"));
    let read = codec::decode::<Ordered>(&record).unwrap();
    assert_eq!((&*read.source, read.version), ("", Version::new(1, 0)));
    assert_eq!(codec::peek(&record).unwrap().version, Version::new(1, 0));
    for required in ["\"00000000-0000-0000-0000-000000000007\"", ":\"ordered\"", ":5"] {
        let null = if required.starts_with(':') { ":null" } else { "null" };
        assert!(codec::decode::<Ordered>(&json(WHOLE.replace(required, null))).is_err(), "{required}");
    }
}

#[test]
fn whole_numbers_are_read_however_they_are_written() {
    let timestamp = |text: &str| codec::decode::<Ordered>(&json(WHOLE.replace(":5,", &format!(":{text},"))));
    for (text, millis) in [
        ("1764150000000.0", 1_764_150_000_000),
        ("1.76415e12", 1_764_150_000_000),
        ("-3.0", -3),
        ("0", 0),
        ("9223372036854775807", i64::MAX),
    ] {
        assert_eq!(timestamp(text).unwrap().timestamp.millis(), millis, "{text}");
    }
    for bad in ["1.5", "1e300", "9223372036854775808", "\"5\"", "\"2025-11-26T09:40:00Z\"", "[5]", "true", "null"] {
        let error = timestamp(bad).unwrap_err().report();
        assert!(error.contains("timestamp"), "{bad}: {error}");
    }
    let version = |text: &str| codec::decode::<Ordered>(&json(WHOLE.replace("\"1.0\"", text)));
    for (text, major) in [("2", 2), ("2.0", 2), ("\"2\"", 2), ("\"2.0\"", 2)] {
        assert_eq!(version(text).unwrap().version, Version::new(major, 0), "{text}");
    }
    for bad in ["1.5", "-1", "4294967296", "\"v2\"", "[1]", "true"] {
        let error = version(bad).unwrap_err().report();
        assert!(error.contains("version"), "{bad}: {error}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_and_a_field_that_comes_twice_is_refused() {
    let marked = json(format!("\u{feff}{WHOLE}"));
    assert!(codec::decode::<Ordered>(&marked).is_ok());
    assert!(codec::peek(&marked).is_ok());
    let twice = json(WHOLE.replace("\"timestamp\":5", "\"timestamp\":5,\"timestamp\":6"));
    assert!(refused(&twice).contains("timestamp"));
}

#[test]
fn header_and_body_that_disagree_on_the_version_are_refused() {
    let with = |version: &'static str| {
        json(WHOLE).with_headers(Headers::new().with("eventType", "ordered").with("version", version))
    };
    for same in ["1.0", "1", "1.0.7"] {
        assert!(codec::decode::<Ordered>(&with(same)).is_ok(), "{same}");
    }
    for other in ["2.0", "1.1"] {
        let error = refused(&with(other));
        assert!(error.contains("version") && error.contains(other) && error.contains("1.0"), "{error}");
    }
    // One that says nothing disagrees with nothing.
    let silent = with("1.1").with_value(WHOLE.replace("\"version\":\"1.0\",", ""));
    assert_eq!(codec::decode::<Ordered>(&silent).unwrap().version, Version::new(1, 1));
}

#[test]
fn header_and_body_that_disagree_on_the_type_are_refused() {
    assert!(refused(&json(WHOLE).with_headers(Headers::new().with("eventType", "other"))).contains("other"));
}

#[test]
fn a_type_error_names_its_field() {
    let with_payload = |payload: &str| json(WHOLE.replace(r#"{"id":"o1","lines":[]}"#, payload));
    for (payload, path) in [
        (r#"{"id":7,"lines":[]}"#, "payload.id"),
        (r#"{"id":"o1","lines":[{"count":1,"notes":{}},{"count":"two","notes":{}}]}"#, "payload.lines[1].count"),
        (r#"{"id":"o1","lines":[{"count":1,"notes":{"gift":3}}]}"#, "payload.lines[0].notes.\"gift\""),
        (r#"{"id":"o1","lines":{}}"#, "payload.lines"),
        (r#""text""#, "payload"),
    ] {
        let error = refused(&with_payload(payload));
        assert!(error.contains(path), "{path}: {error}");
    }
    for (from, to, path) in
        [("\"s\"", "7", "source"), (":\"ordered\"", ":7", "eventType"), (":5,", ":{},", "timestamp")]
    {
        let error = refused(&json(WHOLE.replace(from, to)));
        assert!(error.contains(path), "{path}: {error}");
    }
    let peeked = codec::peek(&json(WHOLE.replace("00000000-", "x"))).unwrap_err();
    assert!(Error::report(&peeked).contains("eventId"), "{}", peeked.report());
}
