//! Routing of records: by their type, and then their version.

use std::borrow::Cow;

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
pub fn routing(record: &StoredRecord) -> Result<Routing<'_>> {
    if let Some(event_type) = text(record, headers::EVENT_TYPE)? {
        return Ok(Routing { record, event_type: Cow::Borrowed(event_type), body: None });
    }
    match content_type(record)? {
        #[cfg(feature = "json")]
        ContentType::Json => {
            let routed = json::routed(record)?;
            Ok(Routing { record, event_type: routed.event_type, body: Some(routed.version.0) })
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
pub fn route_by_headers(record: &StoredRecord) -> Result<Option<(&str, Version)>> {
    let Some(event_type) = text(record, headers::EVENT_TYPE)? else { return Ok(None) };
    let version = match text(record, headers::VERSION)? {
        // The common case, without parsing.
        None | Some("1.0") => Version::new(1, 0),
        Some(version) => version.parse()?,
    };
    Ok(Some((event_type, version)))
}
