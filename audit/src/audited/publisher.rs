//! The publisher whose events are recorded.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::audit::AuditedEvent;
use tidings_core::{
    Begun, Guarantees, Headers, Name, Position, Publisher, Record, Result, StoredRecord, Timestamp, async_trait,
};
use uuid::Uuid;

use super::call::Actor;
use crate::auditor::Auditor;
use crate::events::{Operation, id_of};

/// Records the positions and ids of published events of the policy's topics.
#[derive(Debug)]
pub(super) struct AuditedPublisher {
    inner: Arc<dyn Publisher>,
    auditor: Auditor,
    by: Name,
}

impl AuditedPublisher {
    pub(super) fn new(inner: Arc<dyn Publisher>, actor: &Actor) -> Self {
        Self { inner, auditor: actor.auditor.clone(), by: actor.principal.name.clone().into() }
    }

    /// Returns the topic and the event's id, if the publishing of the record is recorded.
    fn wanted(&self, record: &mut Record) -> Option<(Name, Option<Uuid>)> {
        if !self.auditor.events().policy().of(&record.topic).publish {
            return None;
        }
        let mut stored = StoredRecord::new(0, Timestamp::default());
        (stored.key, stored.value) = (record.key.clone(), record.value.clone());
        // Lent, and not cloned.
        stored.headers = std::mem::replace(&mut record.headers, Headers::new());
        let id = id_of(&stored);
        record.headers = stored.headers;
        Some((record.topic.clone(), id))
    }

    fn note(&self, topic: &Name, events: impl IntoIterator<Item = AuditedEvent>) {
        self.auditor.note(Operation::Publish, &self.by, topic, events);
    }
}

fn event(position: &Position, id: Option<Uuid>) -> AuditedEvent {
    AuditedEvent::new(position.partition, position.offset, id)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for AuditedPublisher {
    async fn publish(&self, mut records: Vec<Record>) -> Vec<Result<Position>> {
        let wanted: Vec<_> = records.iter_mut().map(|record| self.wanted(record)).collect();
        let answers = self.inner.publish(records).await;
        let mut published: Vec<(Name, AuditedEvent)> = Vec::new();
        for (wanted, answer) in wanted.into_iter().zip(&answers) {
            if let (Some((topic, id)), Ok(position)) = (wanted, answer) {
                published.push((topic, event(position, id)));
            }
        }
        for group in published.chunk_by(|a, b| a.0 == b.0) {
            self.note(&group[0].0, group.iter().map(|(_, event)| *event));
        }
        answers
    }

    fn begin_one(&self, mut record: Record) -> Begun<'_> {
        let Some((topic, id)) = self.wanted(&mut record) else { return self.inner.begin_one(record) };
        match self.inner.begin_one(record) {
            Begun::Answered(answer) => {
                self.note(&topic, answer.as_ref().ok().map(|position| event(position, id)));
                Begun::Answered(answer)
            }
            Begun::Pending(pending) => Begun::Pending(Box::pin(async move {
                let answer = pending.await;
                self.note(&topic, answer.as_ref().ok().map(|position| event(position, id)));
                answer
            })),
        }
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
