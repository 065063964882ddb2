//! The settings of a service.
//!
//! `Service::with_x` and environment variables write into one [`Options`]; `start` checks it once and passes its parts
//! to the consumer, the coordinator and the workers. So a value out of range is an error of `start`, whichever way it
//! was set.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::codec::{EventFormat, EventVersions};
use tidings_core::{DeadLetterSink, IdempotencyStore, Name, Start, Topic};

use crate::breaker::Breaker;
use crate::directory::DirectoryOptions;
use crate::observer::Observer;
use crate::retry::Retry;

/// The ordering of deliveries.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use tidings_core::{Delivery, PublisherExt, Record, Transport};
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{DeliveryOrder, Router, Service, State};
///
/// type Log = Arc<Mutex<Vec<u64>>>;
///
/// async fn slower_first(delivery: Delivery, State(log): State<Log>) {
///     tokio::time::sleep(std::time::Duration::from_secs(9 - delivery.offset())).await;
///     log.lock().unwrap().push(delivery.offset());
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// for (order, expected) in [(DeliveryOrder::Partition, [0, 1, 2]), (DeliveryOrder::None, [2, 1, 0])] {
///     let (transport, log) = (MemoryTransport::new(), Log::default());
///     let router = Router::new().on_topic("clicks", slower_first).with_state(log.clone());
///     let service = Service::new("meter", router).with_delivery_order(order).start(&transport).await?;
///     let publisher = transport.publisher().await?;
///     for page in ["home", "cart", "checkout"] {
///         publisher.publish_one(Record::new("clicks", page)).await?;
///     }
///     service.caught_up().await?;
///     assert_eq!(*log.lock().unwrap(), expected);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeliveryOrder {
    /// Handles records of one key in order, and different keys concurrently, also within one partition. A record
    /// without a key has no order.
    #[default]
    Key,
    /// Handles records of one partition in order.
    Partition,
    /// Handles all records concurrently, in no order.
    None,
}

/// The policy for events of types without a handler.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings_core::{PublisherExt, Record, Transport};
/// use tidings_macros::Event;
/// use tidings_memory::MemoryTransport;
/// use tidings_service::{Router, Service, UnknownTypes};
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
/// let transport = MemoryTransport::new();
/// let service = Service::new("user-service", Router::new().on(async |_: UserRegistered| {}))
///     .with_unknown_types(UnknownTypes::DeadLetter)
///     .start(&transport)
///     .await?;
///
/// let other = Record::new("user-events", "{}").with_header("eventType", "user.deleted");
/// transport.publisher().await?.publish_one(other).await?;
/// service.caught_up().await?;
/// assert_eq!(service.status().await.totals.dead_lettered, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownTypes {
    /// Skips and counts the event.
    #[default]
    Skip,
    /// Writes the event to the dead-letter topic. (The alternative is a handler added by
    /// [`Router::fallback`](crate::Router::fallback).)
    DeadLetter,
}

/// The policy for topics that are missing when a service starts.
///
/// ```
/// use tidings_core::{Delivery, ErrorKind, Topic, Transport};
/// use tidings_memory::{MemoryConfig, MemoryTransport};
/// use tidings_service::{Router, Service, TopicPolicy};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings_core::Result<()> {
/// let transport = MemoryTransport::open(MemoryConfig::new().with_auto_create(false))?;
/// let service = || Service::new("meter", Router::new().on_topic("clicks", async |_: Delivery| {}));
///
/// let error = service().start(&transport).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
///
/// let topics = TopicPolicy::Create(vec![Topic::new("clicks").with_partitions(3)]);
/// let service = service().with_topics(topics).start(&transport).await?;
/// assert!(transport.admin().await?.list_topics().await?.contains(&"clicks-dlq".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum TopicPolicy {
    /// Expects that the topics and their dead-letter topics exist, made by others: `start` fails if one is missing, and
    /// lists all that are. A broker that creates topics on first use, such as the memory transport by default, has no
    /// missing ones.
    #[default]
    Expect,
    /// Creates the missing ones of these topics, each with the service's topic prefix and with its dead-letter topic,
    /// as [`ensure_topics`](tidings_core::ensure_topics) does. Logs a warning if an existing topic differs.
    Create(Vec<Topic>),
}

impl Options {
    /// See [`Service::MAX_WORKERS`](crate::Service::MAX_WORKERS).
    pub(crate) const MAX_WORKERS: usize = 1_024;
}

/// The settings of a service.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) membership: Membership,
    pub(crate) claims: ClaimOptions,
    pub(crate) failures: FailureOptions,
    pub(crate) topics: TopicOptions,
    pub(crate) flow: FlowOptions,
    /// The time in which deliveries may finish after a signal, for `run` only.
    pub(crate) shutdown_timeout: Duration,
    /// From this time on without progress, a partition is stalled.
    pub(crate) stall_after: Duration,
    /// How the instance presents itself in a directory; `None` if it does not.
    pub(crate) directory: Option<DirectoryOptions>,
    /// All observers, combined into one.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// The seed of random waits and of the hashes of keys; `None` draws one.
    pub(crate) seed: Option<u64>,
}

/// The membership of the consumer group.
#[derive(Debug)]
pub(crate) struct Membership {
    /// The consumer group. Default: `<name>-group`.
    pub(crate) group: Name,
    /// The time in which deliveries of a revoked partition may finish.
    pub(crate) revocation_deadline: Duration,
    /// The session timeout; `None` stands for the consumer's default.
    pub(crate) session_timeout: Option<Duration>,
    /// The name of a static member; `None` is a dynamic member.
    pub(crate) instance_id: Option<Name>,
}

/// The store of handled events, and the claims in it.
#[derive(Debug)]
pub(crate) struct ClaimOptions {
    /// The store of handled events. Without one, each delivery is handled.
    pub(crate) store: Option<Arc<dyn IdempotencyStore>>,
    /// The scope of claims in the store. Default: the service's name.
    pub(crate) scope: Name,
    /// Whether an event is handled once per topic, instead of once.
    pub(crate) scope_per_topic: bool,
    /// The time that claims outlive a crash. At least [`MIN_LEASE_TTL`](tidings_core::MIN_LEASE_TTL).
    pub(crate) lease_ttl: Duration,
}

/// The treatment of records that fail, or that no handler takes.
#[derive(Debug)]
pub(crate) struct FailureOptions {
    /// The sink of dead letters; `None` stands for the transport's.
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterSink>>,
    pub(crate) retry: Retry,
    pub(crate) unknown: UnknownTypes,
    pub(crate) breaker: Option<Breaker>,
}

/// The topics that are read.
#[derive(Debug)]
pub(crate) struct TopicOptions {
    pub(crate) start: Start,
    pub(crate) policy: TopicPolicy,
    /// The prefix of all topics, handled and published. Applied when the service starts, once.
    pub(crate) prefix: Name,
    pub(crate) event_format: EventFormat,
    pub(crate) event_versions: EventVersions,
}

/// The order, the limits and the pace of deliveries.
#[derive(Debug)]
pub(crate) struct FlowOptions {
    /// The time limit of an attempt; `None` is no limit, and zero is refused.
    pub(crate) handler_timeout: Option<Duration>,
    /// The order of deliveries, by which keys are hashed to workers.
    pub(crate) order: DeliveryOrder,
    /// The time between two commits of a partition. Not zero.
    pub(crate) commit_interval: Duration,
    /// The limit of bytes in flight. A quarter of it bounds the bytes that the consumer fetches ahead.
    pub(crate) max_bytes: usize,
    /// The limit of offsets between the lowest unsettled record and the last one dispatched, per partition. Not zero.
    pub(crate) max_span: u64,
    /// The limit of deliveries in flight, divided among the workers (rounded up).
    pub(crate) concurrency: usize,
    /// The number of worker tasks; `None` stands for the runtime's number of threads.
    pub(crate) workers: Option<usize>,
}
