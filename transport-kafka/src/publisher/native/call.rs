//! Calls of `publish`, and the ends of the batches that contain their records.
//!
//! A batch has one entry for each call, regardless of the number of records: when it ends, it wakes each of its calls
//! at most once. A call looks up its answers by the places of its records.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tidings_core::{Error, ErrorKind, Name, Position, Result};
use tokio::sync::Notify;

use crate::client::producer::UNKNOWN_OFFSET;
use crate::publisher::buffer_limit::BufferPermit;
use crate::publisher::gone;
use crate::wire::producer::Fate;

/// Batch index of a record that is in no batch.
const NO_BATCH: u32 = u32::MAX;

/// The records of a call that were queued, and their answers.
#[derive(Debug)]
pub(super) struct Call {
    places: Mutex<Places>,
    /// Batches that have not ended; one more while records are being queued.
    open: AtomicUsize,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Places {
    /// Place of each record, by its index in the call.
    records: Vec<Place>,
    batches: Vec<Arc<BatchEnd>>,
    failed: Vec<Error>,
}

/// Place of a record: the index of its batch in the call, and its position in the batch. For a record in no batch, the
/// position of its error.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: u32,
    position: u32,
}

/// A call whose records are being queued, until this is dropped.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Call>);

/// A call, locked by the current enqueuer.
pub(super) struct Queueing<'a> {
    call: &'a Arc<Call>,
    places: MutexGuard<'a, Places>,
}

impl OpenCall {
    /// Creates a call of this number of records.
    pub(super) fn new(count: usize) -> Self {
        let places = Places { records: Vec::with_capacity(count), ..Places::default() };
        Self(Arc::new(Call { places: Mutex::new(places), open: AtomicUsize::new(1), ended: Notify::new() }))
    }

    /// Returns the call.
    pub(super) fn call(&self) -> Arc<Call> {
        Arc::clone(&self.0)
    }

    /// Locks the call, to add its next records.
    pub(super) fn queueing(&self) -> Queueing<'_> {
        Queueing { call: &self.0, places: self.0.lock() }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.end_one();
    }
}

impl Queueing<'_> {
    /// Adds a record that cannot be queued, with its error.
    pub(super) fn fail(&mut self, error: Error) {
        let position = u32::try_from(self.places.failed.len()).unwrap_or(u32::MAX);
        self.places.records.push(Place { batch: NO_BATCH, position });
        self.places.failed.push(error);
    }

    /// Adds a record that was appended to a batch.
    pub(super) fn add(&mut self, batch: &mut BatchCalls, end: &Arc<BatchEnd>, position: u32) {
        if !batch.calls.last().is_some_and(|last| Arc::ptr_eq(last, self.call)) {
            self.call.open.fetch_add(1, Ordering::Relaxed);
            batch.calls.push(Arc::clone(self.call));
            batch.last = u32::try_from(self.places.batches.len()).unwrap_or(NO_BATCH);
            self.places.batches.push(Arc::clone(end));
        }
        self.places.records.push(Place { batch: batch.last, position });
    }
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_one();
        }
    }

    /// Waits until all queued records are answered. Only one caller may wait.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ended(&self) {
        while self.open.load(Ordering::Acquire) > 0 {
            self.ended.notified().await;
        }
    }

    /// Returns the answers to `count` records; `missing` is the answer to each that was not queued.
    pub(super) fn answers(&self, count: usize, missing: impl Fn() -> Error) -> Vec<Result<Position>> {
        let mut places = self.lock();
        let Places { records, batches, failed } = std::mem::take(&mut *places);
        drop(places);
        let mut failed = failed.into_iter();
        let mut answers = Vec::with_capacity(count);
        answers.extend(records.iter().map(|place| match batches.get(place.batch as usize) {
            Some(batch) => batch.answer(place.position),
            // Errors were added in the order of their records.
            None => Err(failed.next().unwrap_or_else(&missing)),
        }));
        answers.extend((answers.len()..count).map(|_| Err(missing())));
        answers
    }
}

/// The calls with records in a batch.
#[derive(Debug, Default)]
pub(super) struct BatchCalls {
    calls: Vec<Arc<Call>>,
    /// Index of the batch in the last call.
    last: u32,
}

/// How the records of a batch end. A batch that a broker refuses may be split, so its parts end at different times.
#[derive(Debug)]
pub(super) struct BatchEnd {
    topic: Name,
    partition: u32,
    /// All parts, in order, once the last of them has ended.
    parts: OnceLock<Vec<Part>>,
    ending: Mutex<Ending>,
}

#[derive(Debug, Default)]
struct Ending {
    parts: Vec<Part>,
    /// Records that have not ended.
    left: u32,
    calls: Vec<Arc<Call>>,
    /// Capacity of the records, released with the last of them.
    permit: Option<BufferPermit>,
}

/// Records of a batch that ended together, from the first one's position on.
#[derive(Debug)]
struct Part {
    first: u32,
    outcome: Outcome,
}

/// How records ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// Stored; the offset of the first one is unknown if the broker has forgotten it.
    Stored(Option<u64>),
    /// The kind and the cause.
    Failed(ErrorKind, Arc<str>),
}

impl BatchEnd {
    pub(super) fn new(topic: Name, partition: u32) -> Self {
        Self { topic, partition, parts: OnceLock::new(), ending: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, position: u32) -> Result<Position> {
        let parts = self.parts.get().map(Vec::as_slice).unwrap_or_default();
        let behind = parts.partition_point(|part| part.first <= position);
        let part = behind.checked_sub(1).and_then(|index| parts.get(index));
        match part.map(|part| (part.first, &part.outcome)) {
            Some((first, Outcome::Stored(Some(offset)))) => {
                Ok(Position::new(self.partition, offset + u64::from(position - first)))
            }
            Some((_, Outcome::Stored(None))) => Ok(Position::new(self.partition, UNKNOWN_OFFSET)),
            Some((_, Outcome::Failed(kind, cause))) => {
                Err(Error::new(*kind, format!("publish to {}[{}]: {cause}", self.topic, self.partition)))
            }
            None => Err(gone()),
        }
    }
}

/// Records of a batch that have not ended. If this is dropped, they end as indeterminate.
#[derive(Debug)]
pub(super) struct Unended {
    end: Arc<BatchEnd>,
    first: u32,
    count: u32,
}

impl Unended {
    /// Closes a batch of `count` records.
    pub(super) fn new(end: Arc<BatchEnd>, count: u32, calls: BatchCalls, permit: BufferPermit) -> Self {
        {
            let mut ending = end.lock();
            (ending.left, ending.calls, ending.permit) = (count, calls.calls, Some(permit));
        }
        Self { end, first: 0, count }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Splits off the records from `at` on.
    pub(super) fn split_off(&mut self, at: u32) -> Self {
        let at = at.min(self.count);
        let second = Self { end: Arc::clone(&self.end), first: self.first + at, count: self.count - at };
        self.count = at;
        second
    }

    /// Ends the records; the last part of a batch answers its calls.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.end_now(outcome);
    }

    fn end_now(&mut self, outcome: Outcome) {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        let mut ending = self.end.lock();
        ending.parts.push(Part { first: self.first, outcome });
        ending.left = ending.left.saturating_sub(count);
        if ending.left > 0 {
            return;
        }
        let Ending { mut parts, calls, permit, .. } = std::mem::take(&mut *ending);
        drop(ending);
        parts.sort_unstable_by_key(|part| part.first);
        // Set once: the parts of a batch do not overlap.
        let _set = self.end.parts.set(parts);
        // Before the calls, whose next records need the capacity.
        drop(permit);
        calls.iter().for_each(|call| call.end_one());
    }
}

impl Drop for Unended {
    fn drop(&mut self) {
        let cause = "the publisher ended before the broker answered";
        self.end_now(Outcome::Failed(ErrorKind::Indeterminate, cause.into()));
    }
}

/// Returns the outcome of a fate; `cause` is the last failure of a request.
pub(super) fn outcome_of(fate: Fate, cause: Option<&Error>) -> Outcome {
    let failed = |kind, text: String| Outcome::Failed(kind, text.into());
    let because = || cause.map_or_else(String::new, |cause| format!(": {}", cause.report()));
    match fate {
        Fate::Stored(offset) => Outcome::Stored(offset),
        Fate::Refused(code) => {
            let code = crate::wire::messages::Code(code);
            failed(code.kind(), code.to_string())
        }
        // Credentials that are refused stay refused.
        Fate::Expired if cause.is_some_and(|cause| cause.kind() == ErrorKind::Denied) => {
            failed(ErrorKind::Denied, format!("not stored within delivery_timeout{}", because()))
        }
        Fate::Expired => failed(ErrorKind::Unavailable, format!("not stored within delivery_timeout{}", because())),
        Fate::Unknown => {
            failed(ErrorKind::Indeterminate, format!("sent, and not answered within delivery_timeout{}", because()))
        }
    }
}

/// Returns the outcome of a batch of a partition that is missing.
pub(super) fn outcome_of_missing(fate: Fate, error: &Error) -> Outcome {
    match fate {
        Fate::Expired => Outcome::Failed(error.kind(), error.report().into()),
        sent => outcome_of(sent, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::publisher::buffer_limit::BufferLimit;

    fn refused() -> Error {
        Error::new(ErrorKind::Invalid, "refused")
    }

    fn kinds(call: &Call, count: usize) -> Vec<Result<Position, ErrorKind>> {
        let answers = call.answers(count, || Error::new(ErrorKind::Closed, "closed"));
        answers.into_iter().map(|answer| answer.map_err(|error| error.kind())).collect()
    }

    /// Two calls share a batch, which is split; the answers come in another order than the records.
    #[test]
    fn a_split_batch_answers_each_record_by_its_part() {
        let (limit, end) = (BufferLimit::new(4, 100), Arc::new(BatchEnd::new("t".into(), 7)));
        let permit = limit.try_take_all(4, 100).unwrap();
        let (first, second, mut batch) = (OpenCall::new(3), OpenCall::new(2), BatchCalls::default());
        let mut queueing = first.queueing();
        queueing.add(&mut batch, &end, 0);
        queueing.fail(refused());
        queueing.add(&mut batch, &end, 1);
        drop(queueing);
        (2..4).for_each(|position| second.queueing().add(&mut batch, &end, position));
        let calls = [first.call(), second.call()];
        drop((first, second));
        let mut whole = Unended::new(end, 4, batch, permit);
        let behind = whole.split_off(1);
        behind.end(Outcome::Stored(Some(50)));
        assert!(calls.iter().all(|call| call.ended().now_or_never().is_none()) && limit.try_take(1).is_none());
        whole.end(Outcome::Failed(ErrorKind::TooLarge, "too large".into()));
        assert!(calls.iter().all(|call| call.ended().now_or_never().is_some()) && limit.try_take(100).is_some());
        let at = |offset| Ok(Position::new(7, offset));
        assert_eq!(kinds(&calls[0], 3), [Err(ErrorKind::TooLarge), Err(ErrorKind::Invalid), at(50)]);
        assert_eq!(kinds(&calls[1], 2), [at(51), at(52)]);
    }

    #[test]
    fn records_that_are_dropped_may_be_stored_and_those_that_were_never_queued_are_not() {
        let (limit, end) = (BufferLimit::new(4, 100), Arc::new(BatchEnd::new("t".into(), 0)));
        let (open, mut batch) = (OpenCall::new(2), BatchCalls::default());
        open.queueing().add(&mut batch, &end, 0);
        let call = open.call();
        drop(Unended::new(end, 1, batch, limit.try_take_all(1, 1).unwrap()));
        assert!(call.ended().now_or_never().is_none(), "more records may be queued");
        drop(open);
        assert!(call.ended().now_or_never().is_some());
        assert_eq!(kinds(&call, 2), [Err(ErrorKind::Indeterminate), Err(ErrorKind::Closed)]);
    }
}
