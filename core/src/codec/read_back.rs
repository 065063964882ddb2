//! Reading back of encoded events before they are published.
//!
//! Some mistakes of a payload's serde attributes show only when the event is read: a field that is skipped when empty
//! and not defaulted, a `with` module whose halves disagree. Without this check the reader finds them, as dead letters.
//! So each event is decoded once more and compared, in debug builds and under a test harness.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "cloudevents")]
use super::cloud_events;
use super::decode;
use super::digest::Digest;
use crate::{Envelope, EnvelopeRef, Error, ErrorKind, Event, Record, Result, StoredRecord, Timestamp};

/// Whether events are read back: a property of the process, since a codec is a type and has no settings.
static ON: AtomicBool = AtomicBool::new(cfg!(debug_assertions));

/// Sets whether [`encode`](super::encode) reads back each event that it writes, in this process.
///
/// An event that cannot be read, or is read as a different one, is then refused. On in debug builds, and once a test
/// harness starts; off in release builds, where it would double the cost of encoding. Errors that the codecs detect
/// while they write are refused in either case.
///
/// ```
/// use tidings_core::{Envelope, ErrorKind, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Note {
/// #[serde(skip_serializing)] // and no `default`: it cannot be read
/// #     text: String
/// # }
/// # impl tidings_core::Event for Note {
/// #     type Codec = codec::Json;
/// #     const TOPIC: &'static str = "notes";
/// #     const TYPE: &'static str = "noted";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// codec::set_read_back(true);
/// let event = Envelope::new(Note { text: "hello".into() });
/// let refused = codec::encode(event.as_ref(), "").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Invalid);
/// assert!(refused.report().contains("text"), "{}", refused.report());
/// ```
pub fn set_read_back(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Returns whether [`encode`](super::encode) has to read back what it wrote. Relaxed: a late change only checks an
/// event more or less.
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Refuses `record` unless it decodes to `envelope`.
///
/// For a format that names its fields the shape is compared, so that a reader may normalize texts and numbers; for
/// postcard everything is compared, since shifted fields can have the same shape.
pub(super) fn check<E: Event>(envelope: EnvelopeRef<'_, E>, record: &Record, by_name: bool) -> Result<()> {
    #[cfg_attr(
        not(feature = "cloudevents"),
        expect(unused_mut, reason = "only a CloudEvent has its time from the record")
    )]
    let mut stored = StoredRecord::from_record(record.clone(), 0, Timestamp::default());
    #[cfg(feature = "cloudevents")]
    let is_cloud_event = cloud_events::mode(&stored).is_some();
    #[cfg(feature = "cloudevents")]
    if is_cloud_event {
        stored.timestamp = envelope.timestamp;
    }
    let context = || format!("write {}: it could not be read back", E::TYPE);
    let read: Envelope<E> = decode(&stored).map_err(|error| Error::caused_by(ErrorKind::Invalid, context(), error))?;
    let digest = Digest { values: !by_name, human_readable: by_name };
    // The JSON envelope and those of bare payloads do not contain attributes.
    #[cfg(feature = "cloudevents")]
    let attributes_are_kept = !is_cloud_event || texts(&read.attributes).eq(texts(envelope.attributes));
    #[cfg(not(feature = "cloudevents"))]
    let attributes_are_kept = true;
    let same = read.id == envelope.id
        && read.timestamp == envelope.timestamp
        && read.version == envelope.version
        && read.source == *envelope.source
        && attributes_are_kept
        && digest.of(&read.payload) == digest.of(envelope.payload);
    if same {
        return Ok(());
    }
    let what = format!(
        "write {}: it would be read back as another event (check skipped fields and `with` attributes)",
        E::TYPE
    );
    Err(Error::new(ErrorKind::Invalid, what))
}

/// Returns names and texts: the binary mode has no other values.
#[cfg(feature = "cloudevents")]
fn texts(attributes: &super::Attributes) -> impl Iterator<Item = (&str, String)> {
    attributes.iter().map(|(name, value)| (name, value.to_string()))
}
