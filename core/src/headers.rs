//! The names of the headers on the wire, and which of them are reserved.
//!
//! Reserved names are those of the envelope, of the trace and of the flow, and all that begin with `ce_`, `dlq-`,
//! `redrive-`, `retry-` or `audit-`. Users cannot publish them: a header that any publisher can set must not decide
//! which service handles an event. The last four kinds [steer the delivery](steers_delivery) of one record: they are
//! removed when a handler passes the record on.

use crate::Headers;

/// The event's type, such as `user.registered`.
pub const EVENT_TYPE: &str = "eventType";
/// The payload's version, such as `1.0`.
pub const VERSION: &str = "version";
/// The event's id, where the value is the bare payload.
pub const EVENT_ID: &str = "eventId";
/// The event's time in milliseconds, where the value is the bare payload.
pub const TIMESTAMP: &str = "timestamp";
/// The service that made the event, where the value is the bare payload.
pub const SOURCE: &str = "source";
/// The codec of the value; if absent, the value is the JSON envelope.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The vendor-specific part of the W3C trace context, passed on unchanged.
pub const TRACESTATE: &str = "tracestate";
/// The id that all events of one flow share.
pub const CORRELATION_ID: &str = "correlation-id";
/// The id of the event that caused this one.
pub const CAUSATION_ID: &str = "causation-id";
/// On a redriven record: the service that it is intended for; others skip it.
pub const REDRIVE_FOR: &str = "redrive-for";
/// On a redriven record: the number of times it was redriven.
pub const REDRIVE_COUNT: &str = "redrive-count";
/// On a redriven record: the topic that it was redriven to. On a record of another topic the redrive headers are
/// ignored.
pub const REDRIVE_TOPIC: &str = "redrive-topic";

/// On a redriven record: the partition, offset and timestamp of the dead-lettered record, as in `2@17@1700000000123`.
/// A redrive finds by it whether an interrupted one has published the letter.
pub const REDRIVE_LETTER: &str = "redrive-letter";

/// On a record of a retry topic: the time at which it is due, in milliseconds, by the clock of the service that
/// forwarded it.
pub const RETRY_DUE: &str = "retry-due";
/// On a record of a retry topic: the number of attempts that have failed.
pub const RETRY_ATTEMPT: &str = "retry-attempt";
/// On a record of a retry topic: the time at which it was first forwarded, in milliseconds.
pub const RETRY_FIRST_FAILED_AT: &str = "retry-first-failed-at";
/// On a record of a retry topic: the service that forwarded it; other services skip it.
pub const RETRY_SERVICE: &str = "retry-service";
/// On a record of a retry topic: the handler that failed.
pub const RETRY_HANDLER: &str = "retry-handler";
/// On a record of a retry topic: the kind of the last error.
pub const RETRY_ERROR_KIND: &str = "retry-error-kind";
/// On a record of a retry topic: the last error.
pub const RETRY_ERROR: &str = "retry-error";
/// On a record of a retry topic: the topic of the original.
pub const RETRY_ORIGINAL_TOPIC: &str = "retry-original-topic";
/// On a record of a retry topic: the partition of the original topic, decimal.
pub const RETRY_ORIGINAL_PARTITION: &str = "retry-original-partition";
/// On a record of a retry topic: the offset in that partition, decimal.
pub const RETRY_ORIGINAL_OFFSET: &str = "retry-original-offset";
/// On a record of a retry topic: the original timestamp in milliseconds, decimal.
pub const RETRY_ORIGINAL_TIMESTAMP: &str = "retry-original-timestamp";
/// On a record of a retry topic: all headers of the original, packed into one, where there are more than
/// [`MAX_PLAIN_HEADERS`](crate::MAX_PLAIN_HEADERS); encoded as
/// [those of a dead letter](crate::dead_letter_headers::ORIGINAL_HEADERS).
pub const RETRY_ORIGINAL_HEADERS: &str = "retry-original-headers";

/// Headers from which readers take the envelope, the trace and the flow.
const ENVELOPE: [&str; 9] =
    [EVENT_ID, EVENT_TYPE, TIMESTAMP, SOURCE, VERSION, CONTENT_TYPE, TRACEPARENT, CORRELATION_ID, CAUSATION_ID];

/// The prefixes of headers that record or steer the processing of a record.
const STEERING: [&str; 4] = ["dlq-", "redrive-", "retry-", "audit-"];

/// The prefix of the attributes of a CloudEvent in binary mode.
const CLOUD_EVENT: &str = "ce_";

/// Returns whether only tidings writes headers of this name. [`TRACESTATE`] may be set by users.
///
/// ```
/// use tidings_core::headers::is_reserved;
///
/// assert!(is_reserved(b"eventType") && is_reserved(b"dlq-error-kind"));
/// assert!(!is_reserved(b"tenant") && !is_reserved(b"tracestate"));
/// ```
pub fn is_reserved(name: &[u8]) -> bool {
    ENVELOPE.iter().any(|own| name == own.as_bytes())
        || name.starts_with(CLOUD_EVENT.as_bytes())
        || steers_delivery(name)
}

/// Returns whether a header of this name belongs to one delivery of a record and is not passed on with the record.
///
/// ```
/// use tidings_core::headers::steers_delivery;
///
/// assert!(steers_delivery(b"redrive-for"));
/// assert!(!steers_delivery(b"eventType"), "it belongs to the event, and is passed on with it");
/// ```
pub fn steers_delivery(name: &[u8]) -> bool {
    STEERING.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Removes headers that [steer the delivery](steers_delivery) from a record that is published again.
///
/// ```
/// use tidings_core::Headers;
/// use tidings_core::headers::remove_steering;
///
/// let mut headers = Headers::new().with("eventType", "order.placed").with("redrive-count", "2");
/// remove_steering(&mut headers);
/// assert!(headers.contains("eventType") && !headers.contains("redrive-count"));
/// ```
pub fn remove_steering(headers: &mut Headers) {
    // The common case needs no write.
    if headers.iter().any(|header| steers_delivery(&header.name)) {
        headers.remove_where(|header| steers_delivery(&header.name));
    }
}
