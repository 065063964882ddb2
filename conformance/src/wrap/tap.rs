//! Interception of calls by a wrapper.

use std::fmt::Debug;
use std::sync::Arc;

use tidings_core::{Error, ErrorKind, Result};

/// A method of a trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Transport`](tidings_core::Transport)'s methods that open something.
    Open,
    /// [`Publisher::publish`](tidings_core::Publisher::publish) and
    /// [`Transactor::publish`](tidings_core::Transactor::publish).
    Publish,
    /// [`Publisher::close`](tidings_core::Publisher::close).
    ClosePublisher,
    /// [`Consumer::next`](tidings_core::Consumer::next).
    Next,
    /// [`Consumer::commit`](tidings_core::Consumer::commit).
    Commit,
    /// [`Consumer::transaction_offsets`](tidings_core::Consumer::transaction_offsets).
    TransactionOffsets,
    /// [`Transactor::commit`](tidings_core::Transactor::commit).
    CommitTransaction,
    /// [`Transactor::abort`](tidings_core::Transactor::abort).
    AbortTransaction,
    /// [`Transactor::close`](tidings_core::Transactor::close).
    CloseTransactor,
    /// [`Consumer::release`](tidings_core::Consumer::release).
    ReleasedClaim,
    /// [`Consumer::pause`](tidings_core::Consumer::pause).
    Pause,
    /// [`Consumer::resume`](tidings_core::Consumer::resume).
    Resume,
    /// [`Consumer::seek`](tidings_core::Consumer::seek).
    Seek,
    /// [`Consumer::progress`](tidings_core::Consumer::progress).
    Progress,
    /// [`Consumer::close`](tidings_core::Consumer::close).
    CloseConsumer,
    /// Any method of [`Admin`](tidings_core::Admin), [`Acls`](tidings_core::Acls) and
    /// [`Cluster`](tidings_core::Cluster).
    Operate,
    /// [`LogReader::offsets`](tidings_core::LogReader::offsets).
    LogOffsets,
    /// [`LogReader::read`](tidings_core::LogReader::read).
    ReadLog,
    /// [`DeadLetterSink::bury`](tidings_core::DeadLetterSink::bury).
    Bury,
    /// [`DeadLetterSink::check`](tidings_core::DeadLetterSink::check).
    Check,
    /// [`DeadLetterStore::list`](tidings_core::DeadLetterStore::list).
    List,
    /// [`DeadLetterStore::count`](tidings_core::DeadLetterStore::count).
    Count,
    /// [`DeadLetterStore::resolve`](tidings_core::DeadLetterStore::resolve).
    Resolve,
    /// [`DeadLetterStore::lease`](tidings_core::DeadLetterStore::lease).
    Lease,
    /// [`DeadLetterStore::resolve_leased`](tidings_core::DeadLetterStore::resolve_leased).
    ResolveLeased,
    /// [`DeadLetterStore::end_lease`](tidings_core::DeadLetterStore::end_lease).
    EndLease,
    /// [`DeadLetterStore::note_refused`](tidings_core::DeadLetterStore::note_refused).
    NoteRefused,
    /// [`IdempotencyStore::acquire_lease`](tidings_core::IdempotencyStore::acquire_lease).
    AcquireLease,
    /// [`IdempotencyStore::claim`](tidings_core::IdempotencyStore::claim).
    Claim,
    /// [`IdempotencyStore::renew`](tidings_core::IdempotencyStore::renew).
    Renew,
    /// [`IdempotencyStore::complete`](tidings_core::IdempotencyStore::complete).
    Complete,
    /// [`IdempotencyStore::release`](tidings_core::IdempotencyStore::release).
    ReleaseClaims,
    /// [`IdempotencyStore::retire`](tidings_core::IdempotencyStore::retire).
    Retire,
    /// [`IdempotencyStore::purge`](tidings_core::IdempotencyStore::purge).
    Purge,
    /// [`IdempotencyStore::done`](tidings_core::IdempotencyStore::done).
    Done,
}

/// Outcome that a wrapper imposes on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    /// The call is not made and fails as this kind.
    Refuse(ErrorKind),
    /// The call is made and its answer is lost.
    LoseAnswer,
}

pub(super) trait Watch: Debug + Send + Sync + 'static {
    fn before(&self, call: Call) -> Fate;
    fn after(&self, call: Call, asked: &dyn Debug, answer: &dyn Debug);
}

/// Intercepts all calls of a wrapper and of the objects that it opened.
#[derive(Debug, Clone)]
pub(super) struct Tap(pub(super) Arc<dyn Watch>);

fn refused(call: Call, kind: ErrorKind) -> Error {
    Error::new(kind, format!("{call:?}: refused by the wrapper (injected fault)"))
}

fn lost(call: Call) -> Error {
    Error::new(ErrorKind::Indeterminate, format!("{call:?}: the answer is lost (injected fault)"))
}

impl Tap {
    /// Intercepts a call with one answer. Dropping the future drops the call.
    pub(super) async fn one<R: Debug>(
        &self,
        call: Call,
        asked: impl Debug,
        made: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let answer = match self.0.before(call) {
            Fate::Pass => made.await,
            Fate::Refuse(kind) => Err(refused(call, kind)),
            Fate::LoseAnswer => made.await.and_then(|_| Err(lost(call))),
        };
        self.0.after(call, &asked, &answer);
        answer
    }

    /// Intercepts a call with `count` answers.
    pub(super) async fn each<R: Debug>(
        &self,
        call: Call,
        count: usize,
        asked: impl Debug,
        made: impl Future<Output = Vec<Result<R>>>,
    ) -> Vec<Result<R>> {
        let answers = match self.0.before(call) {
            Fate::Pass => made.await,
            Fate::Refuse(kind) => (0..count).map(|_| Err(refused(call, kind))).collect(),
            // A definite refusal stays one.
            Fate::LoseAnswer => made.await.into_iter().map(|answer| answer.and_then(|_| Err(lost(call)))).collect(),
        };
        self.0.after(call, &asked, &answers);
        answers
    }
}
