//! Description of a handler as declared by the code.

use tidings_core::{Name, Result, StoredRecord};

/// Decodes a record as an event type, and returns its payload as JSON.
pub(crate) type PayloadJson = fn(&StoredRecord) -> Result<String>;

/// The records that a handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HandlerKind {
    /// Events of a type and major version: [`Router::on`](crate::Router::on).
    Event,
    /// Records of a topic that no other handler takes: [`Router::on_topic`](crate::Router::on_topic).
    Topic,
    /// Tombstones of a topic, or of all topics: [`Router::on_tombstone`](crate::Router::on_tombstone).
    Tombstone,
    /// Events of types without a handler: [`Router::fallback`](crate::Router::fallback).
    Fallback,
}

impl HandlerKind {
    /// Returns the stable name: `"event"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Topic => "topic",
            Self::Tombstone => "tombstone",
            Self::Fallback => "fallback",
        }
    }
}

/// A handler of a [`ServiceDescription`](crate::ServiceDescription).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandlerDescription {
    /// The handler's name: by default the type of its events.
    pub name: Name,
    /// The records that it takes.
    pub kind: HandlerKind,
    /// The topic, with the service's prefix; `None` for a handler of all topics.
    pub topic: Option<Name>,
    /// The type of its events; `None` for a handler of raw records.
    pub event_type: Option<Name>,
    /// The major versions of its events, descending: that of its type, then those that are upcast to it. Empty for a
    /// handler of raw records.
    pub majors: Vec<u32>,
    /// Whether it takes batches.
    pub batches: bool,
    /// The path of its function.
    pub function: &'static str,
    pub(crate) payload_json: Option<PayloadJson>,
}

impl HandlerDescription {
    /// Decodes a record as the handler's event, and returns the payload as JSON; `None` for a handler of raw records.
    ///
    /// # Errors
    /// Those of [`payload_json`](tidings_core::codec::payload_json).
    pub fn payload_json(&self, record: &StoredRecord) -> Option<Result<String>> {
        self.payload_json.map(|decode| decode(record))
    }
}
