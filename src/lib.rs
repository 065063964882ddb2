#![doc = include_str!("../README.md")]

mod connect;

pub use tidings_core::{
    Batch, BoxError, Delivery, Envelope, Error, ErrorKind, Event, PublishOptions, Record, Result, Topic, Transport,
    failed, reject, unavailable,
};
#[cfg(feature = "macros")]
pub use tidings_macros::Event;
pub use tidings_service::{EventPublisher, Retry, Router, Service, ServiceHandle, State, TopicPolicy};

pub use self::connect::connect;

/// Topics, groups and the health of a broker, for operators and start-up code.
///
/// ```
/// use tidings::Topic;
/// use tidings::admin::{ensure_topics, inspect};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let admin = tidings::connect("memory://").await?.admin().await?;
/// let report = ensure_topics(admin.as_ref(), &[Topic::new("user-events").with_partitions(3)]).await?;
/// assert!(report.created.contains(&"user-events-dlq".into()), "with its dead-letter topic");
///
/// let found = inspect(admin.as_ref(), &["user-events".into()], &[]).await?;
/// assert!(found.missing.is_empty() && found.health.is_healthy());
/// # Ok(())
/// # }
/// ```
pub mod admin {
    pub use tidings_core::{
        Admin, Cleanup, CreatePartitionsOptions, Difference, EnsureReport, GroupDescription, GroupHealth, GroupState,
        Health, Inspection, MemberDescription, PartitionDescription, PartitionLag, PartitionReset, ResetOffsetsOptions,
        ResetTo, TopicDescription, ensure_topics, inspect,
    };
}

/// How events become bytes and back: the codecs, keys, versions, and the trait of a codec of your own.
///
/// ```
/// use tidings::codec::{decode, encode};
/// use tidings::record::{StoredRecord, Timestamp};
/// use tidings::Envelope;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, tidings::Event)]
/// # #[event(topic = "user-events", type = "user.registered", key = "user_id")]
/// # struct UserRegistered { user_id: String }
///
/// # fn main() -> tidings::Result<()> {
/// let sent = Envelope::new(UserRegistered { user_id: "u1".into() }).with_source("api-gateway");
/// let record = encode(sent.as_ref(), "staging.")?;
/// assert_eq!((record.topic.as_str(), record.key.as_deref()), ("staging.user-events", Some(&b"u1"[..])));
///
/// let read: Envelope<UserRegistered> = decode(&StoredRecord::from_record(record, 0, Timestamp::now()))?;
/// assert_eq!((read.id, read.source.as_str()), (sent.id, "api-gateway"));
/// # Ok(())
/// # }
/// ```
pub mod codec {
    #[cfg(feature = "json")]
    pub use tidings_core::codec::Json;
    #[cfg(feature = "postcard")]
    pub use tidings_core::codec::Postcard;
    pub use tidings_core::codec::{
        Codec, Head, Routing, decode, encode, peek, peek_headers, route_by_headers, routing,
    };
    pub use tidings_core::{EnvelopeRef, Key, Version};
}

/// Reading a group's partitions record by record, without a service.
///
/// A reader of this kind commits by itself, and has no retries, no dead letters and no order beyond its partition's.
///
/// ```
/// use tidings::consumer::{Commit, ConsumerOptions, Step};
/// use tidings::publisher::PublisherExt;
/// use tidings::Record;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let transport = tidings::connect("memory://").await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
///
/// let consumer = transport.consumer(ConsumerOptions::new("audit", ["clicks"])).await?;
/// let fetched = loop {
///     if let Step::Records(fetched) = consumer.next().await? {
///         break fetched;
///     }
/// };
/// assert_eq!(fetched.batch.records()[0].value.as_deref(), Some(&b"home"[..]));
///
/// let commit = Commit::new(fetched.batch.origin().as_ref().clone(), fetched.epoch, fetched.next_offset);
/// assert!(consumer.commit(vec![commit]).await[0].is_ok());
/// consumer.close().await?;
/// # Ok(())
/// # }
/// ```
pub mod consumer {
    pub use tidings_core::{
        Assignment, Commit, Consumer, ConsumerOptions, Fetched, Progress, Revocation, SeekTo, Start, Step, Unreadable,
    };
}

/// Dead letters: list, redrive, discard and park them.
///
/// ```
/// use tidings::dead_letter::{DeadLetters, LetterQuery, RedriveOptions};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> tidings::Result<()> {
/// let transport = tidings::connect("memory://").await?;
/// let letters = DeadLetters::open(&transport, ["user-events"]).await?.with_operator("ann");
/// let query = LetterQuery::default().with_service("user-service").with_error("refused");
/// assert!(letters.list(&query).await?.is_empty());
/// assert_eq!(letters.redrive(&query, &RedriveOptions::default()).await?.redriven, 0);
/// letters.close().await
/// # }
/// ```
pub mod dead_letter {
    pub use tidings_core::{
        DEAD_LETTER_ROOM, DeadLetter, DeadLetterSink, DeadLetterStore, DeadLetterTopics, Leased, LetterEntry, LetterId,
        LetterKey, LetterLease, LetterQuery, LetterState, REDRIVE_LEASE, Redrive, RedriveOutcome, Redriven, Resolution,
        ResolutionKind, dead_letter_headers, dead_letter_state_topic, dead_letter_topic, is_dead_letter_header,
        is_dead_letter_topic,
    };
    pub use tidings_service::{DeadLetters, REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport, TopicDeadLetters};
}

/// Searching and printing chains of errors.
///
/// ```
/// use tidings::{Error, ErrorKind, error};
///
/// let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
/// let error = Error::caused_by(ErrorKind::Denied, "open the store", denied);
/// assert_eq!(error::report(&error), "open the store: permission denied");
/// assert_eq!(error::find_error(&error).map(Error::kind), Some(ErrorKind::Denied));
/// ```
pub mod error {
    pub use tidings_core::{find_error, report};
}

/// Handlers, their options, extractors, middleware, and what handlers return.
///
/// ```
/// use tidings::handler::{HandlerExt, Next, Outcome, from_fn};
/// use tidings::publisher::PublisherExt;
/// use tidings::{BoxError, Delivery, Record, Router, Service};
///
/// /// Prints the attempt and the partition of each delivery.
/// async fn log(delivery: Delivery, next: Next) -> Result<Outcome, BoxError> {
///     println!("attempt {} at {}", delivery.attempt(), delivery.origin());
///     next.run(delivery).await
/// }
///
/// async fn count(delivery: Delivery) {
///     assert_eq!(delivery.context().handler, "count");
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let transport = tidings::connect("memory://").await?;
/// let router = Router::new().on_topic("clicks", count.named("count")).layer(from_fn(log));
/// let service = Service::new("meter", router).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "home")).await?;
/// service.caught_up().await?;
/// assert_eq!(service.status().await.totals.handled, 1);
/// # Ok(())
/// # }
/// ```
pub mod handler {
    #[cfg(feature = "macros")]
    pub use tidings_macros::FromRef;

    pub use tidings_core::{
        Caused, Causes, DecodeErrors, DeliveryContext, DeliveryPublisher, EventInput, Extensions, Failure,
        HandlerError, Input, IntoEvents, IntoOutcome, Outcome, RawBatch, RawInput, event_id_of, failed, held, reject,
        rolled_back, stopped_at, unavailable,
    };
    pub use tidings_service::{
        Arguments, BatchOptions, BoxFuture, Configured, FromDelivery, FromFn, FromFnService, FromRef, Handler,
        HandlerExt, HandlerOptions, IntoRouter, Next, RateLimit, Requirement, Route, from_fn,
    };
}

/// The store of handled events, for those who write one.
///
/// A service only needs [`Service::with_idempotency`]; these are the calls that it makes.
///
/// ```
/// use std::time::Duration;
///
/// use tidings::idempotency::{Claim, EventRef, IdempotencyStore};
/// use tidings::memory::MemoryStore;
/// use uuid::Uuid;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let (store, event) = (MemoryStore::new(), [EventRef::new(Uuid::now_v7(), "order.placed")]);
/// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
/// assert!(matches!(store.claim(&lease, &event).await?[0], Claim::Granted(_)));
///
/// // Another instance waits while the event is handled, and skips it afterwards.
/// let other = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
/// assert!(matches!(store.claim(&other, &event).await?[0], Claim::Held { .. }));
/// assert!(store.complete(&lease, &event).await?[0].is_ok());
/// assert_eq!(store.claim(&other, &event).await?, [Claim::Done]);
/// # Ok(())
/// # }
/// ```
pub mod idempotency {
    pub use tidings_core::{Claim, EventRef, History, IdempotencyStore, Lease, MIN_LEASE_TTL, ReleasedClaim};
}

/// Publishing records as they are, without an event type.
///
/// ```
/// use tidings::Record;
/// use tidings::publisher::{Publisher, PublisherExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let publisher = tidings::connect("memory://?partitions=4").await?.publisher().await?;
/// let first = publisher.publish_one(Record::new("clicks", "home").with_key("u1")).await?;
///
/// let more = ["cart", "checkout"].map(|page| Record::new("clicks", page).with_key("u1"));
/// for (answer, offset) in publisher.publish(more.into()).await.into_iter().zip(1..) {
///     let position = answer?;
///     assert_eq!((position.partition, position.offset), (first.partition, offset), "one key, one partition");
/// }
/// # Ok(())
/// # }
/// ```
pub mod publisher {
    pub use tidings_core::{Publisher, PublisherExt};
}

/// Records as a broker holds them, and the names and places of records.
///
/// ```
/// use tidings::Record;
/// use tidings::record::{Headers, StoredRecord, Timestamp, TopicPartition, headers, partition_for};
///
/// let record = Record::new("clicks", "home").with_key("u1").with_headers(Headers::new().with(headers::SOURCE, "web"));
/// let place = TopicPartition::new(record.topic.clone(), partition_for(b"u1", 12));
/// assert!(place.partition < 12);
///
/// let stored = StoredRecord::from_record(record, 41, Timestamp::from_millis(1_764_150_000_000));
/// assert_eq!((stored.offset, stored.headers.get_str("source")), (41, Some("web")));
/// ```
pub mod record {
    pub use tidings_core::{
        Header, Headers, Name, Position, RecordBatch, StoredRecord, Timestamp, TopicPartition, TraceParent, headers,
        partition_for,
    };
}

/// Policies of a service, its status, and observers of its records.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use tidings::publisher::PublisherExt;
/// use tidings::service::{Observer, RecordEvent, RecordOutcome};
/// use tidings::{Delivery, Record, Router, Service, reject};
///
/// /// Keeps the outcome of each record.
/// #[derive(Debug, Default)]
/// struct Ledger(Mutex<Vec<RecordOutcome>>);
///
/// impl Observer for Ledger {
///     fn observe(&self, event: &RecordEvent<'_>) {
///         self.0.lock().unwrap().push(event.outcome);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let (transport, ledger) = (tidings::connect("memory://").await?, Arc::new(Ledger::default()));
/// let router = Router::new().on_topic("clicks", async |_: Delivery| Err::<(), _>(reject("no such page")));
/// let service = Service::new("meter", router).with_observer(Arc::clone(&ledger)).start(&transport).await?;
/// transport.publisher().await?.publish_one(Record::new("clicks", "nowhere")).await?;
/// service.caught_up().await?;
/// assert_eq!(*ledger.0.lock().unwrap(), [RecordOutcome::DeadLettered]);
/// # Ok(())
/// # }
/// ```
pub mod service {
    pub use tidings_service::{
        Breaker, DeliveryOrder, HandlerTotals, Hold, Observer, PartitionStatus, PauseReason, RecordEvent,
        RecordOutcome, ReturnedPartition, ServiceState, ShutdownReport, Skipped, Status, Totals, UnknownTypes,
    };
}

/// For those who write a transport: see the guide "Writing a transport".
///
/// ```
/// use tidings::transport::Clause;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let guarantees = tidings::connect("memory://").await?.guarantees();
/// assert!(guarantees.keeps(Clause::P1));
/// assert!(guarantees.why_not(Clause::Restart).is_some(), "it is gone with the process");
/// # Ok(())
/// # }
/// ```
pub mod transport {
    pub use tidings_core::{Clause, Guarantees, Secret, async_trait};
}

/// The transport on Apache Kafka.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use tidings_kafka::{
        Compression, GroupProtocol, Isolation, KafkaAdmin, KafkaConfig, KafkaConsumer, KafkaPublisher, KafkaTransport,
        Pem, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource,
    };
}

/// The in-memory transport and its stores.
///
/// ```
/// use tidings::ErrorKind;
/// use tidings::memory::{MemoryConfig, MemoryTransport};
/// use tidings::publisher::PublisherExt;
/// use tidings::{Record, Transport};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let transport = MemoryTransport::open(MemoryConfig::new().with_partitions(3))?;
/// let publisher = transport.publisher().await?;
///
/// // The next record fails, and is not stored.
/// transport.faults().fail_publishes(1, ErrorKind::Unavailable);
/// let answer = publisher.publish_one(Record::new("clicks", "home")).await;
/// assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
/// publisher.publish_one(Record::new("clicks", "home")).await?;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "memory")]
pub mod memory {
    pub use tidings_memory::{
        Faults, MemoryConfig, MemoryDeadLetters, MemoryStore, MemoryTransport, PublishFault, StoreFaults,
    };
}

/// The store on Postgres.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use tidings_postgres::{
        Act, ActFilter, ActKind, DoneTable, FailedRecord, Inbox, InboxLayer, Outbox, OutboxLag, PostgresConfig,
        PostgresStore, Refused, Relay, RelayConfig, RelayState, RelayStatus, Tx,
    };
}

/// The embedded store: done events, claims and dead letters in a directory.
#[cfg(feature = "sled")]
pub mod sled {
    pub use tidings_sled::{Clock, Damage, OnDamage, Size, SledConfig, SledStore, SystemClock};
}

/// The harness for unit tests of services.
///
/// ```
/// use tidings::testing::Harness;
/// use tidings::{BoxError, Router, Service, reject};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, tidings::Event)]
/// # #[event(topic = "user-events", type = "user.registered", key = "user_id")]
/// # struct UserRegistered { user_id: String }
///
/// async fn welcome(event: UserRegistered) -> Result<(), BoxError> {
///     if event.user_id.is_empty() { Err(reject("no user").into()) } else { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> tidings::Result<()> {
/// let test = Harness::start(Service::new("user-service", Router::new().on(welcome))).await?;
/// assert!(test.send(&UserRegistered { user_id: "u1".into() }).await.is_handled());
/// assert!(test.send(&UserRegistered { user_id: "".into() }).await.is_dead_lettered());
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "test")]
pub mod testing {
    pub use tidings_testkit::{Fate, Harness, Retried, Sent, Settled};
}

/// For the code that `derive(Event)` writes.
#[doc(hidden)]
pub use tidings_core::__private;

/// The guides' code is tested with the crate; that of the Postgres guide with integration/.
#[cfg(all(doctest, feature = "full"))]
mod guides {
    #[doc = include_str!("../docs/guides/operations.md")]
    struct Operations;
    #[doc = include_str!("../docs/guides/from-memory-to-kafka.md")]
    struct Kafka;
}
