//! The services that the program declares.

use schemars::JsonSchema;
use serde::Serialize;
use tidings_core::Name;
use tidings_service::{HandlerDescription, ServiceDescription};

use crate::context::Context;
use crate::output::{Table, or_dash};

/// A service that the program declares.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ServiceNode {
    /// The name.
    service: String,
    /// The consumer group.
    group: String,
    /// The topics that it creates when it starts.
    creates: Vec<DeclaredTopic>,
    /// The handlers.
    handlers: Vec<HandlerNode>,
    /// Topics of its handlers that do not exist at the target; absent without a target.
    missing: Option<Vec<String>>,
}

/// A topic that a service creates.
#[derive(Debug, Serialize, JsonSchema)]
struct DeclaredTopic {
    /// The name.
    topic: String,
    /// The number of partitions.
    partitions: u32,
}

/// A handler.
#[derive(Debug, Serialize, JsonSchema)]
struct HandlerNode {
    /// The name.
    handler: String,
    /// The records that it takes: event, topic, tombstone or fallback.
    kind: String,
    /// The topic; absent for a handler of all topics.
    topic: Option<String>,
    /// The type of its events.
    event_type: Option<String>,
    /// The major version of its events.
    major: Option<u32>,
    /// The older major versions that it handles as well, by upcasts.
    older_majors: Vec<u32>,
    /// Whether it takes batches.
    batches: bool,
    /// The path of its function.
    function: String,
}

/// Describes the services of the program; with the topics of the target also which ones are missing there.
pub(super) fn services(cx: &Context, existing: Option<&[Name]>) -> Vec<ServiceNode> {
    cx.services.iter().map(|service| ServiceNode::new(service, existing)).collect()
}

impl ServiceNode {
    fn new(service: &ServiceDescription, existing: Option<&[Name]>) -> Self {
        let missing = |existing: &[Name]| {
            let topics = service.topics().into_iter().filter(|topic| !existing.contains(topic));
            topics.map(|topic| topic.as_str().to_owned()).collect()
        };
        let creates = service.creates.iter();
        let creates =
            creates.map(|topic| DeclaredTopic { topic: topic.name.to_string(), partitions: topic.partitions });
        Self {
            service: service.name.to_string(),
            group: service.group.to_string(),
            creates: creates.collect(),
            handlers: service.handlers.iter().map(HandlerNode::from).collect(),
            missing: existing.map(missing),
        }
    }

    /// Returns the line about topics that are missing.
    pub(super) fn note(&self) -> Option<String> {
        let missing = self.missing.as_ref().filter(|missing| !missing.is_empty())?;
        Some(format!("{} reads topics that do not exist at the target: {}.", self.service, missing.join(", ")))
    }
}

impl From<&HandlerDescription> for HandlerNode {
    fn from(handler: &HandlerDescription) -> Self {
        Self {
            handler: handler.name.to_string(),
            kind: handler.kind.as_str().to_owned(),
            topic: handler.topic.as_ref().map(Name::to_string),
            event_type: handler.event_type.as_ref().map(Name::to_string),
            major: handler.majors.first().copied(),
            older_majors: handler.majors.iter().skip(1).copied().collect(),
            batches: handler.batches,
            function: handler.function.to_owned(),
        }
    }
}

impl HandlerNode {
    /// Returns the versions of its events as text: `2.x, 1.x`.
    fn versions(&self) -> Option<String> {
        let majors: Vec<_> = self.major.iter().chain(&self.older_majors).map(|major| format!("{major}.x")).collect();
        (!majors.is_empty()).then(|| majors.join(", "))
    }
}

/// Returns a table of all handlers, and one of the topics that are created.
pub(super) fn tables(services: &[ServiceNode]) -> Vec<Table> {
    if services.is_empty() {
        return Vec::new();
    }
    let row = |service: &ServiceNode, handler: &HandlerNode| {
        vec![
            service.service.clone(),
            service.group.clone(),
            or_dash(handler.topic.as_ref()),
            handler.handler.clone(),
            or_dash(handler.event_type.as_ref()),
            or_dash(handler.versions()),
            handler.kind.clone(),
            if handler.batches { "yes" } else { "no" }.to_owned(),
            handler.function.clone(),
        ]
    };
    let rows = services.iter().flat_map(|service| service.handlers.iter().map(move |handler| row(service, handler)));
    let columns = ["SERVICE", "GROUP", "TOPIC", "HANDLER", "TYPE", "VERSION", "+KIND", "+BATCHES", "+FUNCTION"];
    let mut tables = vec![Table::new(&columns).with_rows(rows).with_title("declared by this program")];
    let created = |service: &ServiceNode, topic: &DeclaredTopic| {
        vec![topic.topic.clone(), topic.partitions.to_string(), service.service.clone()]
    };
    let rows: Vec<Vec<String>> =
        services.iter().flat_map(|service| service.creates.iter().map(move |topic| created(service, topic))).collect();
    if !rows.is_empty() {
        tables.push(Table::new(&["TOPIC", ">PARTITIONS", "CREATED BY"]).with_rows(rows));
    }
    tables
}
