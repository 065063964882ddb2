//! Versions of events: older ones are read as newer ones, and newer ones can be written as older ones.
//!
//! Each step of a chain converts between two types and leads to a lower major version, so every chain ends, and the
//! version of a record selects one of its types. Only types with an upcast examine the version: for other types
//! [`Event::UPCAST`] is `None`, and none of this code is compiled.

use std::fmt;
use std::sync::Arc;

use super::{ContentType, EventFormat, decode_exactly, routing, text, undecodable};
use crate::{BoxError, Envelope, EnvelopeRef, Error, ErrorKind, Event, Record, Result, StoredRecord, Version, headers};

/// The older version that an event is read from, and its conversion: the value of [`Event::UPCAST`].
///
/// The derive writes it for `upcast_from = UserRegisteredV1`.
///
/// ```
/// use tidings_core::codec::{self, Upcast};
/// use tidings_core::{Envelope, Event, StoredRecord, Timestamp, Version};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct PaidV1 { euros: u32 }
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Paid { cents: u32 }
///
/// impl From<PaidV1> for Paid {
///     fn from(old: PaidV1) -> Self { Self { cents: old.euros * 100 } }
/// }
/// # impl Event for PaidV1 {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
/// impl Event for Paid {
///     const VERSION: Version = Version::new(2, 0);
///     const UPCAST: Option<Upcast<Self>> = Some(Upcast::from::<PaidV1>());
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// }
///
/// let old = codec::encode(Envelope::new(PaidV1 { euros: 7 }).as_ref(), "")?;
/// let old = StoredRecord::from_record(old, 0, Timestamp::now());
/// assert_eq!(codec::decode::<Paid>(&old)?.payload.cents, 700);
/// assert_eq!(codec::majors::<Paid>(), [2, 1]);
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub struct Upcast<E> {
    from: Version,
    majors: fn(&mut Vec<u32>),
    /// Reads a record of this version; `None` if no type of the chain has its major version.
    read: fn(&StoredRecord, Version) -> Option<Result<Envelope<E>>>,
}

impl<E: Event> Upcast<E> {
    /// Creates the upcast from `Old`, an event of the same topic and type with a lower major version; anything else
    /// does not compile.
    pub const fn from<Old: Event>() -> Self
    where
        E: TryFrom<Old, Error: Into<BoxError>>,
    {
        const { expect_older::<Old, E>() };
        Self { from: Old::VERSION, majors: push_majors::<Old>, read: read_older::<Old, E> }
    }
}

impl<E> fmt::Debug for Upcast<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcast").field("from", &self.from).finish_non_exhaustive()
    }
}

/// The older version that an event can be written as, and its conversion: the value of [`Event::DOWNCAST`].
///
/// The derive writes it for `downcast_to = UserRegisteredV1`. It is used where [`EventVersions`] select that version.
pub struct Downcast<E> {
    to: Version,
    /// Writes the event in this major version; `None` if no type of the chain has it.
    write: Write<E>,
}

type Write<E> = fn(EventFormat, u32, EnvelopeRef<'_, E>, &str) -> Option<Result<Record>>;

impl<E: Event> Downcast<E> {
    /// Creates the downcast to `Old`, an event of the same topic and type with a lower major version; anything else
    /// does not compile.
    pub const fn to<Old>() -> Self
    where
        Old: Event + for<'a> TryFrom<&'a E, Error: Into<BoxError>>,
    {
        const { expect_older::<Old, E>() };
        Self { to: Old::VERSION, write: write_older::<Old, E> }
    }
}

impl<E> fmt::Debug for Downcast<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downcast").field("to", &self.to).finish_non_exhaustive()
    }
}

/// Checks at compile time that `Old` is an older version of `New`, so that no chain has a loop.
const fn expect_older<Old: Event, New: Event>() {
    assert!(
        Old::VERSION.major < New::VERSION.major,
        "an event is upcast from, and downcast to, a lower major version: a new minor version needs no conversion"
    );
    assert!(are_equal(Old::TYPE, New::TYPE), "all versions of an event have the same `type`");
    assert!(are_equal(Old::TOPIC, New::TOPIC), "all versions of an event have the same `topic`");
}

/// Compares strings; `==` is not available at compile time.
const fn are_equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Returns the major versions that [`decode`](super::decode) reads as `E`: its own, then those of its upcasts,
/// descending.
pub fn majors<E: Event>() -> Vec<u32> {
    let mut majors = Vec::new();
    push_majors::<E>(&mut majors);
    majors
}

fn push_majors<E: Event>(majors: &mut Vec<u32>) {
    majors.push(E::VERSION.major);
    if let Some(upcast) = E::UPCAST {
        (upcast.majors)(majors);
    }
}

/// Decodes a record as an event that has an upcast.
pub(super) fn decode_by_version<E: Event>(record: &StoredRecord, format: ContentType<'_>) -> Result<Envelope<E>> {
    let version = match told_by_headers(record, &format)? {
        Some(version) => version,
        None => {
            // Most records are of the current version: parsing their body only for the version would read it twice.
            let read = decode_exactly::<E>(record, format);
            if read.as_ref().is_ok_and(|event| event.version.major == E::VERSION.major) {
                return read;
            }
            match routing(record)?.version()? {
                version if version.major == E::VERSION.major => return read,
                version => version,
            }
        }
    };
    read_in::<E>(record, version).unwrap_or_else(|| Err(unknown::<E>(version)))
}

/// Returns the version that the headers tell; `None` if the body may tell another one.
fn told_by_headers(record: &StoredRecord, format: &ContentType<'_>) -> Result<Option<Version>> {
    match format {
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(super::cloud_events::Mode::Structured) => Ok(None),
        #[cfg(feature = "cloudevents")]
        ContentType::CloudEvent(super::cloud_events::Mode::Binary) => routing(record)?.version().map(Some),
        #[cfg(feature = "json")]
        ContentType::Json => text(record, headers::VERSION)?.map(str::parse).transpose(),
        _ => text(record, headers::VERSION)?.map_or(Ok(Version::new(1, 0)), str::parse).map(Some),
    }
}

/// Reads a record of this version as `E`; `None` if neither `E` nor its upcasts have its major version.
fn read_in<E: Event>(record: &StoredRecord, version: Version) -> Option<Result<Envelope<E>>> {
    if version.major == E::VERSION.major {
        return Some(super::content_type(record).and_then(|format| decode_exactly(record, format)));
    }
    (E::UPCAST?.read)(record, version)
}

/// Reads a record as `Old`, and converts it.
fn read_older<Old, E>(record: &StoredRecord, version: Version) -> Option<Result<Envelope<E>>>
where
    Old: Event,
    E: Event + TryFrom<Old, Error: Into<BoxError>>,
{
    Some(read_in::<Old>(record, version)?.and_then(upcast))
}

/// Converts the payload, and keeps the envelope except for the fields that describe the payload.
fn upcast<Old, E>(old: Envelope<Old>) -> Result<Envelope<E>>
where
    Old: Event,
    E: Event + TryFrom<Old, Error: Into<BoxError>>,
{
    let payload = E::try_from(old.payload).map_err(|cause| {
        undecodable(format!("upcast {} from version {} to {}", E::TYPE, old.version, E::VERSION)).with_source(cause)
    })?;
    Ok(Envelope {
        id: old.id,
        timestamp: old.timestamp,
        source: old.source,
        version: E::VERSION,
        payload,
        #[cfg(feature = "cloudevents")]
        attributes: old.attributes.without_schema(),
    })
}

fn unknown<E: Event>(version: Version) -> Error {
    let read: Vec<_> = majors::<E>().into_iter().map(|major| format!("{major}.x")).collect();
    undecodable(format!("read {} in version {version}: read here are {}", E::TYPE, read.join(", ")))
}

/// The versions in which a service, publisher or outbox writes events, for types that have newer ones.
///
/// Publishers select an older version while a topic has readers that know no newer one. Events of other types are
/// written in their own version.
///
/// ```
/// use tidings_core::codec::{Downcast, EventFormat, EventVersions};
/// use tidings_core::{Envelope, Event, Version};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct PaidV1 { euros: u32 }
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Paid { cents: u32 }
///
/// impl TryFrom<&Paid> for PaidV1 {
///     type Error = &'static str;
///     fn try_from(new: &Paid) -> Result<Self, Self::Error> {
///         if new.cents % 100 == 0 { Ok(Self { euros: new.cents / 100 }) } else { Err("it has cents") }
///     }
/// }
/// # impl Event for PaidV1 {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
/// impl Event for Paid {
///     const VERSION: Version = Version::new(2, 0);
///     const DOWNCAST: Option<Downcast<Self>> = Some(Downcast::to::<PaidV1>());
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// }
///
/// let versions = EventVersions::default().with::<PaidV1>();
/// let write = |cents| versions.encode(EventFormat::OfEvent, Envelope::new(Paid { cents }).as_ref(), "");
/// assert_eq!(write(700)?.headers.get_str("version"), Some("1.0"));
/// assert!(write(750).unwrap_err().report().contains("it has cents"));
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct EventVersions(Option<Arc<[Selected]>>);

/// The topic and type of an event, and the version in which it is written.
type Selected = ((&'static str, &'static str), Version);

impl EventVersions {
    /// Selects the version of `Old` for events of its topic and type that are newer. A later call for the same topic and
    /// type replaces an earlier one.
    #[must_use]
    pub fn with<Old: Event>(self) -> Self {
        let others =
            self.0.iter().flat_map(|selected| selected.iter()).filter(|(event, _)| *event != (Old::TOPIC, Old::TYPE));
        Self(Some(others.copied().chain([((Old::TOPIC, Old::TYPE), Old::VERSION)]).collect()))
    }

    /// Encodes `envelope` as [`encode_as`](super::encode_as) does, in the version that is selected for its type.
    ///
    /// The record is then one of the older type, with that type's codec and key; id, timestamp and source stay.
    ///
    /// # Errors
    /// As [`encode_as`](super::encode_as). Also [`ErrorKind::Invalid`] if no chain of downcasts leads to the selected
    /// version, or a conversion fails.
    pub fn encode<E: Event>(
        &self,
        format: EventFormat,
        envelope: EnvelopeRef<'_, E>,
        topic_prefix: &str,
    ) -> Result<Record> {
        match self.older_than::<E>() {
            None => super::encode_as(format, envelope, topic_prefix),
            Some(version) => write_in(format, version.major, envelope, topic_prefix).unwrap_or_else(|| {
                let what = format!("write {} {} in version {version}: no downcast leads to it", E::TYPE, E::VERSION);
                Err(Error::new(ErrorKind::Invalid, what))
            }),
        }
    }

    /// Returns the version that is selected for `E`, if it is older.
    fn older_than<E: Event>(&self) -> Option<Version> {
        let selected = self.0.as_ref()?.iter().find(|(event, _)| *event == (E::TOPIC, E::TYPE));
        selected.map(|(_, version)| *version).filter(|version| version.major < E::VERSION.major)
    }
}

/// Writes an event in this major version; `None` if neither it nor its downcasts have it.
fn write_in<E: Event>(
    format: EventFormat,
    major: u32,
    envelope: EnvelopeRef<'_, E>,
    prefix: &str,
) -> Option<Result<Record>> {
    if major == E::VERSION.major {
        return Some(super::encode_as(format, envelope, prefix));
    }
    (E::DOWNCAST?.write)(format, major, envelope, prefix)
}

/// Converts an event to `Old`, and writes it. Keeps the envelope except for the fields that describe the payload.
fn write_older<Old, E>(
    format: EventFormat,
    major: u32,
    envelope: EnvelopeRef<'_, E>,
    prefix: &str,
) -> Option<Result<Record>>
where
    Old: Event + for<'a> TryFrom<&'a E, Error: Into<BoxError>>,
    E: Event,
{
    let payload = match Old::try_from(envelope.payload) {
        Ok(payload) => payload,
        Err(cause) => {
            let what = format!("downcast {} from version {} to {}", E::TYPE, envelope.version, Old::VERSION);
            return Some(Err(Error::caused_by(ErrorKind::Invalid, what, cause)));
        }
    };
    #[cfg(feature = "cloudevents")]
    let attributes = envelope.attributes.clone().without_schema();
    let older = EnvelopeRef {
        id: envelope.id,
        timestamp: envelope.timestamp,
        source: envelope.source,
        version: Old::VERSION,
        payload: &payload,
        #[cfg(feature = "cloudevents")]
        attributes: &attributes,
    };
    write_in(format, major, older, prefix)
}
