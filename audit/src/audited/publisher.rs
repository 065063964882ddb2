//! The publisher whose events are recorded.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::audit::AuditedEvent;
use tidings_core::{
    Begun, DelayedRecord, Error, ErrorKind, Guarantees, Name, Position, Publisher, Record, Result, async_trait,
};
use uuid::Uuid;

use super::call::Actor;
use crate::auditor::Auditor;
use crate::events::{Operation, id_of};

/// Records the positions and ids of published events of the policy's topics.
#[derive(Debug)]
pub(super) struct AuditedPublisher {
    inner: Arc<dyn Publisher>,
    notes: Notes,
}

/// Writes the records of published events.
#[derive(Debug)]
pub(super) struct Notes {
    auditor: Auditor,
    by: Name,
}

/// The records of a call that the policy selects.
#[derive(Debug, Default)]
struct Wanted {
    /// Consecutive records of a topic.
    runs: Vec<(Name, Range<usize>)>,
    /// The ids of their events, in order.
    ids: Vec<Option<Uuid>>,
}

impl AuditedPublisher {
    pub(super) fn new(inner: Arc<dyn Publisher>, actor: &Actor) -> Self {
        Self { inner, notes: Notes::new(actor) }
    }
}

impl Notes {
    pub(super) fn new(actor: &Actor) -> Self {
        Self { auditor: actor.auditor.clone(), by: actor.principal.name.clone().into() }
    }

    /// Publishes records, and notes those of the policy's topics that are stored.
    pub(super) async fn around<F: Future<Output = Vec<Result<Position>>>>(
        &self,
        records: Vec<Record>,
        publish: impl FnOnce(Vec<Record>) -> F,
    ) -> Vec<Result<Position>> {
        let Wanted { runs, ids } = self.wanted(&records);
        let answers = publish(records).await;
        let mut ids = ids.into_iter();
        for (topic, run) in runs {
            let ids = ids.by_ref().take(run.len());
            let answered = ids.zip(answers.get(run).unwrap_or_default());
            self.note(&topic, answered.filter_map(|(id, answer)| answer.as_ref().ok().map(|at| event(at, id))));
        }
        answers
    }

    fn is_wanted(&self, topic: &Name) -> bool {
        self.auditor.events().policy().of(topic).publish
    }

    /// Returns the records that the policy selects. Does not allocate if there are none.
    fn wanted(&self, records: &[Record]) -> Wanted {
        let (mut wanted, mut at) = (Wanted::default(), 0);
        for run in records.chunk_by(|a, b| a.topic == b.topic) {
            let run_of = at..at + run.len();
            at = run_of.end;
            if self.is_wanted(&run[0].topic) {
                wanted.ids.reserve(run.len());
                wanted.ids.extend(run.iter().map(|record| id_of(&record.headers, record.value.as_ref())));
                wanted.runs.push((run[0].topic.clone(), run_of));
            }
        }
        wanted
    }

    fn note(&self, topic: &Name, events: impl IntoIterator<Item = AuditedEvent>) {
        self.auditor.note(Operation::Publish, &self.by, topic, events);
    }
}

/// Returns the error of a delayed event whose publishing would not be recorded: its position is not known yet.
fn not_audited(topic: &Name) -> Error {
    let what = format!(
        "publish a delayed event to {topic}: the audit policy records published events of this topic, and the broker \
         would publish this one unrecorded; nothing is published"
    );
    Error::new(ErrorKind::Unsupported, what)
}

fn event(position: &Position, id: Option<Uuid>) -> AuditedEvent {
    AuditedEvent::new(position.partition, position.offset, id)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Publisher for AuditedPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        self.notes.around(records, |records| self.inner.publish(records)).await
    }

    fn begin_one(&self, record: Record) -> Begun<'_> {
        if !self.notes.is_wanted(&record.topic) {
            return self.inner.begin_one(record);
        }
        let (topic, id) = (record.topic.clone(), id_of(&record.headers, record.value.as_ref()));
        match self.inner.begin_one(record) {
            Begun::Answered(answer) => {
                self.notes.note(&topic, answer.as_ref().ok().map(|position| event(position, id)));
                Begun::Answered(answer)
            }
            Begun::Pending(pending) => Begun::Pending(Box::pin(async move {
                let answer = pending.await;
                self.notes.note(&topic, answer.as_ref().ok().map(|position| event(position, id)));
                answer
            })),
        }
    }

    async fn publish_delayed(&self, delayed: DelayedRecord) -> Result<()> {
        if self.notes.is_wanted(&delayed.record.topic) {
            return Err(not_audited(&delayed.record.topic));
        }
        self.inner.publish_delayed(delayed).await
    }

    async fn cancel_delayed(&self, id: Uuid) -> Result<bool> {
        self.inner.cancel_delayed(id).await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
