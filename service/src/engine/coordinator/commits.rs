//! Commits the lowest unsettled offset of each partition, one call at a time.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;

use tidings_core::{Commit, ErrorKind, Result};

use super::Coordinator;

type Answer = Vec<Result<()>>;

/// A commit call in flight.
pub(super) struct Committing {
    commits: Vec<(u64, u64)>,
    call: Pin<Box<dyn Future<Output = Answer> + Send>>,
}

impl fmt::Debug for Committing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committing({:?})", self.commits)
    }
}

/// The slots with their committed offsets, and the result of the call.
pub(super) type Committed = Vec<(u64, u64, Result<()>)>;

impl Committing {
    /// Waits for the call, if there is one. Cancel-safe.
    pub(super) async fn wait(this: &mut Option<Self>) -> Committed {
        let Some(committing) = this else { return pending().await };
        let answers = committing.call.as_mut().await;
        let commits = std::mem::take(&mut committing.commits);
        *this = None;
        let mut answers = answers.into_iter();
        let missing = || Err(tidings_core::Error::new(ErrorKind::Indeterminate, "commit: the consumer gave no answer"));
        commits.into_iter().map(|(slot, next)| (slot, next, answers.next().unwrap_or_else(missing))).collect()
    }
}

impl Coordinator {
    /// Commits the start offset of partitions that have none, before their first record is dispatched.
    pub(super) fn commit_starts(&mut self) {
        let waits = |p: &super::Partition| !p.started && !p.fenced && p.leaving.is_none();
        if self.slots.values().any(waits) && self.next_not_before.is_none() {
            self.start_commit();
        }
    }

    /// Commits the offsets that have changed, unless a commit is in flight.
    pub(super) fn start_commit(&mut self) {
        if self.committing.is_some() {
            return;
        }
        let mut commits = Vec::new();
        let mut calls = Vec::new();
        for (slot, partition) in &mut self.slots {
            let next = partition.tracker.watermark();
            let lost = partition.leaving.as_ref().is_some_and(|leaving| leaving.lost);
            if lost || partition.fenced || partition.committed == Some(next) {
                continue;
            }
            if let Some(leaving) = &mut partition.leaving {
                leaving.try_commit(next);
            }
            commits.push((*slot, next));
            calls.push(Commit::new(partition.assigned.origin.as_ref().clone(), partition.assigned.epoch, next));
        }
        if calls.is_empty() {
            return;
        }
        let consumer = self.consumer.clone();
        let call = Box::pin(async move { consumer.commit(calls).await });
        self.committing = Some(Committing { commits, call });
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        for (slot, next, answer) in committed {
            let Some(partition) = self.slots.get_mut(&slot) else { continue };
            match answer {
                Ok(()) => {
                    self.health.progressed();
                    partition.committed = Some(next);
                    if !partition.started {
                        partition.started = true;
                        self.begin_early(slot);
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        topic = %partition.assigned.origin.topic,
                        partition = partition.assigned.origin.partition,
                        next,
                        error = %error.report(),
                        "an offset was not committed"
                    );
                    // A later commit includes this offset, unless another member owns the partition now: the step that
                    // says so is still to come, and retrying first would keep it from being read.
                    if error.kind() == ErrorKind::Fenced {
                        partition.fenced = true;
                    } else {
                        self.next_not_before.get_or_insert(tokio::time::Instant::now() + super::NEXT_RETRY);
                    }
                }
            }
        }
    }
}
