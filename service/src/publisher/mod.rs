//! Publishing events from outside a handler.
//!
//! An [`EventPublisher`] encodes an event by its type's codec, adds the headers of [`PublishOptions`], and passes the
//! record to the transport's publisher within a span that follows OpenTelemetry's conventions. Within a handler,
//! returned events take another path, since their ids must be the same in each repeat.

mod delayed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::codec::{EventFormat, EventVersions};
use tidings_core::{
    Envelope, EnvelopeRef, Error, ErrorKind, Event, Name, Position, PublishOptions, Publisher, PublisherExt, Record,
    Result, Timestamp, TraceParent, Transport, headers,
};
use tokio::sync::OnceCell;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use crate::telemetry::PublisherStats;

/// Publishes events as one service.
///
/// Clones are cheap and share one connection, which is opened on first use.
///
/// Events get new ids (UUID v7), so two calls publish two events. Inside a handler, return events or use
/// [`Delivery::publisher`](tidings_core::Delivery::publisher) instead: both derive the ids, so that consumers recognise
/// a repeat.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings_macros::Event;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::EventPublisher;
///
/// #[derive(Serialize, Deserialize, Event)]
/// # #[event(crate = "tidings_core")]
/// #[event(topic = "user-events", type = "user.registered", key = "user_id")]
/// struct UserRegistered {
///     user_id: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let events = EventPublisher::new(&MemoryTransport::new(), "api-gateway");
/// let first = events.publish(&UserRegistered { user_id: "u1".into() }).await?;
/// let second = events.publish(&UserRegistered { user_id: "u1".into() }).await?;
/// assert_eq!((first.partition, first.offset), (second.partition, 0));
/// assert_eq!(second.offset, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EventPublisher {
    source: Name,
    topic_prefix: Name,
    format: EventFormat,
    versions: EventVersions,
    connection: Arc<Connection>,
}

impl EventPublisher {
    /// Creates a publisher to `transport` for the service `name`. Does no I/O yet.
    pub fn new<T: Transport + Clone>(transport: &T, name: impl Into<Name>) -> Self {
        let name = name.into();
        let connection = Connection {
            transport: Box::new(transport.clone()),
            publisher: OnceCell::new(),
            closed: AtomicBool::new(false),
            stats: PublisherStats::new(name.clone()),
        };
        Self {
            source: name,
            topic_prefix: Name::default(),
            format: EventFormat::default(),
            versions: EventVersions::default(),
            connection: Arc::new(connection),
        }
    }

    /// Sets the prefix of each topic: the topic prefix of the services that consume the events.
    #[must_use]
    pub fn with_topic_prefix(mut self, prefix: impl Into<Name>) -> Self {
        self.topic_prefix = prefix.into();
        self
    }

    /// Sets the format in which events of all types are written. Default: that of the codec of their type.
    #[must_use]
    pub fn with_event_format(mut self, format: EventFormat) -> Self {
        self.format = format;
        self
    }

    /// Writes newer events of `Old`'s type as `Old`, while readers of that version still run.
    ///
    /// Can be repeated for other types. Default: each event in its own version.
    ///
    /// Newer versions need `downcast_to` in their `#[event(..)]`; an event that no chain of downcasts converts to `Old`
    /// is refused as [`Invalid`](ErrorKind::Invalid).
    #[must_use]
    pub fn with_event_version<Old: Event>(mut self) -> Self {
        self.versions = self.versions.with::<Old>();
        self
    }

    /// Returns the counters of this publisher and its clones. They can be kept apart from it, for a metrics endpoint.
    pub fn stats(&self) -> PublisherStats {
        self.connection.stats.clone()
    }

    /// Publishes `event` and waits until the broker has acknowledged it.
    ///
    /// After a failed connect the next call tries again.
    ///
    /// # Cancel safety
    /// Dropping the future may still publish the event.
    ///
    /// # Errors
    /// Those of [`Transport::publisher`] and [`Publisher::publish`], and [`ErrorKind::Invalid`] if the event cannot be
    /// serialized. After [`ErrorKind::Indeterminate`] the broker may have stored it.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Position> {
        self.publish_with(event, PublishOptions::default()).await
    }

    /// Publishes `event` with options; otherwise as [`publish`](Self::publish).
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and [`ErrorKind::Invalid`] for an extra header whose name is
    /// [reserved](tidings_core::headers::is_reserved).
    ///
    /// ```
    /// use tidings_core::PublishOptions;
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::EventPublisher;
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let events = EventPublisher::new(&MemoryTransport::new(), "api-gateway");
    /// let event = UserRegistered { user_id: "u1".into() };
    /// let options = PublishOptions::default().with_correlation_id("signup-7").with_header("tenant", "acme");
    /// events.publish_with(&event, options).await?;
    ///
    /// let reserved = PublishOptions::default().with_header("eventType", "forged");
    /// assert!(events.publish_with(&event, reserved).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_with<E: Event>(&self, event: &E, options: PublishOptions) -> Result<Position> {
        let id = options.id.unwrap_or_else(Uuid::now_v7);
        let timestamp = options.timestamp.unwrap_or_else(Timestamp::now);
        self.put_one(EnvelopeRef::new(id, timestamp, &self.source, event), &options).await
    }

    /// Publishes an event with the id, time and version of its envelope, and the envelope's source if it has one.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish). To repeat the event after a dropped future, publish the same envelope: its id
    /// stays.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    ///
    /// ```
    /// use tidings_core::Envelope;
    /// use tidings_memory::{MemoryStore, MemoryTransport};
    /// use tidings_service::{EventPublisher, Router, Service};
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let transport = MemoryTransport::new();
    /// let service = Service::new("user-service", Router::new().on(async |_: UserRegistered| {}));
    /// let service = service.with_idempotency(MemoryStore::new()).start(&transport).await?;
    ///
    /// // A repeat under the same id is recognised by a service with an idempotency store.
    /// let (events, event) = (EventPublisher::new(&transport, "import"), UserRegistered { user_id: "u1".into() });
    /// let envelope = Envelope::new(event);
    /// events.publish_envelope(&envelope).await?;
    /// events.publish_envelope(&envelope).await?;
    /// service.caught_up().await?;
    /// let totals = service.status().await.totals;
    /// assert_eq!((totals.handled, totals.duplicates), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_envelope<E: Event>(&self, envelope: &Envelope<E>) -> Result<Position> {
        let mut envelope = envelope.as_ref();
        if envelope.source.is_empty() {
            envelope.source = &self.source;
        }
        self.put_one(envelope, &PublishOptions::default()).await
    }

    /// Publishes `events` in one call, in order per key; answer `i` belongs to event `i`. The events share one trace,
    /// and each has a new id: to repeat an event under its id, use [`publish_with`](Self::publish_with).
    ///
    /// # Cancel safety
    /// Dropping the future may still publish any of the events.
    ///
    /// # Errors
    /// For each event those of [`publish`](Self::publish). One event's failure says nothing about the others.
    ///
    /// ```
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::EventPublisher;
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let events = ["u1", "u2", "u3"].map(|user_id| UserRegistered { user_id: user_id.into() });
    /// let publisher = EventPublisher::new(&MemoryTransport::new(), "import");
    /// let positions: Result<Vec<_>, _> = publisher.publish_all(&events).await.into_iter().collect();
    /// assert_eq!(positions?.iter().map(|position| position.offset).collect::<Vec<_>>(), [0, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "each event has an answer of its own"]
    pub async fn publish_all<E: Event>(&self, events: &[E]) -> Vec<Result<Position>> {
        let now = Timestamp::now();
        let trace = (!self.connection.transport.writes_trace_context()).then(TraceParent::new_root);
        let record = |event| {
            let envelope = EnvelopeRef::new(Uuid::now_v7(), now, &self.source, event);
            let mut options = PublishOptions::default();
            options.traceparent = trace.map(TraceParent::child);
            self.record(envelope, &options)
        };
        let records = events.iter().map(record).collect();
        let span = self.span(E::TOPIC);
        span.record("messaging.batch.message_count", events.len());
        self.put(records).instrument(span).await
    }

    /// Closes the publisher: rejects further events of all clones and waits at most `deadline` for those in flight.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Indeterminate`] if the deadline passed with unacknowledged events.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use tidings_core::ErrorKind;
    /// use tidings_memory::MemoryTransport;
    /// use tidings_service::EventPublisher;
    /// # #[derive(serde::Serialize, serde::Deserialize, tidings_macros::Event)]
    /// # #[event(crate = "tidings_core", topic = "user-events", type = "user.registered", key = "user_id")]
    /// # struct UserRegistered { user_id: String }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> tidings_core::Result<()> {
    /// let events = EventPublisher::new(&MemoryTransport::new(), "api-gateway");
    /// events.clone().close(Duration::from_secs(10)).await?;
    /// let answer = events.publish(&UserRegistered { user_id: "u1".into() }).await;
    /// assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Closed), "clones share one connection");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        self.connection.closed.store(true, Ordering::Release);
        match self.connection.publisher.get() {
            Some(publisher) => publisher.close(deadline).await,
            None => Ok(()),
        }
    }

    /// Encodes an event as a record with the headers of its options.
    fn record<E: Event>(&self, envelope: EnvelopeRef<'_, E>, options: &PublishOptions) -> Result<Record> {
        let mut record = self.versions.encode(self.format, envelope, &self.topic_prefix)?;
        options.write_to(&mut record.headers)?;
        if options.traceparent.is_none() && self.connection.transport.writes_trace_context() {
            record.headers.remove_where(|header| header.name == headers::TRACEPARENT.as_bytes());
        }
        Ok(record)
    }

    /// Publishes one event in its span, which also names the error of an event that cannot be encoded.
    async fn put_one<E: Event>(&self, envelope: EnvelopeRef<'_, E>, options: &PublishOptions) -> Result<Position> {
        let record = self.record(envelope, options);
        let span = self.span(E::TOPIC);
        span.record("messaging.message.id", field::display(envelope.id));
        let put = async {
            let record = record?;
            self.connection.open().await?.publish_one(record).await
        };
        let answer = put.instrument(span.clone()).await;
        self.connection.stats.count(std::slice::from_ref(&answer));
        if let Err(error) = &answer {
            span.record("error.type", error.kind().as_str());
        }
        answer
    }

    /// Publishes the records that could be serialized; answer `i` belongs to record `i`.
    async fn put(&self, records: Vec<Result<Record>>) -> Vec<Result<Position>> {
        let mut written = Vec::with_capacity(records.len());
        let unwritten: Vec<_> = records.into_iter().map(|record| record.map(|record| written.push(record))).collect();
        let mut answers =
            if written.is_empty() { Vec::new() } else { self.connection.publish(written).await }.into_iter();
        let answer = |written: Result<()>| written.and_then(|()| answers.next().unwrap_or_else(|| Err(unanswered())));
        let answers: Vec<_> = unwritten.into_iter().map(answer).collect();
        self.connection.stats.count(&answers);
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            Span::current().record("error.type", error.kind().as_str());
        }
        answers
    }

    /// Returns the span of one call. Its fields follow OpenTelemetry's semantic conventions for messaging.
    fn span(&self, topic: &str) -> Span {
        let topic = format_args!("{}{topic}", self.topic_prefix);
        tracing::info_span!(
            "publish",
            otel.name = %format_args!("publish {topic}"),
            otel.kind = "producer",
            messaging.system = self.connection.transport.system(),
            messaging.operation.name = "publish",
            messaging.operation.type = "send",
            messaging.destination.name = %topic,
            messaging.batch.message_count = field::Empty,
            messaging.message.id = field::Empty,
            error.type = field::Empty,
        )
    }
}

/// Returns the error of a record without an answer: it may be stored.
fn unanswered() -> Error {
    Error::new(ErrorKind::Indeterminate, "publish: the publisher gave no answer")
}

impl From<&EventPublisher> for PublisherStats {
    fn from(publisher: &EventPublisher) -> Self {
        publisher.stats()
    }
}

/// The publisher that all clones share, connected on first use.
#[derive(Debug)]
struct Connection {
    transport: Box<dyn Transport>,
    publisher: OnceCell<Arc<dyn Publisher>>,
    closed: AtomicBool,
    stats: PublisherStats,
}

impl Connection {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        match self.open().await {
            Ok(publisher) => publisher.publish(records).await,
            Err(error) if records.len() == 1 => vec![Err(error)],
            Err(error) => records.iter().map(|_| Err(Error::new(error.kind(), error.report()))).collect(),
        }
    }

    /// Returns the publisher, after connecting if this is the first use.
    ///
    /// # Cancel safety
    /// Dropping the future while it connects leaves the next caller to connect.
    async fn open(&self) -> Result<&Arc<dyn Publisher>> {
        // The first caller connects and the others wait; if it fails, the next of them tries.
        let open = self.publisher.get_or_try_init(|| async {
            self.check_open()?;
            self.transport.publisher().await
        });
        let publisher = open.await?;
        self.check_open()?;
        Ok(publisher)
    }

    /// Fails once [`close`](EventPublisher::close) was called, also if it was called while another clone connected.
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "publish: the publisher was closed"));
        }
        Ok(())
    }
}
