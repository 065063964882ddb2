//! The names of the headers on the wire, and which of them are reserved.
//!
//! Reserved names are the envelope's, those of the trace and the flow, and all that begin with `dlq-`, `redrive-`, `retry-`
//! or `audit-`. Users cannot publish them: a header that anybody can set must not decide which service handles an event.
//! Those four kinds [steer the delivery](steers_delivery) of one record: they are lost when a handler passes the record on.

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
/// The codec of the value; absent, it is the JSON envelope.
pub const CONTENT_TYPE: &str = "content-type";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context, the vendors' part: carried on as it is.
pub const TRACESTATE: &str = "tracestate";
/// The id that all events of one flow share.
pub const CORRELATION_ID: &str = "correlation-id";
/// The id of the event that this one follows from.
pub const CAUSATION_ID: &str = "causation-id";
/// On a redriven record: the service that it is for; others skip it.
pub const REDRIVE_FOR: &str = "redrive-for";
/// On a redriven record: how often it was redriven.
pub const REDRIVE_COUNT: &str = "redrive-count";
/// On a redriven record: the topic that it was redriven to. On a record of another topic the redrive headers mean nothing.
pub const REDRIVE_TOPIC: &str = "redrive-topic";

/// Headers that readers take the envelope and its ties from.
const ENVELOPE: [&str; 9] =
    [EVENT_ID, EVENT_TYPE, TIMESTAMP, SOURCE, VERSION, CONTENT_TYPE, TRACEPARENT, CORRELATION_ID, CAUSATION_ID];

/// The prefixes of the headers that say what became of a record, and what is to become of it.
const STEERING: [&str; 4] = ["dlq-", "redrive-", "retry-", "audit-"];

/// Whether tidings alone writes headers of this name. [`TRACESTATE`] is for users to give.
pub fn is_reserved(name: &[u8]) -> bool {
    ENVELOPE.iter().any(|own| name == own.as_bytes()) || steers_delivery(name)
}

/// Whether a header of this name belongs to one delivery of a record, and is not passed on with the record.
pub fn steers_delivery(name: &[u8]) -> bool {
    STEERING.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Removes what [steers the delivery](steers_delivery) of a record that is published anew.
pub fn remove_steering(headers: &mut Headers) {
    // The common case, without a write.
    if headers.iter().any(|header| steers_delivery(&header.name)) {
        headers.remove_where(|header| steers_delivery(&header.name));
    }
}
