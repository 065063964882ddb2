//! A codec call through the framework, compared with the bare crate.

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use tidings::codec::{Codec, Json, Postcard};
use tidings::codec::{EnvelopeRef, Version};
use tidings::record::{Headers, Name, StoredRecord, Timestamp};
use tidings::{Envelope, Event};
use tidings_benches::{Registered, registered};
use uuid::Uuid;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    event_id: Uuid,
    event_type: &'a str,
    timestamp: i64,
    source: &'a str,
    version: &'a str,
    payload: &'a Registered,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read, and not looked at")]
struct Read<'a> {
    event_id: Uuid,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    timestamp: i64,
    source: String,
    version: Version,
    payload: Registered,
}

fn stored(value: Bytes, headers: Headers) -> StoredRecord {
    StoredRecord::new(0, Timestamp::from_millis(1)).with_value(value).with_headers(headers)
}

fn json(c: &mut Criterion) {
    let (event, source, id) = (registered(1), Name::from_static("bench"), Uuid::from_u128(1));
    let envelope = EnvelopeRef::new(id, Timestamp::from_millis(1), &source, &event);
    let mut group = c.benchmark_group("codec/json encode");
    group.bench_function("baseline", |b| {
        let written = Written {
            event_id: id,
            event_type: Registered::TYPE,
            timestamp: 1,
            source: &source,
            version: "1.0",
            payload: &event,
        };
        b.iter(|| Bytes::from(serde_json::to_vec(&written).expect("it encodes")));
    });
    group.bench_function("tidings", |b| b.iter(|| Json::encode(envelope, &mut Headers::new())));
    group.finish();

    let mut headers = Headers::new();
    let record = stored(Json::encode(envelope, &mut headers).expect("it encodes"), headers);
    let mut group = c.benchmark_group("codec/json decode");
    group.bench_function("baseline", |b| {
        let value = record.value.clone().expect("a value");
        b.iter(|| serde_json::from_slice::<Read<'_>>(&value).map(|read| read.payload).expect("it decodes"));
    });
    group.bench_function("tidings", |b| {
        b.iter(|| tidings::codec::decode::<Registered>(&record).map(|event: Envelope<_>| event.payload));
    });
    group.finish();
}

/// The cost of the search for NaN in a payload of floats.
#[derive(Clone, Serialize, Deserialize, Event)]
#[event(topic = "bench", type = "measured")]
struct Measured {
    values: Vec<f64>,
}

fn floats(c: &mut Criterion) {
    let event = Measured { values: (0..100).map(|n| f64::from(n) * 1.37).collect() };
    let source = Name::from_static("bench");
    let envelope = EnvelopeRef::new(Uuid::from_u128(1), Timestamp::from_millis(1), &source, &event);
    let mut group = c.benchmark_group("codec/json encode, 100 floats");
    group.bench_function("baseline", |b| {
        b.iter(|| Bytes::from(serde_json::to_vec(&event).expect("it encodes")));
    });
    group.bench_function("tidings", |b| b.iter(|| Json::encode(envelope, &mut Headers::new())));
    group.finish();
}

fn postcard(c: &mut Criterion) {
    let (event, source) = (registered(1), Name::from_static("bench"));
    let envelope = EnvelopeRef::new(Uuid::from_u128(1), Timestamp::from_millis(1), &source, &event);
    let mut headers = Headers::new();
    let record = stored(Postcard::encode(envelope, &mut headers).expect("it encodes"), headers);
    let value = record.value.clone().expect("a value");
    let mut group = c.benchmark_group("codec/postcard payload");
    group.bench_function("baseline", |b| b.iter(|| ::postcard::from_bytes::<Registered>(&value).expect("it decodes")));
    group.bench_function("tidings, with the envelope's headers", |b| {
        b.iter(|| tidings::codec::decode::<Registered>(&record).map(|event: Envelope<_>| event.payload));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = json, floats, postcard
}
criterion_main!(benches);
