//! The content type of a record, which names the codec that reads it.

#[cfg(any(feature = "json", feature = "postcard"))]
use super::Codec;
#[cfg(feature = "json")]
use super::Json;
#[cfg(feature = "postcard")]
use super::Postcard;
#[cfg(feature = "cloudevents")]
use super::cloud_events;
use super::{text, undecodable};
use crate::event::shortened;
use crate::{Error, Result, StoredRecord, headers};

/// The codec by which a record is read. Without a `content-type` it is JSON, which KafkaJS services do not name.
pub(super) enum ContentType<'a> {
    #[cfg(feature = "json")]
    Json,
    #[cfg(feature = "postcard")]
    Postcard,
    #[cfg(feature = "cloudevents")]
    CloudEvent(cloud_events::Mode),
    Other(&'a str),
}

/// Returns the codec that a record names. A codec that is not compiled in is `Other`, and fails where the event is
/// decoded, not where it is routed: a service may skip events of a codec that it does not know.
pub(super) fn content_type(record: &StoredRecord) -> Result<ContentType<'_>> {
    #[cfg(feature = "cloudevents")]
    if let Some(mode) = cloud_events::mode(record) {
        return Ok(ContentType::CloudEvent(mode));
    }
    // The common case, without a check of UTF-8.
    #[cfg(feature = "json")]
    if record.headers.get(headers::CONTENT_TYPE).is_none_or(|name| name == Json::CONTENT_TYPE) {
        return Ok(ContentType::Json);
    }
    Ok(match text(record, headers::CONTENT_TYPE)? {
        #[cfg(feature = "json")]
        None => ContentType::Json,
        #[cfg(feature = "postcard")]
        Some(Postcard::CONTENT_TYPE) => ContentType::Postcard,
        // Parameters such as charset are ignored: JSON is UTF-8.
        #[cfg(feature = "json")]
        Some(name) if essence(name).eq_ignore_ascii_case(Json::CONTENT_TYPE) => ContentType::Json,
        Some(name) => ContentType::Other(name),
        #[cfg(not(feature = "json"))]
        None => ContentType::Other("application/json"),
    })
}

/// Returns a content type without its parameters.
#[cfg(feature = "json")]
pub(super) fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Creates the error of a foreign content type, of which only the beginning is repeated: it comes from the record.
pub(super) fn unknown_content_type(name: &str) -> Error {
    undecodable(format!("choose a codec for the content-type {:?}: none is compiled in", shortened(name)))
}
