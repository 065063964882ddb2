//! The binary mode: attributes in headers, the payload as the value.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::{Codec, Head, expect_type, json, text, undecodable, value};
use super::attributes::OWN;
use super::{AttributeValue, JSON, Read, SPEC_VERSION, Write, expect_json, required, version_of};
use crate::event::shortened;
use crate::{Envelope, EnvelopeRef, Error, Event, Header, Headers, Result, StoredRecord, Version, headers};

const PREFIX: &str = "ce_";
const SPEC_VERSION_HEADER: &str = "ce_specversion";

/// A [CloudEvent](https://cloudevents.io) in binary mode: the payload as JSON, and its attributes in headers that begin
/// with `ce_`.
///
/// Records of the JSON envelope and of both modes of CloudEvents are read by the same handler. The source, which is the
/// service's name, must be a URI reference.
///
/// ```
/// use tidings_core::{Envelope, StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
///     type Codec = codec::CloudEvents;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "com.acme.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let record = codec::encode(Envelope::new(Paid { cents: 7 }).with_source("billing").as_ref(), "")?;
/// assert_eq!(record.value.as_deref(), Some(&br#"{"cents":7}"#[..]));
/// assert_eq!(record.headers.get_str("ce_type"), Some("com.acme.paid"));
/// assert_eq!(record.headers.get_str("content-type"), Some("application/json"));
///
/// let stored = StoredRecord::from_record(record, 0, Timestamp::now());
/// assert_eq!(codec::decode::<Paid>(&stored)?.payload.cents, 7);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CloudEvents;

/// Reads the attributes. If a header occurs twice, the last one counts, as everywhere.
fn attributes(record: &StoredRecord) -> Result<Read<'_>> {
    let mut read = Read::default();
    for header in record.headers.iter() {
        let Some(name) = header.name.strip_prefix(PREFIX.as_bytes()) else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let value = header.value.as_deref().map(|value| utf8(name, value)).transpose()?;
        match (read.place(name), value) {
            (Some(place), value) => *place = value.map(Cow::Borrowed),
            // In structured mode they would be the payload.
            (None, _) if OWN.contains(&name) => return Err(refused(name, "it is not an attribute")),
            (None, Some(value)) => read.put(name, AttributeValue::from(value)).map_err(|why| refused(name, why))?,
            // As elsewhere, null is the same as absent.
            (None, None) => read.others.retain(|(known, _)| **known != *name),
        }
    }
    // In this mode, the content type of the data is that of the record.
    read.content_type = text(record, headers::CONTENT_TYPE)?.map(Cow::Borrowed);
    Ok(read)
}

fn utf8<'a>(name: &str, value: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(value).map_err(|e| refused(name, "not UTF-8").with_source(e))
}

/// Creates the error of a header, whose name comes from the record and is quoted.
fn refused(name: &str, why: &str) -> Error {
    undecodable(format!("read the header {:?}: {why}", shortened(&format!("{PREFIX}{name}"))))
}

/// Reads the type and the version alone.
pub(super) fn routed(record: &StoredRecord) -> Result<(Cow<'_, str>, Result<Version>)> {
    let event_type = required("type", text(record, "ce_type")?.map(Cow::Borrowed))?;
    let version = text(record, "ce_dataversion").and_then(version_of);
    Ok((event_type, version))
}

/// Reads the attributes that identify the event.
fn identity(record: &StoredRecord) -> Result<Read<'_>> {
    let text = |name| text(record, name).map(|text| text.map(Cow::Borrowed));
    Ok(Read {
        spec_version: text(SPEC_VERSION_HEADER)?,
        id: text("ce_id")?,
        source: text("ce_source")?,
        event_type: text("ce_type")?,
        version: text("ce_dataversion")?,
        ..Read::default()
    })
}

impl Codec for CloudEvents {
    const CONTENT_TYPE: &'static str = JSON;

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let write = Write::of(envelope)?;
        let value = json::write_payload(envelope.payload)?;
        let own = [
            Some(Header::new(SPEC_VERSION_HEADER, SPEC_VERSION)),
            Some(Header::new("ce_id", write.id.into_owned())),
            Some(Header::new("ce_source", write.source.to_owned())),
            Some(Header::new("ce_type", E::TYPE)),
            write.time.map(|time| Header::new("ce_time", time.into_owned())),
            write.version.map(|version| Header::new("ce_dataversion", version.into_owned())),
        ];
        let other = |(name, value): (&str, &AttributeValue)| Header::new(format!("{PREFIX}{name}"), value.to_string());
        let content_type = write.content_type.map(|name| Header::new(headers::CONTENT_TYPE, name.to_owned()));
        let all = own.into_iter().flatten().chain(write.others.iter().map(other)).chain(content_type);
        all.for_each(|header| headers.push(header));
        Ok(value.into())
    }

    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
        let read = attributes(record)?;
        expect_type::<E>(read.event_type()?)?;
        expect_json(read.content_type.as_deref())?;
        let value = value(record)?;
        // An event without data, as in structured mode.
        let payload = json::read_payload::<E>(if value.is_empty() { b"null" } else { value })?;
        read.envelope(record, payload)
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        identity(record)?.head()
    }
}
