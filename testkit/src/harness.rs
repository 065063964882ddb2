//! The harness: a service in a test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_core::{
    BoxError, DeadLetter, Envelope, EnvelopeRef, Error, ErrorKind, Event, Name, Record, Result, Timestamp, Topic,
    Transport, codec, dead_letter_topic,
};
use tidings_memory::{Faults, MemoryTransport};
use tidings_service::{Service, ServiceHandle, Status, TopicPolicy, from_fn};
use uuid::Uuid;

use crate::Retried;
use crate::fate::Fate;
use crate::journal::{Journal, Read};
use crate::layer::watch;
use crate::recorder::{Recorder, RecordingSink};
use crate::trace::Place;

/// A wait ends after so much of tokio's time, which is no time at all where the clock is paused.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
/// A wait ends after so much real time, however little of tokio's has passed.
pub const DEFAULT_REAL_DEADLINE: Duration = Duration::from_secs(30);
/// More records than this do not follow from one event: a service that answers itself for ever is told so.
pub const MAX_FOLLOWING: usize = 1_000;

/// Who the events of a test are from.
const SOURCE: &str = "test";
/// What is further away than any test lives.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
/// How long a wait goes without looking at the real clock.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A service in a test, on a broker in memory or another one.
///
/// What it waits for has a deadline, [`DEFAULT_DEADLINE`] and [`DEFAULT_REAL_DEADLINE`]. Dropped by a test that panics, it
/// prints its [`trace`](Self::trace).
///
/// What handlers publish is seen when they return it or use [`Delivery::publisher`](tidings_core::Delivery::publisher); a
/// publisher of their own is not the harness's to watch.
#[derive(Debug)]
pub struct Harness<T = MemoryTransport> {
    transport: T,
    running: ServiceHandle,
    journal: Arc<Journal>,
    /// Those that the service reads.
    topics: Vec<Name>,
    topic_prefix: Name,
    deadline: Duration,
    real_deadline: Duration,
    _printed: PrintedByPanic,
}

impl Harness {
    /// Runs `service` on a broker of its own in memory, with its topics and their dead-letter topics.
    ///
    /// # Errors
    /// Those of [`Service::start`].
    pub async fn start(service: Service) -> Result<Self> {
        Self::on(&MemoryTransport::new(), service).await
    }

    /// Faults to inject into the broker: outages, failed commits, lost partitions. (Stores have faults of their own.)
    pub fn faults(&self) -> Faults {
        self.transport.faults()
    }
}

impl<T: Transport + Clone> Harness<T> {
    /// Runs `service` on `transport`: the same test against a live broker. Topics that are missing are created: as the
    /// service's [`TopicPolicy::Create`] has them, the others with one partition.
    ///
    /// Against a live broker the clock must run, and each test needs topics or a
    /// [prefix](Service::with_topic_prefix) of its own.
    ///
    /// # Errors
    /// Those of [`Service::start`] and of creating the topics.
    pub async fn on(transport: &T, service: Service) -> Result<Self> {
        // In release builds, too: an event that can't be read back is a fault that a test is to show.
        codec::set_read_back(true);
        let journal = Journal::new();
        let topics = service.topics();
        create_missing(transport, &missing_from_policy(&service, &topics)).await?;
        let topic_prefix = service.topic_prefix().clone();
        let recorder = Recorder { inner: transport.clone(), service: service.name().clone(), journal: journal.clone() };
        let watching = journal.clone();
        let mut service = service
            .with_observer(journal.clone())
            .layer(from_fn(move |delivery, next| watch(watching.clone(), delivery, next)));
        if let Some(inner) = service.dead_letters().cloned() {
            service = service.with_dead_letters(Arc::new(RecordingSink { inner, journal: journal.clone() }));
        }
        let running = service.start(&recorder).await?;
        let (deadline, real_deadline) = (DEFAULT_DEADLINE, DEFAULT_REAL_DEADLINE);
        let (transport, printed) = (transport.clone(), PrintedByPanic(journal.clone()));
        Ok(Self { transport, running, journal, topics, topic_prefix, deadline, real_deadline, _printed: printed })
    }

    /// Waits so long of tokio's time for anything: [`DEFAULT_DEADLINE`] unless said.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Waits so long of real time for anything: [`DEFAULT_REAL_DEADLINE`] unless said.
    #[must_use]
    pub fn with_real_deadline(mut self, deadline: Duration) -> Self {
        self.real_deadline = deadline;
        self
    }

    /// The transport that the service runs on: for publishers and consumers of the test's own.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The running service: to pause it, or to ask for its status.
    pub fn service(&self) -> &ServiceHandle {
        &self.running
    }

    /// How the service is.
    pub async fn status(&self) -> Status {
        self.running.status().await
    }

    /// Publishes `event` and waits until it, and all that follows from it in this service, has settled.
    ///
    /// # Panics
    /// If it could not be published, or has not settled in time; with the trace. See [`try_send`](Self::try_send).
    pub async fn send<E: Event>(&self, event: &E) -> Fate {
        expect(self.try_send(event).await)
    }

    /// As [`send`](Self::send), for tests of what does not settle.
    ///
    /// # Errors
    /// Those of publishing, and [`Unavailable`](ErrorKind::Unavailable) if it has not settled in time; with the trace.
    pub async fn try_send<E: Event>(&self, event: &E) -> Result<Fate> {
        let place = self.put(self.record(event)?).await?;
        self.settled(&place).await
    }

    /// Publishes `events` one after the other, and then waits until all that follows has settled; fate `i` is event `i`'s.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub async fn send_all<E: Event>(&self, events: &[E]) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(events.len());
        let mut places = Vec::with_capacity(events.len());
        for event in events {
            places.push(expect(self.publish(event).await));
        }
        for place in places {
            fates.push(expect(self.settled(&place.0).await));
        }
        fates
    }

    /// Publishes a record as it is, such as garbage or a tombstone, and waits until it has settled.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub async fn send_raw(&self, record: Record) -> Fate {
        let place = expect(self.put(record).await);
        expect(self.settled(&place).await)
    }

    /// Publishes `event` and does not wait: for tests of outages. [`fate`](Self::fate) tells what became of it.
    ///
    /// # Errors
    /// Those of publishing.
    pub async fn publish<E: Event>(&self, event: &E) -> Result<Sent> {
        Ok(Sent(self.put(self.record(event)?).await?))
    }

    /// As [`publish`](Self::publish), of a record as it is.
    ///
    /// # Errors
    /// Those of publishing.
    pub async fn publish_raw(&self, record: Record) -> Result<Sent> {
        Ok(Sent(self.put(record).await?))
    }

    /// What became of `sent`; `None` while it, or something that follows from it, has not settled.
    pub fn fate(&self, sent: &Sent) -> Option<Fate> {
        self.journal.fate(&sent.0, &self.topics, &mut 0)
    }

    /// Waits until `sent`, and all that follows from it, has settled.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub async fn wait_for(&self, sent: &Sent) -> Result<Fate> {
        self.settled(&sent.0).await
    }

    /// Waits until all that was sent, and all that followed, has settled.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if it has not in time; with the trace.
    pub async fn settle(&self) -> Result<()> {
        let open = || self.journal.unsettled(&self.topics);
        let what = || format!("these have not settled: {}", open().join(", "));
        self.wait(|| open().is_empty().then_some(Ok(())), what).await
    }

    /// Lets time pass. Where the clock is paused it takes none, and all that is due within it happens, in order.
    pub async fn advance(&self, time: Duration) {
        self.journal.note(format!("the test waits {:.3} s", time.as_secs_f64()));
        tokio::time::sleep(time).await;
    }

    /// What the service published of this type, in order.
    pub fn published<E: Event>(&self) -> Vec<Envelope<E>> {
        self.journal.read(Read::Published, decode::<E>)
    }

    /// The events of this type that were handled, in the order that their handlers were done.
    pub fn handled<E: Event>(&self) -> Vec<Envelope<E>> {
        self.journal.read(Read::Handled, decode::<E>)
    }

    /// The failed attempts that were followed by another, in order.
    pub fn retried(&self) -> Vec<Retried> {
        self.journal.retried()
    }

    /// The dead letters, in the order of burying.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.journal.letters()
    }

    /// All that has happened, a line each with tokio's time: what was sent and published, each attempt and its error, the
    /// waits between attempts, dead letters, and how each record was settled.
    pub fn trace(&self) -> String {
        self.journal.trace()
    }

    /// Fails attempt `number` (from 1) at the next event of this type that comes so far, in place of its handler.
    pub fn fail_attempt(&self, event_type: &str, number: u32, error: impl Into<BoxError>) {
        let event_type = event_type.to_owned();
        let mut error = Some(error.into());
        self.journal.inject(Box::new(
            move |this_type, attempt| {
                if this_type == event_type && attempt == number { error.take() } else { None }
            },
        ));
    }

    /// Fails those attempts for which `error` has one, of its arguments: the event's type, and which attempt it is.
    pub fn fail_attempts(&self, error: impl FnMut(&str, u32) -> Option<BoxError> + Send + 'static) {
        self.journal.inject(Box::new(error));
    }

    /// Gives the service out, to be shut down in the test's own way; nothing is watched any more.
    pub fn into_service(self) -> ServiceHandle {
        self.running
    }

    fn record<E: Event>(&self, event: &E) -> Result<Record> {
        let source = Name::from_static(SOURCE);
        let envelope = EnvelopeRef::new(Uuid::now_v7(), Timestamp::now(), &source, event);
        codec::encode(envelope, &self.topic_prefix)
    }

    async fn put(&self, record: Record) -> Result<Place> {
        let publisher = self.transport.publisher().await?;
        let position = publisher.publish_one(record.clone()).await?;
        Ok(self.journal.sent(&record, &position))
    }

    async fn settled(&self, place: &Place) -> Result<Fate> {
        let look = || {
            let mut looked_at = 0;
            let fate = self.journal.fate(place, &self.topics, &mut looked_at);
            if looked_at > MAX_FOLLOWING {
                let what = format!("more than {MAX_FOLLOWING} events follow from {place}");
                return Some(Err(self.error(&what)));
            }
            fate.map(Ok)
        };
        self.wait(look, || format!("{place}, or what follows from it, has not settled")).await
    }

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
            // Whether it was settled or the time was over is seen by looking.
            let _ = tokio::time::timeout_at(end.min(now + LOOK_AGAIN), settled).await;
        }
    }

    fn error(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("wait for the service: {what}\n{}", self.trace()))
    }
}

/// An event that was published and not waited for.
#[derive(Debug, Clone)]
pub struct Sent(Place);

/// Prints the trace if it is dropped by a panic: an assertion of the test's own then shows what has happened.
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

fn decode<E: Event>(record: &tidings_core::StoredRecord) -> Option<Envelope<E>> {
    let head = codec::peek(record).ok()?;
    (head.event_type == E::TYPE && head.version.major == E::VERSION.major).then(|| codec::decode(record).ok()).flatten()
}

/// Those of `topics` that the service does not create by itself.
fn missing_from_policy(service: &Service, topics: &[Name]) -> Vec<Name> {
    let prefix = service.topic_prefix();
    let created = |name: &Name| match service.topic_policy() {
        TopicPolicy::Create(created) => created.iter().any(|topic| format!("{prefix}{}", topic.name) == name.as_str()),
        _ => false,
    };
    topics.iter().filter(|name| !created(name)).cloned().collect()
}

async fn create_missing(transport: &impl Transport, topics: &[Name]) -> Result<()> {
    let admin = transport.admin().await?;
    let wanted: Vec<Topic> =
        topics.iter().flat_map(|topic| [Topic::new(topic.clone()), Topic::new(dead_letter_topic(topic))]).collect();
    for answer in admin.create_topics(&wanted).await? {
        match answer {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
