//! Idempotency stores.

use serde::{Deserialize, Serialize};
use tidings_core::EventRef;
use uuid::Uuid;

/// A request for which events are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// The store's name.
    pub store: String,
    /// The scope.
    pub scope: String,
    /// The events.
    pub events: Vec<EventId>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventId {
    /// The id.
    pub id: Uuid,
    /// The type; may be empty.
    #[serde(default)]
    pub event_type: String,
}

impl From<&EventRef> for EventId {
    fn from(event: &EventRef) -> Self {
        Self { id: event.id, event_type: event.event_type.to_string() }
    }
}

impl From<EventId> for EventRef {
    fn from(wire: EventId) -> Self {
        Self::new(wire.id, wire.event_type)
    }
}

/// Which events are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AreDone {
    /// One for each event.
    pub done: Vec<bool>,
}
