//! Policy that selects the event operations to record.

use tidings_core::{DEAD_LETTER_SUFFIX, Name};

/// The operations on a topic's events that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EventOperations {
    /// Publishing, through a transport that is [`Audited`](crate::Audited).
    pub publish: bool,
    /// Handling, by a service with an [`observer`](crate::Auditor::observer).
    pub handle: bool,
    /// Dead-lettering, by such a service.
    pub dead_letter: bool,
    /// Reading by position, through a transport that is [`Audited`](crate::Audited), and reading whole dead letters at an
    /// operations endpoint. Consumers are not recorded: their service [handles](Self::handle).
    pub read: bool,
}

impl EventOperations {
    /// Selects all operations.
    pub const fn all() -> Self {
        Self { publish: true, handle: true, dead_letter: true, read: true }
    }

    /// Selects publishing.
    #[must_use]
    pub const fn with_publish(mut self) -> Self {
        self.publish = true;
        self
    }

    /// Selects handling.
    #[must_use]
    pub const fn with_handle(mut self) -> Self {
        self.handle = true;
        self
    }

    /// Selects dead-lettering.
    #[must_use]
    pub const fn with_dead_letter(mut self) -> Self {
        self.dead_letter = true;
        self
    }

    /// Selects reading.
    #[must_use]
    pub const fn with_read(mut self) -> Self {
        self.read = true;
        self
    }
}

/// The event operations that are recorded, by topic. The default records none.
///
/// ```
/// use tidings_audit::{EventOperations, EventPolicy};
///
/// let policy = EventPolicy::default()
///     .with_topic("payments", EventOperations::all())
///     .with_topic("orders", EventOperations::default().with_dead_letter());
/// assert!(policy.of("payments").publish && !policy.of("orders").publish && !policy.of("clicks").handle);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPolicy(
    /// Ordered by length, then by text: most other topics differ in length, so a look-up rarely compares names, and
    /// never hashes them.
    Vec<(Name, EventOperations)>,
);

impl EventPolicy {
    /// Sets the operations on a topic's events that are recorded.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Name>, operations: EventOperations) -> Self {
        let topic = topic.into();
        match self.find(&topic) {
            Ok(at) => self.0[at].1 = operations,
            Err(at) => self.0.insert(at, (topic, operations)),
        }
        self
    }

    /// Returns the operations on a topic's events that are recorded.
    pub fn of(&self, topic: &str) -> EventOperations {
        self.find(topic).map_or(EventOperations::default(), |at| self.0[at].1)
    }

    /// Returns whether reads of a topic are recorded: those of a dead-letter topic are where those of its origin are.
    ///
    /// ```
    /// use tidings_audit::{EventOperations, EventPolicy};
    ///
    /// let policy = EventPolicy::default().with_topic("payments", EventOperations::default().with_read());
    /// assert!(policy.records_read("payments") && policy.records_read("payments-dlq"));
    /// assert!(!policy.records_read("orders-dlq"));
    /// ```
    pub fn records_read(&self, topic: &str) -> bool {
        let origin = topic.strip_suffix(DEAD_LETTER_SUFFIX);
        self.of(topic).read || origin.is_some_and(|origin| self.records_read(origin))
    }

    fn find(&self, topic: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.len().cmp(&topic.len()).then_with(|| known.as_str().cmp(topic)))
    }

    /// Returns whether publishing is recorded for any topic.
    pub(crate) fn records_publishing(&self) -> bool {
        self.0.iter().any(|(_, operations)| operations.publish)
    }

    /// Returns whether reading is recorded for any topic.
    pub(crate) fn records_reading(&self) -> bool {
        self.0.iter().any(|(_, operations)| operations.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_found_among_others_of_its_length() {
        let names = ["orders", "clicks", "a", "payments", "bills"];
        let mut policy = EventPolicy::default();
        for name in names {
            assert_eq!(policy.of(name), EventOperations::default(), "{name}");
            policy = policy.with_topic(name, EventOperations::all());
        }
        policy = policy.with_topic("clicks", EventOperations::default().with_handle());
        let publishes: Vec<bool> = names.iter().map(|name| policy.of(name).publish).collect();
        assert_eq!(publishes, [true, false, true, true, true]);
        assert!(!policy.of("refund").publish && !policy.of("").publish);
        let other_order = names.iter().rev().fold(EventPolicy::default(), |policy, name| {
            let operations = EventOperations::all();
            policy.with_topic(
                *name,
                if *name == "clicks" { EventOperations::default().with_handle() } else { operations },
            )
        });
        assert_eq!(policy, other_order);
    }
}
