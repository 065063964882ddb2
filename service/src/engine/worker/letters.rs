//! Records whose retries are used up: they wait in retry topics, and then become dead letters.

use std::time::Duration;

use tidings_core::{DeadLetter, ErrorKind, RetryRecord, event_id_of};
use tracing::field::display;

use super::parts::Parts;
use crate::engine::record::PendingRecord;
use crate::engine::tiers::Level;
use crate::logs;

impl Parts {
    /// Returns the retry topic that a record can wait in next, and for how long.
    pub(super) fn next_tier(&self, record: &PendingRecord) -> Option<(Level, Duration)> {
        self.shared.policy.tiers.as_ref()?.next(record.past().map(|waited| waited.level))
    }

    /// Forwards a record whose retries are used up, or dead-letters it.
    pub(super) fn give_up(&mut self, record: PendingRecord, kind: ErrorKind, text: String) {
        match self.next_tier(&record) {
            Some(next) => self.forward(record, next, kind, text),
            None => self.bury(record, kind, text),
        }
    }

    /// Forwards a record to a retry topic: it is settled when the broker has acknowledged it there.
    pub(super) fn forward(
        &mut self,
        mut record: PendingRecord,
        (level, delay): (Level, Duration),
        kind: ErrorKind,
        text: String,
    ) {
        let origin = record.origin().clone();
        let tiers = self.shared.policy.tiers.as_ref();
        let Some((tiers, topic)) = tiers.and_then(|tiers| Some((tiers, tiers.topic(&origin.topic, level)?))) else {
            return self.bury(record, kind, text);
        };
        let (now, due) = tiers.forwarded(delay);
        let mut retry = RetryRecord::new(self.shared.identity.service.clone(), origin, record.stored().clone(), due);
        retry.first_failed_at = record.past().map_or(now, |waited| waited.first_failed_at);
        (retry.attempts, retry.kind) = (record.failures(), kind);
        retry.error.clone_from(&text);
        if let Some(handler) = record.handler {
            retry.handler = self.shared.table.info(handler as usize).name.clone();
        }
        let forwarded = retry.to_record(topic);
        // For the dead letter, if the retry topic refuses the record.
        record.note_error(kind, &text);
        self.scheduler.hold(&mut record);
        record.drop_permit();
        self.settler.forward(record, forwarded);
    }

    /// Dead-letters a record: it is settled when the letter is written.
    pub(super) fn bury(&mut self, mut record: PendingRecord, kind: ErrorKind, text: String) {
        self.scheduler.hold(&mut record);
        // It has failed: later crashes with its claim blame no innocent record, and a sink may be down for long.
        record.drop_permit();
        let (stored, service) = (record.stored().clone(), &self.shared.identity.service);
        let origin = record.origin();
        let handler = record.handler.map(|handler| self.shared.table.info(handler as usize).name.as_str());
        let line = logs::DeadLettered {
            service: &service.as_str(),
            handler: &handler,
            topic: &origin.topic.as_str(),
            partition: &origin.partition,
            offset: &stored.offset,
            event_id: &display(event_id_of(origin, &stored)),
            attempts: &record.failures(),
            kind: &kind.as_str(),
            error: &&*logs::without_values(kind, &text),
        };
        line.log();
        let mut letter = DeadLetter::new(service.clone(), origin.clone(), stored, kind)
            .with_error(text)
            .with_attempts(record.failures());
        if let Some(handler) = record.handler {
            letter = letter.with_handler(self.shared.table.info(handler as usize).name.clone());
        }
        self.settler.bury(record, letter);
    }

    /// Dead-letters a record after repeated crashes.
    pub(super) fn bury_crashed(&mut self, record: PendingRecord, crashes: u32) {
        let text = format!("{crashes} processes crashed with this record in hand");
        self.bury(record, ErrorKind::Failed, text);
    }
}
