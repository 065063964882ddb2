//! Finds records that have not been settled for long, and what they wait for. Looks at all that the worker has, so it is
//! done only when the coordinator asks.

use tokio::time::Instant;

use super::parts::Parts;
use crate::engine::assigned::AssignmentId;
use crate::engine::messages::{Cause, Chunk, Located, WorkerEvent};
use crate::engine::record::{PendingRecord, Stage};
use crate::telemetry::HoldCause;

impl Parts {
    /// Reports the records at these offsets, as far as they are in this worker.
    pub(super) fn locate(&self, wanted: &[(AssignmentId, u64)]) {
        let is_wanted = |assignment, offset| wanted.contains(&(assignment, offset));
        let matches = |record: &PendingRecord| is_wanted(record.assignment(), record.offset());
        let others = self.batcher.records().chain(self.invoker.records());
        let others = others.chain(self.claimer.records()).chain(self.settler.records()).map(|record| (record, None));
        let records = self.scheduler.records().chain(others).filter(|(record, _)| matches(record));
        let mut found: Vec<_> = records.map(|(record, due)| (record.assignment(), of_record(record, due))).collect();
        for (chunk, throttled) in self.scheduler.chunks() {
            let offsets = wanted.iter().filter(|(id, offset)| *id == chunk.assigned.id && contains(chunk, *offset));
            found.extend(offsets.map(|(id, offset)| (*id, of_chunk(*offset, throttled))));
        }
        let in_flight = self.settler.in_flight().or(self.claimer.is_claiming().then_some(HoldCause::Store));
        for (assignment, offset) in wanted {
            let is_found = found.iter().any(|(id, located)| id == assignment && located.offset == *offset);
            if let Some(cause) = in_flight.filter(|_| !is_found) {
                found.push((*assignment, Located { is_certain: false, ..unattempted(*offset, cause) }));
            }
        }
        for (assignment, located) in found {
            self.send(WorkerEvent::Located { assignment, located });
        }
    }
}

fn of_record(record: &PendingRecord, due: Option<Instant>) -> Located {
    Located {
        offset: record.offset(),
        handler: record.handler.map(|handler| handler as usize),
        attempt: Some(record.failures().saturating_add(1)),
        cause: record.trouble().map_or_else(|| of_stage(record.stage()), of_trouble),
        error: record.last_error().cloned(),
        due,
        is_certain: true,
    }
}

fn of_trouble(cause: Cause) -> HoldCause {
    match cause {
        Cause::Handler => HoldCause::Retry,
        Cause::Store => HoldCause::Store,
        Cause::DeadLetters => HoldCause::DeadLetters,
        Cause::Publisher => HoldCause::Publisher,
    }
}

fn of_stage(stage: Stage) -> HoldCause {
    match stage {
        Stage::Running => HoldCause::Handler,
        Stage::Delayed => HoldCause::Retry,
        Stage::Throttled => HoldCause::Throttled,
        Stage::Batching => HoldCause::Batching,
        Stage::Isolated => HoldCause::Isolated,
        Stage::Claiming | Stage::Completing => HoldCause::Store,
        Stage::Publishing | Stage::Forwarding => HoldCause::Publisher,
        Stage::Burying => HoldCause::DeadLetters,
        Stage::Fresh | Stage::Queued | Stage::Ready => HoldCause::Queued,
    }
}

fn contains(chunk: &Chunk, offset: u64) -> bool {
    let indexes = (chunk.at..chunk.indexes.len()).filter_map(|at| chunk.indexes.get(at));
    indexes.into_iter().any(|index| chunk.batch.records()[index as usize].offset == offset)
}

fn of_chunk(offset: u64, throttled: bool) -> Located {
    unattempted(offset, if throttled { HoldCause::Throttled } else { HoldCause::Queued })
}

fn unattempted(offset: u64, cause: HoldCause) -> Located {
    Located { offset, handler: None, attempt: Some(1), cause, error: None, due: None, is_certain: true }
}
