//! Versions of events: records of older ones are read by upcasts, and newer events are written as older ones.
#![cfg(all(feature = "cloudevents", feature = "json", feature = "postcard"))]

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::num::TryFromIntError;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_core::codec::{self, Codec, Downcast, EventFormat, EventVersions, Json, Postcard, Upcast};
use tidings_core::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Record, StoredRecord, Timestamp, Version,
};
use uuid::Uuid;

/// An event with the payload `P`, which its codec `C` writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound(serialize = "P: Serialize", deserialize = "P: DeserializeOwned"))]
struct Paid<C, P> {
    payload: P,
    codec: PhantomData<C>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Euros {
    id: String,
    euros: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct EurosAndCents {
    euros: u32,
    cents: u32,
    id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cents {
    cents: u32,
    id: String,
}

type One<C> = Paid<C, Euros>;
type Two<C> = Paid<C, EurosAndCents>;
type Three<C> = Paid<C, Cents>;

fn paid<C, P>(payload: P) -> Paid<C, P> {
    Paid { payload, codec: PhantomData }
}

fn one<C>(euros: i64) -> One<C> {
    paid(Euros { id: "p1".into(), euros })
}

fn two<C>(euros: u32, cents: u32) -> Two<C> {
    paid(EurosAndCents { euros, cents, id: "p1".into() })
}

fn three<C>(cents: u32) -> Three<C> {
    paid(Cents { cents, id: "p1".into() })
}

impl<C> TryFrom<One<C>> for Two<C> {
    type Error = TryFromIntError;
    fn try_from(old: One<C>) -> Result<Self, TryFromIntError> {
        Ok(two(old.payload.euros.try_into()?, 0))
    }
}

impl<C> From<Two<C>> for Three<C> {
    fn from(old: Two<C>) -> Self {
        three(old.payload.euros * 100 + old.payload.cents)
    }
}

impl<C> From<&Three<C>> for Two<C> {
    fn from(new: &Three<C>) -> Self {
        two(new.payload.cents / 100, new.payload.cents % 100)
    }
}

impl<C> TryFrom<&Two<C>> for One<C> {
    type Error = String;
    fn try_from(new: &Two<C>) -> Result<Self, String> {
        match new.payload.cents {
            0 => Ok(one(new.payload.euros.into())),
            cents => Err(format!("{cents} cents would be lost")),
        }
    }
}

const TYPE: &str = "paid";

impl<C: Codec> Event for One<C> {
    type Codec = C;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = TYPE;
    const VERSION: Version = Version::new(1, 0);
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(b"of version 1"))
    }
}

impl<C: Codec> Event for Two<C> {
    type Codec = C;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = TYPE;
    const VERSION: Version = Version::new(2, 1);
    const UPCAST: Option<Upcast<Self>> = Some(Upcast::from::<One<C>>());
    const DOWNCAST: Option<Downcast<Self>> = Some(Downcast::to::<One<C>>());
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

impl<C: Codec> Event for Three<C> {
    type Codec = C;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = TYPE;
    const VERSION: Version = Version::new(3, 0);
    const UPCAST: Option<Upcast<Self>> = Some(Upcast::from::<Two<C>>());
    const DOWNCAST: Option<Downcast<Self>> = Some(Downcast::to::<Two<C>>());
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// An event of the same type that skipped version 2.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Skipped(i64);

impl<C> From<One<C>> for Skipped {
    fn from(old: One<C>) -> Self {
        Self(old.payload.euros)
    }
}

impl Event for Skipped {
    type Codec = Json;
    const TOPIC: &'static str = "payments";
    const TYPE: &'static str = TYPE;
    const VERSION: Version = Version::new(3, 0);
    const UPCAST: Option<Upcast<Self>> = Some(Upcast::from::<One<Json>>());
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// A codec of a user, which does not tell the version of what it reads.
#[derive(Debug, Clone)]
struct Bare;

impl Codec for Bare {
    const CONTENT_TYPE: &'static str = "application/vnd.acme+json";

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> tidings_core::Result<bytes::Bytes> {
        for (name, value) in [
            ("eventId", envelope.id.to_string()),
            ("eventType", E::TYPE.into()),
            ("version", envelope.version.to_string()),
            ("content-type", Self::CONTENT_TYPE.into()),
        ] {
            headers.push(Header::new(name, value));
        }
        Ok(serde_json::to_vec(envelope.payload).expect("JSON").into())
    }

    fn decode<E: Event>(record: &StoredRecord) -> tidings_core::Result<Envelope<E>> {
        let payload = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
        let payload = payload.map_err(|e| Error::caused_by(ErrorKind::Undecodable, "read it", e))?;
        Ok(envelope(payload))
    }

    fn peek(record: &StoredRecord) -> tidings_core::Result<codec::Head<'_>> {
        codec::peek_headers(record)
    }
}

const FORMATS: [EventFormat; 3] = [EventFormat::OfEvent, EventFormat::CloudEvents, EventFormat::StructuredCloudEvents];

fn envelope<E: Event>(payload: E) -> Envelope<E> {
    Envelope::new(payload).with_id(Uuid::from_u128(7)).with_timestamp(Timestamp::from_millis(5)).with_source("shop")
}

fn stored(record: Record) -> StoredRecord {
    StoredRecord::from_record(record, 0, Timestamp::from_millis(9))
}

fn written<E: Event>(format: EventFormat, event: E) -> StoredRecord {
    stored(codec::encode_as(format, envelope(event).as_ref(), "").expect("it can be written"))
}

/// Every form in which `event` arrives: in each format, and, for the JSON envelope, with its version in the body alone.
fn forms<C: Codec, E: Event + Clone>(event: &E) -> Vec<StoredRecord> {
    let mut forms: Vec<_> = FORMATS.iter().map(|format| written(*format, event.clone())).collect();
    if C::CONTENT_TYPE == Json::CONTENT_TYPE {
        forms.push(forms[0].clone().with_headers(Headers::new()));
    }
    forms
}

#[track_caller]
fn refused<E: Event + Debug>(record: &StoredRecord) -> String {
    let error = codec::decode::<E>(record).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    error.report()
}

/// Asserts that records of all versions are read as the newest.
fn every_version_is_read<C: Codec + Clone>() {
    let records = [forms::<C, _>(&one::<C>(7)), forms::<C, _>(&two::<C>(7, 0)), forms::<C, _>(&three::<C>(700))];
    for record in records.iter().flatten() {
        let read = codec::decode::<Three<C>>(record).expect("an upcast leads to it");
        assert_eq!(read.payload.payload, Cents { cents: 700, id: "p1".into() }, "{record:?}");
        assert_eq!((read.id, read.timestamp.millis()), (Uuid::from_u128(7), 5));
        assert_eq!(read.source, "shop");
        assert_eq!(read.version, Version::new(3, 0), "that of the payload, so that it can be written again");
    }
    assert_eq!(codec::majors::<Three<C>>(), [3, 2, 1]);
}

#[test]
fn every_version_is_read_in_every_format() {
    every_version_is_read::<Json>();
    every_version_is_read::<Postcard>();
    every_version_is_read::<Bare>();
}

#[test]
fn a_minor_version_is_not_upcast() {
    let mut event = envelope(two::<Json>(7, 5));
    event.version = Version::new(2, 9);
    for format in FORMATS {
        let record = stored(codec::encode_as(format, event.as_ref(), "").unwrap());
        assert_eq!(codec::decode::<Two<Json>>(&record).unwrap().version, Version::new(2, 9), "as it was written");
        assert_eq!(codec::decode::<Three<Json>>(&record).unwrap().payload.payload.cents, 705);
    }
}

#[test]
fn a_failed_conversion_names_the_type_the_versions_and_the_cause() {
    for record in forms::<Json, _>(&one::<Json>(-1)).iter().chain(&forms::<Postcard, _>(&one::<Postcard>(-1))) {
        // The record names its codec.
        for error in [refused::<Two<Json>>(record), refused::<Three<Json>>(record)] {
            assert_eq!(error, "upcast paid from version 1.0 to 2.1: out of range integral type conversion attempted");
        }
    }
}

#[test]
fn a_damaged_body_of_an_older_version_is_reported_by_its_own_type() {
    let damaged = written(EventFormat::OfEvent, one::<Json>(7));
    let body = String::from_utf8(damaged.value.as_deref().unwrap().to_vec()).unwrap();
    let damaged = damaged.with_value(body.replace("\"euros\":7", "\"euros\":\"seven\""));
    for record in [damaged.clone(), damaged.with_headers(Headers::new())] {
        let error = refused::<Three<Json>>(&record);
        assert!(error.contains("euros") && error.contains("seven"), "{error}");
    }
}

#[test]
fn a_version_that_is_newer_or_that_the_chain_skips_is_refused_by_name() {
    let newer = "read paid in version 3.0: read here are 2.x, 1.x";
    for record in forms::<Json, _>(&three::<Json>(7)) {
        assert_eq!(refused::<Two<Json>>(&record), newer);
    }
    for record in forms::<Postcard, _>(&three::<Postcard>(7)) {
        assert_eq!(refused::<Two<Postcard>>(&record), newer);
    }
    for record in forms::<Json, _>(&two::<Json>(7, 5)) {
        assert_eq!(refused::<Skipped>(&record), "read paid in version 2.1: read here are 3.x, 1.x");
    }
    for record in forms::<Json, _>(&one::<Json>(7)) {
        assert_eq!(codec::decode::<Skipped>(&record).unwrap().payload, Skipped(7));
    }
}

#[test]
fn header_and_body_that_disagree_on_the_version_are_refused() {
    for (told, event) in [
        ("3.0", written(EventFormat::OfEvent, one::<Json>(7))),
        ("1.0", written(EventFormat::OfEvent, three::<Json>(7))),
    ] {
        let headers = Headers::new().with("eventType", TYPE).with("version", told);
        let _ = refused::<Three<Json>>(&event.with_headers(headers));
    }
}

#[test]
fn the_schema_of_a_cloud_event_is_that_of_its_version() {
    let event = envelope(one::<Json>(7)).with_attribute("dataschema", "/paid/1").unwrap();
    let event = event.with_attribute("subject", "p1").unwrap();
    for format in [EventFormat::CloudEvents, EventFormat::StructuredCloudEvents] {
        let record = stored(codec::encode_as(format, event.as_ref(), "").unwrap());
        let read = codec::decode::<Two<Json>>(&record).unwrap();
        let names: Vec<_> = read.attributes.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["subject"], "a schema describes one version");
        let again = stored(codec::encode_as(format, read.as_ref(), "").unwrap());
        assert_eq!(codec::peek(&again).unwrap().version, Version::new(2, 1));

        let newer = envelope(two::<Json>(7, 0)).with_attribute("dataschema", "/paid/2").unwrap();
        let older = EventVersions::default().with::<One<Json>>().encode(format, newer.as_ref(), "").unwrap();
        assert!(codec::decode::<One<Json>>(&stored(older)).unwrap().attributes.is_empty());
    }
}

/// Asserts that an event of the newest version is written byte for byte as one of the oldest.
fn the_oldest_is_written<C: Codec + Clone>() {
    let versions = EventVersions::default().with::<Three<C>>().with::<One<C>>();
    for format in FORMATS {
        let old = codec::encode_as(format, envelope(one::<C>(7)).as_ref(), "test.").expect("it can be written");
        for new in [
            versions.encode(format, envelope(three::<C>(700)).as_ref(), "test.").expect("it can be written"),
            versions.encode(format, envelope(two::<C>(7, 0)).as_ref(), "test.").expect("it can be written"),
            versions.encode(format, envelope(one::<C>(7)).as_ref(), "test.").expect("it can be written"),
        ] {
            assert_eq!((&new.topic, &new.key, &new.value), (&old.topic, &old.key, &old.value));
            assert_eq!(new.headers, old.headers);
        }
    }
}

#[test]
fn a_newer_event_is_written_as_an_older_one() {
    the_oldest_is_written::<Json>();
    the_oldest_is_written::<Postcard>();
    the_oldest_is_written::<Bare>();
}

#[test]
fn a_version_is_selected_for_its_type_and_newer_events_alone() {
    let version = |versions: &EventVersions, event: Three<Json>| {
        let record = versions.encode(EventFormat::OfEvent, envelope(event).as_ref(), "").unwrap();
        record.headers.get_str("version").unwrap().to_owned()
    };
    let one_then_two = EventVersions::default().with::<One<Json>>().with::<Two<Json>>();
    assert_eq!(version(&EventVersions::default(), three(7)), "3.0");
    assert_eq!(version(&one_then_two, three(7)), "2.1", "the later one counts");
    let old = one_then_two.encode(EventFormat::OfEvent, envelope(one::<Json>(7)).as_ref(), "").unwrap();
    assert_eq!(old.headers.get_str("version"), Some("1.0"), "older events are written as they are");
}

/// An event of another topic that has the same type.
#[derive(Serialize, Deserialize)]
struct Invoice(u32);

impl Event for Invoice {
    type Codec = Json;
    const TOPIC: &'static str = "invoices";
    const TYPE: &'static str = TYPE;
    const VERSION: Version = Version::new(2, 0);
    fn key(&self) -> Option<Cow<'_, [u8]>> {
        None
    }
}

#[test]
fn a_version_is_selected_for_its_topic_alone() {
    let versions = EventVersions::default().with::<One<Json>>();
    let record = versions.encode(EventFormat::OfEvent, envelope(Invoice(7)).as_ref(), "").unwrap();
    assert_eq!(record.headers.get_str("version"), Some("2.0"));
}

#[test]
fn an_event_that_cannot_be_written_as_the_older_one_is_invalid() {
    let versions = EventVersions::default().with::<One<Json>>();
    let error = versions.encode(EventFormat::OfEvent, envelope(three::<Json>(705)).as_ref(), "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.report(), "downcast paid from version 2.1 to 1.0: 5 cents would be lost");

    let error = versions.encode(EventFormat::OfEvent, envelope(Skipped(7)).as_ref(), "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.report(), "write paid 3.0 in version 1.0: no downcast leads to it");
}
