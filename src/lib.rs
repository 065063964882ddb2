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
pub mod admin {
    pub use tidings_core::{
        Admin, Cleanup, CreatePartitionsOptions, Difference, EnsureReport, GroupDescription, GroupHealth, GroupState,
        Health, Inspection, MemberDescription, PartitionDescription, PartitionLag, PartitionReset, ResetOffsetsOptions,
        ResetTo, TopicDescription, ensure_topics, inspect,
    };
}

/// How events become bytes and back: the codecs, keys, versions, and the trait of a codec of your own.
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
pub mod consumer {
    pub use tidings_core::{
        Assignment, Commit, Consumer, ConsumerOptions, Fetched, Progress, Revocation, SeekTo, Start, Step, Unreadable,
    };
}

/// Dead letters: looking at them, and taking them back to their topics.
pub mod dead_letter {
    pub use tidings_core::{
        DEAD_LETTER_ROOM, DeadLetter, DeadLetterSink, DeadLetterStore, DeadLetterTopics, Leased, LetterId, LetterLease,
        LetterQuery, REDRIVE_LEASE, Redriven, Resolution, dead_letter_headers, dead_letter_topic,
        is_dead_letter_header, redrive,
    };
    pub use tidings_service::{REDRIVE_GROUP_SUFFIX, RedriveOptions, RedriveReport, redrive_topic};
}

/// Searching and printing chains of errors.
pub mod error {
    pub use tidings_core::{find_error, report};
}

/// Handlers, their options, extractors, middleware, and what handlers return.
pub mod handler {
    pub use tidings_core::{
        Caused, Causes, DecodeErrors, DeliveryContext, DeliveryPublisher, EventInput, Extensions, Failure,
        HandlerError, Input, IntoEvents, IntoOutcome, Outcome, RawBatch, RawInput, event_id_of, held, rolled_back,
        stopped_at,
    };
    pub use tidings_service::{
        Arguments, BatchOptions, BoxFuture, Configured, FromDelivery, FromFn, FromFnService, FromRef, Handler,
        HandlerExt, HandlerOptions, IntoRouter, Next, Requirement, Route, from_fn,
    };
}

/// The store of handled events, for those who write one.
pub mod idempotency {
    pub use tidings_core::{Claim, EventRef, History, IdempotencyStore, Lease, MIN_LEASE_TTL, ReleasedClaim};
}

/// Publishing records as they are, without an event type.
pub mod publisher {
    pub use tidings_core::{Publisher, PublisherExt};
}

/// Records as a broker holds them, and the names and places of records.
pub mod record {
    pub use tidings_core::{
        Header, Headers, Name, Position, RecordBatch, StoredRecord, Timestamp, TopicPartition, TraceParent, headers,
        partition_for,
    };
}

/// Policies of a service, its status, and observers of its records.
pub mod service {
    pub use tidings_service::{
        Breaker, DeliveryOrder, Hold, Observer, PartitionStatus, PauseReason, RecordEvent, RecordOutcome,
        ReturnedPartition, ServiceState, ShutdownReport, Skipped, Status, Totals, UnknownTypes,
    };
}

/// For those who write a transport: see the guide "Writing a transport".
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
        Act, ActFilter, ActKind, Closed, DoneTable, FailedRecord, Inbox, InboxLayer, Letter, LetterFilter, LetterState,
        Letters, Outbox, OutboxLag, PostgresConfig, PostgresStore, RedriveOptions, RedriveReport, Refused, Relay,
        RelayConfig, RelayState, RelayStatus, Tx,
    };
}

/// The embedded store: done events, claims and dead letters in a directory.
#[cfg(feature = "sled")]
pub mod sled {
    pub use tidings_sled::{Clock, Damage, OnDamage, Size, SledConfig, SledStore, SystemClock};
}

/// The harness for unit tests of services.
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
