//! The JSON envelope, which KafkaJS services read and write.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Codec, Head, expect_type, undecodable, value};
use crate::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Result, StoredRecord, Timestamp, Version, headers,
};

/// The envelope as one JSON object: `{"eventId", "eventType", "timestamp", "source", "version", "payload"}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

#[derive(Serialize)]
#[serde(rename_all = "camelCase", bound(serialize = "E: Serialize"))]
struct Written<'a, E> {
    event_id: Uuid,
    event_type: &'a str,
    timestamp: i64,
    source: &'a str,
    version: Version,
    payload: &'a E,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "E: Deserialize<'de>"))]
struct Read<'a, E> {
    event_id: Uuid,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    timestamp: i64,
    #[serde(borrow, default)]
    source: Cow<'a, str>,
    #[serde(default = "first_version")]
    version: Version,
    payload: E,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peeked<'a> {
    event_id: Uuid,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(default = "first_version")]
    version: Version,
}

/// For so many bytes there is room from the start: most events are no longer, and need not be moved as they grow.
const ROOM: usize = 512;

/// Reads JSON. That it is UTF-8 is seen at once, which takes a fraction of the time that it takes for each string by itself.
fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // It says where.
        Err(_) => serde_json::from_slice(bytes),
    }
}

const fn first_version() -> Version {
    Version::new(1, 0)
}

impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let written = Written {
            event_id: envelope.id,
            event_type: E::TYPE,
            timestamp: envelope.timestamp.millis(),
            source: envelope.source,
            version: envelope.version,
            payload: envelope.payload,
        };
        let mut value = Vec::with_capacity(ROOM);
        serde_json::to_writer(&mut value, &written)
            .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("write {} as JSON", E::TYPE), e))?;
        if value.len() < ROOM / 2 {
            // It may be kept for long.
            value.shrink_to_fit();
        }
        headers.push(Header::new(headers::EVENT_TYPE, E::TYPE));
        headers.push(Header::new(headers::VERSION, envelope.version.to_bytes()));
        headers.push(Header::new(headers::CONTENT_TYPE, Self::CONTENT_TYPE));
        Ok(value.into())
    }

    #[inline]
    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
        let read: Read<'_, E> =
            from_json(value(record)?).map_err(|e| undecodable(format!("read {} from JSON", E::TYPE)).with_source(e))?;
        expect_type::<E>(&read.event_type)?;
        Ok(Envelope {
            id: read.event_id,
            timestamp: Timestamp::from_millis(read.timestamp),
            source: read.source.as_ref().into(),
            version: read.version,
            payload: read.payload,
        })
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        let peeked: Peeked<'_> =
            from_json(value(record)?).map_err(|e| undecodable("read the JSON envelope").with_source(e))?;
        Ok(Head::new(peeked.event_id, peeked.event_type, peeked.version))
    }
}
