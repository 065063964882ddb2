//! Commits: one call of the settlement at a time, repeated after a pause.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Commit, ErrorKind, Result};
use tokio::time::Instant;

use crate::engine::assigned::AssignmentId;
use crate::engine::settlement::Settlement;

/// The pause after a refused commit.
const RETRY: Duration = Duration::from_millis(200);

/// The call in flight, and the time of the next one after a failure.
#[derive(Debug, Default)]
pub(super) struct Commits {
    call: Option<Call>,
    retry_at: Option<Instant>,
}

struct Call {
    /// The assignments, with the offset that is committed for each.
    positions: Vec<(AssignmentId, u64)>,
    answer: Pin<Box<dyn Future<Output = Vec<Result<()>>> + Send>>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(&self.positions).finish()
    }
}

/// The answer to a commit: the assignment, the offset, and whether it is committed.
pub(super) type Committed = Vec<(AssignmentId, u64, Result<()>)>;

impl Commits {
    pub(super) fn is_in_flight(&self) -> bool {
        self.call.is_some()
    }

    /// Returns whether a commit failed, and its repetition has to wait.
    pub(super) fn is_backing_off(&self) -> bool {
        self.retry_at.is_some()
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Starts a call. There must be none in flight.
    pub(super) fn start(&mut self, settlement: Arc<dyn Settlement>, commits: Vec<(AssignmentId, Commit)>) {
        if commits.is_empty() {
            return;
        }
        let positions = commits.iter().map(|(id, commit)| (*id, commit.next_offset)).collect();
        let commits = commits.into_iter().map(|(_, commit)| commit).collect();
        let answer = Box::pin(async move { settlement.commit(commits).await });
        self.call = Some(Call { positions, answer });
    }

    /// Waits for the answer, if a call is in flight. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Committed {
        let Some(call) = &mut self.call else { return pending().await };
        let answers = call.answer.as_mut().await;
        let positions = std::mem::take(&mut call.positions);
        self.call = None;
        let mut answers = answers.into_iter();
        let missing = || Err(tidings_core::Error::new(ErrorKind::Indeterminate, "commit: the consumer gave no answer"));
        positions.into_iter().map(|(id, next)| (id, next, answers.next().unwrap_or_else(missing))).collect()
    }

    /// Records that a commit failed and may be repeated, after a pause.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at.get_or_insert(now + RETRY);
    }

    /// Ends the pause after a failure when its time is over.
    pub(super) fn wake(&mut self, now: Instant) {
        self.retry_at.take_if(|at| *at <= now);
    }
}
