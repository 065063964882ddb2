//! The public handle of the sled store.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, FutureExt, Shared as Joint, select};
use tidings_core::{
    Claim, Clause, DeadLetter, DeadLetterSink, DeadLetterStore, Error, ErrorKind, EventRef, Guarantees,
    IdempotencyStore, Lease, Leased, LetterId, LetterLease, LetterQuery, LetterState, Name, ReleasedClaim, Resolution,
    Result, Timestamp, async_trait,
};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use crate::claims::{Claims, Staged};
use crate::config::SledConfig;
use crate::error::{Broken, guarded};
use crate::writer::{Deliver, Job, Message, Shared, Status, Writer};

/// An embedded store of done events, claims and dead letters in a directory that one process uses at a time.
///
/// Cheap to clone; clones share the directory. Acknowledged changes are on disk. The directory is closed by
/// [`close`](Self::close), or shortly after the last clone is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> tidings_core::Result<()> {
/// use std::time::Duration;
/// use tidings_core::{Claim, EventRef, IdempotencyStore};
/// use tidings_sled::SledStore;
///
/// # let path = std::env::temp_dir().join(format!("tidings-doc-store-{}", std::process::id()));
/// let event = [EventRef::new(uuid::Uuid::now_v7(), "order.placed")];
/// let store = SledStore::open(&path).await?;
/// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
/// store.claim(&lease, &event).await?;
/// store.complete(&lease, &event).await?.remove(0)?;
/// store.close().await;
///
/// let store = SledStore::open(&path).await?; // after a restart
/// let lease = store.acquire_lease(&"billing".into(), Duration::from_secs(15)).await?;
/// assert_eq!(store.claim(&lease, &event).await?, [Claim::Done]);
/// # store.close().await;
/// # std::fs::remove_dir_all(&path).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SledStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    max_waiting: u32,
    max_letters: u64,
    max_audit_records: u64,
    /// Queue of the writer; bounded by `room`.
    calls: Sender<Message>,
    /// Bounds the events of waiting calls.
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
    /// Resolves when the writer has ended.
    ended: Joint<oneshot::Receiver<()>>,
}

/// A part of a store that was damaged and set aside: events in it may be handled again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Current path of the damaged part.
    pub set_aside: PathBuf,
    /// Description of the damage.
    pub what: String,
    /// Time at which the damage was found.
    pub at: Timestamp,
}

impl Damage {
    pub(crate) fn new(set_aside: PathBuf, what: String, at: Timestamp) -> Self {
        Self { set_aside, what, at }
    }
}

/// Size of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Size {
    /// Number of known events: done, claimed, or released after attempts.
    pub events: u64,
    /// Bytes on disk, including dead letters.
    pub bytes: u64,
}

impl SledStore {
    /// Opens or creates the store in the directory `path`.
    ///
    /// # Errors
    /// Those of [`open_with`](Self::open_with).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(SledConfig::new(path)).await
    }

    /// Opens a store. This ends all claims of its previous use, and reads the whole store to verify that nothing is
    /// missing. Dropping the future closes the store again.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict): it is open already, here or in another process.
    /// [`Corrupt`](ErrorKind::Corrupt): it is damaged; see [`OnDamage`](crate::OnDamage).
    /// [`Denied`](ErrorKind::Denied): the directory can't be written.
    /// [`Invalid`](ErrorKind::Invalid): a setting is wrong. [`Unavailable`](ErrorKind::Unavailable): anything else.
    pub async fn open_with(config: SledConfig) -> Result<Self> {
        config.check()?;
        let path = config.path.clone();
        let shared = Arc::new(Shared::new());
        let (calls, received) = channel();
        let (opened, answer) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let inner = Inner {
            path: path.clone(),
            max_waiting: config.max_waiting,
            max_letters: config.max_letters,
            max_audit_records: config.max_audit_records,
            calls,
            room: Arc::new(Semaphore::new(config.max_waiting as usize)),
            shared: Arc::clone(&shared),
            ended: ended.shared(),
        };
        let (watched, limit) = (Arc::clone(&shared), config.answer_within);
        spawn("tidings-sled", move || match Writer::open(config, shared, received) {
            Ok(writer) => {
                let _ = opened.send(Ok(()));
                writer.run(ending);
            }
            Err(broken) => {
                let _ = opened.send(Err(broken));
            }
        })?;
        let vanished = || Broken::new(ErrorKind::Unavailable, "its thread ended");
        answer.await.unwrap_or_else(|_| Err(vanished())).map_err(|broken| broken.of_open(&path))?;
        spawn("tidings-sled-watch", move || watched.watch(limit))?;
        Ok(Self(Arc::new(inner)))
    }

    /// Completes earlier calls and closes the directory, which can be opened again once this returns. Later calls on
    /// any clone fail as [`Closed`](ErrorKind::Closed). Dropping the future does not stop the close.
    pub async fn close(&self) {
        let _ = self.0.calls.send(Message::Close);
        // An error means that the writer ended without a signal: the directory is free as well.
        let _ = self.0.ended.clone().await;
    }

    /// Returns the store's directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the parts set aside as damaged since the store was opened, under
    /// [`OnDamage::SetAside`](crate::OnDamage::SetAside).
    pub fn damages(&self) -> Vec<Damage> {
        self.0.shared.damages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the size of the store.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): the store is down. [`Closed`](ErrorKind::Closed).
    ///
    /// The number of events is exact, the bytes are what sled's files take.
    pub async fn size(&self) -> Result<Size> {
        self.call(1, |claims| claims.disk.size().map(|(events, bytes)| Ok(Size { events, bytes }))).await
    }

    pub(crate) fn max_audit_records(&self) -> u64 {
        self.0.max_audit_records
    }

    /// Runs `stage` on the writer and waits until its changes are durable.
    ///
    /// A dropped call may still be carried out; all calls can be repeated.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        weight: usize,
        stage: impl FnOnce(&mut Claims<'_>) -> Staged<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let weight = u32::try_from(weight).unwrap_or(u32::MAX).clamp(1, self.0.max_waiting);
        let room = Arc::clone(&self.0.room).acquire_many_owned(weight);
        let permit = self.unless_stuck(room).await?.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let stage = Box::new(move |claims: &mut Claims<'_>| {
            let (staged, broken) = match guarded("write", ErrorKind::Unavailable, || stage(claims)) {
                Ok(staged) => (Some(staged), Ok(())),
                Err(broken) => (None, Err(broken)),
            };
            let deliver: Deliver = Box::new(move || {
                if let Some(staged) = staged {
                    let _ = answer.send(staged);
                }
            });
            (deliver, broken)
        });
        self.0.calls.send(Message::Call(Job { stage, permit })).map_err(|_| closed())?;
        match self.unless_stuck(answered).await? {
            Ok(answer) => answer,
            // Dropped without an answer: the changes are not durable, or not known to be; the call can be repeated
            // either way.
            Err(_) => Err(self
                .check_open()
                .err()
                .unwrap_or_else(|| Broken::new(ErrorKind::Unavailable, "it failed and was reopened").down())),
        }
    }

    /// # Errors
    /// Why the store can't be used now; a call that is refused here has no effect.
    fn check_open(&self) -> Result<()> {
        match &*self.0.shared.status.borrow() {
            Status::Open => Ok(()),
            Status::Down(broken) => Err(broken.down()),
            Status::Stuck => Err(stuck(ErrorKind::Unavailable)),
            Status::Closed => Err(closed()),
        }
    }

    /// Runs `work`, unless the writer is stuck on the disk.
    async fn unless_stuck<F: Future>(&self, work: F) -> Result<F::Output> {
        let mut status = self.0.shared.status.subscribe();
        let is_stuck = pin!(status.wait_for(|status| matches!(status, Status::Stuck)));
        match select(pin!(work), is_stuck).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(stuck(ErrorKind::Indeterminate)),
        }
    }
}

#[async_trait]
impl IdempotencyStore for SledStore {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let lease = Lease::checked(scope.clone(), ttl)?;
        let registered = lease.clone();
        self.call(1, move |claims| claims.register(&registered)).await?;
        Ok(lease)
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let (lease, events) = (lease.clone(), ids(events));
        self.call(events.len(), move |claims| claims.claim(&lease, &events)).await
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.call(1, move |claims| claims.renew(&lease)).await
    }

    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let (lease, events) = (lease.clone(), ids(events));
        self.call(events.len(), move |claims| claims.complete(&lease, &events)).await
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        let (lease, events) = (lease.clone(), events.to_vec());
        self.call(events.len(), move |claims| claims.release(&lease, &events)).await
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        let lease = lease.clone();
        self.call(1, move |claims| claims.retire(&lease)).await
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        let (mut removed, mut next) = (0, Some((0, 0)));
        // In steps, so that claims and completions get their turn in between.
        while let Some(from) = next {
            let scope = scope.clone();
            let step = self.call(1, move |claims| claims.purge(&scope, completed_before, from)).await?;
            removed += step.removed;
            next = step.next;
        }
        Ok(removed)
    }

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        let (scope, events) = (scope.clone(), ids(events));
        self.call(events.len(), move |claims| claims.done(&scope, &events)).await
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}

#[async_trait]
impl DeadLetterSink for SledStore {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        let count = letters.len();
        let size = letters.iter().map(|letter| letter.record.size() >> 10).sum::<usize>();
        let max = self.0.max_letters;
        let buried = self.call(count.max(size), move |claims| {
            letters.iter().map(|letter| claims.disk.letters.bury(letter, max)).collect::<Result<Vec<_>, _>>().map(Ok)
        });
        match buried.await {
            Ok(answers) => answers,
            Err(error) => {
                let error = Arc::new(error);
                let each = |_| Err(Error::caused_by(error.kind(), "bury a letter", Arc::clone(&error)));
                (0..count).map(each).collect()
            }
        }
    }

    async fn check(&self, _: &[Name]) -> Result<()> {
        self.check_open()
    }

    fn guarantees(&self) -> Guarantees {
        guarantees()
    }
}

#[async_trait]
impl DeadLetterStore for SledStore {
    async fn list(&self, query: &LetterQuery) -> Result<Vec<DeadLetter>> {
        if matches!(query.state, LetterState::Closed | LetterState::Any) {
            return Err(Error::new(ErrorKind::Unsupported, format!("list closed letters: {KEEPS_NO_CLOSED}")));
        }
        let wanted = query.limit.unwrap_or(LetterQuery::DEFAULT_PAGE);
        let after = query.after.clone();
        let mut from = Some(self.call(1, move |l| l.disk.letters.number_after(after.as_ref()).map(Ok)).await?);
        let mut letters = Vec::new();
        while let Some(number) = from.filter(|_| letters.len() < wanted) {
            let (query, left) = (query.clone(), wanted - letters.len());
            let page = self.call(1, move |l| l.disk.letters.list(&query, number, left).map(Ok)).await?;
            letters.extend(page.letters);
            from = page.next;
        }
        Ok(letters)
    }

    async fn resolve(&self, letters: &[LetterId], resolution: &Resolution) -> Result<Vec<bool>> {
        let (letters, resolution) = (letters.to_vec(), resolution.clone());
        self.call(letters.len(), move |claims| claims.resolve(&letters, None, &resolution)).await
    }

    async fn lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<Vec<Leased>> {
        let (letters, lease) = (letters.to_vec(), lease.clone());
        self.call(letters.len(), move |claims| claims.lease(&letters, &lease)).await
    }

    async fn resolve_leased(
        &self,
        letters: &[LetterId],
        lease: &LetterLease,
        resolution: &Resolution,
    ) -> Result<Vec<bool>> {
        resolution.check_closes()?;
        let (letters, lease, resolution) = (letters.to_vec(), lease.id, resolution.clone());
        self.call(letters.len(), move |claims| claims.resolve(&letters, Some(lease), &resolution)).await
    }

    async fn end_lease(&self, letters: &[LetterId], lease: &LetterLease) -> Result<()> {
        let (letters, lease) = (letters.to_vec(), lease.id);
        self.call(letters.len(), move |claims| claims.end_lease(&letters, lease)).await
    }
}

/// Closing a letter frees its space at once.
const KEEPS_NO_CLOSED: &str = "sled keeps no closed letters";

pub(crate) fn guarantees() -> Guarantees {
    Guarantees::all().without(Clause::D6, KEEPS_NO_CLOSED)
}

/// Returns the ids of events. Event types serve inspection of a store, which sled does not offer.
fn ids(events: &[EventRef]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|e| Error::caused_by(ErrorKind::Unavailable, "open the store: start a thread", e))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "use the store: it is closed")
}

/// The error of a call while the disk does not answer: refused, or with an open outcome.
fn stuck(kind: ErrorKind) -> Error {
    Error::new(kind, "use the store: the disk does not answer")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// How long anything that must come may take, on however busy a machine.
    const PATIENCE: Duration = Duration::from_secs(180);

    #[tokio::test]
    async fn a_panic_takes_the_store_down_and_it_comes_back_with_its_leases() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).await.unwrap();
        let lease = store.acquire_lease(&"svc".into(), PATIENCE).await.unwrap();
        let event = EventRef::new(Uuid::now_v7(), "e");
        store.claim(&lease, std::slice::from_ref(&event)).await.unwrap();
        let error = store.call(1, |_| -> Staged<()> { panic!("as sled does") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.report().contains("as sled does"), "{}", error.report());
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = store.renew(&lease).await {
            assert!(error.is_retryable() && Instant::now() < deadline, "{}", error.report());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(matches!(store.claim(&lease, std::slice::from_ref(&event)).await.unwrap()[0], Claim::Held { .. }));
        store.complete(&lease, &[event]).await.unwrap().remove(0).unwrap();
    }

    #[tokio::test]
    async fn what_was_called_with_the_panicking_call_was_not_done() {
        let directory = tempfile::tempdir().unwrap();
        let store = SledStore::open(directory.path()).await.unwrap();
        let lease = store.acquire_lease(&"svc".into(), PATIENCE).await.unwrap();
        let events = [EventRef::new(Uuid::now_v7(), "e")];
        let (one, two) = (lease.clone(), events.clone());
        let both = store.call(1, move |claims| {
            let _granted = claims.claim(&one, &ids(&two))?;
            Err::<Result<()>, _>(Broken::new(ErrorKind::Unavailable, "no space"))
        });
        assert!(both.await.unwrap_err().is_retryable());
        let deadline = Instant::now() + PATIENCE;
        let claim = loop {
            match store.claim(&lease, &events).await {
                Ok(claims) => break claims[0],
                Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{}", error.report()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let config = SledConfig::new(directory.path()).with_answer_within(Duration::from_millis(200));
        let store = SledStore::open_with(config).await.unwrap();
        let (free, until_freed) = channel::<()>();
        let hanging = store.call(1, move |_| {
            let _ = until_freed.recv();
            Ok(Ok(()))
        });
        assert_eq!(hanging.await.unwrap_err().kind(), ErrorKind::Indeterminate);
        assert!(store.size().await.unwrap_err().is_retryable());
        free.send(()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = store.size().await {
            assert!(error.is_retryable() && Instant::now() < deadline, "{}", error.report());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
