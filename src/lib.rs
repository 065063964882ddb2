#![doc = include_str!("../README.md")]

mod connect;

pub use tidings_core::{
    Admin, Assignment, Batch, BoxError, Caused, Causes, Claim, Clause, Cleanup, Commit, Consumer, ConsumerOptions,
    CreatePartitionsOptions, DEAD_LETTER_ROOM, DEFAULT_MAX_BATCH_RECORDS, DEFAULT_MAX_BUFFERED_BYTES, DEFAULT_MAX_IDLE,
    DEFAULT_PAGE, DEFAULT_REVOCATION_DEADLINE, DEFAULT_SESSION_TIMEOUT, DeadLetter, DeadLetterSink, DeadLetterStore,
    DeadLetterTopics, DecodeErrors, Delivery, DeliveryContext, DeliveryPublisher, Difference, EnsureReport, Envelope,
    EnvelopeRef, Error, ErrorKind, Event, EventInput, EventRef, Extensions, Failure, Fetched, GroupDescription,
    GroupHealth, GroupState, Guarantees, HandlerError, Header, Headers, Health, History, IdempotencyStore, Input,
    Inspection, IntoEvents, IntoOutcome, Key, Lease, Leased, LetterId, LetterLease, LetterQuery, MIN_LEASE_TTL,
    MemberDescription, Name, Outcome, PartitionDescription, PartitionLag, PartitionReset, Position, Progress,
    Publisher, PublisherExt, REDRIVE_LEASE, RawBatch, RawInput, Record, RecordBatch, Redriven, ReleasedClaim,
    ResetOffsetsOptions, ResetTo, Resolution, Result, Revocation, Secret, SeekTo, Start, Step, StoredRecord, Timestamp,
    Topic, TopicDescription, TopicPartition, TraceParent, Transport, Version, async_trait, codec, dead_letter_headers,
    dead_letter_topic, ensure_topics, event_id_of, failed, find_error, headers, held, inspect, is_dead_letter_header,
    partition_for, redrive, reject, report, rolled_back, stopped_at, unavailable,
};
#[cfg(feature = "macros")]
pub use tidings_macros::Event;
pub use tidings_service::{
    Arguments, BREAKER_WINDOW, BatchOptions, BoxFuture, Breaker, Configured, DEFAULT_BATCH_SIZE, DEFAULT_BATCH_WAIT,
    DEFAULT_BREAKER_BASE, DEFAULT_BREAKER_CAP, DEFAULT_COMMIT_INTERVAL, DEFAULT_CONCURRENCY, DEFAULT_HANDLER_TIMEOUT,
    DEFAULT_LEASE_TTL, DEFAULT_MAX_BYTES_IN_FLIGHT, DEFAULT_MAX_RETRIES, DEFAULT_MAX_SPAN, DEFAULT_REDRIVE_PATIENCE,
    DEFAULT_RETRY_BASE, DEFAULT_RETRY_CAP, DEFAULT_SHUTDOWN_TIMEOUT, DeliveryOrder, EventPublisher, FromDelivery,
    FromFn, FromFnService, FromRef, Handler, HandlerExt, HandlerOptions, IntoRouter, Next, Observer, PartitionStatus,
    PauseReason, PublishOptions, REDRIVE_GROUP_SUFFIX, RecordEvent, RecordOutcome, RedriveOptions, RedriveReport,
    Requirement, Retry, ReturnedPartition, Route, Router, STALL_AFTER, Service, ServiceHandle, ServiceState,
    ShutdownReport, State, Status, TopicPolicy, Totals, UnknownTypes, from_fn, redrive_topic,
};

pub use self::connect::connect;

/// The transport on Apache Kafka.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use tidings_kafka::{
        Compression, DEFAULT_BATCH_BYTES, DEFAULT_CLIENT_ID, DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECT_WAIT,
        DEFAULT_DELIVERY_TIMEOUT, DEFAULT_FETCH_MAX_BYTES, DEFAULT_FETCH_MAX_PARTITION_BYTES,
        DEFAULT_FETCH_MAX_UNPACKED_BYTES, DEFAULT_FETCH_MAX_WAIT, DEFAULT_LINGER, DEFAULT_MAX_RECORD_BYTES,
        DEFAULT_MAX_UNANSWERED_BYTES, DEFAULT_MAX_UNANSWERED_RECORDS, DEFAULT_METADATA_MAX_AGE,
        DEFAULT_REQUEST_TIMEOUT, GroupProtocol, Isolation, KafkaAdmin, KafkaConfig, KafkaConsumer, KafkaPublisher,
        KafkaTransport, Pem, Sasl, ScramHash, Tls, Token, TokenFuture, TokenSource,
    };
}

/// The in-memory transport and its stores.
#[cfg(feature = "memory")]
pub mod memory {
    pub use tidings_memory::{
        DEFAULT_MAX_LETTERS, DEFAULT_MAX_RECORD_BYTES, DEFAULT_MAX_UNANSWERED_BYTES, DEFAULT_MAX_UNANSWERED_RECORDS,
        DEFAULT_PARTITIONS, DEFAULT_RETENTION_BYTES, DEFAULT_RETENTION_RECORDS, Faults, MAX_PARTITIONS, MemoryConfig,
        MemoryDeadLetters, MemoryStore, MemoryTransport, PublishFault, StoreFaults, UNTIL_HEALED,
    };
}

/// The store on Postgres.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use tidings_postgres::{
        Act, ActFilter, ActKind, Closed, DEFAULT_ACQUIRE_TIMEOUT, DEFAULT_ANSWER_WITHIN, DEFAULT_BATCH_BYTES,
        DEFAULT_BATCH_RECORDS, DEFAULT_CONNECT_WAIT, DEFAULT_FAILED_PAGE, DEFAULT_IDLE_IN_TRANSACTION_TIMEOUT,
        DEFAULT_LAG_INTERVAL, DEFAULT_LOCK_TIMEOUT, DEFAULT_MAX_CONNECTIONS, DEFAULT_MIGRATION_TIMEOUT,
        DEFAULT_POLL_INTERVAL, DEFAULT_PURGE_BATCH, DEFAULT_RECORDS_PER_KEY, DEFAULT_REDRIVE_BATCH,
        DEFAULT_RELAY_RETRY_BASE, DEFAULT_RELAY_RETRY_CAP, DEFAULT_SCHEMA, DEFAULT_STATEMENT_TIMEOUT,
        DEFAULT_STORE_CONNECTIONS, DoneTable, FailedRecord, Inbox, InboxLayer, Letter, LetterFilter, LetterState,
        Letters, MAX_COUNTED_LAG, MAX_RELAY_INTERVAL, MAX_REPORTED_REFUSALS, Outbox, OutboxLag, PostgresConfig,
        PostgresStore, REDRIVE_IDLE_LIMIT, RELAY_LEASE, RedriveOptions, RedriveReport, Refused, Relay, RelayConfig,
        RelayState, RelayStatus, Tx,
    };
}

/// The embedded store: done events, claims and dead letters in a directory.
#[cfg(feature = "sled")]
pub mod sled {
    pub use tidings_sled::{
        BYTES_PER_EVENT, Clock, DEFAULT_ANSWER_WITHIN, DEFAULT_CACHE_BYTES, DEFAULT_MAX_CLAIMS, DEFAULT_MAX_LETTERS,
        DEFAULT_MAX_REOPEN_WAIT, DEFAULT_MAX_WAITING, DEFAULT_RETENTION, Damage, MEMORY_PER_EVENT, MIN_REOPEN_WAIT,
        OnDamage, RETENTION_PARTS, Size, SledConfig, SledStore, SystemClock,
    };
}

/// The harness for unit tests of services.
#[cfg(feature = "test")]
pub mod test {
    pub use tidings_testkit::{
        DEFAULT_DEADLINE, DEFAULT_REAL_DEADLINE, Fate, Harness, MAX_FOLLOWING, MAX_TRACE, Retried, Sent, Settled,
    };
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
