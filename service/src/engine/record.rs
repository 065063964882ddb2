//! A record that waits in a worker, and the stages that it passes.

use std::sync::Arc;

use tidings_core::{ErrorKind, History, RecordBatch, RetryRecord, StoredRecord, Timestamp, TopicPartition};
use uuid::Uuid;

use super::assigned::{Assigned, AssignmentId};
use super::claims::ClaimGuard;
use super::keys::KeyHash;
use super::messages::{Cause, Chunk, Events, IsolationPermit};
use super::tiers::Level;
use super::trouble::Trouble;

/// At this many crashes of processes that had claimed it, a record is handled with nothing else in flight.
pub(crate) const ISOLATED_CRASHES: u32 = 2;
/// At this many crashes of processes that had claimed it, a record is dead-lettered.
pub(crate) const MAX_CRASHES: u32 = 5;

/// The place of a record in its assignment.
#[derive(Debug)]
pub(crate) struct RecordId {
    pub(crate) assigned: Arc<Assigned>,
    /// The number of its batch in the tracker.
    pub(crate) number: u64,
    /// Its index in the batch.
    pub(crate) index: u32,
}

/// A record that waits: for its handler, a dependency, or its turn. A record whose handler is ready at once never
/// becomes one.
#[derive(Debug)]
pub(crate) struct PendingRecord {
    pub(crate) id: RecordId,
    /// A batch of only this record; for a record of a retry topic, of its original.
    pub(crate) record: RecordBatch,
    /// `None` if the record has no handler.
    pub(crate) handler: Option<u32>,
    pub(crate) key: RecordKey,
    pub(crate) claim: ClaimState,
    pub(crate) event_id: Option<Uuid>,
    /// The number of times a handler was started with it.
    pub(crate) runs: u32,
    /// The number of consecutive waits for a dependency that was down.
    pub(crate) waits: u32,
    tries: Option<Box<Tries>>,
    pub(crate) mode: DeliveryMode,
    /// The dependency that is down.
    trouble: Option<Box<Trouble>>,
    stage: Stage,
}

/// The failed attempts of a record.
#[derive(Debug, Default)]
struct Tries {
    failures: u32,
    /// The failed attempts already reported by releasing a claim: the next claim's history includes them.
    reported: u32,
    /// The kind and text of the last error.
    error: Option<(ErrorKind, String)>,
    /// The past of a record of a retry topic.
    waited: Option<Waited>,
}

/// The past of a record that waited in a retry topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// The level of the retry topic.
    pub(crate) level: Level,
    /// The offset in the retry topic; the record has that of its original.
    offset: u64,
    /// The number of attempts before.
    attempts: u32,
    pub(crate) first_failed_at: Timestamp,
}

/// The key of a record, within which order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKey {
    /// The record has no order.
    Unordered,
    /// The record waits for its turn.
    Waiting(KeyHash),
    /// No other record of the key begins.
    Held(KeyHash),
}

impl RecordKey {
    pub(crate) fn hash(self) -> Option<KeyHash> {
        match self {
            Self::Unordered => None,
            Self::Waiting(hash) | Self::Held(hash) => Some(hash),
        }
    }

    /// Returns the key if the record holds it.
    pub(crate) fn held(self) -> Option<KeyHash> {
        match self {
            Self::Held(hash) => Some(hash),
            _ => None,
        }
    }
}

/// The state of a record's claim.
#[derive(Debug)]
pub(crate) enum ClaimState {
    /// The service has no store, or the record has no handler.
    NotNeeded,
    /// The event must be claimed before the delivery begins.
    Unclaimed,
    /// This service has claimed the event.
    Granted(History, ClaimGuard),
}

/// The deliveries in which a record may be.
#[derive(Debug)]
pub(crate) enum DeliveryMode {
    /// Any delivery of its handler.
    Shared,
    /// It failed in a batch, and is now passed to the handler alone.
    Single,
    /// Processes crashed while they had claimed it: it is claimed and handled with nothing else in flight, which the
    /// permit ensures.
    Isolated(Option<IsolationPermit>),
}

/// The stage of a record: the part of the worker that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Just made of a chunk's record.
    Fresh,
    /// A claim is requested.
    Claiming,
    /// Behind other records of its key.
    Queued,
    /// It may begin.
    Ready,
    /// Its handler is not ready.
    Throttled,
    /// Waits until nothing else is in flight.
    Isolated,
    /// In an incomplete batch.
    Batching,
    /// With its handler.
    Running,
    /// Waits for a time.
    Delayed,
    /// Its handler's events are being published.
    Publishing,
    /// It is being forwarded to a retry topic.
    Forwarding,
    /// Its dead letter is being written.
    Burying,
    /// Its claim is being completed.
    Completing,
}

impl Stage {
    /// Returns whether a record may pass from this stage to `next`.
    fn precedes(self, next: Self) -> bool {
        use Stage::*;
        match self {
            Fresh => !matches!(next, Fresh | Isolated | Completing | Forwarding),
            Claiming => matches!(next, Ready | Queued | Delayed | Running | Throttled | Burying),
            Queued | Delayed => next == Ready,
            Ready => !matches!(next, Fresh | Delayed | Publishing | Completing),
            Throttled => next == Ready,
            Isolated => next == Claiming,
            Batching => matches!(next, Running | Ready | Claiming | Queued),
            Running => !matches!(next, Fresh | Claiming | Isolated),
            Publishing => !matches!(next, Fresh | Claiming | Isolated | Throttled | Running | Publishing),
            Forwarding => next == Burying,
            Burying => false,
            Completing => matches!(next, Delayed | Queued),
        }
    }
}

impl PendingRecord {
    /// Creates the record at `index` of a chunk's batch.
    pub(crate) fn new(chunk: &Chunk, index: u32, handler: Option<u32>, key: Option<KeyHash>, claimed: bool) -> Self {
        let at = index as usize;
        Self {
            id: RecordId { assigned: chunk.assigned.clone(), number: chunk.number, index },
            record: chunk.batch.slice(at, at + 1),
            handler,
            key: key.map_or(RecordKey::Unordered, RecordKey::Waiting),
            claim: if claimed { ClaimState::Unclaimed } else { ClaimState::NotNeeded },
            event_id: None,
            runs: 0,
            waits: 0,
            tries: None,
            mode: DeliveryMode::Shared,
            trouble: None,
            stage: Stage::Fresh,
        }
    }

    /// Restores the original of the record at `index` of a chunk of a retry topic.
    pub(crate) fn waited(
        chunk: &Chunk,
        index: u32,
        level: Level,
        retry: RetryRecord,
        handler: Option<u32>,
        key: Option<KeyHash>,
        claimed: bool,
    ) -> Self {
        let offset = chunk.batch.records()[index as usize].offset;
        let RetryRecord { origin, record, attempts, first_failed_at, .. } = retry;
        let waited = Waited { level, offset, attempts, first_failed_at };
        let is_alike = origin.partition == chunk.assigned.origin.partition;
        Self {
            record: RecordBatch::new(origin, vec![record]),
            tries: Some(Box::new(Tries { waited: Some(waited), ..Tries::default() })),
            // The records of a delivery are of one partition.
            mode: if is_alike { DeliveryMode::Shared } else { DeliveryMode::Single },
            ..Self::new(chunk, index, handler, key, claimed)
        }
    }

    pub(crate) fn assignment(&self) -> AssignmentId {
        self.id.assigned.id
    }

    pub(crate) fn stored(&self) -> &StoredRecord {
        &self.record.records()[0]
    }

    /// Returns the topic and partition of the record, or of its original.
    pub(crate) fn origin(&self) -> &TopicPartition {
        self.record.origin()
    }

    /// Returns the offset in the assigned partition.
    pub(crate) fn offset(&self) -> u64 {
        self.past().map_or_else(|| self.stored().offset, |waited| waited.offset)
    }

    /// Returns the past of a record that waited in a retry topic.
    pub(crate) fn past(&self) -> Option<&Waited> {
        self.tries.as_ref()?.waited.as_ref()
    }

    fn attempts_before(&self) -> u32 {
        self.past().map_or(0, |waited| waited.attempts)
    }

    /// Passes to another stage: called by the part that takes the record.
    pub(crate) fn advance(&mut self, next: Stage) {
        debug_assert!(self.stage.precedes(next), "a record passed from {:?} to {next:?}", self.stage);
        self.stage = next;
    }

    /// Returns whether its handler can start with it without any further request.
    pub(crate) fn may_begin(&self) -> bool {
        match &self.claim {
            ClaimState::NotNeeded => true,
            ClaimState::Granted(history, guard) => history.crashes < ISOLATED_CRASHES && guard.is_current(),
            ClaimState::Unclaimed => false,
        }
    }

    /// Returns whether the event must be claimed first.
    pub(crate) fn needs_claim(&self) -> bool {
        matches!(self.claim, ClaimState::Unclaimed)
    }

    /// Returns whether the record is claimed.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self.claim, ClaimState::Granted(..))
    }

    /// Takes the claim, which has to be made again.
    pub(crate) fn take_claim(&mut self) -> Option<ClaimGuard> {
        match std::mem::replace(&mut self.claim, ClaimState::Unclaimed) {
            ClaimState::Granted(_, guard) => Some(guard),
            other => {
                self.claim = other;
                None
            }
        }
    }

    /// Takes the claim to release it, with the number of attempts made under it.
    pub(crate) fn take_claim_with_attempts(&mut self) -> Option<(ClaimGuard, u32)> {
        let guard = self.take_claim()?;
        let attempts = self.tries.as_mut().map_or(0, |tries| {
            let attempts = tries.failures - tries.reported;
            tries.reported = tries.failures;
            attempts
        });
        Some((guard, attempts))
    }

    /// Returns whether an attempt failed since the record was read.
    pub(crate) fn has_failed(&self) -> bool {
        self.tries.as_ref().is_some_and(|tries| tries.failures > 0)
    }

    /// Returns the number of failed attempts by this worker, and of those before the record waited in a retry topic.
    pub(crate) fn own_failures(&self) -> u32 {
        self.tries.as_ref().map_or(0, |tries| tries.failures).saturating_add(self.attempts_before())
    }

    /// Returns the number of failed attempts, including those under earlier leases of its claim.
    pub(crate) fn failures(&self) -> u32 {
        match (&self.claim, &self.tries) {
            (ClaimState::Granted(history, _), None) => history.attempts,
            (ClaimState::Granted(history, _), Some(tries)) => {
                // The attempts before it waited were reported to the store, too.
                (tries.failures - tries.reported).saturating_add(history.attempts.max(self.attempts_before()))
            }
            _ => self.own_failures(),
        }
    }

    /// Counts a failed attempt.
    pub(crate) fn attempt_failed(&mut self, kind: ErrorKind, text: &str) {
        let tries = self.tries.get_or_insert_default();
        tries.failures = tries.failures.saturating_add(1);
        tries.error = Some((kind, text.to_owned()));
    }

    /// Keeps the error of a batch, which counts against none of its records.
    pub(crate) fn note_error(&mut self, kind: ErrorKind, text: &str) {
        self.tries.get_or_insert_default().error = Some((kind, text.to_owned()));
    }

    /// Returns the last error.
    pub(crate) fn last_error(&self) -> Option<&(ErrorKind, String)> {
        self.tries.as_ref()?.error.as_ref()
    }

    /// Returns the part that has the record.
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns the dependency that is down, if the record waits for one.
    pub(crate) fn trouble(&self) -> Option<Cause> {
        self.trouble.as_ref().map(|trouble| trouble.cause())
    }

    /// Takes the last error.
    pub(crate) fn take_error(&mut self) -> Option<(ErrorKind, String)> {
        self.tries.as_mut()?.error.take()
    }

    pub(crate) fn is_single(&self) -> bool {
        matches!(self.mode, DeliveryMode::Single)
    }

    pub(crate) fn is_isolated(&self) -> bool {
        matches!(self.mode, DeliveryMode::Isolated(_))
    }

    /// Returns whether nothing else runs until it is done.
    pub(crate) fn has_permit(&self) -> bool {
        matches!(self.mode, DeliveryMode::Isolated(Some(_)))
    }

    /// Lets other deliveries run: it is settled, or has no claim any more.
    pub(crate) fn drop_permit(&mut self) {
        if let DeliveryMode::Isolated(permit) = &mut self.mode {
            *permit = None;
        }
    }

    /// Pauses the record's partition until the trouble is over.
    pub(crate) fn raise_trouble(&mut self, events: &Events, cause: Cause, text: &str) {
        if self.trouble.as_ref().is_none_or(|trouble| trouble.cause() != cause) {
            self.trouble = Some(Box::new(Trouble::raise(events, self.assignment(), cause, text)));
        }
    }

    /// Ends its trouble, if it had any.
    pub(crate) fn end_trouble(&mut self) {
        self.trouble = None;
    }
}

/// Pauses the partitions of `records`, which wait for one dependency. One record raises it for all of its partition.
pub(crate) fn raise_troubles<'a>(
    records: impl Iterator<Item = &'a mut PendingRecord>,
    events: &Events,
    cause: Cause,
    text: &str,
) {
    let mut raised = Vec::new();
    for record in records {
        if !raised.contains(&record.assignment()) {
            raised.push(record.assignment());
            record.raise_trouble(events, cause, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_waits_stays_small() {
        let size = size_of::<PendingRecord>();
        assert!(size <= 184, "{size} bytes for each record that waits");
    }

    #[test]
    fn a_settled_dead_letter_and_a_completion_never_go_back_to_a_handler() {
        for next in [Stage::Ready, Stage::Running, Stage::Batching] {
            assert!(!Stage::Burying.precedes(next) && !Stage::Completing.precedes(next));
        }
    }
}
