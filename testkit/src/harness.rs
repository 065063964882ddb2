//! The test harness: runs a service in a test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_core::{
    BoxError, DeadLetter, Envelope, EnvelopeRef, Error, ErrorKind, Event, Name, PublisherExt, Record, Result,
    Timestamp, Transport, check_topic_name, codec,
};
use tidings_memory::{Faults, MemoryTransport};
use tidings_service::{Service, ServiceHandle, Status, TopicPolicy, from_fn};
use uuid::Uuid;

use crate::Retried;
use crate::fate::Fate;
use crate::journal::{Journal, Read};
use crate::layer::watch;
use crate::recorder::{Recorder, RecordingSink};
use crate::topics::{create_missing, missing_from_policy};
use crate::trace::RecordId;

impl Harness {
    /// The default timeout of a wait in tokio's time, which passes instantly if the clock is paused.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

    /// The default timeout of a wait in real time, however little of tokio's time has passed.
    pub const DEFAULT_REAL_DEADLINE: Duration = Duration::from_secs(30);

    /// The maximum number of records that follow from one event: an endless cycle of events is reported as an error.
    pub const MAX_FOLLOWING: usize = 1_000;
}

/// The source of a test's events.
const SOURCE: &str = "test";
/// A duration longer than any test.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
/// The interval at which a wait checks the real clock.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs a service in a test, on the in-memory broker or on another transport.
///
/// Every wait has a deadline, [`Harness::DEFAULT_DEADLINE`] and [`Harness::DEFAULT_REAL_DEADLINE`]. If the test
/// panics, dropping the harness prints its [`trace`](Self::trace).
///
/// Records published by handlers are captured if the handler returns them or uses
/// [`Delivery::publisher`](tidings_core::Delivery::publisher). A publisher that the handler creates is not observed,
/// and neither are delayed events ([`publish_after`](tidings_core::DeliveryPublisher::publish_after)).
#[derive(Debug)]
#[must_use = "dropping the harness stops its service at once"]
pub struct Harness<T = MemoryTransport> {
    transport: T,
    running: ServiceHandle,
    /// Everything that was observed; shared with the observer, layer, publisher and sink of the
    /// service.
    journal: Arc<Journal>,
    /// The topics that the service reads.
    topics: Vec<Name>,
    /// Put before the topics of sent events, as the service does.
    topic_prefix: Name,
    deadline: Duration,
    real_deadline: Duration,
    _printed: PrintedByPanic,
}

impl Harness {
    /// Starts `service` on a new in-memory broker, with its topics and their dead-letter topics.
    ///
    /// # Errors
    /// Those of [`Service::start`].
    pub async fn start(service: Service) -> Result<Self> {
        Self::on(&MemoryTransport::new(), service).await
    }

    /// Returns the broker's fault injection: outages, failed commits, lost partitions. (Stores have their own.)
    pub fn faults(&self) -> Faults {
        self.transport.faults()
    }
}

impl<T: Transport + Clone> Harness<T> {
    /// Starts `service` on `transport`: runs the same test against a live broker. Creates missing topics: those of the
    /// service's [`TopicPolicy::Create`](tidings_service::TopicPolicy::Create) by its settings, the others with one
    /// partition.
    ///
    /// Against a live broker the clock must not be paused, and each test needs its own topics or its own
    /// [prefix](Service::with_topic_prefix).
    ///
    /// # Errors
    /// Those of [`Service::start`] and of creating the topics.
    pub async fn on(transport: &T, service: Service) -> Result<Self> {
        // In release builds, too: an event that does not survive a round trip is a bug that a test should find.
        codec::set_read_back(true);
        let journal = Journal::new();
        let topics = service.topics();
        let missing = missing_from_policy(&service, &topics);
        let creates = matches!(service.topic_policy(), TopicPolicy::Create(_));
        // The start of the service reports an invalid name.
        let retry = service.retry_topics().into_iter().filter(|name| !creates && check_topic_name(name).is_ok());
        create_missing(transport, &missing, &retry.collect::<Vec<_>>()).await?;
        let topic_prefix = service.topic_prefix().clone();
        let recorder = Recorder { inner: transport.clone(), service: service.name().clone(), journal: journal.clone() };
        let watching = journal.clone();
        let mut service = service
            .with_observer(journal.clone())
            .layer(from_fn(move |delivery, next| watch(watching.clone(), delivery, next)));
        if let Some(inner) = service.dead_letters().cloned() {
            service = service.with_dead_letters(RecordingSink { inner, journal: journal.clone() });
        }
        let running = service.start(&recorder).await?;
        let (deadline, real_deadline) = (Harness::DEFAULT_DEADLINE, Harness::DEFAULT_REAL_DEADLINE);
        let (transport, printed) = (transport.clone(), PrintedByPanic(journal.clone()));
        Ok(Self { transport, running, journal, topics, topic_prefix, deadline, real_deadline, _printed: printed })
    }

    /// Sets the timeout of waits in tokio's time. Defaults to [`Harness::DEFAULT_DEADLINE`].
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the timeout of waits in real time. Defaults to [`Harness::DEFAULT_REAL_DEADLINE`].
    pub fn with_real_deadline(mut self, deadline: Duration) -> Self {
        self.real_deadline = deadline;
        self
    }

    /// Returns the transport that the service runs on, for publishers and consumers of the test itself.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Returns the handle of the running service, for example to pause it.
    pub fn service(&self) -> &ServiceHandle {
        &self.running
    }

    /// Returns the status of the service.
    pub async fn status(&self) -> Status {
        self.running.status().await
    }

    /// Publishes `event` and waits until it, and all events that follow from it in this service, have settled or
    /// [wait](Fate::is_waiting). To send one event twice, or with a header, see [`send_raw`](Self::send_raw).
    ///
    /// # Panics
    /// If the event could not be published, the service does not read its topic, or it has not settled in time; the
    /// message contains the trace. See [`try_send`](Self::try_send).
    pub async fn send<E: Event>(&self, event: &E) -> Fate {
        expect(self.try_send(event).await)
    }

    /// Like [`send`](Self::send), but returns an error: for events that may not settle.
    ///
    /// # Errors
    /// Those of publishing, [`Invalid`](ErrorKind::Invalid) if the service does not read the event's topic, and
    /// [`Unavailable`](ErrorKind::Unavailable) with the trace if the event has not settled in time.
    pub async fn try_send<E: Event>(&self, event: &E) -> Result<Fate> {
        let record_id = self.put(self.record(event)?).await?;
        self.settled(&record_id).await
    }

    /// Publishes `events` one after the other, then waits until all have settled; fate `i` belongs to event `i`.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub async fn send_all<E: Event>(&self, events: &[E]) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(events.len());
        let mut record_ids = Vec::with_capacity(events.len());
        for event in events {
            record_ids.push(expect(self.publish(event).await));
        }
        for record_id in record_ids {
            fates.push(expect(self.settled(&record_id.0).await));
        }
        fates
    }

    /// Publishes a raw record, such as garbage or a tombstone, and waits until it has settled.
    ///
    /// For an event with an id or a header of the test's choice, encode its [`Envelope`] with [`codec::encode`].
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub async fn send_raw(&self, record: Record) -> Fate {
        let record_id = expect(self.put(record).await);
        expect(self.settled(&record_id).await)
    }

    /// Publishes `event` without waiting, for tests of outages. See [`fate`](Self::fate) for the outcome.
    ///
    /// # Errors
    /// Those of publishing.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Sent> {
        Ok(Sent(self.put(self.record(event)?).await?))
    }

    /// Publishes a raw record without waiting. See [`publish`](Self::publish).
    ///
    /// # Errors
    /// Those of publishing.
    pub async fn publish_raw(&self, record: Record) -> Result<Sent> {
        Ok(Sent(self.put(record).await?))
    }

    /// Returns the fate of `sent`; `None` while it, or an event that follows from it, has not settled.
    pub fn fate(&self, sent: &Sent) -> Option<Fate> {
        self.journal.fate(&sent.0, &self.topics, &mut 0)
    }

    /// Waits until `sent`, and all events that follow from it, have settled.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub async fn wait_for(&self, sent: &Sent) -> Result<Fate> {
        self.settled(&sent.0).await
    }

    /// Waits until all events that were sent, and all that followed, have settled, and the service has read everything
    /// that others published to its topics: a redrive, or a publisher of the test's own.
    ///
    /// A record that waits in a [retry topic](tidings_service::Retry::then_topics) counts as settled until it is due.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) with the trace if they have not settled in time; the error that stopped
    /// the service, if it has stopped.
    pub async fn settle(&self) -> Result<()> {
        let open = || self.journal.unsettled(&self.topics);
        let Some(caught_up) = self.in_time(self.running.caught_up()).await else {
            return Err(self.error(&format!("the service has not caught up; unsettled events: {}", open().join(", "))));
        };
        caught_up?;
        let what = || format!("events have not settled: {}", open().join(", "));
        self.wait(|| open().is_empty().then_some(Ok(())), what).await
    }

    /// Advances time by sleeping. If the clock is paused this is instant, and all timers due within it fire in order.
    pub async fn advance(&self, time: Duration) {
        self.journal.note(format!("the test waits for {:.3} s", time.as_secs_f64()));
        tokio::time::sleep(time).await;
    }

    /// Returns the events of this type that the service published, in order.
    pub fn published<E: Event>(&self) -> Vec<Envelope<E>> {
        self.journal.read(Read::Published, decode::<E>)
    }

    /// Returns the events of this type that were handled, in the order in which their handlers completed.
    pub fn handled<E: Event>(&self) -> Vec<Envelope<E>> {
        self.journal.read(Read::Handled, decode::<E>)
    }

    /// Returns the failed attempts that were followed by another, in order.
    pub fn retried(&self) -> Vec<Retried> {
        self.journal.retried()
    }

    /// Returns the dead letters, in the order in which they were written.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.journal.letters()
    }

    /// Returns the trace, one line per step with tokio's time.
    ///
    /// Steps are records sent and published, each attempt and its error, waits between attempts, dead letters, and how
    /// each record was settled.
    pub fn trace(&self) -> String {
        self.journal.trace()
    }

    /// Makes attempt `number` (from 1) fail, instead of calling the handler, for the next event of this type.
    pub fn fail_attempt(&self, event_type: &str, number: u32, error: impl Into<BoxError>) {
        let event_type = event_type.to_owned();
        let mut error = Some(error.into());
        self.journal.inject(Box::new(
            move |this_type, attempt| {
                if this_type == event_type && attempt == number { error.take() } else { None }
            },
        ));
    }

    /// Makes an attempt fail if `error` returns an error for its event type and attempt number (from 1).
    ///
    /// It stays for the rest of the test.
    pub fn fail_attempts(&self, error: impl FnMut(&str, u32) -> Option<BoxError> + Send + 'static) {
        self.journal.inject(Box::new(error));
    }

    /// Returns the service, for the test to shut down itself; the harness stops observing.
    pub fn into_service(self) -> ServiceHandle {
        self.running
    }

    /// Encodes an event with a fresh id, so that a test may send equal events as different ones.
    fn record<E: Event>(&self, event: &E) -> Result<Record> {
        let source = Name::from_static(SOURCE);
        let envelope = EnvelopeRef::new(Uuid::now_v7(), Timestamp::now(), &source, event);
        codec::encode(envelope, &self.topic_prefix)
    }

    /// Publishes through the test's own transport: the record is not one that the service
    /// published.
    async fn put(&self, record: Record) -> Result<RecordId> {
        let publisher = self.transport.publisher().await?;
        let position = publisher.publish_one(record.clone()).await?;
        Ok(self.journal.sent(&record, &position))
    }

    async fn settled(&self, record_id: &RecordId) -> Result<Fate> {
        let topic = &record_id.origin.topic;
        if !self.topics.contains(topic) {
            let read = self.topics.iter().map(|topic| format!("{topic:?}")).collect::<Vec<_>>().join(", ");
            let what =
                format!("wait for an event of topic {topic:?}, which the service does not read; it reads {read}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let look = || {
            let mut looked_at = 0;
            let fate = self.journal.fate(record_id, &self.topics, &mut looked_at);
            if looked_at > Harness::MAX_FOLLOWING {
                let what = format!("more than {} events follow from {record_id}", Harness::MAX_FOLLOWING);
                return Some(Err(self.error(&what)));
            }
            fate.map(Ok)
        };
        self.wait(look, || format!("{record_id}, or what follows from it, has not settled")).await
    }

    /// Waits for `future` until a deadline has passed.
    async fn in_time<R>(&self, future: impl Future<Output = R>) -> Option<R> {
        let real_end = Instant::now() + self.real_deadline.min(FOR_EVER);
        let end = tokio::time::Instant::now() + self.deadline.min(FOR_EVER);
        let mut future = std::pin::pin!(future);
        loop {
            let now = tokio::time::Instant::now();
            if let Ok(done) = tokio::time::timeout_at(end.min(now + LOOK_AGAIN), future.as_mut()).await {
                return Some(done);
            }
            if tokio::time::Instant::now() >= end || Instant::now() >= real_end {
                return None;
            }
        }
    }

    /// Looks until there is a result; each look follows a settlement or one second of tokio's time.
    ///
    /// The real deadline is checked, too: on a running clock both agree, but on a paused clock a
    /// handler that blocks would let no tokio time pass.
    async fn wait<R>(&self, look: impl Fn() -> Option<Result<R>>, what: impl Fn() -> String) -> Result<R> {
        let real_end = Instant::now() + self.real_deadline.min(FOR_EVER);
        let end = tokio::time::Instant::now() + self.deadline.min(FOR_EVER);
        loop {
            let settled = self.journal.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            let now = tokio::time::Instant::now();
            if now >= end || Instant::now() >= real_end {
                return Err(self.error(&what()));
            }
            // The caller checks which it was: settled, or out of time.
            let _ = tokio::time::timeout_at(end.min(now + LOOK_AGAIN), settled).await;
        }
    }

    /// Returns the error of a wait in vain, with the trace: the test's reader needs the history.
    fn error(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("wait for the service: {what}\n{}", self.trace()))
    }
}

/// An event that was published without waiting.
///
/// It identifies the record by its position, for [`Harness::fate`] and [`Harness::wait_for`].
#[derive(Debug, Clone)]
pub struct Sent(RecordId);

/// Prints the trace if it is dropped during a panic: a failed assertion of the test then shows the history.
#[derive(Debug)]
struct PrintedByPanic(Arc<Journal>);

impl Drop for PrintedByPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the harness's trace:\n{}", self.0.trace());
        }
    }
}

fn expect<R>(result: Result<R>) -> R {
    result.unwrap_or_else(|error| panic!("{}", error.report()))
}

/// Decodes a record if it is of this event's type and a major version that is read as it.
fn decode<E: Event>(record: &tidings_core::StoredRecord) -> Option<Envelope<E>> {
    let head = codec::peek(record).ok()?;
    let is_read = head.event_type == E::TYPE && codec::majors::<E>().contains(&head.version.major);
    is_read.then(|| codec::decode(record).ok()).flatten()
}
