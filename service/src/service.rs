//! The service: a router, a consumer group, and delivery policies.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::codec::{EventFormat, EventVersions};
use tidings_core::{BoxError, ConsumerOptions, DeadLetterSink, Delivery, IdempotencyStore, Name, Outcome, Start};
use tower_layer::Layer;

use crate::breaker::Breaker;
use crate::observer::{Both, Observer};
use crate::retry::Retry;
use crate::route::Route;
use crate::router::{IntoRouter, Router};
use crate::settings::{
    ClaimOptions, DeliveryOrder, FailureOptions, FlowOptions, Membership, Options, TopicOptions, TopicPolicy,
    UnknownTypes,
};

impl Service {
    /// The upper bound of [`Service::with_workers`].
    pub const MAX_WORKERS: usize = Options::MAX_WORKERS;

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

    /// The default of [`Service::with_stall_after`].
    pub const DEFAULT_STALL_AFTER: Duration = Duration::from_secs(60);

    /// The default of [`Service::with_shutdown_timeout`]: below the 30 s after which Kubernetes kills a pod.
    pub const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);
}

/// A service: the router that handles its events, its consumer group, and its policies.
///
/// The group is `<name>-group`; the topics are those of the router's handlers. `start` checks the settings.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings_macros::Event;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{EventPublisher, Router, Service};
///
/// #[derive(Serialize, Deserialize, Event)]
/// # #[event(crate = "tidings_core")]
/// #[event(topic = "user-events", type = "user.registered", key = "user_id")]
/// struct UserRegistered {
///     user_id: String,
/// }
///
/// async fn welcome(event: UserRegistered) {
///     println!("welcome, {}", event.user_id);
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::new();
/// let service = Service::new("user-service", Router::new().on(welcome)).start(&transport).await?;
///
/// let events = EventPublisher::new(&transport, "api-gateway");
/// events.publish(&UserRegistered { user_id: "u1".into() }).await?;
///
/// service.caught_up().await?;
/// assert_eq!(service.group(), "user-service-group");
/// assert_eq!(service.status().await.totals.handled, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a service does nothing until it is started"]
pub struct Service {
    pub(crate) name: Name,
    pub(crate) router: Router,
    pub(crate) options: Options,
}

impl Service {
    /// Creates the service `name` from `router`.
    ///
    /// A `Router<S>` that still lacks its state is not accepted: call [`Router::with_state`] first.
    pub fn new(name: impl Into<Name>, router: impl IntoRouter) -> Self {
        let (name, router) = (name.into(), router.into_router());
        let options = Options {
            membership: Membership {
                group: format!("{name}-group").into(),
                instance_id: None,
                session_timeout: None,
                revocation_deadline: ConsumerOptions::DEFAULT_REVOCATION_DEADLINE,
            },
            claims: ClaimOptions {
                store: None,
                scope: name.clone(),
                scope_per_topic: false,
                lease_ttl: Service::DEFAULT_LEASE_TTL,
            },
            failures: FailureOptions {
                retry: Retry::default(),
                unknown: UnknownTypes::default(),
                breaker: Some(Breaker::default()),
                dead_letters: None,
            },
            topics: TopicOptions {
                start: Start::default(),
                policy: TopicPolicy::default(),
                prefix: Name::default(),
                event_format: EventFormat::default(),
                event_versions: EventVersions::default(),
            },
            flow: FlowOptions {
                order: DeliveryOrder::default(),
                handler_timeout: Some(Service::DEFAULT_HANDLER_TIMEOUT),
                commit_interval: Service::DEFAULT_COMMIT_INTERVAL,
                max_bytes: Service::DEFAULT_MAX_BYTES_IN_FLIGHT,
                max_span: Service::DEFAULT_MAX_SPAN,
                concurrency: Service::DEFAULT_CONCURRENCY,
                workers: None,
            },
            shutdown_timeout: Service::DEFAULT_SHUTDOWN_TIMEOUT,
            stall_after: Service::DEFAULT_STALL_AFTER,
            directory: None,
            observer: None,
            seed: None,
        };
        Self { name, router, options }
    }

    /// Returns the service's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the consumer group.
    pub fn group(&self) -> &Name {
        &self.options.membership.group
    }

    /// Returns the policy for missing topics.
    pub fn topic_policy(&self) -> &TopicPolicy {
        &self.options.topics.policy
    }

    /// Returns the service's own dead-letter sink; `None` if it uses the transport's.
    pub fn dead_letters(&self) -> Option<&Arc<dyn DeadLetterSink>> {
        self.options.failures.dead_letters.as_ref()
    }

    /// Wraps all handlers, as [`Router::layer`] does.
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

    /// Joins this group instead of `<name>-group`.
    pub fn with_group(mut self, group: impl Into<Name>) -> Self {
        self.options.membership.group = group.into();
        self
    }

    /// Handles each event once, deduplicated by `store`: a store, or an `Arc` of one.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tidings_core::{Delivery, IdempotencyStore};
    /// use tidings_memory::MemoryStore;
    /// use tidings_service::{Router, Service};
    ///
    /// let router = || Router::new().on_topic("orders", async |_: Delivery| {});
    /// let service = Service::new("billing", router()).with_idempotency(MemoryStore::new());
    ///
    /// let chosen_at_run_time: Arc<dyn IdempotencyStore> = Arc::new(MemoryStore::new());
    /// let service = Service::new("shipping", router()).with_idempotency(chosen_at_run_time);
    /// # let _ = service;
    /// ```
    pub fn with_idempotency(mut self, store: impl IdempotencyStore) -> Self {
        self.options.claims.store = Some(Arc::new(store));
        self
    }

    /// Remembers events under this scope instead of the service's name: in a new scope all events are handled again.
    ///
    /// `start` refuses an empty scope. Without an idempotency store it has no effect.
    pub fn with_scope(mut self, scope: impl Into<Name>) -> Self {
        self.options.claims.scope = scope.into();
        self
    }

    /// Deduplicates by event id and topic, so that each topic's handler gets an event once.
    ///
    /// For topics that repeat the events of others: by default an event that is on two topics is handled once, on the
    /// topic that it is read from first. With this setting, the store identifies an event by a UUID v5 of its id and
    /// topic. If it is turned on for a scope that has completed events, those of them that are read again are handled
    /// once more.
    pub fn with_scope_per_topic(mut self) -> Self {
        self.options.claims.scope_per_topic = true;
        self
    }

    /// Sets how long claims outlive a crashed process; the lease is renewed at a third of it.
    ///
    /// Defaults to [`Service::DEFAULT_LEASE_TTL`]; at least [`MIN_LEASE_TTL`](tidings_core::MIN_LEASE_TTL). Keep it shorter
    /// than the consumer's [session timeout](Self::with_session_timeout): a process that was suspended for longer than
    /// the session timeout then knows by its own clock that its lease has expired, and starts nothing that it fetched
    /// before.
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.options.claims.lease_ttl = ttl;
        self
    }

    /// Writes dead letters to `sink`, which may be an `Arc` of one, instead of the transport's.
    ///
    /// A [`DeadLetterStore`](tidings_core::DeadLetterStore) can also list them; in tests, use `MemoryDeadLetters`.
    pub fn with_dead_letters(mut self, sink: impl DeadLetterSink) -> Self {
        self.options.failures.dead_letters = Some(Arc::new(sink));
        self
    }

    /// Sets when failed deliveries are retried, and when they are dead-lettered. Defaults to [`Retry::default`].
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.options.failures.retry = retry;
        self
    }

    /// Sets the timeout of a handler per delivery, after which it is dropped and the attempt has failed.
    ///
    /// Defaults to [`Service::DEFAULT_HANDLER_TIMEOUT`]. `None` disables the timeout: a handler that hangs then blocks its key
    /// forever.
    pub fn with_handler_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.flow.handler_timeout = timeout.into();
        self
    }

    /// Sets the ordering of deliveries. Defaults to order per key.
    pub fn with_delivery_order(mut self, order: DeliveryOrder) -> Self {
        self.options.flow.order = order;
        self
    }

    /// Sets the policy for types without a handler. By default they are skipped.
    pub fn with_unknown_types(mut self, policy: UnknownTypes) -> Self {
        self.options.failures.unknown = policy;
        self
    }

    /// Sets the circuit breaker; `None` disables it. On by default.
    ///
    /// While most deliveries fail, the service tries one delivery at a time until one succeeds.
    pub fn with_breaker(mut self, breaker: impl Into<Option<Breaker>>) -> Self {
        self.options.failures.breaker = breaker.into();
        self
    }

    /// Sets where a new group starts. Defaults to [`Start::Earliest`]: nothing published before is missed.
    pub fn with_start(mut self, start: Start) -> Self {
        self.options.topics.start = start;
        self
    }

    /// Sets the policy for missing topics. Defaults to [`TopicPolicy::Expect`].
    pub fn with_topics(mut self, policy: TopicPolicy) -> Self {
        self.options.topics.policy = policy;
        self
    }

    /// Sets how often offsets are committed, at most once a millisecond. Defaults to [`Service::DEFAULT_COMMIT_INTERVAL`].
    pub fn with_commit_interval(mut self, interval: Duration) -> Self {
        self.options.flow.commit_interval = interval;
        self
    }

    /// Limits the bytes that are fetched and not settled; one record may exceed it. Defaults to
    /// [`Service::DEFAULT_MAX_BYTES_IN_FLIGHT`].
    pub fn with_max_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.options.flow.max_bytes = bytes;
        self
    }

    /// Limits how far a partition is read beyond its lowest unsettled record. Defaults to [`Service::DEFAULT_MAX_SPAN`].
    pub fn with_max_span(mut self, offsets: u64) -> Self {
        self.options.flow.max_span = offsets;
        self
    }

    /// Limits the number of deliveries in flight. Defaults to [`Service::DEFAULT_CONCURRENCY`].
    pub fn with_concurrency(mut self, deliveries: usize) -> Self {
        self.options.flow.concurrency = deliveries;
        self
    }

    /// Sets the number of worker tasks that run handlers. Defaults to the runtime's number of threads, at most
    /// [`Service::MAX_WORKERS`].
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.options.flow.workers = Some(workers);
        self
    }

    /// Sets how long in-flight deliveries may take when their partition is revoked. Defaults to
    /// [`ConsumerOptions::DEFAULT_REVOCATION_DEADLINE`].
    pub fn with_revocation_deadline(mut self, deadline: Duration) -> Self {
        self.options.membership.revocation_deadline = deadline;
        self
    }

    /// Sets the session timeout: without an answer to its heartbeats for this long, the service leaves its group.
    ///
    /// Defaults to [`ConsumerOptions::DEFAULT_SESSION_TIMEOUT`](tidings_core::ConsumerOptions::DEFAULT_SESSION_TIMEOUT). In a KIP-848 group of Kafka the
    /// group's own timeout applies if it is shorter.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.options.membership.session_timeout = Some(timeout);
        self
    }

    /// Sets how long [`run`](Self::run) lets deliveries in flight finish after a shutdown signal. Defaults to
    /// [`Service::DEFAULT_SHUTDOWN_TIMEOUT`].
    ///
    /// Keep it some seconds below the time after which the process is killed (Kubernetes:
    /// `terminationGracePeriodSeconds`): cancelling, committing and leaving the group follow it.
    pub fn with_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.options.shutdown_timeout = timeout;
        self
    }

    /// Joins the group as a static member: a restart within the session timeout moves no partition.
    pub fn with_instance_id(mut self, id: impl Into<Name>) -> Self {
        self.options.membership.instance_id = Some(id.into());
        self
    }

    /// Sets after which time without progress a partition with unsettled records is reported as stalled, in the log and
    /// in [snapshots](crate::telemetry::PartitionState::Stalled). Defaults to [`Service::DEFAULT_STALL_AFTER`].
    ///
    /// Make it longer than the longest time that a record may take, with its retries.
    pub fn with_stall_after(mut self, time: Duration) -> Self {
        self.options.stall_after = time;
        self
    }

    /// Adds an observer, or an `Arc` of one, called for each record after the observers added before.
    pub fn with_observer(mut self, observer: impl Observer) -> Self {
        self.options.observer = Some(match self.options.observer.take() {
            Some(before) => Arc::new(Both(before, observer)),
            None => Arc::new(observer),
        });
        self
    }

    /// Seeds the random waits between attempts, so that a test can be repeated.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }
}
