//! What a record is routed by: its type, and then its version.

use std::borrow::Cow;

#[cfg(feature = "json")]
use super::{ContentType, json};
use super::{content_type, missing, text};
use crate::{Result, StoredRecord, Version, headers};

/// What a record is routed by. Of an event whose type is handled nowhere, nothing but the type is looked at: its version and
/// its id may be anything.
#[derive(Debug)]
pub struct Routing<'a> {
    record: &'a StoredRecord,
    event_type: Cow<'a, str>,
    /// What the body says, where it was read already.
    body: Option<Option<Result<Version>>>,
}

impl Routing<'_> {
    /// The event's type.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The payload's version: that of the header, else that of the body, else `1.0`.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if it is none.
    pub fn version(self) -> Result<Version> {
        match text(self.record, headers::VERSION)? {
            // The common case, without a parse.
            Some("1.0") => return Ok(Version::new(1, 0)),
            Some(version) => return version.parse(),
            None => {}
        }
        let told = self.body.unwrap_or_else(|| told_by_body(self.record));
        told.unwrap_or(Ok(Version::new(1, 0)))
    }
}

/// Reads what `record` is routed by: from its headers, else, of the JSON envelope, from its body.
///
/// # Errors
/// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if its type can't be told.
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

/// The version that a body tells, if it tells one. Why it can't be read is for the codec to say.
fn told_by_body(record: &StoredRecord) -> Option<Result<Version>> {
    match content_type(record) {
        #[cfg(feature = "json")]
        Ok(ContentType::Json) => json::routed(record).ok()?.version.0,
        _ => None,
    }
}

/// The type and version that the headers tell, if they tell a type: enough to route by, without touching the value.
///
/// # Errors
/// [`ErrorKind::Undecodable`](crate::ErrorKind::Undecodable) if a header is no text, or the version none.
pub fn route_by_headers(record: &StoredRecord) -> Result<Option<(&str, Version)>> {
    let Some(event_type) = text(record, headers::EVENT_TYPE)? else { return Ok(None) };
    let version = match text(record, headers::VERSION)? {
        // The common case, without a parse.
        None | Some("1.0") => Version::new(1, 0),
        Some(version) => version.parse()?,
    };
    Ok(Some((event_type, version)))
}
