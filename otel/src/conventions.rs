//! The names of OpenTelemetry's semantic conventions for messaging, at one version.
//!
//! The conventions are not stable yet and rename attributes between versions. So the version is fixed here, the names
//! are in a table next to the sources (`conventions-1.44.0.tsv`), and a test compares every exported span and metric
//! with it. To move to another version, write its table first.

use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};

/// The version of the semantic conventions that spans and metrics follow.
pub const CONVENTIONS_VERSION: &str = "1.44.0";
/// The schema that exporters name, for backends that translate between versions.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// The name of the instrumentation scope of all spans and metrics.
pub const SCOPE_NAME: &str = "tidings";

/// The value of `messaging.system` for which the conventions define attributes of their own.
const KAFKA: &str = "kafka";
/// The longest text of an attribute that another service has chosen, in bytes.
const MAX_FOREIGN_BYTES: usize = 256;

pub(crate) const SYSTEM: &str = "messaging.system";
pub(crate) const OPERATION_NAME: &str = "messaging.operation.name";
pub(crate) const OPERATION_TYPE: &str = "messaging.operation.type";
pub(crate) const DESTINATION: &str = "messaging.destination.name";
pub(crate) const PARTITION: &str = "messaging.destination.partition.id";
pub(crate) const GROUP: &str = "messaging.consumer.group.name";
pub(crate) const MESSAGE_ID: &str = "messaging.message.id";
pub(crate) const CONVERSATION_ID: &str = "messaging.message.conversation_id";
pub(crate) const MESSAGE_COUNT: &str = "messaging.batch.message_count";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
pub(crate) const ERROR_TYPE: &str = "error.type";
pub(crate) const SENT_MESSAGES: &str = "messaging.client.sent.messages";
pub(crate) const CONSUMED_MESSAGES: &str = "messaging.client.consumed.messages";
pub(crate) const OPERATION_DURATION: &str = "messaging.client.operation.duration";
pub(crate) const PROCESS_DURATION: &str = "messaging.process.duration";
const KAFKA_OFFSET: &str = "messaging.kafka.offset";
const KAFKA_KEY: &str = "messaging.kafka.message.key";
const KAFKA_TOMBSTONE: &str = "messaging.kafka.message.tombstone";

/// Attributes of tidings, for which the conventions have no name.
pub(crate) const HANDLER: &str = "tidings.handler";
pub(crate) const ATTEMPT: &str = "tidings.attempt";
pub(crate) const OUTCOME: &str = "tidings.outcome";
pub(crate) const REASON: &str = "tidings.reason";
pub(crate) const RELAY: &str = "tidings.relay";
pub(crate) const RESULT: &str = "tidings.result";
pub(crate) const SERVICE: &str = "tidings.service";
pub(crate) const STATE: &str = "tidings.state";
/// The offset where the broker is not Kafka.
const OFFSET: &str = "tidings.offset";

/// An operation, by its name and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
}

/// An event is made, for a batch.
pub(crate) const CREATE: Operation = Operation { name: "create", kind: "create" };
/// Records are passed to the broker; `publish` is what the method is called.
pub(crate) const PUBLISH: Operation = Operation { name: "publish", kind: "send" };
/// Records are fetched from the broker.
pub(crate) const POLL: &str = "poll";
/// A handler runs.
pub(crate) const PROCESS: Operation = Operation { name: "process", kind: "process" };

/// Returns the scope of all spans and metrics.
pub(crate) fn scope() -> InstrumentationScope {
    let scope = InstrumentationScope::builder(SCOPE_NAME).with_version(env!("CARGO_PKG_VERSION"));
    scope.with_schema_url(SCHEMA_URL).build()
}

/// The attributes of a span.
#[derive(Debug)]
pub(crate) struct Attributes {
    system: &'static str,
    values: Vec<KeyValue>,
}

impl Attributes {
    /// Starts with the attributes that every span has.
    pub(crate) fn new(system: &'static str, operation: Operation, server: &[KeyValue]) -> Self {
        let mut attributes = Self { system, values: Vec::with_capacity(16) };
        attributes.values.extend_from_slice(server);
        attributes.add(SYSTEM, system);
        attributes.add(OPERATION_NAME, operation.name);
        attributes.add(OPERATION_TYPE, operation.kind);
        attributes
    }

    /// Starts with no attributes.
    pub(crate) fn empty(system: &'static str) -> Self {
        Self { system, values: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.values.push(KeyValue::new(Key::from_static_str(name), value));
    }

    pub(crate) fn add_partition(&mut self, partition: u32) {
        self.add(PARTITION, partition.to_string());
    }

    pub(crate) fn add_offset(&mut self, offset: u64) {
        let name = if self.system == KAFKA { KAFKA_OFFSET } else { OFFSET };
        self.add(name, i64::try_from(offset).unwrap_or(i64::MAX));
    }

    /// Adds the key, where the conventions have an attribute for it and it is text.
    pub(crate) fn add_key(&mut self, key: Option<&[u8]>) {
        if let Some(key) = key.filter(|_| self.system == KAFKA).and_then(|key| std::str::from_utf8(key).ok()) {
            self.add(KAFKA_KEY, bounded(key));
        }
    }

    /// Adds that a record has no value, where the conventions have an attribute for it.
    pub(crate) fn add_tombstone(&mut self, value: Option<&[u8]>) {
        if value.is_none() && self.system == KAFKA {
            self.add(KAFKA_TOMBSTONE, true);
        }
    }

    pub(crate) fn add_conversation(&mut self, id: &str) {
        self.add(CONVERSATION_ID, bounded(id));
    }

    pub(crate) fn into_values(self) -> Vec<KeyValue> {
        self.values
    }
}

/// Returns the beginning of a text that another service has chosen.
fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_FOREIGN_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_texts_are_bounded_at_a_character() {
        assert_eq!(bounded("flow"), "flow");
        let long = "é".repeat(MAX_FOREIGN_BYTES);
        assert_eq!(bounded(&long).len(), MAX_FOREIGN_BYTES);
        assert_eq!(bounded(&format!("x{long}")).len(), MAX_FOREIGN_BYTES - 1);
    }

    #[test]
    fn the_schema_is_that_of_the_version() {
        assert!(SCHEMA_URL.ends_with(CONVENTIONS_VERSION));
    }
}
