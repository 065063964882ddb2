//! The settings of a service.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{DeadLetterSink, IdempotencyStore, Name, Start, Topic};

use crate::breaker::Breaker;
use crate::observer::Observer;
use crate::retry::Retry;

/// The ordering of deliveries.
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
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum TopicPolicy {
    /// Others create the topics: `start` fails if one is missing.
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
    pub(crate) shutdown_timeout: Duration,
    pub(crate) instance_id: Option<Name>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) seed: Option<u64>,
}
