//! Routing of records: by their type, and then their version.
//!
//! A service reads topics that carry events of others. So as little as possible is examined before it is known that a
//! handler takes the record: a malformed version, id or payload of a foreign event must not dead-letter it.

use std::borrow::Cow;

#[cfg(feature = "cloudevents")]
use super::cloud_events;
#[cfg(feature = "json")]
use super::{ContentType, json};
use super::{content_type, missing, text};
use crate::{Result, StoredRecord, Version, headers};

/// The type and version that a record is routed by.
///
/// If no handler takes the type, the version and the id are not examined and may be anything.
#[derive(Debug)]
pub struct Routing<'a> {
    record: &'a StoredRecord,
    event_type: Cow<'a, str>,
    /// The version in the body, if the body was already read.
    body: Option<Option<Result<Version>>>,
    /// Whether the record is a CloudEvent, whose version is not in the header `version`.
    is_cloud_event: bool,
}

impl Routing<'_> {
    /// Returns the event's type.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Returns the payload's version: that of the header, otherwise that of the body, otherwise `1.0`.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if it is malformed.
    pub fn version(self) -> Result<Version> {
        match text(self.record, headers::VERSION)? {
            _ if self.is_cloud_event => {}
            // The common case, without parsing.
            Some("1.0") => return Ok(Version::new(1, 0)),
            Some(version) => return version.parse(),
            None => {}
        }
        let told = self.body.unwrap_or_else(|| told_by_body(self.record));
        told.unwrap_or(Ok(Version::new(1, 0)))
    }
}

/// Reads the type and version of `record` from its headers, otherwise, for the JSON envelope, from its body.
///
/// # Errors
/// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if its type cannot be read.
///
/// ```
/// use tidings_core::{StoredRecord, Timestamp, Version, codec};
///
/// let body = r#"{"eventType": "paid", "version": "2.0", "payload": null}"#;
/// let record = StoredRecord::new(0, Timestamp::now()).with_value(body);
/// let routing = codec::routing(&record)?;
/// assert_eq!(routing.event_type(), "paid");
/// assert_eq!(routing.version()?, Version::new(2, 0));
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn routing(record: &StoredRecord) -> Result<Routing<'_>> {
    // First, as when it is decoded: a bridge may have left the headers of another format.
    #[cfg(feature = "cloudevents")]
    if let Some(mode) = cloud_events::mode(record) {
        let (event_type, version) = cloud_events::routed(mode, record)?;
        return Ok(Routing { record, event_type, body: Some(Some(version)), is_cloud_event: true });
    }
    if let Some(event_type) = text(record, headers::EVENT_TYPE)? {
        return Ok(Routing { record, event_type: Cow::Borrowed(event_type), body: None, is_cloud_event: false });
    }
    match content_type(record)? {
        #[cfg(feature = "json")]
        ContentType::Json => {
            let routed = json::routed(record)?;
            let body = Some(routed.version.0);
            Ok(Routing { record, event_type: routed.event_type, body, is_cloud_event: false })
        }
        _ => Err(missing(headers::EVENT_TYPE)),
    }
}

/// Returns the version in the body, if there is one. The codec reports why a version cannot be read.
fn told_by_body(record: &StoredRecord) -> Option<Result<Version>> {
    match content_type(record) {
        #[cfg(feature = "json")]
        Ok(ContentType::Json) => json::routed(record).ok()?.version.0,
        _ => None,
    }
}

/// Returns the type and version in the headers, if they contain a type: enough to route without reading the value.
///
/// # Errors
/// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if a header is not text, or the version is malformed.
///
/// ```
/// use tidings_core::{Headers, StoredRecord, Timestamp, Version, codec};
///
/// let headers = Headers::new().with("eventType", "paid").with("version", "2.1");
/// let record = StoredRecord::new(0, Timestamp::now()).with_headers(headers);
/// assert_eq!(codec::route_by_headers(&record)?, Some(("paid", Version::new(2, 1))));
///
/// let bare = StoredRecord::new(1, Timestamp::now());
/// assert_eq!(codec::route_by_headers(&bare)?, None, "the type may be in the body");
/// # Ok::<(), tidings_core::Error>(())
/// ```
pub fn route_by_headers(record: &StoredRecord) -> Result<Option<(&str, Version)>> {
    let Some(event_type) = text(record, headers::EVENT_TYPE)? else { return Ok(None) };
    let version = match text(record, headers::VERSION)? {
        // The common case, without parsing.
        None | Some("1.0") => Version::new(1, 0),
        Some(version) => version.parse()?,
    };
    Ok(Some((event_type, version)))
}
