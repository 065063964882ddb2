//! Vocabulary, codecs, errors and traits of tidings. Contains no runtime and no backend.
//!
//! Services are written with the crate `tidings`, which re-exports what they need; transports and stores implement the
//! traits here. An [`Event`] is encoded by its [`codec`] into a [`Record`], which a [`Publisher`] hands to a broker. A
//! [`Consumer`] yields it as a [`StoredRecord`] of a [`RecordBatch`]; the service makes a [`Delivery`] of it, and its
//! handler's return value becomes an [`Outcome`]. An [`IdempotencyStore`] keeps what was handled, a [`DeadLetterSink`]
//! what could not be.
//!
//! The traits are object-safe and batched, and `tidings-conformance` has a case for each of their numbered promises.
//!
//! # Glossary
//!
//! Each term has one meaning.
//!
//! - **topic**, **partition**, **offset**, **key**, **header**, **group**: as in Apache Kafka.
//! - **event**: a typed message ([`Event`]); its **envelope** ([`Envelope`]) is what surrounds its payload.
//! - **upcast**, **downcast**: the conversion of an event from, and to, an older version ([`codec::Upcast`]).
//! - **record**: a message stored by a broker ([`StoredRecord`]) or to be published ([`Record`]): key, value or null,
//!   headers, timestamp.
//! - **name**: the text of a topic, an event type, a service or a handler ([`Name`]).
//! - **delivery**: records handed to a handler once, with their **attempt** ([`Delivery`]).
//! - **settle**: to finish a delivery: handled, duplicate, skipped, forwarded, or safely dead-lettered.
//! - **commit**: to store the next offset to read at the broker ([`Commit`]).
//! - **assignment**: the ownership of a partition by a member, under an **epoch** that grows ([`Assignment`]).
//! - **unreadable**: bytes that the reader of a partition cannot read or refuses; they hold it ([`Unreadable`]).
//! - **claim**, **lease**: the right to handle an event, and the registration of a running service under which it
//!   claims ([`IdempotencyStore`]).
//! - **lag**: the number of offsets that a group has still to read.
//! - **log**: the records of a partition; a **log reader** reads it by position, without a group ([`LogReader`]).
//! - **ACL**: allows or denies a principal an operation on a resource ([`Acl`]).
//! - **trace context**: the trace and span of a record, in the headers that the W3C names ([`TraceContext`]).
//! - **dead letter**: a record that could not be handled, with the cause ([`DeadLetter`]); to **bury** is to write it,
//!   to **redrive** to publish it to its topic again, to **discard** to close it otherwise, to **park** to set it aside
//!   ([`Resolution`]).
//! - **retry topic**: a topic where a failed record waits for another attempt; to **forward** is to publish it there.
//! - **transaction**: records and offsets that become visible together or not at all ([`Transactor`]).
//! - **audit record**, **chain**, **audit sink**: a record of a change, the numbered and hashed sequence that a writer
//!   links it into, and the store of it ([`audit`]).
//! - **directory**: where running instances of services keep a record of themselves ([`directory`](mod@directory)).
//! - **clause**: a numbered promise of a trait ([`Clause`]); **guarantees**: those that a backend keeps.

mod acls;
mod admin;
mod admin_groups;
mod admin_options;
pub mod audit;
mod cluster;
pub mod codec;
mod consumer;
mod consumer_options;
mod dead_letter;
mod delayed;
mod delivery;
pub mod directory;
mod envelope;
mod error;
mod event;
mod guarantees;
pub mod headers;
mod idempotency;
mod input;
mod inspect;
mod log_reader;
mod name;
mod outcome;
mod partitioner;
mod progress;
mod publish;
mod publish_options;
mod publisher;
mod record;
mod record_batch;
mod retry_record;
mod secret;
pub mod settings;
mod topology;
mod trace;
mod transactor;
mod transport;

pub use async_trait::async_trait;

pub use self::acls::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, AclResourceType, Acls};
pub use self::admin::{Admin, Cleanup, Health, PartitionDescription, Topic, TopicDescription};
pub use self::admin_groups::{GroupDescription, GroupState, MemberDescription, PartitionLag};
pub use self::admin_options::{CreatePartitionsOptions, PartitionReset, ResetOffsetsOptions, ResetTo};
pub use self::cluster::{
    BrokerDescription, Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, LogDir,
    is_sensitive_config,
};
pub use self::consumer::{Assignment, Commit, Consumer, Fetched, Revocation, SeekTo, Start, Step, Unreadable};
pub use self::consumer_options::ConsumerOptions;
pub use self::dead_letter::{
    DEAD_LETTER_STATE_SUFFIX, DEAD_LETTER_SUFFIX, DeadLetter, DeadLetterSink, DeadLetterStore, DeadLetterTopics,
    Leased, LetterEntry, LetterId, LetterKey, LetterLease, LetterQuery, LetterState, MAX_PLAIN_HEADERS, REDRIVE_LEASE,
    Redrive, RedriveOutcome, Redriven, Resolution, ResolutionKind, dead_letter_state_topic, dead_letter_topic,
    header_names as dead_letter_headers, is_dead_letter_header, is_dead_letter_topic,
};
pub use self::delayed::{DelayedRecord, Due};
pub use self::delivery::{Delivery, DeliveryContext, Extensions, event_id_of};
pub use self::envelope::{Batch, Caused, Envelope, EnvelopeRef};
pub use self::error::{BoxError, Error, ErrorKind, Result, error_chain, find_error, report};
pub use self::event::{Event, Key, Version};
pub use self::guarantees::{Clause, Guarantees};
pub use self::idempotency::{Claim, EventRef, History, IdempotencyStore, Lease, MIN_LEASE_TTL, ReleasedClaim};
pub use self::input::{DecodeErrors, EventInput, Input, RawBatch, RawInput};
pub use self::inspect::{GroupHealth, Inspection, inspect};
pub use self::log_reader::{LogReader, Read, ReadLimits};
pub use self::name::{MAX_TOPIC_NAME_BYTES, Name, TopicPartition, check_topic_name};
pub use self::outcome::{
    Causes, Failure, HandlerError, IntoEvents, IntoOutcome, Outcome, failed, held, reject, rolled_back, stopped_at,
    unavailable,
};
pub use self::partitioner::{murmur2, partition_for};
#[doc(hidden)]
pub use self::progress::Progress;
pub use self::publish::DeliveryPublisher;
pub use self::publish_options::PublishOptions;
pub use self::publisher::Begun;
pub use self::publisher::{Publisher, PublisherExt};
pub use self::record::{Header, Headers, Position, Record, StoredRecord, Timestamp};
pub use self::record_batch::RecordBatch;
pub use self::retry_record::RetryRecord;
pub use self::secret::Secret;
pub use self::topology::{DEAD_LETTER_ROOM, Difference, EnsureReport, ensure_topics, ensure_topics_alone};
pub use self::trace::{TraceContext, TraceParent};
pub use self::transactor::{TransactionOffset, TransactionOffsets, Transactor, TransactorOptions};
pub use self::transport::Transport;

/// For the code that `derive(Event)` writes.
#[doc(hidden)]
pub mod __private {
    use std::borrow::Cow;

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    pub use crate::codec::{Downcast, Upcast};
    pub use crate::{Key, Version};

    /// Implemented for every type that can be a generic parameter of an event.
    pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {}

    impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Payload for T {}

    /// Checks, while compiling, a topic or a type that is a constant, as the derive checks a literal.
    pub const fn checked_name(name: &'static str) -> &'static str {
        assert!(!name.is_empty(), "the topic or the type of an event must not be empty");
        let (bytes, mut at) = (name.as_bytes(), 0);
        while at < bytes.len() {
            assert!(
                !bytes[at].is_ascii_whitespace() && !bytes[at].is_ascii_control(),
                "the topic or the type of an event must not contain white space or control characters"
            );
            at += 1;
        }
        name
    }

    /// Returns the key that an expression evaluates to, which may be an owned value that cannot be borrowed from.
    pub fn key<K: Key>(key: K) -> Option<Cow<'static, [u8]>> {
        key.to_key().map(|bytes| Cow::Owned(bytes.into_owned()))
    }
}
