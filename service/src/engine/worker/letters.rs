//! Records that are given up: their dead letters.

use tidings_core::{DeadLetter, ErrorKind, event_id_of};
use tracing::field::display;

use super::parts::Parts;
use crate::engine::record::PendingRecord;
use crate::logs;

impl Parts {
    /// Dead-letters a record: it is settled when the letter is written.
    pub(super) fn bury(&mut self, mut record: PendingRecord, kind: ErrorKind, text: String) {
        self.scheduler.hold(&mut record);
        // It has failed: later crashes with its claim blame no innocent record, and a sink may be down for long.
        record.drop_permit();
        let (stored, service) = (record.stored().clone(), &self.shared.identity.service);
        let origin = record.id.assigned.origin.as_ref();
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
