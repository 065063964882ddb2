//! Observer of a service's event operations.

use tidings_core::audit::AuditedEvent;
use tidings_service::{Observer, RecordEvent, RecordOutcome};

use super::{Operation, id_of};
use crate::auditor::Auditor;

/// Records the event operations of a service. Created by [`Auditor::observer`].
#[derive(Debug, Clone)]
pub struct AuditObserver {
    auditor: Auditor,
}

impl AuditObserver {
    pub(crate) fn new(auditor: Auditor) -> Self {
        Self { auditor }
    }
}

impl Observer for AuditObserver {
    fn observe(&self, event: &RecordEvent<'_>) {
        let operation = match event.outcome {
            RecordOutcome::Handled => Operation::Handle,
            RecordOutcome::DeadLettered => Operation::DeadLetter,
            _ => return,
        };
        let topic = &event.origin.topic;
        let wanted = self.auditor.events().policy().of(topic);
        let is_wanted = match operation {
            Operation::DeadLetter => wanted.dead_letter,
            _ => wanted.handle,
        };
        if is_wanted {
            let id = id_of(&event.record.headers, event.record.value.as_ref());
            let audited = AuditedEvent::new(event.origin.partition, event.record.offset, id);
            self.auditor.note(operation, event.service, topic, [audited]);
        }
    }
}
