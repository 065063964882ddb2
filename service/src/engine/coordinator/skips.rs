//! Skips of holds, by an operator's command.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use tidings_core::{Consumer, Error, ErrorKind, Result, SeekTo};

use crate::engine::assigned::AssignmentId;
use crate::engine::commands::Skip;
use crate::logs;
use crate::status::{Hold, PauseReason, Skipped};

/// A skip in flight.
#[derive(Debug)]
struct Begun {
    id: AssignmentId,
    skip: Skip,
    cause: String,
}

/// The skips in flight: at most one of an unreadable range, and one dead letter per partition.
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
#[derive(Debug)]
pub(super) struct Sought(Option<(Begun, Result<u64>)>);

impl Sought {
    /// Returns the assignment that the seek is for.
    pub(super) fn id(&self) -> Option<AssignmentId> {
        self.0.as_ref().map(|(begun, _)| begun.id)
    }

    /// Answers the operator; returns the offset up to which the range was skipped, if it was. `assigned` says whether
    /// the assignment still goes on.
    pub(super) fn answer(self, service: &str, assigned: bool) -> Option<u64> {
        let (begun, reached) = self.0?;
        match reached {
            _ if !assigned => begun.skip.refuse(ErrorKind::Fenced, "the partition was given up meanwhile"),
            Err(error) => {
                let text = format!("skip offsets of {}", begun.skip.partition);
                begun.skip.answer(Err(Error::caused_by(error.kind(), text, error)));
            }
            Ok(reached) if reached <= begun.skip.offsets.start => {
                begun.skip.refuse(ErrorKind::Conflict, &format!("the log ends at {reached}"));
            }
            Ok(reached) => {
                begun.done(service, reached);
                return Some(reached);
            }
        }
        None
    }
}

impl Begun {
    /// Completes the skip, for offsets up to `end`.
    fn done(self, service: &str, end: u64) {
        let (partition, offsets) = (self.skip.partition.clone(), self.skip.offsets.start..end);
        let line = logs::Skipped {
            service: &service,
            topic: &partition.topic.as_str(),
            partition: &partition.partition,
            offset: &offsets.start,
            next_offset: &offsets.end,
            error: &self.cause,
        };
        line.log();
        self.skip.answer(Ok(Skipped { partition, offsets, cause: self.cause }));
    }
}

impl Skips {
    /// Begins to skip `hold`, if the range matches it exactly. Returns the offset of a record whose dead letter cannot
    /// be written, which workers have to settle; an unreadable range is sought over by the consumer.
    pub(super) fn begin(
        &mut self,
        id: AssignmentId,
        hold: Hold,
        skip: Skip,
        consumer: &Arc<dyn Consumer>,
    ) -> Option<u64> {
        if let Some(why) = skip.mismatch(&hold) {
            skip.refuse(ErrorKind::Invalid, &why);
            return None;
        }
        let mut in_flight = self.letters.iter().chain(self.seek.as_ref().map(|seek| &seek.begun));
        if in_flight.any(|begun| begun.skip.partition == skip.partition) {
            skip.refuse(ErrorKind::Conflict, "another skip of the partition is under way");
            return None;
        }
        let begun = Begun { id, cause: hold.cause, skip };
        if hold.reason == PauseReason::Unreadable {
            self.seek(begun, consumer.clone());
            return None;
        }
        let offset = begun.skip.offsets.start;
        self.letters.push(begun);
        Some(offset)
    }

    fn seek(&mut self, begun: Begun, consumer: Arc<dyn Consumer>) {
        if self.seek.is_some() {
            return begun.skip.refuse(ErrorKind::Conflict, "another skip is under way");
        }
        let (at, to) = (begun.skip.partition.clone(), begun.skip.offsets.end);
        let call = Box::pin(async move { consumer.seek(&at, SeekTo::Offset(to)).await });
        self.seek = Some(Seek { begun, call });
    }

    /// Waits for the seek, if there is one. Cancel-safe.
    pub(super) async fn sought(&mut self) -> Sought {
        let Some(seek) = &mut self.seek else { return pending().await };
        let reached = seek.call.as_mut().await;
        Sought(self.seek.take().map(|seek| (seek.begun, reached)))
    }

    /// Records that a dead letter was written after all.
    pub(super) fn letter_written(&mut self, id: AssignmentId, offset: u64) {
        if let Some(begun) = self.letter(id, offset) {
            begun.skip.refuse(ErrorKind::Conflict, "its dead letter was written meanwhile");
        }
    }

    /// Records that a worker settled a record without its dead letter.
    pub(super) fn letter_skipped(&mut self, id: AssignmentId, offset: u64, service: &str) {
        if let Some(begun) = self.letter(id, offset) {
            begun.done(service, offset + 1);
        }
    }

    fn letter(&mut self, id: AssignmentId, offset: u64) -> Option<Begun> {
        let at = self.letters.iter().position(|b| b.id == id && b.skip.offsets.start == offset)?;
        Some(self.letters.swap_remove(at))
    }

    /// Ends the skips of a former assignment.
    pub(super) fn forget(&mut self, id: AssignmentId) {
        for begun in self.letters.extract_if(.., |begun| begun.id == id) {
            begun.skip.refuse(ErrorKind::Fenced, "the partition was given up meanwhile");
        }
    }
}
