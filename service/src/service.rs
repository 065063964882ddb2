//! A service: a router, a group, and how its deliveries are treated.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    BoxError, DEFAULT_REVOCATION_DEADLINE, DeadLetterSink, Delivery, IdempotencyStore, Name, Outcome, Result, Start,
    Topic, Transport,
};
use tower_layer::Layer;

use crate::engine::{self, Breaker, ServiceHandle};
use crate::observer::{Both, Observer};
use crate::retry::Retry;
use crate::route::Route;
use crate::router::{IntoRouter, Router};

/// What must not overtake what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeliveryOrder {
    /// Records of one key are handled in order, those of different keys at once, also within one partition. A record
    /// without a key is ordered with nothing.
    #[default]
    Key,
    /// Records of one partition are handled in order.
    Partition,
    /// Nothing is ordered with anything.
    None,
}

/// What becomes of a type that nobody registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownTypes {
    /// It is skipped and counted.
    #[default]
    Skip,
    /// It goes to the dead letters. (A third way is a handler of [`Router::fallback`].)
    DeadLetter,
}

/// What a service does about topics that are missing when it starts.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum TopicPolicy {
    /// They are somebody else's: a missing one is an error of `start`.
    #[default]
    Expect,
    /// Those of these that are missing are created, with the service's topic prefix and each with its dead-letter topic,
    /// as [`ensure_topics`](tidings_core::ensure_topics) does; how one that is there differs is a warning.
    Create(Vec<Topic>),
}

/// The default of [`Service::with_handler_timeout`].
pub const DEFAULT_HANDLER_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of [`Service::with_commit_interval`].
pub const DEFAULT_COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// The default of [`Service::with_max_bytes_in_flight`]: 64 MiB.
pub const DEFAULT_MAX_BYTES_IN_FLIGHT: usize = 64 << 20;
/// The default of [`Service::with_max_span`].
pub const DEFAULT_MAX_SPAN: u64 = 100_000;
/// The default of [`Service::with_concurrency`].
pub const DEFAULT_CONCURRENCY: usize = 1_024;
/// The default of [`Service::with_lease_ttl`].
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(15);
/// The most of [`Service::with_workers`].
pub const MAX_WORKERS: usize = 1_024;
/// How long [`Service::run`] drains when it is told to stop.
pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);

/// A service: the router that handles its events, its consumer group, and its policies.
///
/// The group is `<name>-group`, the topics are those of the router's handlers.
#[derive(Debug)]
#[must_use = "a service does nothing until it is started"]
pub struct Service {
    pub(crate) name: Name,
    pub(crate) router: Router,
    pub(crate) options: Options,
}

/// All settings of a service.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) group: Name,
    pub(crate) store: Option<Arc<dyn IdempotencyStore>>,
    pub(crate) scope: Name,
    pub(crate) scope_per_topic: bool,
    pub(crate) lease_ttl: Duration,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterSink>>,
    pub(crate) retry: Retry,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) order: DeliveryOrder,
    pub(crate) unknown: UnknownTypes,
    pub(crate) breaker: Option<Breaker>,
    pub(crate) start: Start,
    pub(crate) topics: TopicPolicy,
    pub(crate) topic_prefix: Name,
    pub(crate) commit_interval: Duration,
    pub(crate) max_bytes: usize,
    pub(crate) max_span: u64,
    pub(crate) concurrency: usize,
    pub(crate) workers: Option<usize>,
    pub(crate) revocation_deadline: Duration,
    pub(crate) session_timeout: Option<Duration>,
    pub(crate) instance_id: Option<Name>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) seed: Option<u64>,
}

impl Service {
    /// The service `name`, whose events `router` handles. A `Router<S>` that still lacks its state does not fit: call
    /// [`Router::with_state`] first.
    pub fn new(name: impl Into<Name>, router: impl IntoRouter) -> Self {
        let (name, router) = (name.into(), router.into_router());
        let options = Options {
            group: format!("{name}-group").into(),
            store: None,
            scope: name.clone(),
            scope_per_topic: false,
            lease_ttl: DEFAULT_LEASE_TTL,
            dead_letters: None,
            retry: Retry::default(),
            handler_timeout: Some(DEFAULT_HANDLER_TIMEOUT),
            order: DeliveryOrder::default(),
            unknown: UnknownTypes::default(),
            breaker: Some(Breaker::default()),
            start: Start::default(),
            topics: TopicPolicy::default(),
            topic_prefix: Name::default(),
            commit_interval: DEFAULT_COMMIT_INTERVAL,
            max_bytes: DEFAULT_MAX_BYTES_IN_FLIGHT,
            max_span: DEFAULT_MAX_SPAN,
            concurrency: DEFAULT_CONCURRENCY,
            workers: None,
            revocation_deadline: DEFAULT_REVOCATION_DEADLINE,
            session_timeout: None,
            instance_id: None,
            observer: None,
            seed: None,
        };
        Self { name, router, options }
    }

    /// The service's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its consumer group.
    pub fn group(&self) -> &Name {
        &self.options.group
    }

    /// What stands before the topics of all its events.
    pub fn topic_prefix(&self) -> &Name {
        &self.options.topic_prefix
    }

    /// What it does about missing topics.
    pub fn topic_policy(&self) -> &TopicPolicy {
        &self.options.topics
    }

    /// The topics that its handlers take, prefix and all, sorted.
    pub fn topics(&self) -> Vec<Name> {
        self.router.topics(&self.options.topic_prefix)
    }

    /// Its own dead-letter sink; `None` if it buries in that of the transport.
    pub fn dead_letters(&self) -> Option<&Arc<dyn DeadLetterSink>> {
        self.options.dead_letters.as_ref()
    }

    /// Wraps all its handlers, as [`Router::layer`] does.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + 'static,
        L::Service: tower_service::Service<Delivery, Response = Outcome> + Clone + Send + 'static,
        <L::Service as tower_service::Service<Delivery>>::Error: Into<BoxError> + 'static,
        <L::Service as tower_service::Service<Delivery>>::Future: Send + 'static,
    {
        self.router = self.router.layer(layer);
        self
    }

    /// As a member of this group in place of `<name>-group`.
    pub fn with_group(mut self, group: impl Into<Name>) -> Self {
        self.options.group = group.into();
        self
    }

    /// Handles each event once, as `store` remembers it.
    pub fn with_idempotency(self, store: impl IdempotencyStore) -> Self {
        self.with_shared_idempotency(Arc::new(store))
    }

    /// As [`with_idempotency`](Self::with_idempotency), by a store that others use, too.
    pub fn with_shared_idempotency(mut self, store: Arc<dyn IdempotencyStore>) -> Self {
        self.options.store = Some(store);
        self
    }

    /// Remembers events under this scope in place of the service's name: a new scope handles all of them again.
    pub fn with_scope(mut self, scope: impl Into<Name>) -> Self {
        self.options.scope = scope.into();
        self
    }

    /// Tells events of one id apart by the topic that they are read from, for topics that repeat the events of others: each
    /// topic's handler then has the event once.
    ///
    /// By default an event that comes on two topics is handled once, on the topic that it is read from first. With this, the
    /// store knows an event by a UUID v5 of its id and topic: turned on for a scope that holds done events, it handles
    /// once more those of them that are read again.
    pub fn with_scope_per_topic(mut self) -> Self {
        self.options.scope_per_topic = true;
        self
    }

    /// How long claims outlive a process that died: [`DEFAULT_LEASE_TTL`], at least [`MIN_LEASE_TTL`](tidings_core::MIN_LEASE_TTL). Renewed at a third
    /// of it.
    ///
    /// Let it be shorter than the consumer's [session](Self::with_session_timeout): then a process that stood still for
    /// longer than that begins nothing of what it had fetched before, as it knows by its own clock that its lease is over.
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.lease_ttl = ttl;
        self
    }

    /// Buries dead letters here in place of the transport's own sink.
    pub fn with_dead_letters(mut self, sink: Arc<dyn DeadLetterSink>) -> Self {
        self.options.dead_letters = Some(sink);
        self
    }

    /// When failed deliveries are tried again, and given up.
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// How long a handler may take for one delivery before it is dropped, which is a failed attempt:
    /// [`DEFAULT_HANDLER_TIMEOUT`]. `None` is for ever, so that one that hangs holds its key for ever.
    pub fn with_handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.handler_timeout = timeout.into();
        self
    }

    /// What must not overtake what: by default what has the same key.
    pub fn with_delivery_order(mut self, order: DeliveryOrder) -> Self {
        self.options.order = order;
        self
    }

    /// What becomes of types that nobody registered: by default they are skipped.
    pub fn with_unknown_types(mut self, policy: UnknownTypes) -> Self {
        self.options.unknown = policy;
        self
    }

    /// When most deliveries fail, this holds the service back: it tries one delivery at a time until one succeeds. `None`
    /// lets it go on. On by default.
    pub fn with_breaker(mut self, breaker: impl Into<Option<Breaker>>) -> Self {
        self.options.breaker = breaker.into();
        self
    }

    /// Where the group starts when it is new.
    pub fn with_start(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// What is done about missing topics.
    pub fn with_topics(mut self, policy: TopicPolicy) -> Self {
        self.options.topics = policy;
        self
    }

    /// Puts `prefix` before the topics of all events, handled and published, and before those that are created: one broker
    /// for several environments.
    pub fn with_topic_prefix(mut self, prefix: impl Into<Name>) -> Self {
        self.options.topic_prefix = prefix.into();
        self
    }

    /// How often offsets are committed: [`DEFAULT_COMMIT_INTERVAL`], at most once a millisecond.
    pub fn with_commit_interval(mut self, interval: Duration) -> Self {
        self.options.commit_interval = interval;
        self
    }

    /// How many bytes may be fetched and not settled, one record aside: [`DEFAULT_MAX_BYTES_IN_FLIGHT`].
    pub fn with_max_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.options.max_bytes = bytes;
        self
    }

    /// How far a partition may be read beyond its lowest unsettled record: [`DEFAULT_MAX_SPAN`].
    pub fn with_max_span(mut self, offsets: u64) -> Self {
        self.options.max_span = offsets;
        self
    }

    /// How many deliveries may be under way at once: [`DEFAULT_CONCURRENCY`].
    pub fn with_concurrency(mut self, deliveries: usize) -> Self {
        self.options.concurrency = deliveries;
        self
    }

    /// How many worker tasks run handlers: by default as many as the runtime has threads, at most [`MAX_WORKERS`].
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// How long deliveries under way may take when their partition is revoked: [`DEFAULT_REVOCATION_DEADLINE`].
    pub fn with_revocation_deadline(mut self, deadline: Duration) -> Self {
        self.options.revocation_deadline = deadline;
        self
    }

    /// Without an answer to heartbeats for so long, the service is out of its group:
    /// [`DEFAULT_SESSION_TIMEOUT`](tidings_core::DEFAULT_SESSION_TIMEOUT) if not said. In a KIP-848 group of Kafka the
    /// group's own counts, where that is shorter.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.options.session_timeout = Some(timeout);
        self
    }

    /// As a static member of its group: a restart within the session timeout moves no partition.
    pub fn with_instance_id(mut self, id: impl Into<Name>) -> Self {
        self.options.instance_id = Some(id.into());
        self
    }

    /// Tells `observer` what happens to each record, after those that were given before.
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.options.observer = Some(match self.options.observer.take() {
            Some(before) => Arc::new(Both(before, observer)),
            None => observer,
        });
        self
    }

    /// Draws the waits between attempts from this seed, so that a test can be repeated.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// Starts the service: checks its routes, its topics and its dead-letter sink, and joins the group.
    ///
    /// # Errors
    /// [`Invalid`](tidings_core::ErrorKind::Invalid) for handlers that contradict each other or settings out of range,
    /// [`NotFound`](tidings_core::ErrorKind::NotFound) for a topic or dead-letter topic that is missing, and the errors of
    /// the transport and the store.
    pub async fn start<T: Transport + Clone>(self, transport: &T) -> Result<ServiceHandle> {
        engine::start(self, Arc::new(transport.clone())).await
    }

    /// Runs the service until Ctrl-C or SIGTERM, or until it fails; then drains for [`DEFAULT_SHUTDOWN_DEADLINE`].
    ///
    /// # Errors
    /// Those of [`start`](Self::start) and [`ServiceHandle::shutdown`], and the error that ended it.
    pub async fn run<T: Transport + Clone>(self, transport: &T) -> Result<()> {
        let running = self.start(transport).await?;
        tokio::select! {
            stopped = running.stopped() => return stopped,
            signal = crate::signal::stop_requested() => signal?,
        }
        running.shutdown(DEFAULT_SHUTDOWN_DEADLINE).await
    }
}
