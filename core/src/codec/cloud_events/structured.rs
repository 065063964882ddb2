//! The structured mode: the attributes and the payload in one JSON object.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::super::strict::Strict;
use super::super::{Codec, Head, essence, expect_type, json, text, undecodable, value};
use super::{AttributeValue, Read, SPEC_VERSION, Write, expect_json, required};
use crate::{Envelope, EnvelopeRef, Event, Header, Headers, Result, StoredRecord, Version, headers};

/// The prefix of the content types of this mode, compared without regard to case.
const FAMILY: &[u8] = b"application/cloudevents";
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A [CloudEvent](https://cloudevents.io) in structured mode: one JSON object with the attributes and, as `data`, the
/// payload.
///
/// The payload is read from `data_base64` as well; an event without data is read as `null`. Batches of CloudEvents and
/// formats other than JSON are [`Undecodable`](crate::ErrorKind::Undecodable).
///
/// ```
/// use tidings_core::{StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
///     type Codec = codec::StructuredCloudEvents;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "com.acme.paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let body = r#"{
///     "specversion": "1.0", "id": "A-7", "source": "/billing", "type": "com.acme.paid", "subject": "invoice-7",
///     "data": {"cents": 700}
/// }"#;
/// let record = StoredRecord::new(0, Timestamp::now()).with_value(body);
/// let record = record.with_headers(tidings_core::Headers::new().with("content-type", "application/cloudevents+json"));
/// let event = codec::decode::<Paid>(&record)?;
/// assert_eq!((event.payload.cents, event.source.as_str()), (700, "/billing"));
/// assert!(event.attributes.get("subject").is_some());
///
/// // Written again, it keeps its original id, although that is not a UUID.
/// let written = codec::encode(event.as_ref(), "")?.value.unwrap_or_default();
/// assert!(written.windows(10).any(|part| part == br#""id":"A-7""#));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct StructuredCloudEvents;

/// Returns whether a record of this content type is a CloudEvent in structured mode.
pub(super) fn is_content_type(name: &[u8]) -> bool {
    name.get(..FAMILY.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(FAMILY))
}

/// An event whose data is a `T`.
struct Document<'a, T> {
    attributes: Read<'a>,
    data: Option<T>,
    base64: Option<Cow<'a, str>>,
}

/// A text that is borrowed where no character is escaped.
struct Text<'a>(Cow<'a, str>);

// Not derived: names that are read as newtypes would be missing from the path of an error.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<'a>(PhantomData<&'a str>);
        impl<'de: 'a, 'a> Visitor<'de> for Any<'a> {
            type Value = Text<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Document<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Document<'de, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CloudEvent")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut document = Document { attributes: Read::default(), data: None, base64: None };
                while let Some(Text(name)) = map.next_key()? {
                    document.field(&name, &mut map)?;
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Document<'de, T> {
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "data" => once("data", &mut self.data, map.next_value()?),
            "data_base64" => match map.next_value::<Option<Text<'_>>>()? {
                Some(Text(text)) => once("data_base64", &mut self.base64, text),
                None => Ok(()),
            },
            _ => self.attribute(name, map),
        }
    }

    fn attribute<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if let Some(place) = self.attributes.place(name) {
            return match map.next_value::<Option<Text<'_>>>()? {
                // Null is the same as absent.
                None => Ok(()),
                Some(Text(text)) => once("attribute", place, text),
            };
        }
        let Some(value) = map.next_value::<Option<AttributeValue>>()? else { return Ok(()) };
        if self.attributes.others.iter().any(|(known, _)| **known == *name) {
            return Err(A::Error::custom("an attribute occurs twice"));
        }
        self.attributes.put(name, value).map_err(A::Error::custom)?;
        Ok(())
    }
}

fn once<T, E: serde::de::Error>(name: &str, place: &mut Option<T>, value: T) -> Result<(), E> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format_args!("duplicate {name}"))),
    }
}

impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = AttributeValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a boolean or a whole number")
            }
            fn visit_str<E>(self, text: &str) -> Result<AttributeValue, E> {
                Ok(AttributeValue::from(text))
            }
            fn visit_bool<E>(self, value: bool) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Boolean(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<AttributeValue, E> {
                Ok(AttributeValue::Integer(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<AttributeValue, E> {
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &self);
                i64::try_from(value).map(AttributeValue::Integer).map_err(wrong)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for AttributeValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Boolean(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
        }
    }
}

/// The object as it is written.
struct Written<'a, E, T> {
    attributes: Write<'a>,
    data: T,
    event: PhantomData<E>,
}

impl<E: Event, T: Serialize> Serialize for Written<'_, E, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = &self.attributes;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", SPEC_VERSION)?;
        map.serialize_entry("id", &attributes.id)?;
        map.serialize_entry("source", attributes.source)?;
        map.serialize_entry("type", E::TYPE)?;
        let texts = [
            ("time", attributes.time.as_deref()),
            ("dataversion", attributes.version.as_deref()),
            ("datacontenttype", attributes.content_type),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        for (name, value) in attributes.others.iter() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("data", &self.data)?;
        map.end()
    }
}

/// The attributes that an event is routed by. The rest of an event that is not handled here may be anything.
#[derive(Deserialize)]
struct Routed<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Option<Text<'a>>,
    #[serde(default)]
    dataversion: json::Told,
}

/// The attributes that identify an event.
#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow)]
    specversion: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    source: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    event_type: Option<Text<'a>>,
    #[serde(borrow)]
    dataversion: Option<Text<'a>>,
}

/// Reads the type and the version alone.
pub(super) fn routed(record: &StoredRecord) -> Result<(Cow<'_, str>, Result<Version>)> {
    let routed: Routed<'_> = parsed(record, || "read a CloudEvent".to_owned())?;
    let event_type = required("type", routed.event_type.map(|text| text.0))?;
    Ok((event_type, routed.dataversion.0.unwrap_or(Ok(Version::new(1, 0)))))
}

/// Reads the attributes that identify the event; the data is skipped, not built.
fn identity(record: &StoredRecord) -> Result<Read<'_>> {
    let read: Identity<'_> = parsed(record, || "read a CloudEvent".to_owned())?;
    Ok(Read {
        spec_version: read.specversion.map(|text| text.0),
        id: read.id.map(|text| text.0),
        source: read.source.map(|text| text.0),
        event_type: read.event_type.map(|text| text.0),
        version: read.dataversion.map(|text| text.0),
        ..Read::default()
    })
}

fn parsed<'a, T: Deserialize<'a>>(record: &'a StoredRecord, context: impl Fn() -> String) -> Result<T> {
    expect_format(record)?;
    json::from_json(value(record)?).map_err(|e| undecodable(context()).with_source(e))
}

/// Refuses batches, and events in a format other than JSON.
fn expect_format(record: &StoredRecord) -> Result<()> {
    let name = text(record, headers::CONTENT_TYPE)?.unwrap_or_default();
    if essence(name).eq_ignore_ascii_case(CONTENT_TYPE) {
        Ok(())
    } else {
        Err(super::super::unknown_content_type(name))
    }
}

/// Returns the payload of an event that has no `data`.
fn without_data<E: Event>(base64: Option<&str>) -> Result<E> {
    match base64 {
        Some(text) => {
            let wrong = |e| undecodable("read the attribute data_base64: not base64").with_source(e);
            json::read_payload(&STANDARD.decode(text).map_err(wrong)?)
        }
        None => json::read_payload(b"null"),
    }
}

impl Codec for StructuredCloudEvents {
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let rules = json::rules();
        let data = Strict::new(envelope.payload, &rules);
        let written = Written { attributes: Write::of(envelope)?, data, event: PhantomData::<E> };
        let value = serde_json::to_vec(&written).map_err(|error| json::unwritten::<E>(&rules, error))?;
        headers.push(Header::new(headers::CONTENT_TYPE, CONTENT_TYPE));
        Ok(value.into())
    }

    fn decode<E: Event>(record: &StoredRecord) -> Result<Envelope<E>> {
        let document: Document<'_, E> = parsed(record, || format!("read {} from a CloudEvent", E::TYPE))?;
        expect_type::<E>(document.attributes.event_type()?)?;
        expect_json(document.attributes.content_type.as_deref())?;
        let payload = match (document.data, document.base64) {
            (Some(_), Some(_)) => return Err(undecodable("read a CloudEvent: it has both data and data_base64")),
            (Some(data), None) => data,
            (None, base64) => without_data(base64.as_deref())?,
        };
        document.attributes.envelope(record, payload)
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        identity(record)?.head()
    }
}
