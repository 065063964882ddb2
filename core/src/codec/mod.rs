//! Codecs: encoding of events into records, and decoding of records.
//!
//! The codec that *writes* an event is that of its type ([`Event::Codec`]), unless an [`EventFormat`] selects another.
//! The codec that *reads* a record is the one named by the record's `content-type`, so that a topic may change its
//! codec while both are in use.
//!
//! There are two shapes. [`Json`] puts the whole envelope into the value, as KafkaJS services do. Codecs of bare
//! payloads ([`Postcard`], and usually one of your own) put the envelope into headers, where [`peek_headers`] finds it.
//! Both write the type and the version as headers, so that a record is routed without parsing its value.
//!
//! An event that has an [`Upcast`] is read from records of its older versions as well, and one that has a [`Downcast`] is
//! written as an older version where [`EventVersions`] select it.
//!
//! With the feature `cloudevents`, CloudEvents are read on every topic, and written by the codecs `CloudEvents` and
//! `StructuredCloudEvents`.
//!
//! Nothing is written that its reader would refuse or misread. A serializer checks each value while it is written
//! (`strict`, by the `rules` of the format), and in debug builds the record is also read back and compared
//! (`read_back`, by a `digest`). Records come from any publisher, so the depth and the number of elements are bounded
//! when they are read.

#[cfg(feature = "postcard")]
mod bounded;
#[cfg(feature = "cloudevents")]
mod cloud_events;
mod content_type;
mod digest;
#[cfg(feature = "json")]
mod fields;
mod format;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "json")]
mod not_read;
mod payload_json;
#[cfg(feature = "postcard")]
mod postcard;
mod read_back;
mod routing;
#[cfg(any(feature = "json", feature = "postcard"))]
mod rules;
#[cfg(any(feature = "json", feature = "postcard"))]
mod strict;
mod versions;

use std::borrow::Cow;

use bytes::Bytes;
use uuid::Uuid;

#[cfg(feature = "cloudevents")]
pub use self::cloud_events::{AttributeValue, Attributes, CloudEvents, StructuredCloudEvents};
#[cfg(feature = "cloudevents")]
use self::content_type::essence;
use self::content_type::{ContentType, content_type, unknown_content_type};
pub use self::format::EventFormat;
#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::payload_json::payload_json;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use self::read_back::set_read_back;
pub use self::routing::{Routing, route_by_headers, routing};
pub use self::versions::{Downcast, EventVersions, Upcast, majors};
#[cfg(any(feature = "json", feature = "postcard"))]
use crate::event::shortened;
use crate::{Envelope, EnvelopeRef, Error, ErrorKind, Event, Headers, Record, Result, StoredRecord, Version, headers};

/// Encodes and decodes the envelope of an event.
///
/// A codec is a type, not a value: an event names its own by [`Event::Codec`].
///
/// ```
/// # use bytes::Bytes;
/// # use tidings_core::codec::{Codec, Head, peek_headers};
/// # use tidings_core::{Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Result, StoredRecord};
/// use tidings_core::headers as names;
///
/// /// A bare JSON payload, with its envelope in headers.
/// struct Bare;
///
/// impl Codec for Bare {
///     const CONTENT_TYPE: &'static str = "application/vnd.acme+json";
///
///     fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
///         headers.push(Header::new(names::EVENT_ID, envelope.id.to_string()));
///         headers.push(Header::new(names::EVENT_TYPE, E::TYPE));
///         headers.push(Header::new(names::VERSION, envelope.version.to_bytes()));
///         headers.push(Header::new(names::CONTENT_TYPE, Self::CONTENT_TYPE));
///         let value = serde_json::to_vec(envelope.payload);
///         Ok(value.map_err(|e| Error::caused_by(ErrorKind::Invalid, "write the payload", e))?.into())
///     }
///
///     fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
///         let payload = serde_json::from_slice(record.value.as_deref().unwrap_or_default());
///         let payload = payload.map_err(|e| Error::caused_by(ErrorKind::Undecodable, "read the payload", e))?;
///         Ok(Envelope::new(payload).with_id(Self::peek(record)?.id).with_timestamp(record.timestamp))
///     }
///
///     fn peek(record: &StoredRecord) -> Result<Head<'_>> {
///         peek_headers(record)
///     }
/// }
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The value of the `content-type` header.
    const CONTENT_TYPE: &'static str;

    /// Encodes `envelope`: returns the record's value and appends the codec's headers to `headers`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the payload cannot be written, for example a map whose keys are not texts.
    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes>;

    /// Decodes the envelope and its payload.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`], with the field; also if the record is of another type.
    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>>;

    /// Decodes the envelope without its payload.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`], with the field.
    fn peek(record: &StoredRecord) -> Result<Head<'_>>;
}

/// The id, type and version of an event, decoded without its payload.
///
/// It is enough to route a record and to recognise a repeat. Texts are borrowed from the record where the format allows
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The event's id.
    pub id: Uuid,
    /// The event's type.
    pub event_type: Cow<'a, str>,
    /// The payload's version.
    pub version: Version,
}

impl<'a> Head<'a> {
    /// Creates the head of an event.
    pub fn new(id: Uuid, event_type: impl Into<Cow<'a, str>>, version: Version) -> Self {
        Self { id, event_type: event_type.into(), version }
    }
}

/// Encodes `envelope` as a record for its topic, prefixed with `topic_prefix`, with its type's codec and its key.
///
/// # Errors
/// [`ErrorKind::Invalid`] for the nil UUID as its id, and for a payload that cannot be written or could not be read
/// back. In JSON these are NaN and infinite numbers, `Some(None)` and `Some(())`; in postcard, skipped fields; in
/// both, values nested too deep. In debug builds, and wherever [`set_read_back`] turned it on, each event is read
/// back.
///
/// ```
/// use tidings_core::{Envelope, ErrorKind, codec};
/// # #[derive(serde::Serialize, serde::Deserialize, Debug)] struct Paid { cents: f64 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let event = Envelope::new(Paid { cents: 700.0 });
/// let record = codec::encode(event.as_ref(), "staging.")?;
/// assert_eq!(record.topic, "staging.payments");
/// assert_eq!(record.headers.get_str("eventType"), Some("paid"));
///
/// let event = Envelope::new(Paid { cents: f64::NAN });
/// let refused = codec::encode(event.as_ref(), "").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Invalid);
/// assert!(refused.to_string().contains("cents"), "{refused}");
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, topic_prefix: &str) -> Result<Record> {
    encode_by::<E::Codec, E>(envelope, topic_prefix)
}

/// Encodes `envelope` as [`encode`] does, but in `format`.
///
/// # Errors
/// As [`encode`]. For a CloudEvent also [`ErrorKind::Invalid`] for a source that is not a URI reference.
pub fn encode_as<E: Event>(format: EventFormat, envelope: EnvelopeRef<'_, E>, topic_prefix: &str) -> Result<Record> {
    match format {
        EventFormat::OfEvent => encode(envelope, topic_prefix),
        #[cfg(feature = "cloudevents")]
        EventFormat::CloudEvents => encode_by::<CloudEvents, E>(envelope, topic_prefix),
        #[cfg(feature = "cloudevents")]
        EventFormat::StructuredCloudEvents => encode_by::<StructuredCloudEvents, E>(envelope, topic_prefix),
    }
}

fn encode_by<C: Codec, E: Event>(envelope: EnvelopeRef<'_, E>, topic_prefix: &str) -> Result<Record> {
    if envelope.id.is_nil() {
        return Err(Error::new(ErrorKind::Invalid, format!("write {} with the nil UUID as its id", E::TYPE)));
    }
    let mut headers = Headers::new();
    let value = C::encode(envelope, &mut headers)?;
    let topic = match topic_prefix {
        "" => crate::Name::from_static(E::TOPIC),
        prefix => format!("{prefix}{}", E::TOPIC).into(),
    };
    let mut record = Record::new(topic, value).with_headers(headers);
    record.key = envelope.payload.key().map(|key| Bytes::copy_from_slice(&key));
    if read_back::is_on() {
        let by_name = C::CONTENT_TYPE != "application/postcard";
        read_back::check(envelope, &record, by_name)?;
    }
    Ok(record)
}

/// Decodes an event by the codec that the record's `content-type` names.
///
/// For an event that has an [upcast](Event::UPCAST), the record's version selects the type: an older record is decoded
/// as its own type and converted. The versions of other events are not compared here; the router of a service compares
/// them.
///
/// # Errors
/// [`ErrorKind::Undecodable`] if the bytes, the type or the codec do not match; the message names the field. A null
/// value is undecodable too, as are, for an event with an upcast, a failed conversion and a major version that is not
/// one of its [`majors`].
///
/// ```
/// use tidings_core::{Envelope, ErrorKind, StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize, Debug)] struct Paid { cents: f64 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let sent = Envelope::new(Paid { cents: 700.0 });
/// let record = StoredRecord::from_record(codec::encode(sent.as_ref(), "")?, 0, Timestamp::now());
/// let read: Envelope<Paid> = codec::decode(&record)?;
/// assert_eq!((read.id, read.payload.cents), (sent.id, 700.0));
///
/// let damaged = record.with_value(r#"{"eventId": "7"}"#);
/// assert_eq!(codec::decode::<Paid>(&damaged).unwrap_err().kind(), ErrorKind::Undecodable);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[inline]
pub fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
    let format = content_type(record)?;
    if E::UPCAST.is_none() { decode_exactly(record, format) } else { versions::decode_by_version(record, format) }
}

/// Decodes a record as `E` itself, whatever its version is.
#[inline]
fn decode_exactly<E: Event>(record: &StoredRecord, format: ContentType<'_>) -> Result<Envelope<E>> {
    match format {
        #[cfg(feature = "json")]
        ContentType::Json => Json::decode(record),
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(cloud_events::Mode::Binary) => CloudEvents::decode(record),
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(cloud_events::Mode::Structured) => StructuredCloudEvents::decode(record),
        #[cfg(feature = "postcard")]
        ContentType::Postcard => Postcard::decode(record),
        ContentType::Other(name) if name == E::Codec::CONTENT_TYPE => {
            let envelope: Envelope<E> = E::Codec::decode(record)?;
            refuse_nil(envelope.id)?;
            Ok(envelope)
        }
        ContentType::Other(name) => Err(unknown_content_type(name)),
    }
}

/// Decodes an event's id, type and version by the codec that the record's `content-type` names.
///
/// For an unknown codec the headers are read, as with bare payloads.
///
/// # Errors
/// [`ErrorKind::Undecodable`], with the field.
///
/// ```
/// use tidings_core::{StoredRecord, Timestamp, codec};
///
/// let body = r#"{"eventId": "01939bd5-7b6c-7000-8000-000000000001", "eventType": "paid", "payload": "anything"}"#;
/// let record = StoredRecord::new(0, Timestamp::now()).with_value(body);
/// let head = codec::peek(&record)?;
/// assert_eq!((&*head.event_type, head.version.to_string()), ("paid", "1.0".to_owned()));
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn peek(record: &StoredRecord) -> Result<Head<'_>> {
    match content_type(record)? {
        #[cfg(feature = "json")]
        ContentType::Json => Json::peek(record),
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(cloud_events::Mode::Binary) => CloudEvents::peek(record),
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(cloud_events::Mode::Structured) => StructuredCloudEvents::peek(record),
        _ => peek_headers(record),
    }
}

/// Reads the envelope's fields from the headers, where codecs of bare payloads store them.
///
/// # Errors
/// [`ErrorKind::Undecodable`], with the header.
///
/// ```
/// use tidings_core::{StoredRecord, Headers, Timestamp, codec};
///
/// let headers = Headers::new().with("eventId", "01939bd5-7b6c-7000-8000-000000000001").with("eventType", "paid");
/// let record = StoredRecord::new(0, Timestamp::now()).with_headers(headers.with("version", "2.1"));
/// let head = codec::peek_headers(&record)?;
/// assert_eq!((&*head.event_type, head.version.major), ("paid", 2));
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn peek_headers(record: &StoredRecord) -> Result<Head<'_>> {
    let Some((event_type, version)) = route_by_headers(record)? else { return Err(missing(headers::EVENT_TYPE)) };
    let id = text(record, headers::EVENT_ID)?.ok_or_else(|| missing(headers::EVENT_ID))?;
    let id = Uuid::try_parse(id).map_err(|e| undecodable("read the header eventId").with_source(e))?;
    Ok(Head::new(refuse_nil(id)?, event_type, version))
}

/// Refuses the nil UUID: it is written where an id was forgotten, and two such events would have the same id.
fn refuse_nil(id: Uuid) -> Result<Uuid> {
    if id.is_nil() { Err(undecodable("read the eventId: it is the nil UUID")) } else { Ok(id) }
}

/// Returns the header `name` as text.
fn text<'a>(record: &'a StoredRecord, name: &'static str) -> Result<Option<&'a str>> {
    let Some(value) = record.headers.get(name) else { return Ok(None) };
    match std::str::from_utf8(value) {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(undecodable(format!("read the header {name}: not UTF-8")).with_source(e)),
    }
}

/// Creates an [`Undecodable`](ErrorKind::Undecodable) error; `context` names the field or header.
fn undecodable(context: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Undecodable, context)
}

fn missing(header: &'static str) -> Error {
    undecodable(format!("read the header {header}: it is missing"))
}

/// Returns the value, which an event must have.
#[cfg(any(feature = "json", feature = "postcard"))]
fn value(record: &StoredRecord) -> Result<&Bytes> {
    record.value.as_ref().ok_or_else(|| undecodable("read an event: the value is null"))
}

/// Refuses a record whose type differs from the one it is read as.
#[cfg(any(feature = "json", feature = "postcard"))]
fn expect_type<E: Event>(found: &str) -> Result<()> {
    if found == E::TYPE {
        return Ok(());
    }
    Err(undecodable(format!("read {}: the eventType is {:?}", E::TYPE, shortened(found))))
}

/// Refuses a record whose header states another version than its body.
#[cfg(feature = "json")]
fn expect_version<E: Event>(record: &StoredRecord, found: Version) -> Result<()> {
    let Some(told) = text(record, headers::VERSION)? else { return Ok(()) };
    if told.parse::<Version>()? == found {
        return Ok(());
    }
    let what = format!("read {}: the version is {told} in the header and {found} in the body", E::TYPE);
    Err(undecodable(what))
}
