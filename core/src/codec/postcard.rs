//! The compact binary codec: a bare payload, its envelope in the headers.

use bytes::Bytes;

use super::{Codec, Head, expect_type, missing, peek_headers, text, undecodable, value};
use crate::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Result, StoredRecord, Timestamp, headers,
};

/// The payload in [postcard](https://postcard.jamesmunns.com/wire-format.html)'s wire format; the envelope's fields are
/// headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl Codec for Postcard {
    const CONTENT_TYPE: &'static str = "application/postcard";

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let value = ::postcard::to_stdvec(envelope.payload)
            .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("write {} as postcard", E::TYPE), e))?;
        headers.push(Header::new(headers::EVENT_ID, envelope.id.to_string()));
        headers.push(Header::new(headers::EVENT_TYPE, E::TYPE));
        headers.push(Header::new(headers::TIMESTAMP, envelope.timestamp.millis().to_string()));
        headers.push(Header::new(headers::SOURCE, envelope.source.as_bytes().to_vec()));
        headers.push(Header::new(headers::VERSION, envelope.version.to_bytes()));
        headers.push(Header::new(headers::CONTENT_TYPE, Self::CONTENT_TYPE));
        Ok(value.into())
    }

    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
        let head = peek_headers(record)?;
        expect_type::<E>(&head.event_type)?;
        let timestamp = text(record, headers::TIMESTAMP)?.ok_or_else(|| missing(headers::TIMESTAMP))?;
        let timestamp = timestamp.parse().map_err(|e| undecodable("read the header timestamp").with_source(e))?;
        let (payload, rest) = ::postcard::take_from_bytes(value(record)?)
            .map_err(|e| undecodable(format!("read {} from postcard", E::TYPE)).with_source(e))?;
        if !rest.is_empty() {
            // Postcard describes nothing itself: bytes left over are the one sign of another shape.
            return Err(undecodable(format!("read {} from postcard: {} bytes are left over", E::TYPE, rest.len())));
        }
        Ok(Envelope {
            id: head.id,
            timestamp: Timestamp::from_millis(timestamp),
            source: text(record, headers::SOURCE)?.unwrap_or_default().into(),
            version: head.version,
            payload,
        })
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        peek_headers(record)
    }
}
