//! The JSON envelope that KafkaJS services read and write.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::not_read::NotRead;
use super::rules::{Level, Rules};
use super::strict::Strict;
use super::{Codec, Head, expect_type, expect_version, refuse_nil, text, undecodable, value};
use crate::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Header, Headers, Result, StoredRecord, Timestamp, Version, headers,
};

/// The envelope as one JSON object: `{"eventId", "eventType", "timestamp", "source", "version", "payload"}`.
///
/// The format is UTF-8; readers skip a leading byte order mark. `source` and `version` may be absent or null:
/// `source` is then empty, and `version` is that of the `version` header, otherwise `1.0`. `timestamp` is a whole
/// number of milliseconds, also written `1764150000000.0`, and never a text. `version` is a text, `"1.0"`, or a whole
/// number. A duplicate field, a nil UUID, more than 126 levels of payload, and a type or version that differs from
/// the header's are refused.
///
/// The levels are counted by lists, structs and enums. A type that contains itself by newtypes and options alone, as
/// `struct R(Option<Box<R>>)` does, has no values to tell apart (each is written as null), and reading anything else
/// overflows the stack: give it a field. Bounding it would make every event 6 percent slower to read.
///
/// ```
/// use tidings_core::{StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let body = r#"{
///     "eventId": "01939bd5-7b6c-7000-8000-000000000001", "eventType": "paid", "timestamp": 1764150000000,
///     "source": null, "version": 1, "payload": {"cents": 700}
/// }"#;
/// let event = codec::decode::<Paid>(&StoredRecord::new(0, Timestamp::now()).with_value(body))?;
/// assert_eq!((event.payload.cents, event.timestamp.millis()), (700, 1_764_150_000_000));
/// assert_eq!(event.version.to_string(), "1.0");
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

/// The envelope as it is written. `E` is the payload wrapped by the checks of [`Strict`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase", bound(serialize = "E: Serialize"))]
struct Written<'a, E> {
    event_id: Uuid,
    event_type: &'a str,
    timestamp: i64,
    source: &'a str,
    version: Version,
    payload: E,
}

/// The envelope as it is read. Texts without escapes are borrowed from the record; unknown fields are ignored, so that
/// writers may add some.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "E: Deserialize<'de>"))]
struct Read<'a, E> {
    event_id: Uuid,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(deserialize_with = "whole")]
    timestamp: i64,
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    source: Cow<'a, str>,
    version: Option<Version>,
    payload: E,
}

/// The fields of [`Head`]. The payload is skipped, not built.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peeked<'a> {
    event_id: Uuid,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    version: Option<Version>,
}

/// The fields that a record is routed by. The version of an event that is not handled here may be anything.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Routed<'a> {
    #[serde(borrow)]
    pub(super) event_type: Cow<'a, str>,
    #[serde(default)]
    pub(super) version: Told,
}

/// The version in the body, which may be malformed.
#[derive(Debug, Default)]
pub(super) struct Told(pub(super) Option<Result<Version>>);

/// Initial capacity in bytes: most events are not longer, and need not be moved as they grow.
const ROOM: usize = 512;
/// The limit of payload levels: one less than the parser's, for the envelope.
const MAX_DEPTH: usize = 126;

/// Parses JSON. UTF-8 is validated once, which takes a fraction of the time of validating each string.
pub(super) fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NotRead> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let read = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // This error has the position.
        Err(_) => serde_json::from_slice(bytes),
    };
    read.map_err(|error| NotRead::of::<T>(bytes, &error))
}

/// Deserializes a whole number in any notation.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Whole;
    impl Visitor<'_> for Whole {
        type Value = i64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("i64 milliseconds")
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
        }
        // JavaScript and Python write computed whole numbers with a fraction.
        fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<i64, E> {
            let wrong = || E::invalid_value(serde::de::Unexpected::Float(number), &self);
            whole_of(number).ok_or_else(wrong)
        }
    }
    deserializer.deserialize_i64(Whole)
}

/// Converts the number to an integer if it is whole and within the exact integers of a float.
#[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
fn whole_of(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Deserializes a text, or an empty one for null.
fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or null")
        }
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }
    }
    deserializer.deserialize_any(Text)
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        fn none<E>(shown: impl fmt::Display) -> Result<Told, E> {
            let what = format!("read the version `{shown}`: expected text such as \"1.0\"");
            Ok(Told(Some(Err(undecodable(what)))))
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Told;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version")
            }
            fn visit_str<E>(self, text: &str) -> Result<Told, E> {
                Ok(Told(Some(text.parse())))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Told, E> {
                Version::of_number(number).map_or_else(|| none(number), |version| Ok(Told(Some(Ok(version)))))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Told, E> {
                match whole_of(number).and_then(|number| u64::try_from(number).ok()).and_then(Version::of_number) {
                    Some(version) => Ok(Told(Some(Ok(version)))),
                    None => none(number),
                }
            }
            fn visit_i64<E>(self, number: i64) -> Result<Told, E> {
                none(number)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Told, E> {
                none(value)
            }
            fn visit_unit<E>(self) -> Result<Told, E> {
                Ok(Told(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Told, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                none("(a list)")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Told, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                none("(an object)")
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Reads the fields that `record` is routed by from its body alone.
pub(super) fn routed(record: &StoredRecord) -> Result<Routed<'_>> {
    from_json(value(record)?).map_err(|e| undecodable("read the JSON envelope").with_source(e))
}

/// Returns the version of the body, otherwise that of the header, otherwise the first.
fn version_of(record: &StoredRecord, told: Option<Version>) -> Result<Version> {
    match told {
        Some(version) => Ok(version),
        None => text(record, headers::VERSION)?.map_or(Ok(Version::new(1, 0)), str::parse),
    }
}

/// Refuses a record whose headers state another type or version than its body.
#[inline]
fn expect_headers<E: Event>(record: &StoredRecord, version: Option<Version>) -> Result<()> {
    let differs = |name, body: &[u8]| record.headers.get(name).is_some_and(|told| told != body);
    if differs(headers::EVENT_TYPE, E::TYPE.as_bytes()) {
        expect_type::<E>(text(record, headers::EVENT_TYPE)?.unwrap_or_default())?;
    }
    match version {
        // Other texts may denote the same version.
        Some(version) if differs(headers::VERSION, version.to_text().as_bytes()) => {
            expect_version::<E>(record, version)
        }
        _ => Ok(()),
    }
}

/// Writes a payload alone, as CloudEvents carry it.
#[cfg(feature = "cloudevents")]
pub(super) fn write_payload<E: Event>(payload: &E) -> Result<Vec<u8>> {
    let rules = rules();
    serde_json::to_vec(&Strict::new(payload, &rules)).map_err(|error| unwritten::<E>(&rules, error))
}

/// Reads a payload alone.
#[cfg(feature = "cloudevents")]
pub(super) fn read_payload<E: Event>(bytes: &[u8]) -> Result<E> {
    from_json(bytes).map_err(|e| undecodable(format!("read {} from JSON", E::TYPE)).with_source(e))
}

/// Returns the rules of `serde_json`'s reader: it counts a level per list, object and variant, and reads NaN, the
/// infinities and nested options as null.
pub(super) fn rules() -> Rules {
    let depth_of = |level| match level {
        Level::Compound | Level::NewtypeVariant => 1,
        Level::Variant => 2,
        Level::Thin => 0,
    };
    let mut rules = Rules::new(MAX_DEPTH, depth_of);
    (rules.all_floats, rules.nested_options) = (false, false);
    rules
}

/// Returns the error of a payload that was not written, with the path of the value if a rule refused it.
pub(super) fn unwritten<E: Event>(rules: &Rules, error: serde_json::Error) -> Error {
    match rules.refused() {
        Some(why) => Error::new(ErrorKind::Invalid, format!("write {} as JSON: {why}", E::TYPE)),
        None => Error::caused_by(ErrorKind::Invalid, format!("write {} as JSON", E::TYPE), error),
    }
}

impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<E: Event>(envelope: EnvelopeRef<'_, E>, headers: &mut Headers) -> Result<Bytes> {
        let rules = rules();
        let written = Written {
            event_id: envelope.id,
            event_type: E::TYPE,
            timestamp: envelope.timestamp.millis(),
            source: envelope.source,
            version: envelope.version,
            payload: Strict::new(envelope.payload, &rules),
        };
        let mut value = Vec::with_capacity(ROOM);
        serde_json::to_writer(&mut value, &written).map_err(|error| unwritten::<E>(&rules, error))?;
        if value.len() < ROOM / 2 {
            // The value may be kept for a long time.
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
        expect_headers::<E>(record, read.version)?;
        Ok(Envelope {
            id: refuse_nil(read.event_id)?,
            timestamp: Timestamp::from_millis(read.timestamp),
            source: read.source.as_ref().into(),
            version: version_of(record, read.version)?,
            payload: read.payload,
            #[cfg(feature = "cloudevents")]
            attributes: super::Attributes::default(),
        })
    }

    fn peek(record: &StoredRecord) -> Result<Head<'_>> {
        let peeked: Peeked<'_> =
            from_json(value(record)?).map_err(|e| undecodable("read the JSON envelope").with_source(e))?;
        Ok(Head::new(refuse_nil(peeked.event_id)?, peeked.event_type, version_of(record, peeked.version)?))
    }
}
