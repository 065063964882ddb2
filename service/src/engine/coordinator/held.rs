//! Held partitions, which cannot be read on or have a dead letter that cannot be written; and skipping these holds.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, pending};
use std::ops::Range;
use std::pin::Pin;

use tidings_core::{Error, ErrorKind, Fetched, RecordBatch, Result, SeekTo, TopicPartition, Unreadable};
use tokio::sync::oneshot;

use super::{Coordinator, Partition};
use crate::engine::messages::WorkerCommand;
use crate::status::{Hold, PauseReason, Skipped};

/// The holds of an assignment.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The range that cannot be read.
    unreadable: Option<Hold>,
    /// Records whose dead letters could not be written, by offset.
    letters: BTreeMap<u64, String>,
}

impl Held {
    /// Returns whether reading has stopped here.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Records that records up to `next` arrived: a range before that is readable again.
    pub(super) fn read_on(&mut self, next: u64) {
        self.unreadable.take_if(|hold| hold.offset < next);
    }

    /// Returns all holds, by offset.
    pub(super) fn all(&self) -> Vec<Hold> {
        let letter = |(offset, cause): (&u64, &String)| Hold {
            reason: PauseReason::DeadLetters,
            offset: *offset,
            next_offset: Some(offset + 1),
            cause: cause.clone(),
        };
        self.letters.iter().map(letter).chain(self.unreadable.clone()).collect()
    }
}

/// A skip requested by an operator.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) partition: TopicPartition,
    pub(crate) offsets: Range<u64>,
    pub(crate) reply: oneshot::Sender<Result<Skipped>>,
}

/// A skip in flight.
#[derive(Debug)]
struct Begun {
    slot: u64,
    skip: Skip,
    cause: String,
}

/// The skips in flight.
#[derive(Debug, Default)]
pub(super) struct Skips {
    seek: Option<Seek>,
    letters: Vec<Begun>,
}

/// A skip of an unreadable range: a call of the consumer.
struct Seek {
    begun: Begun,
    call: Pin<Box<dyn Future<Output = Result<u64>> + Send>>,
}

impl fmt::Debug for Seek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seek").field(&self.begun).finish()
    }
}

/// A completed seek, with the offset that it reached.
pub(super) struct Sought(Option<(Begun, Result<u64>)>);

impl Skips {
    /// Waits for the call, if there is one. Cancel-safe.
    pub(super) async fn sought(&mut self) -> Sought {
        let Some(seek) = &mut self.seek else { return pending().await };
        let reached = seek.call.as_mut().await;
        Sought(self.seek.take().map(|seek| (seek.begun, reached)))
    }

    /// Ends the skips of a former assignment.
    pub(super) fn forget(&mut self, slot: u64) {
        for begun in self.letters.extract_if(.., |begun| begun.slot == slot) {
            begun.skip.refuse(ErrorKind::Fenced, "the partition was given up meanwhile");
        }
    }
}

impl Skip {
    fn refuse(self, kind: ErrorKind, why: &str) {
        let Range { start, end } = self.offsets;
        let error = Error::new(kind, format!("skip offsets {start}..{end} of {}: {why}", self.partition));
        // An operator who has stopped waiting needs no answer.
        let _ = self.reply.send(Err(error));
    }

    /// Returns why the range does not match `hold` exactly, if it does not.
    fn mismatch(&self, hold: &Hold) -> Option<String> {
        let Range { start, end } = self.offsets;
        match hold.next_offset {
            _ if start >= end => Some("the range is empty".to_owned()),
            Some(next) if next != end => Some(format!("the partition is held by offsets {start}..{next}")),
            _ => None,
        }
    }
}

impl Begun {
    /// Completes the skip, for offsets up to `end`.
    fn done(self, service: &str, end: u64) {
        let Skip { partition, offsets, reply } = self.skip;
        let offsets = offsets.start..end;
        tracing::warn!(
            service,
            topic = %partition.topic,
            partition = partition.partition,
            offset = offsets.start,
            next_offset = offsets.end,
            error = %self.cause,
            "skipped by an operator: these records are not handled"
        );
        let _ = reply.send(Ok(Skipped { partition, offsets, cause: self.cause }));
    }
}

impl Coordinator {
    /// Holds only this partition. All records before the range are tracked, and are settled and committed.
    pub(super) fn unreadable(&mut self, unreadable: Unreadable) {
        let Unreadable { partition: origin, epoch, offset, next_offset, error, .. } = unreadable;
        let Some(slot) = self.current.get(&origin) else { return };
        let Some(partition) = self.slots.get_mut(slot).filter(|p| p.assigned.epoch == epoch) else { return };
        let cause = error.report();
        tracing::error!(
            service = %self.shared.identity.service,
            topic = %origin.topic,
            partition = origin.partition,
            offset,
            next_offset,
            error = %cause,
            "records cannot be read; the partition is held there until the range is skipped, all others go on"
        );
        partition.held.unreadable = Some(Hold { reason: PauseReason::Unreadable, offset, next_offset, cause });
    }

    /// Records that the letter of a record could not be written; `None`: it was written eventually.
    pub(super) fn unburied(&mut self, slot: u64, offset: u64, error: Option<String>) {
        let Some(partition) = self.slots.get_mut(&slot) else { return };
        match error {
            Some(error) => drop(partition.held.letters.insert(offset, error)),
            None => {
                partition.held.letters.remove(&offset);
                if let Some(begun) = self.letter(slot, offset) {
                    begun.skip.refuse(ErrorKind::Conflict, "its dead letter was written meanwhile");
                }
            }
        }
    }

    fn letter(&mut self, slot: u64, offset: u64) -> Option<Begun> {
        let at = self.skips.letters.iter().position(|b| b.slot == slot && b.skip.offsets.start == offset)?;
        Some(self.skips.letters.swap_remove(at))
    }

    /// Records that a worker settled a record without its letter.
    pub(super) fn letter_skipped(&mut self, slot: u64, offset: u64) {
        if let Some(partition) = self.slots.get_mut(&slot) {
            partition.held.letters.remove(&offset);
        }
        if let Some(begun) = self.letter(slot, offset) {
            begun.done(&self.shared.identity.service, offset + 1);
        }
    }

    /// Skips a partition's hold, if the range matches it exactly.
    pub(super) fn skip(&mut self, skip: Skip) {
        let partition = self.current.get(&skip.partition).and_then(|slot| Some((*slot, self.slots.get(slot)?)));
        let Some((slot, partition)) = partition.filter(|(_, partition)| partition.leaving.is_none()) else {
            return skip.refuse(ErrorKind::NotFound, "the partition is not assigned to this instance");
        };
        let Some(hold) = partition.held.all().into_iter().find(|hold| hold.offset == skip.offsets.start) else {
            return skip.refuse(ErrorKind::Conflict, "the partition is not held there");
        };
        if let Some(why) = skip.mismatch(&hold) {
            return skip.refuse(ErrorKind::Invalid, &why);
        }
        let under_way = self.skips.letters.iter().chain(self.skips.seek.as_ref().map(|seek| &seek.begun));
        if under_way.into_iter().any(|begun| begun.skip.partition == skip.partition) {
            return skip.refuse(ErrorKind::Conflict, "another skip of the partition is under way");
        }
        let begun = Begun { slot, cause: hold.cause, skip };
        if hold.reason == PauseReason::Unreadable {
            self.seek(begun);
        } else {
            let offset = begun.skip.offsets.start;
            self.skips.letters.push(begun);
            self.order_all(|| WorkerCommand::Skip { assignment: slot, offset });
        }
    }

    fn seek(&mut self, begun: Begun) {
        if self.skips.seek.is_some() {
            return begun.skip.refuse(ErrorKind::Conflict, "another skip is under way");
        }
        let (consumer, at, to) = (self.consumer.clone(), begun.skip.partition.clone(), begun.skip.offsets.end);
        let call = Box::pin(async move { consumer.seek(&at, SeekTo::Offset(to)).await });
        self.skips.seek = Some(Seek { begun, call });
    }

    pub(super) fn sought(&mut self, Sought(sought): Sought) {
        let Some((begun, reached)) = sought else { return };
        let origin = &begun.skip.partition;
        let assigned = self.slots.get_mut(&begun.slot).filter(|partition| partition.leaving.is_none());
        match (assigned, reached) {
            (None, _) => begun.skip.refuse(ErrorKind::Fenced, "the partition was given up meanwhile"),
            (_, Err(error)) => {
                let text = format!("skip offsets of {origin}");
                let _ = begun.skip.reply.send(Err(Error::caused_by(error.kind(), text, error)));
            }
            (_, Ok(reached)) if reached <= begun.skip.offsets.start => {
                begun.skip.refuse(ErrorKind::Conflict, &format!("the log ends at {reached}"));
            }
            (Some(partition), Ok(reached)) => {
                partition.held.read_on(reached);
                self.pass_over(begun.slot, reached);
                begun.done(&self.shared.identity.service, reached);
            }
        }
    }

    /// Counts the skipped range as read, unless later records have arrived already.
    fn pass_over(&mut self, slot: u64, next: u64) {
        let Some(partition) = self.slots.get(&slot) else { return };
        if next > partition.reached() {
            let nothing = RecordBatch::new(partition.assigned.origin.clone(), Vec::new());
            self.records(Fetched::new(nothing, partition.assigned.epoch, next));
        }
    }
}

/// Returns the problems of partitions that are held because they cannot be read.
pub(super) fn problem(partition: &Partition) -> Option<String> {
    let hold = partition.held.unreadable.as_ref()?;
    let until = hold.next_offset.map_or_else(String::new, |next| format!(" to {}", next.saturating_sub(1)));
    let (origin, cause) = (&partition.assigned.origin, &hold.cause);
    Some(format!("{origin}: offset {}{until} cannot be read, the partition is held there: {cause}", hold.offset))
}
