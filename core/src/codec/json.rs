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
        let value = serde_json::to_vec(&written)
            .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("write {} as JSON", E::TYPE), e))?;
        headers.push(Header::new(headers::EVENT_TYPE, E::TYPE));
        headers.push(Header::new(headers::VERSION, envelope.version.to_bytes()));
        headers.push(Header::new(headers::CONTENT_TYPE, Self::CONTENT_TYPE));
        Ok(value.into())
    }

    #[inline]
    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
        let read: Read<'_, E> = serde_json::from_slice(value(record)?)
            .map_err(|e| undecodable(format!("read {} from JSON", E::TYPE)).with_source(e))?;
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
            serde_json::from_slice(value(record)?).map_err(|e| undecodable("read the JSON envelope").with_source(e))?;
        Ok(Head::new(peeked.event_id, peeked.event_type, peeked.version))
    }
}
