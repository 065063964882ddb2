//! What an event is published with, beside itself.

use bytes::Bytes;
use uuid::Uuid;

use crate::event::shortened;
use crate::{Delivery, Error, ErrorKind, Header, Headers, Result, Timestamp, TraceParent, headers};

/// What an event is published with, beside itself.
///
/// ```
/// use tidings_core::PublishOptions;
///
/// let options = PublishOptions::default().with_correlation_id("order-7").with_header("tenant", "acme");
/// assert_eq!(options.correlation_id.as_deref(), Some("order-7"));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PublishOptions {
    /// The event's id; a new UUID v7 if not said.
    pub id: Option<Uuid>,
    /// When the event happened, as its envelope says; now if not said. The broker's own time of the record stays.
    pub timestamp: Option<Timestamp>,
    /// The id that all events of one flow share; the event's own id if not said.
    pub correlation_id: Option<String>,
    /// The id of the event that it follows from.
    pub causation_id: Option<Uuid>,
    /// The trace and span that it is published in; a new, sampled trace if not said.
    pub traceparent: Option<TraceParent>,
    /// Further headers, of names that are not [reserved](headers::is_reserved).
    pub headers: Headers,
}

impl PublishOptions {
    /// Of an event that follows from `delivery`: in its trace, with its correlation id, caused by its (first) event.
    pub fn following(delivery: &Delivery) -> Self {
        let trace = delivery.record().headers.get_str(headers::TRACEPARENT).and_then(|text| text.parse().ok());
        Self {
            correlation_id: Some(delivery.correlation_id()),
            causation_id: Some(delivery.event_id()),
            traceparent: trace.map(TraceParent::child),
            ..Self::default()
        }
    }

    /// With this id.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// With this time.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// With this correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// As caused by the event of this id.
    #[must_use]
    pub fn with_causation_id(mut self, id: Uuid) -> Self {
        self.causation_id = Some(id);
        self
    }

    /// In this trace.
    #[must_use]
    pub fn with_traceparent(mut self, trace: TraceParent) -> Self {
        self.traceparent = Some(trace);
        self
    }

    /// With a further header, of a name that is not [reserved](headers::is_reserved).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Appends its headers to those that a codec wrote: for whoever publishes events by other means (an outbox).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an extra header whose name is [reserved](headers::is_reserved), and for the nil UUID as
    /// the id of the cause.
    pub fn write_to(&self, onto: &mut Headers) -> Result<()> {
        let trace = self.traceparent.unwrap_or_else(TraceParent::new_root);
        onto.push(Header::new(headers::TRACEPARENT, trace.to_string()));
        if let Some(id) = &self.correlation_id {
            onto.push(Header::new(headers::CORRELATION_ID, id.clone()));
        }
        if let Some(id) = self.causation_id {
            if id.is_nil() {
                return Err(Error::new(ErrorKind::Invalid, "publish with the nil UUID as causation id"));
            }
            onto.push(Header::new(headers::CAUSATION_ID, id.to_string()));
        }
        for header in &self.headers {
            // The last header of a name counts: a second one would change what the event says of itself.
            if headers::is_reserved(&header.name) {
                let name = shortened(&String::from_utf8_lossy(&header.name));
                let what = format!("publish with the header {name}: the name is reserved for tidings");
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            onto.push(header.clone());
        }
        Ok(())
    }
}
