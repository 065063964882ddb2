//! Options of a published event: its ids, timestamp, trace and extra headers.
//!
//! The headers that they become are read by the service that handles the event: its correlation id, its trace and its
//! cause continue in the events that the handler returns.

use bytes::Bytes;
use uuid::Uuid;

use crate::event::shortened;
use crate::{Delivery, Error, ErrorKind, Header, Headers, Result, Timestamp, TraceContext, TraceParent, headers};

/// Options with which an event is published.
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
    /// The event's id. Default: a new UUID v7.
    pub id: Option<Uuid>,
    /// The time when the event happened, in its envelope. Default: now. The broker's timestamp of the record is not
    /// affected.
    pub timestamp: Option<Timestamp>,
    /// The id that all events of one flow share. Default: the event's own id.
    pub correlation_id: Option<String>,
    /// The id of the event that caused this one.
    pub causation_id: Option<Uuid>,
    /// The trace and span in which the event is published. Default: a new, sampled trace, or that of the publisher if it
    /// [writes the trace context](crate::Transport::writes_trace_context).
    pub traceparent: Option<TraceParent>,
    /// Extra headers, whose names are not [reserved](headers::is_reserved).
    pub headers: Headers,
}

impl PublishOptions {
    /// Creates the options of an event that follows from `delivery`: in its [trace](TraceContext), with its correlation
    /// id, caused by its (first) event.
    ///
    /// ```
    /// use tidings_core::{Delivery, DeliveryContext, PublishOptions, RecordBatch};
    /// use tidings_core::{StoredRecord, Timestamp, TopicPartition};
    ///
    /// let record = StoredRecord::new(0, Timestamp::now()).with_value("click");
    /// let batch = RecordBatch::new(TopicPartition::new("clicks", 0), vec![record]);
    /// let delivery = Delivery::new(batch, DeliveryContext::new("meter", "count"));
    ///
    /// let options = PublishOptions::following(&delivery);
    /// assert_eq!(options.causation_id, Some(delivery.event_id()));
    /// assert_eq!(options.correlation_id, Some(delivery.correlation_id()));
    /// ```
    pub fn following(delivery: &Delivery) -> Self {
        let of_record = || TraceContext::read_from(&delivery.record().headers).map(TraceContext::child);
        let trace = delivery.trace_context().cloned().or_else(of_record);
        let following = Self {
            correlation_id: Some(delivery.correlation_id()),
            causation_id: Some(delivery.event_id()),
            traceparent: trace.as_ref().map(|trace| trace.parent),
            ..Self::default()
        };
        match trace.and_then(|trace| trace.state) {
            Some(state) => following.with_header(headers::TRACESTATE, state),
            None => following,
        }
    }

    /// Sets the event's id.
    #[must_use]
    pub fn with_id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the time when the event happened.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Sets the id of the event that caused this one.
    #[must_use]
    pub fn with_causation_id(mut self, id: Uuid) -> Self {
        self.causation_id = Some(id);
        self
    }

    /// Sets the trace and span.
    #[must_use]
    pub fn with_traceparent(mut self, trace: TraceParent) -> Self {
        self.traceparent = Some(trace);
        self
    }

    /// Adds a header whose name is not [reserved](headers::is_reserved).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Appends these options' headers to those that a codec wrote, for events published by other means (an outbox).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an extra header whose name is [reserved](headers::is_reserved), and for the nil
    /// UUID as the id of the cause.
    ///
    /// ```
    /// use tidings_core::{ErrorKind, Headers, PublishOptions};
    ///
    /// let mut headers = Headers::new();
    /// PublishOptions::default().with_header("tenant", "acme").write_to(&mut headers)?;
    /// assert!(headers.contains("tenant") && headers.contains("traceparent"));
    ///
    /// let reserved = PublishOptions::default().with_header("eventType", "forged").write_to(&mut headers);
    /// assert_eq!(reserved.map_err(|error| error.kind()), Err(ErrorKind::Invalid));
    /// # Ok::<(), tidings_core::Error>(())
    /// ```
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
            // The last header of a name counts: a second one would override the event's own.
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
