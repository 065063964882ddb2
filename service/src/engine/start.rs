//! Starts a service: all configuration errors are found here, not at the first record.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Consumer, ConsumerOptions, DeadLetterSink, DeliveryContext, Error, ErrorKind, MIN_LEASE_TTL, Name, Publisher,
    Result, Transport,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::board::Board;
use super::circuit_breaker::CircuitBreaker;
use super::claims::Claims;
use super::coordinator::{Coordinator, Inputs};
use super::counters::Counters;
use super::keys::KeyHasher;
use super::limiter::Limiter;
use super::running::ServiceHandle;
use super::settlement::plain::Plain;
use super::shared::{Backends, Identity, Policy, Shared};
use super::tiers::Tiers;
use super::topics::{all_missing, create_missing, create_retry_topics};
use super::watchdog::Watched;
use super::worker::Worker;
use crate::logs;
use crate::passing_on::PassingOn;
use crate::router::Router;
use crate::settings::{Options, TopicPolicy};
use crate::table::Routes;
use crate::telemetry::PublisherStats;
use crate::time::FOR_EVER;

/// The number of topics that the log names at the start.
const NAMES: usize = 50;

/// Starts the service `name` on `transport`.
pub(crate) async fn start(
    name: Name,
    router: Router,
    options: Options,
    transport: Arc<dyn Transport>,
) -> Result<ServiceHandle> {
    check(&name, &options)?;
    let routes = router.into_routes(&options.topics.prefix)?;
    if routes.topics().is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("start {name:?}: its router handles no topic")));
    }
    let context = |e: Error| e.in_context(format_args!("start {name:?}"));
    routes.check(options.claims.store.is_some()).map_err(context)?;
    let tiers = Tiers::new(&name, routes.topics(), &options.failures.retry).map_err(context)?.map(Arc::new);
    create_topics(&options, transport.as_ref(), tiers.as_deref(), routes.topics()).await.map_err(context)?;
    let sink = open_sink(&options, &transport, routes.topics()).await.map_err(context)?;
    warn_of_unshared(&name, &options, transport.as_ref());
    let claims = open_claims(&options).await.map_err(context)?;
    let publisher = transport.publisher().await.map_err(context)?;
    let workers = options.flow.workers.unwrap_or_else(default_workers).max(1);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let consumer = join(&options, &transport, &sink, tiers.as_deref(), routes.topics()).await.map_err(context)?;
    let published = PublisherStats::new(name.clone());
    let shared = Arc::new(Shared {
        identity: Identity {
            context: delivery_context(&name, &options, &publisher),
            service: name,
            group: options.membership.group.clone(),
            system: transport.system(),
        },
        policy: Policy {
            retry: options.failures.retry.clone(),
            tiers,
            handler_timeout: options.flow.handler_timeout,
            unknown: options.failures.unknown,
            worker_concurrency: options.flow.concurrency.div_ceil(workers).max(1),
            seed,
        },
        backends: Backends {
            store: claims,
            settlement: Arc::new(Plain::new(publisher.clone(), published.clone(), sink, consumer.clone())),
            publisher,
            published,
            observer: options.observer.clone(),
        },
        table: routes.table().clone(),
        keys: KeyHasher::new(options.flow.order, seed),
        circuit_breaker: CircuitBreaker::new(options.failures.breaker),
        counters: Counters::new(workers, routes.len()),
        lease_fenced: Notify::new(),
        heartbeats: (0..workers).map(|_| Default::default()).collect(),
        pulse: Arc::default(),
        board: Board::new(options.stall_after.min(FOR_EVER)),
        limiter: Limiter::default(),
    });
    log_started(&shared, &options, routes.topics());
    Ok(spawn(shared, consumer, transport, routes, &options))
}

/// Creates the missing topics, and the retry topics of those that are handled, if the policy says so.
async fn create_topics(
    options: &Options,
    transport: &dyn Transport,
    tiers: Option<&Tiers>,
    handled: &[Name],
) -> Result<()> {
    let TopicPolicy::Create(topics) = &options.topics.policy else { return Ok(()) };
    let (admin, prefix) = (transport.admin().await?, &options.topics.prefix);
    create_missing(admin.as_ref(), topics, prefix).await?;
    match tiers {
        Some(tiers) => create_retry_topics(admin.as_ref(), tiers, topics, prefix, handled).await,
        None => Ok(()),
    }
}

/// Joins the group, as a reader of the topics that are handled and of their retry topics.
async fn join(
    options: &Options,
    transport: &Arc<dyn Transport>,
    sink: &Arc<dyn DeadLetterSink>,
    tiers: Option<&Tiers>,
    handled: &[Name],
) -> Result<Arc<dyn Consumer>> {
    let read: Vec<Name> = handled.iter().chain(tiers.into_iter().flat_map(Tiers::names)).cloned().collect();
    match transport.consumer(consumer_options(options, &read)).await {
        Ok(consumer) => Ok(consumer),
        Err(error) => Err(all_missing(error, transport, sink, (&read, handled), &options.topics.policy).await),
    }
}

/// Returns the context of the service's deliveries, but for the handler.
fn delivery_context(name: &Name, options: &Options, publisher: &Arc<dyn Publisher>) -> DeliveryContext {
    let mut context = DeliveryContext::new(name.clone(), Name::default());
    context.group = options.membership.group.clone();
    context.topic_prefix = options.topics.prefix.clone();
    context.event_format = options.topics.event_format;
    context.event_versions = options.topics.event_versions.clone();
    context.publisher = Some(Arc::new(PassingOn(publisher.clone())));
    context.scope_per_topic = options.claims.scope_per_topic;
    context
}

fn check(name: &Name, options: &Options) -> Result<()> {
    let wrong = |what: &str| Err(Error::new(ErrorKind::Invalid, format!("start {name:?}: {what}")));
    let text_limits = [("name", name), ("group", &options.membership.group), ("scope", &options.claims.scope)];
    for (field, text) in text_limits {
        if text.is_empty() {
            return wrong(&format!("its {field} is empty"));
        }
    }
    let durations = [
        ("commit interval", options.flow.commit_interval),
        ("lease ttl", options.claims.lease_ttl),
        ("time until a stall", options.stall_after),
        ("handler timeout", options.flow.handler_timeout.unwrap_or(Duration::MAX)),
        ("session timeout", options.membership.session_timeout.unwrap_or(Duration::MAX)),
    ];
    for (field, duration) in durations {
        if duration.is_zero() {
            return wrong(&format!("its {field} is zero"));
        }
    }
    if options.claims.lease_ttl < MIN_LEASE_TTL {
        let ttl = options.claims.lease_ttl;
        return wrong(&format!("its lease ttl is {ttl:?}, it must be at least {MIN_LEASE_TTL:?}"));
    }
    if options.flow.workers.is_some_and(|workers| workers > Options::MAX_WORKERS) {
        return wrong(&format!("its number of workers is above {}", Options::MAX_WORKERS));
    }
    let counts = [
        ("concurrency", options.flow.concurrency),
        ("number of workers", options.flow.workers.unwrap_or(1)),
        ("maximum of bytes in flight", options.flow.max_bytes),
        ("maximum span", usize::try_from(options.flow.max_span).unwrap_or(usize::MAX)),
    ];
    for (field, count) in counts {
        if count == 0 {
            return wrong(&format!("its {field} is zero"));
        }
    }
    Ok(())
}

async fn open_sink(
    options: &Options,
    transport: &Arc<dyn Transport>,
    topics: &[Name],
) -> Result<Arc<dyn DeadLetterSink>> {
    let sink = match &options.failures.dead_letters {
        Some(sink) => sink.clone(),
        None => transport.dead_letters().await?,
    };
    match sink.check(topics).await {
        Ok(()) => Ok(sink),
        Err(error) => Err(all_missing(error, transport, &sink, (topics, topics), &options.topics.policy).await),
    }
}

async fn open_claims(options: &Options) -> Result<Option<Arc<Claims>>> {
    let Some(store) = &options.claims.store else { return Ok(None) };
    let claims = Claims::new(store.clone(), options.claims.scope.clone(), options.claims.lease_ttl);
    claims.renew(tokio::time::Instant::now()).await?;
    Ok(Some(Arc::new(claims)))
}

/// Warns of stores that belong to one process where several can join the group.
fn warn_of_unshared(service: &Name, options: &Options, transport: &dyn Transport) {
    if !transport.guarantees().is_shared() {
        return;
    }
    if options.claims.store.as_ref().is_some_and(|store| !store.guarantees().is_shared()) {
        logs::StoreNotShared { service: &service.as_str() }.log();
    }
    if options.failures.dead_letters.as_ref().is_some_and(|sink| !sink.guarantees().is_shared()) {
        logs::LettersNotShared { service: &service.as_str() }.log();
    }
}

/// Logs that the service has started, with what it consists of.
fn log_started(shared: &Shared, options: &Options, topics: &[Name]) {
    let store = options.claims.store.as_ref().map(|store| type_name(store));
    let sink = options.failures.dead_letters.as_ref().map(|sink| type_name(sink));
    let more = topics.len().saturating_sub(NAMES);
    let names: Vec<_> = topics.iter().take(NAMES).map(Name::as_str).collect();
    let names = names.join(", ");
    let line = logs::Started {
        service: &shared.identity.service.as_str(),
        version: &env!("CARGO_PKG_VERSION"),
        group: &shared.identity.group.as_str(),
        transport: &shared.identity.system,
        topics: &if more > 0 { format!("{names} and {more} more") } else { names },
        handlers: &shared.table.len(),
        store: &store.as_deref().unwrap_or("none"),
        dead_letters: &sink.as_deref().unwrap_or("the transport's"),
    };
    line.log();
    if let Some(tiers) = shared.policy.tiers.as_ref().filter(|tiers| !tiers.delays().is_empty()) {
        let delays: Vec<_> = tiers.delays().iter().map(|delay| format!("{delay:?}")).collect();
        logs::RetryTopics { service: &shared.identity.service.as_str(), delays: &delays.join(", ") }.log();
    }
}

/// Returns the name of a value's type, by its `Debug`.
fn type_name(value: &dyn std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn consumer_options(options: &Options, topics: &[Name]) -> ConsumerOptions {
    let mut consumer = ConsumerOptions::new(options.membership.group.clone(), topics)
        .with_start(options.topics.start)
        .with_revocation_deadline(options.membership.revocation_deadline)
        // Prefetched bytes add to the bytes in flight, and both together must stay within the limit.
        .with_max_buffered_bytes((options.flow.max_bytes / 4).max(1));
    if let Some(timeout) = options.membership.session_timeout {
        consumer = consumer.with_session_timeout(timeout);
    }
    if let Some(id) = &options.membership.instance_id {
        consumer = consumer.with_instance_id(id.clone());
    }
    consumer
}

/// As many as the runtime has threads.
fn default_workers() -> usize {
    tokio::runtime::Handle::try_current().map_or(1, |handle| handle.metrics().num_workers())
}

fn spawn(
    shared: Arc<Shared>,
    consumer: Arc<dyn Consumer>,
    transport: Arc<dyn Transport>,
    routes: Routes,
    options: &Options,
) -> ServiceHandle {
    let workers = shared.heartbeats.len();
    let (to_coordinator, events) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let mut senders = Vec::with_capacity(workers);
    for number in 0..workers {
        let (sender, receiver) = mpsc::unbounded_channel();
        let worker = Worker::new(number, shared.clone(), routes.clone(), receiver, to_coordinator.clone());
        tasks.spawn(worker.run());
        senders.push(sender);
    }
    let (to_commands, commands) = mpsc::unbounded_channel();
    let inputs = Inputs { events, commands, tasks };
    let coordinator = Coordinator::new(shared.clone(), consumer, transport, options, senders, inputs);
    let task = tokio::spawn(Watched::new(coordinator.run(), shared.pulse.clone()));
    ServiceHandle::new(shared, to_commands, task)
}
