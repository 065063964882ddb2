//! The compact binary codec: a bare payload, its envelope in the headers.
//!
//! Postcard writes neither names nor types, so a reader with another struct gets other values and no error. Three
//! checks make up for it: the header's type and version must match, no field may be skipped, and no byte may be left
//! over.

use bytes::Bytes;

use super::bounded::{Bounds, MAX_DEPTH, MAX_EMPTY_ELEMENTS, TOO_MANY};
use super::rules::Rules;
use super::strict::Strict;
use super::{Codec, Head, expect_type, missing, peek_headers, text, undecodable, value};
use crate::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Result, StoredRecord, Timestamp, headers,
};

/// The payload in [postcard](https://postcard.jamesmunns.com/wire-format.html)'s wire format, with the envelope in
/// headers.
///
/// Values may be nested 256 levels deep (a list, struct, enum, option or newtype is a level), and the elements of
/// lists and maps (and of arrays without a size in memory, such as `[(); 32]`) may number the bytes plus 65,536. A
/// value beyond these limits is neither written nor read; neither is one that skips a field (`skip_serializing_if`),
/// which postcard cannot distinguish from a present one.
///
/// ```
/// use tidings_core::{Envelope, StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
///     type Codec = codec::Postcard;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let record = codec::encode(Envelope::new(Paid { cents: 7 }).as_ref(), "")?;
/// assert_eq!(record.value.as_deref(), Some(&[7][..]));
///
/// let stored = StoredRecord::from_record(record, 0, Timestamp::now());
/// assert_eq!(codec::decode::<Paid>(&stored)?.payload.cents, 7);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

/// Returns the rules of postcard: each level counts as one, as in [`Bounds`], and no field may be skipped.
fn rules() -> Rules {
    let mut rules = Rules::new(MAX_DEPTH, |_| 1);
    rules.skipped_fields = false;
    rules
}

/// Writes the payload, and refuses one that [`read`] would refuse for its number of elements: that is known only at the
/// end.
fn write<E: Event>(payload: &E) -> Result<Vec<u8>> {
    let rules = rules();
    let refused = |why: &str| Error::new(ErrorKind::Invalid, format!("write {} as postcard: {why}", E::TYPE));
    let value = ::postcard::to_stdvec(&Strict::new(payload, &rules)).map_err(|error| match rules.refused() {
        Some(why) => refused(&why),
        None => Error::caused_by(ErrorKind::Invalid, format!("write {} as postcard", E::TYPE), error),
    })?;
    if rules.elements() > value.len().saturating_add(MAX_EMPTY_ELEMENTS) {
        return Err(refused(TOO_MANY));
    }
    Ok(value)
}

/// Reads a payload from untrusted bytes. All bytes must be used.
fn read<E: Event>(bytes: &[u8]) -> Result<E> {
    let bounds = Bounds::of(bytes.len());
    let mut postcard = ::postcard::Deserializer::from_bytes(bytes);
    let context = || format!("read {} from postcard", E::TYPE);
    let payload = E::deserialize(bounds.bound(&mut postcard)).map_err(|error| match bounds.broken() {
        Some(why) => undecodable(format!("{}: {why}", context())),
        None => undecodable(context()).with_source(error),
    })?;
    let rest = postcard.finalize().map_err(|error| undecodable(context()).with_source(error))?;
    if !rest.is_empty() {
        // Postcard is not self-describing: left-over bytes are the only sign of another shape.
        return Err(undecodable(format!("{}: trailing data ({} B)", context(), rest.len())));
    }
    Ok(payload)
}

impl Codec for Postcard {
    const CONTENT_TYPE: &'static str = "application/postcard";

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let value = write(envelope.payload)?;
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
        Ok(Envelope {
            id: head.id,
            timestamp: Timestamp::from_millis(timestamp),
            source: text(record, headers::SOURCE)?.unwrap_or_default().into(),
            version: head.version,
            payload: read(value(record)?)?,
            #[cfg(feature = "cloudevents")]
            attributes: super::Attributes::default(),
        })
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        peek_headers(record)
    }
}
