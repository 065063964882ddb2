//! CloudEvents 1.0 over Kafka, in binary and structured mode.
//!
//! Sources: the [specification](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md), its
//! [binding for Kafka](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md),
//! and its [JSON format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
//!
//! | Envelope | Attribute |
//! |---|---|
//! | `id` | `id`; a text that is not a UUID becomes a UUID v5 of `source` and `id` |
//! | `timestamp` | `time`; if absent, the record's timestamp |
//! | `source` | `source` |
//! | the event's type | `type` |
//! | `version` | the extension `dataversion`, which is absent for `1.0` |
//! | `attributes` | `subject`, `dataschema`, and extensions |

mod attributes;
mod binary;
mod structured;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;

use iri_string::types::UriReferenceStr;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use self::attributes::Texts;
pub use self::attributes::{AttributeValue, Attributes};
pub use self::binary::CloudEvents;
pub use self::structured::StructuredCloudEvents;
use super::{Head, essence, refuse_nil, undecodable};
use crate::event::shortened;
use crate::{Envelope, EnvelopeRef, Error, ErrorKind, Event, Name, Result, StoredRecord, Timestamp, Version};

const SPEC_VERSION: &str = "1.0";
const JSON: &str = "application/json";
/// The limit of attributes that an event may have besides those of the envelope: they are searched by name.
const MAX_ATTRIBUTES: usize = 256;

/// How a CloudEvent is stored in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Binary,
    Structured,
}

/// Returns the mode of a record that is a CloudEvent: structured by its content type, otherwise binary by its headers.
#[inline]
pub(super) fn mode(record: &StoredRecord) -> Option<Mode> {
    let (mut content_type, mut is_binary) = (None, false);
    // One pass: every record is asked.
    for header in &record.headers {
        match &*header.name {
            b"content-type" => content_type = header.value.as_deref(),
            b"ce_specversion" => is_binary = true,
            _ => {}
        }
    }
    if content_type.is_some_and(structured::is_content_type) {
        return Some(Mode::Structured);
    }
    is_binary.then_some(Mode::Binary)
}

/// The attributes of an event as they were read, not yet examined.
#[derive(Debug, Default)]
struct Read<'a> {
    spec_version: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    content_type: Option<Cow<'a, str>>,
    others: Vec<(Box<str>, AttributeValue)>,
}

impl<'a> Read<'a> {
    /// Returns the place of an attribute that the envelope has a field for.
    fn place(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        Some(match name {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "time" => &mut self.time,
            "dataversion" => &mut self.version,
            "datacontenttype" => &mut self.content_type,
            _ => return None,
        })
    }

    /// Adds another attribute, or replaces it.
    fn put(&mut self, name: &str, value: AttributeValue) -> Result<(), &'static str> {
        let count = self.others.len();
        match self.others.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, old)) => *old = value,
            None if count == MAX_ATTRIBUTES => return Err("there are more than 256 attributes"),
            None => self.others.push((name.into(), value)),
        }
        Ok(())
    }

    fn event_type(&self) -> Result<&Cow<'a, str>> {
        required("type", self.event_type.as_ref())
    }

    fn version(&self) -> Result<Version> {
        version_of(self.version.as_deref())
    }

    /// Returns the id, after checking the attributes that it depends on.
    fn id(&self) -> Result<Uuid> {
        let version = required("specversion", self.spec_version.as_ref())?;
        if version != SPEC_VERSION {
            let shown = shortened(version);
            return Err(undecodable(format!("read the attribute specversion {shown:?}: expected {SPEC_VERSION:?}")));
        }
        refuse_nil(id_of(required("source", self.source.as_ref())?, required("id", self.id.as_ref())?))
    }

    /// Returns the time of the event; without one, the timestamp of the record.
    fn timestamp(&self, record: &StoredRecord) -> Result<Timestamp> {
        self.time.as_deref().map_or(Ok(record.timestamp), time::read)
    }

    /// Returns the event with this payload.
    fn envelope<E: Event>(self, record: &StoredRecord, payload: E) -> Result<Envelope<E>> {
        let (id, timestamp, version) = (self.id()?, self.timestamp(record)?, self.version()?);
        let source: Name = self.source.as_deref().unwrap_or_default().into();
        let attributes = self.attributes(source.clone(), timestamp);
        Ok(Envelope { id, timestamp, source, version, payload, attributes })
    }

    fn head(self) -> Result<Head<'a>> {
        let (id, version) = (self.id()?, self.version()?);
        Ok(Head::new(id, self.event_type()?.clone(), version))
    }

    /// Returns what is kept to write the event back.
    fn attributes(self, source: Name, timestamp: Timestamp) -> Attributes {
        let text = |text: Option<Cow<'_, str>>| text.map(|text| text.into_owned().into_boxed_str());
        let texts = Texts {
            id: text(self.id).unwrap_or_default(),
            source,
            time: (text(self.time), timestamp),
            version: text(self.version),
            content_type: text(self.content_type),
        };
        Attributes::read(texts, self.others)
    }
}

fn required<T: AsRef<str>>(name: &str, value: Option<T>) -> Result<T> {
    match value {
        Some(value) if !value.as_ref().is_empty() => Ok(value),
        Some(_) => Err(undecodable(format!("read the attribute {name}: it is empty"))),
        None => Err(undecodable(format!("read the attribute {name}: it is missing"))),
    }
}

/// Returns the version that `dataversion` tells.
fn version_of(told: Option<&str>) -> Result<Version> {
    match told {
        None | Some("1.0") => Ok(Version::new(1, 0)),
        Some(text) => text.parse().map_err(|e| undecodable("read the attribute dataversion").with_source(e)),
    }
}

/// Returns the UUID that an id is, if it is one with hyphens; otherwise a UUID v5 of the source and the text. Other ways
/// to write a UUID are texts: 32 digits may be any number, which is unique within its source only.
fn id_of(source: &str, id: &str) -> Uuid {
    let hyphenated = (id.len() == Hyphenated::LENGTH).then(|| Uuid::try_parse(id).ok()).flatten();
    hyphenated.unwrap_or_else(|| {
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, source.as_bytes());
        Uuid::new_v5(&namespace, id.as_bytes())
    })
}

/// The attributes of an event as they are written.
struct Write<'a> {
    id: Cow<'a, str>,
    source: &'a str,
    time: Option<Cow<'a, str>>,
    version: Option<Cow<'a, str>>,
    content_type: Option<&'a str>,
    others: &'a Attributes,
}

impl<'a> Write<'a> {
    /// Returns the attributes of `envelope`. A field that was not changed since it was read keeps its text.
    fn of<E: Event>(envelope: EnvelopeRef<'a, E>) -> Result<Self> {
        let texts = envelope.attributes.texts();
        // The id depends on the source, which may have been changed as well.
        let is_kept = |texts: &&Texts| id_of(envelope.source, &texts.id) == envelope.id;
        let id = texts.filter(is_kept).map(|texts| Cow::Borrowed(&*texts.id));
        let time = match texts.filter(|texts| texts.time.1 == envelope.timestamp) {
            Some(texts) => texts.time.0.as_deref().map(Cow::Borrowed),
            None => Some(Cow::Owned(time::write(envelope.timestamp)?)),
        };
        let told = texts.and_then(|texts| texts.version.as_deref());
        let version = match told.filter(|told| told.parse().ok() == Some(envelope.version)) {
            Some(told) => Some(Cow::Borrowed(told)),
            None if envelope.version == Version::new(1, 0) => None,
            None => Some(envelope.version.to_text()),
        };
        Ok(Self {
            id: id.unwrap_or_else(|| Cow::Owned(envelope.id.to_string())),
            source: match texts {
                // As it came, also if it is not a URI reference.
                Some(texts) if texts.source == *envelope.source => envelope.source,
                _ => checked_source::<E>(envelope.source)?,
            },
            time,
            version,
            content_type: texts.map_or(Some(JSON), |texts| texts.content_type.as_deref()),
            others: envelope.attributes,
        })
    }
}

fn checked_source<E: Event>(source: &str) -> Result<&str> {
    if !source.is_empty() && UriReferenceStr::new(source).is_ok() {
        return Ok(source);
    }
    let shown = shortened(source);
    let why = format!("write {} as a CloudEvent: the source {shown:?} is not a URI reference", E::TYPE);
    Err(Error::new(ErrorKind::Invalid, why))
}

/// Returns whether data of this type is JSON: `application/json`, `text/json`, or a type with the suffix `+json`. Data
/// without a type is JSON.
fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let subtype = essence(content_type).split('/').nth(1).unwrap_or_default();
    let ends =
        |end: &str| subtype.get(subtype.len().saturating_sub(end.len())..).is_some_and(|s| s.eq_ignore_ascii_case(end));
    subtype.eq_ignore_ascii_case("json") || ends("+json")
}

fn expect_json(content_type: Option<&str>) -> Result<()> {
    // Written in binary mode, data of the family of CloudEvents would become the event itself.
    if is_json(content_type) && !content_type.is_some_and(|name| structured::is_content_type(name.as_bytes())) {
        return Ok(());
    }
    Err(super::unknown_content_type(content_type.unwrap_or_default()))
}

/// Returns the type and the version that a CloudEvent is routed by. Nothing else of it is examined.
pub(super) fn routed(mode: Mode, record: &StoredRecord) -> Result<(Cow<'_, str>, Result<Version>)> {
    match mode {
        Mode::Binary => binary::routed(record),
        Mode::Structured => structured::routed(record),
    }
}
