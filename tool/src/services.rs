//! The services that the program declares, and the types of their events.

use serde_json::Value;
use tidings_core::{StoredRecord, codec};
use tidings_service::{HandlerDescription, ServiceDescription};

use crate::exit::one_line;

/// The services of the program; none in the binary `tidings`.
#[derive(Debug, Default)]
pub(crate) struct Services(Vec<ServiceDescription>);

impl Services {
    pub(crate) fn new(services: Vec<ServiceDescription>) -> Self {
        Self(services)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, ServiceDescription> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decodes a record of a topic as the type that a handler takes; `None` if no handler takes its type.
    ///
    /// # Errors
    /// The reason why the type cannot decode it, which may repeat a part of the payload.
    pub(crate) fn decode(&self, topic: &str, record: &StoredRecord) -> Option<Result<Value, String>> {
        let handler = self.handler(topic, record)?;
        let shown = handler.payload_json(record)?.map_err(|error| one_line(&error.report()));
        Some(shown.and_then(|text| serde_json::from_str(&text).map_err(|error| one_line(&error.to_string()))))
    }

    /// Finds a handler by a record's type and major version. Handlers of the topic take precedence over those of other
    /// topics, which match copies of a topic.
    fn handler(&self, topic: &str, record: &StoredRecord) -> Option<&HandlerDescription> {
        if self.is_empty() || record.value.is_none() {
            return None;
        }
        let routing = codec::routing(record).ok()?;
        let event_type = routing.event_type().to_owned();
        let major = routing.version().ok()?.major;
        let handlers = self.iter().flat_map(|service| &service.handlers);
        let fits = |handler: &&HandlerDescription| {
            handler.event_type.as_deref() == Some(event_type.as_str()) && handler.majors.contains(&major)
        };
        let fitting: Vec<&HandlerDescription> = handlers.filter(fits).collect();
        let of_topic = fitting.iter().find(|handler| handler.topic.as_deref() == Some(topic));
        of_topic.or(fitting.first()).copied()
    }
}
