//! Payloads as JSON.

use crate::{Error, ErrorKind, Event, Result, StoredRecord};

/// Decodes an event as [`decode`](super::decode) does, and returns its payload as JSON, for any codec.
///
/// For tools that display events. The text has the fields of the type, not those of the record: unknown fields are
/// omitted, and defaults are filled in.
///
/// # Errors
/// [`ErrorKind::Undecodable`], as `decode`. [`ErrorKind::Invalid`] for a payload that JSON cannot express, such as a
/// map whose keys are not strings. [`ErrorKind::Unsupported`] without the feature `json`.
///
/// ```
/// use tidings_core::{Envelope, StoredRecord, Timestamp, codec};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Paid { cents: u32 }
/// # impl tidings_core::Event for Paid {
/// #     type Codec = tidings_core::codec::Json;
/// #     const TOPIC: &'static str = "payments";
/// #     const TYPE: &'static str = "paid";
/// #     fn key(&self) -> Option<std::borrow::Cow<'_, [u8]>> { None }
/// # }
///
/// let record = codec::encode(Envelope::new(Paid { cents: 700 }).as_ref(), "")?;
/// let stored = StoredRecord::from_record(record, 0, Timestamp::now());
/// assert_eq!(codec::payload_json::<Paid>(&stored)?, r#"{"cents":700}"#);
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn payload_json<E: Event>(record: &StoredRecord) -> Result<String> {
    let payload = super::decode::<E>(record)?.payload;
    written(&payload)
}

#[cfg(feature = "json")]
fn written<E: Event>(payload: &E) -> Result<String> {
    serde_json::to_string(payload)
        .map_err(|e| Error::caused_by(ErrorKind::Invalid, format!("show the payload of {} as JSON", E::TYPE), e))
}

#[cfg(not(feature = "json"))]
fn written<E: Event>(_: &E) -> Result<String> {
    let text = format!("show the payload of {} as JSON: this program was built without the feature json", E::TYPE);
    Err(Error::new(ErrorKind::Unsupported, text))
}
