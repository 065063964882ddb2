//! The names of the headers on the wire.

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
