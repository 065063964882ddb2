//! Commands of a service's handle to its coordinator.

use std::ops::Range;
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Result, SeekTo, TopicPartition};
use tokio::sync::oneshot;

use crate::status::{Hold, Skipped, Sought, Status};

/// A request of the handle.
#[derive(Debug)]
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    CaughtUp(oneshot::Sender<()>),
    /// Applies to these partitions; `None` means all.
    Pause(Option<Vec<TopicPartition>>),
    Resume(Option<Vec<TopicPartition>>),
    Skip(Skip),
    Seek(Seek),
    Shutdown(Duration),
}

/// A seek of an assigned partition.
#[derive(Debug)]
pub(crate) struct Seek {
    pub(crate) partition: TopicPartition,
    pub(crate) to: SeekTo,
    /// How long deliveries that have begun may take.
    pub(crate) deadline: Duration,
    pub(crate) reply: oneshot::Sender<Result<Sought>>,
}

impl Seek {
    /// Answers the operator, who may have stopped waiting.
    pub(crate) fn answer(self, answer: Result<Sought>) {
        let _ = self.reply.send(answer);
    }

    /// Answers that nothing was moved.
    pub(crate) fn refuse(self, kind: ErrorKind, why: &str) {
        let error = Error::new(kind, format!("seek {}: {why}", self.partition));
        self.answer(Err(error));
    }
}

/// A skip of a partition's hold.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) partition: TopicPartition,
    pub(crate) offsets: Range<u64>,
    pub(crate) reply: oneshot::Sender<Result<Skipped>>,
}

impl Skip {
    /// Answers the operator, who may have stopped waiting.
    pub(crate) fn answer(self, answer: Result<Skipped>) {
        let _ = self.reply.send(answer);
    }

    /// Answers that nothing was skipped.
    pub(crate) fn refuse(self, kind: ErrorKind, why: &str) {
        let Range { start, end } = self.offsets;
        let error = Error::new(kind, format!("skip offsets {start}..{end} of {}: {why}", self.partition));
        self.answer(Err(error));
    }

    /// Returns why the range does not match `hold` exactly, if it does not.
    pub(crate) fn mismatch(&self, hold: &Hold) -> Option<String> {
        let Range { start, end } = self.offsets;
        match hold.next_offset {
            _ if start >= end => Some("the range is empty".to_owned()),
            Some(next) if next != end => Some(format!("the partition is held by offsets {start}..{next}")),
            _ => None,
        }
    }
}
