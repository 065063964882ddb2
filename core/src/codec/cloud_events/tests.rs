use std::borrow::Cow;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::codec::{EventFormat, decode, encode, encode_as, peek, routing};
use crate::{Envelope, Header, Headers, Record};

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Paid {
    cents: u32,
}

impl Event for Paid {
    type Codec = CloudEvents;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = "com.acme.paid";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Ping;

impl Event for Ping {
    type Codec = StructuredCloudEvents;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = "com.acme.ping";
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

const STORED: Timestamp = Timestamp::from_millis(1_764_150_000_000);

fn stored(record: Record) -> StoredRecord {
    StoredRecord::from_record(record, 0, STORED)
}

/// A record in binary mode with these headers.
fn binary(headers: &[(&str, &str)]) -> StoredRecord {
    let headers = headers.iter().map(|(name, value)| Header::new((*name).to_owned(), (*value).to_owned()));
    StoredRecord::new(0, STORED).with_headers(headers.collect()).with_value(r#"{"cents":7}"#)
}

fn structured(body: &Value) -> StoredRecord {
    let headers = Headers::new().with("content-type", "application/cloudevents+json; charset=UTF-8");
    StoredRecord::new(0, STORED).with_headers(headers).with_value(body.to_string())
}

fn minimal() -> Value {
    json!({ "specversion": "1.0", "id": "A-1", "source": "/billing", "type": "com.acme.paid", "data": { "cents": 7 } })
}

const MINIMAL: [(&str, &str); 4] =
    [("ce_specversion", "1.0"), ("ce_id", "A-1"), ("ce_source", "/billing"), ("ce_type", "com.acme.paid")];

/// The record that an event becomes when it is written as it was read.
fn again<E: Event>(record: &StoredRecord, format: EventFormat) -> Record {
    encode_as(format, decode::<E>(record).unwrap().as_ref(), "").unwrap()
}

fn json_of(record: &Record) -> Value {
    serde_json::from_slice(record.value.as_deref().unwrap()).unwrap()
}

#[test]
fn the_same_event_is_read_from_both_modes() {
    let (binary, structured) = (binary(&MINIMAL), structured(&minimal()));
    let mut read = decode::<Paid>(&binary).unwrap();
    assert_eq!((read.payload.cents, read.timestamp, read.source.as_str()), (7, STORED, "/billing"));
    assert_eq!(read.version, Version::new(1, 0));
    assert_eq!(decode::<Paid>(&structured).unwrap(), read);
    for record in [&binary, &structured] {
        assert_eq!(peek(record).unwrap().id, read.id);
        assert_eq!(routing(record).unwrap().event_type(), "com.acme.paid");
    }
    read.id = Uuid::now_v7();
    let written = encode(read.as_ref(), "").unwrap();
    assert_eq!(written.headers.get_str("ce_id"), Some(&*read.id.to_string()), "an id that was replaced counts");
}

#[test]
fn ids_of_two_sources_differ() {
    let of_other = [MINIMAL[0], MINIMAL[1], ("ce_source", "/shipping"), MINIMAL[3]];
    let id = |record: &StoredRecord| decode::<Paid>(record).unwrap().id;
    assert_ne!(id(&binary(&MINIMAL)), id(&binary(&of_other)));
    assert_eq!(id(&binary(&MINIMAL)), id(&binary(&MINIMAL)));
}

#[test]
fn a_uuid_keeps_the_text_that_it_came_in() {
    let text = "01939BD5-7B6C-7000-8000-000000000001";
    let record = binary(&[MINIMAL[0], ("ce_id", text), MINIMAL[2], MINIMAL[3]]);
    assert_eq!(decode::<Paid>(&record).unwrap().id, text.parse::<Uuid>().unwrap());
    assert_eq!(again::<Paid>(&record, EventFormat::CloudEvents).headers.get_str("ce_id"), Some(text));
}

#[test]
fn an_event_of_ours_is_read_as_it_was_written() {
    for format in [EventFormat::OfEvent, EventFormat::CloudEvents, EventFormat::StructuredCloudEvents] {
        let mut event =
            Envelope::new(Paid { cents: 7 }).with_source("billing").with_attribute("subject", "i-7").unwrap();
        event.version = Version::new(2, 1);
        let event = event.with_attribute("sampled", true).unwrap().with_attribute("tries", 3).unwrap();
        let read = decode::<Paid>(&stored(encode_as(format, event.as_ref(), "").unwrap())).unwrap();
        assert_eq!((read.id, read.timestamp, read.version), (event.id, event.timestamp, event.version));
        let texts =
            |event: &Envelope<Paid>| event.attributes.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        assert_eq!(texts(&read), texts(&event));
    }
}

#[test]
fn an_event_without_data_is_read_as_null() {
    let mut body = minimal();
    body["type"] = json!("com.acme.ping");
    body.as_object_mut().unwrap().remove("data");
    assert_eq!(decode::<Ping>(&structured(&body)).unwrap().payload, Ping);
    body["data_base64"] = json!("bnVsbA==");
    assert_eq!(decode::<Ping>(&structured(&body)).unwrap().payload, Ping);
}

#[test]
fn data_in_base64_is_read() {
    let mut body = minimal();
    body.as_object_mut().unwrap().remove("data");
    body["data_base64"] = json!("eyJjZW50cyI6N30=");
    assert_eq!(decode::<Paid>(&structured(&body)).unwrap().payload.cents, 7);
}

#[test]
fn the_last_of_two_headers_counts_and_null_is_absent() {
    let mut record = binary(&MINIMAL);
    record.headers.push(Header::new("ce_id", "A-2"));
    record.headers.push(Header::new("ce_subject", "s"));
    record.headers.push(Header::null("ce_subject"));
    let read = decode::<Paid>(&record).unwrap();
    assert_eq!(read.id, id_of("/billing", "A-2"));
    assert!(read.attributes.is_empty());

    let mut body = minimal();
    body["subject"] = Value::Null;
    body["time"] = Value::Null;
    assert!(decode::<Paid>(&structured(&body)).unwrap().attributes.is_empty());
}

#[test]
fn a_fault_is_told_with_its_attribute() {
    let refused = |record: &StoredRecord, name: &str| {
        let error = decode::<Paid>(record).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert!(error.report().contains(name), "{} names {name}", error.report());
    };
    for (at, name) in ["specversion", "id", "source", "type"].into_iter().enumerate().skip(1) {
        let without: Vec<_> = MINIMAL.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, header)| *header).collect();
        refused(&binary(&without), name);
        let mut body = minimal();
        body.as_object_mut().unwrap().remove(name);
        refused(&structured(&body), name);
        body[name] = json!("");
        refused(&structured(&body), name);
    }
    let with = |name: &str, value: Value| {
        let mut body = minimal();
        body[name] = value;
        structured(&body)
    };
    refused(&with("specversion", json!("0.3")), "specversion");
    refused(&with("time", json!("yesterday")), "time");
    refused(&with("dataversion", json!("new")), "dataversion");
    refused(&with("subject", json!({ "a": 1 })), "subject");
    refused(&with("id", json!("00000000-0000-0000-0000-000000000000")), "nil");
    refused(&with("datacontenttype", json!("text/xml")), "text/xml");
    refused(&with("data", json!({ "cents": "many" })), "cents");
    refused(&binary(&[MINIMAL[0], MINIMAL[1], MINIMAL[2], MINIMAL[3], ("content-type", "text/xml")]), "text/xml");
    let mut batch = structured(&json!([minimal()]));
    batch.headers.set("content-type", "application/cloudevents-batch+json");
    refused(&batch, "application/cloudevents-batch+json");
}

#[test]
fn an_event_of_others_need_not_be_valid_to_be_passed_over() {
    let record = binary(&[("ce_specversion", "9"), ("ce_type", "foreign"), ("ce_dataversion", "new")]);
    assert_eq!(routing(&record).unwrap().event_type(), "foreign");
}

#[test]
fn of_an_event_that_is_not_handled_only_the_type_is_read() {
    let with = |name: &str, value: Value| {
        let mut body = minimal();
        body[name] = value;
        structured(&body)
    };
    let mut odd = binary(&MINIMAL);
    odd.headers.push(Header::new("ce_subject", vec![0xff]));
    for record in [with("time", json!(5)), with("rate", json!(0.5)), with("id", json!([1])), odd] {
        assert_eq!(routing(&record).unwrap().event_type(), "com.acme.paid");
        assert_eq!(decode::<Paid>(&record).unwrap_err().kind(), ErrorKind::Undecodable);
    }
}

#[test]
fn headers_of_another_format_do_not_count() {
    let mut record = binary(&MINIMAL);
    record.headers.push(Header::new("eventType", "old.paid"));
    assert_eq!(routing(&record).unwrap().event_type(), "com.acme.paid");
    assert_eq!(decode::<Paid>(&record).unwrap().payload.cents, 7);
}

#[test]
fn an_attribute_is_not_taken_for_the_payload() {
    for name in ["ce_data", "ce_data_base64"] {
        let mut record = binary(&MINIMAL);
        record.headers.push(Header::new(name, r#"{"cents":9}"#));
        let error = decode::<Paid>(&record).unwrap_err();
        assert!(error.kind() == ErrorKind::Undecodable && error.report().contains(name), "{}", error.report());
    }
    let mut body = minimal();
    body["data_base64"] = json!("eyJjZW50cyI6OX0=");
    assert_eq!(decode::<Paid>(&structured(&body)).unwrap_err().kind(), ErrorKind::Undecodable);
}

#[test]
fn the_payload_cannot_become_the_event() {
    let mut body = minimal();
    body["datacontenttype"] = json!("application/cloudevents+json");
    assert_eq!(decode::<Paid>(&structured(&body)).unwrap_err().kind(), ErrorKind::Undecodable);
}

#[test]
fn attributes_are_bounded() {
    let names: Vec<_> = (0..=MAX_ATTRIBUTES).map(|n| format!("x{n}")).collect();
    let (mut record, mut body) = (binary(&MINIMAL), minimal());
    for name in &names {
        record.headers.push(Header::new(format!("ce_{name}"), "v"));
        body[name] = json!("v");
    }
    for record in [record, structured(&body)] {
        assert!(decode::<Paid>(&record).unwrap_err().report().contains("256"));
        assert_eq!(peek(&record).unwrap().event_type, "com.acme.paid");
    }
}

#[test]
fn thirty_two_digits_are_not_an_id_of_all_sources() {
    let digits = "00000000000000000000000000000042";
    let id = |source: &str| id_of(source, digits);
    assert_ne!(id("/a"), id("/b"));
    assert_ne!(
        id_of("/a", "urn:uuid:01939bd5-7b6c-7000-8000-000000000001").to_string(),
        "01939bd5-7b6c-7000-8000-000000000001"
    );
}

#[test]
fn a_source_that_came_in_is_passed_on() {
    let record = binary(&[MINIMAL[0], MINIMAL[1], ("ce_source", "order service"), MINIMAL[3]]);
    let written = again::<Paid>(&record, EventFormat::CloudEvents);
    assert_eq!(written.headers.get_str("ce_source"), Some("order service"));
}

#[test]
fn a_source_that_is_replaced_leaves_the_id() {
    let event = decode::<Paid>(&binary(&MINIMAL)).unwrap();
    let id = event.id;
    let written = encode(event.with_source("billing").as_ref(), "").unwrap();
    assert_eq!(decode::<Paid>(&stored(written)).unwrap().id, id);
}

#[test]
fn a_header_named_version_is_not_that_of_the_event() {
    let mut record = binary(&MINIMAL);
    record.headers.push(Header::new("version", "9.0"));
    assert_eq!(routing(&record).unwrap().version().unwrap(), Version::new(1, 0));
}

#[test]
fn a_source_that_is_no_uri_reference_is_refused() {
    for source in ["", "my service", "a\u{0}b", "%zz"] {
        let event = Envelope::new(Paid { cents: 7 }).with_source(source.to_owned());
        assert_eq!(encode(event.as_ref(), "").unwrap_err().kind(), ErrorKind::Invalid, "{source:?}");
    }
}

#[test]
fn json_is_known_by_its_content_type() {
    for name in ["application/json", "APPLICATION/JSON; charset=utf-8", "text/json", "application/vnd.acme+json"] {
        assert!(is_json(Some(name)), "{name}");
    }
    for name in ["application/xml", "json", "application/jsonx", "", "application/é"] {
        assert!(!is_json(Some(name)), "{name}");
    }
}

/// Values of attributes; the modes agree on texts only.
fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("x[a-z0-9]{1,8}", ".{0,12}", 0..5).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn an_event_that_is_passed_on_is_the_same_byte_for_byte(
        id in "[!-~]{1,20}",
        time in prop_oneof![Just(None), Just(Some("2025-11-26T10:20:00.123456+01:00")), Just(Some("2025-11-26t09:20:00z"))],
        version in prop_oneof![Just(None), Just(Some("1.0")), Just(Some("2")), Just(Some("3.1.4"))],
        content_type in prop_oneof![Just(None), Just(Some("application/json; charset=utf-8"))],
        others in texts(),
    ) {
        let optional = [("time", time), ("dataversion", version)];
        let optional = optional.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned())));
        let attributes: Vec<_> = optional.chain(others).collect();
        let mut headers = vec![MINIMAL[0], ("ce_id", id.as_str()), MINIMAL[2], MINIMAL[3]];
        let named: Vec<_> = attributes.iter().map(|(name, text)| (format!("ce_{name}"), text)).collect();
        headers.extend(named.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        headers.extend(content_type.map(|name| ("content-type", name)));
        let record = binary(&headers);
        let written = again::<Paid>(&record, EventFormat::CloudEvents);
        assert_eq!((&written.headers, &written.value), (&record.headers, &record.value));

        let mut body = minimal();
        body["id"] = json!(id);
        attributes.iter().for_each(|(name, text)| body[name] = json!(text));
        content_type.iter().for_each(|name| body["datacontenttype"] = json!(name));
        let record = structured(&body);
        assert_eq!(json_of(&again::<Paid>(&record, EventFormat::StructuredCloudEvents)), body);
        // Also through the other mode.
        let other = stored(again::<Paid>(&record, EventFormat::CloudEvents));
        assert_eq!(json_of(&again::<Paid>(&other, EventFormat::StructuredCloudEvents)), body);
    }

    #[test]
    fn nothing_panics_at_any_record(
        headers in prop::collection::vec(("(ce_)?[a-z]{0,12}", prop::option::of(prop::collection::vec(any::<u8>(), 0..12))), 0..8),
        value in prop::collection::vec(any::<u8>(), 0..60),
        is_structured: bool,
    ) {
        let header = |(name, value): (String, Option<Vec<u8>>)| match value {
            Some(value) => Header::new(name, value),
            None => Header::null(name),
        };
        let mut headers: Headers = headers.into_iter().map(header).collect();
        if is_structured {
            headers.push(Header::new("content-type", "application/cloudevents+json"));
        } else {
            headers.push(Header::new("ce_specversion", "1.0"));
        }
        let record = StoredRecord::new(0, STORED).with_headers(headers).with_value(value);
        let _ = (decode::<Paid>(&record), peek(&record), routing(&record).map(crate::codec::Routing::version));
    }
}
