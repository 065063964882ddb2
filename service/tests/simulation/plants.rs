//! Bugs planted into the engine from outside: its calls to consumer, store and sink are altered on the way, as an
//! engine with that bug would make them. The checker catches each under the name of the promise that it breaks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    Admin, Claim, Commit, Consumer, ConsumerOptions, DeadLetter, DeadLetterSink, EventRef, Guarantees, Headers,
    History, IdempotencyStore, Lease, Name, Position, Progress, Publisher, Record, ReleasedClaim, Result, SeekTo, Step,
    Timestamp, TopicPartition, Transport, async_trait, event_id_of,
};
use tidings_memory::MemoryStore;

use super::check::check;
use super::simulate_with;
use super::tap::Tap;

/// The number of seeds within which a planted bug must be caught.
const SEEDS: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    CommitsWhatIsInFlight,
    CommitsOnReceipt,
    CommitsNothing,
    CommitsAnOldEpochsWork,
    Reorders,
    ForgetsWhatFailed,
    SwallowsAFailedDeadLetter,
    EmptiesDeadLetters,
    MarksBeforeHandling,
    CompletesOnBurying,
    ForgetsWhatIsDone,
    DeliversAfterRevocation,
    ReleasesAtOnce,
    NeverPauses,
    NeverResumes,
    SettlesBeforePublishing,
    CountsReadinessAsHandlerTime,
    LeaksAPermit,
}

#[derive(Debug, Default)]
struct State {
    given: HashMap<TopicPartition, (u64, u64)>,
    lost: HashMap<TopicPartition, u64>,
    lease: Option<Lease>,
}

#[derive(Debug, Clone)]
pub(crate) struct Planted<T> {
    inner: T,
    bug: Bug,
    store: Tapped,
    state: Arc<Mutex<State>>,
}

/// The run's store, with its calls recorded: for the sink that completes.
type Tapped = Arc<Mutex<Option<Tap<MemoryStore>>>>;

impl Planted<()> {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { inner: (), bug, store: Tapped::default(), state: Arc::default() }
    }
}

impl<T> Planted<T> {
    pub(crate) fn of<U>(&self, inner: U) -> Planted<U> {
        Planted { inner, bug: self.bug, store: self.store.clone(), state: self.state.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Planted<Tap<tidings_memory::MemoryTransport>> {
    fn system(&self) -> &'static str {
        self.inner.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        let publisher = self.inner.publisher().await?;
        Ok(if self.bug == Bug::SettlesBeforePublishing { Arc::new(self.of(publisher)) } else { publisher })
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(self.of(self.inner.consumer(options).await?)))
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        Ok(Arc::new(self.of(self.inner.dead_letters().await?)))
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Answers before it has published.
#[async_trait]
impl Publisher for Planted<Arc<dyn Publisher>> {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let answers = records.iter().map(|_| Ok(Position::new(0, 0))).collect();
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            inner.publish(records).await
        });
        answers
    }
    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl DeadLetterSink for Planted<Arc<dyn DeadLetterSink>> {
    async fn bury(&self, mut letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        if self.bug == Bug::EmptiesDeadLetters {
            letters.iter_mut().for_each(|letter| letter.record.headers = Headers::new());
        }
        if self.bug == Bug::CompletesOnBurying {
            let lease = self.state().lease.clone();
            let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let events: Vec<_> = letters.iter().map(|l| EventRef::new(event_id_of(&l.origin, &l.record), "")).collect();
            if let (Some(store), Some(lease)) = (store, lease) {
                drop(store.complete(&lease, &events).await);
            }
        }
        let answers = self.inner.bury(letters).await;
        let swallows = self.bug == Bug::SwallowsAFailedDeadLetter;
        if swallows { answers.iter().map(|_| Ok(())).collect() } else { answers }
    }
    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.inner.check(topics).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

impl Planted<Arc<dyn Consumer>> {
    async fn assigned(&self, partition: &TopicPartition, epoch: u64) {
        let lost = self.state().lost.remove(partition);
        if let (Bug::CommitsAnOldEpochsWork, Some(next)) = (self.bug, lost) {
            drop(self.inner.commit(vec![Commit::new(partition.clone(), epoch, next)]).await);
        }
    }
}

#[async_trait]
impl Consumer for Planted<Arc<dyn Consumer>> {
    async fn next(&self) -> Result<Step> {
        loop {
            let step = self.inner.next().await?;
            match &step {
                Step::Assigned(assignments) => {
                    for assignment in assignments {
                        self.assigned(&assignment.partition, assignment.epoch).await;
                    }
                }
                Step::Records(fetched) => {
                    let origin = fetched.batch.origin().as_ref().clone();
                    self.state().given.insert(origin.clone(), (fetched.epoch, fetched.next_offset));
                    if self.bug == Bug::CommitsOnReceipt {
                        drop(self.inner.commit(vec![Commit::new(origin, fetched.epoch, fetched.next_offset)]).await);
                    }
                }
                Step::Revoking(_) if self.bug == Bug::DeliversAfterRevocation => continue,
                Step::Revoking(revocation) if self.bug == Bug::ReleasesAtOnce => {
                    drop(self.inner.release(&revocation.partitions).await);
                }
                Step::Lost(partitions) => {
                    let mut state = self.state();
                    for partition in partitions {
                        if let Some((_, next)) = state.given.remove(partition) {
                            state.lost.insert(partition.clone(), next);
                        }
                    }
                }
                _ => {}
            }
            return Ok(step);
        }
    }
    async fn commit(&self, mut commits: Vec<Commit>) -> Vec<Result<()>> {
        match self.bug {
            Bug::CommitsNothing => return commits.iter().map(|_| Ok(())).collect(),
            Bug::CommitsWhatIsInFlight => {
                let state = self.state();
                for commit in &mut commits {
                    if let Some((epoch, next)) = state.given.get(&commit.partition)
                        && *epoch == commit.epoch
                    {
                        commit.next_offset = *next;
                    }
                }
            }
            _ => {}
        }
        self.inner.commit(commits).await
    }
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.release(partitions).await
    }
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        if self.bug == Bug::NeverPauses { Ok(()) } else { self.inner.pause(partitions).await }
    }
    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        if self.bug == Bug::NeverResumes { Ok(()) } else { self.inner.resume(partitions).await }
    }
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.inner.seek(partition, to).await
    }
    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }
    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[async_trait]
impl IdempotencyStore for Planted<Tap<MemoryStore>> {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let lease = self.inner.acquire_lease(scope, ttl).await?;
        self.state().lease = Some(lease.clone());
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.inner.clone());
        Ok(lease)
    }
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let mut claims = self.inner.claim(lease, events).await?;
        match self.bug {
            Bug::MarksBeforeHandling => drop(self.inner.complete(lease, events).await),
            Bug::ForgetsWhatIsDone => {
                let done = claims.iter_mut().filter(|claim| **claim == Claim::Done);
                done.for_each(|claim| *claim = Claim::Granted(History::default()));
            }
            _ => {}
        }
        Ok(claims)
    }
    async fn renew(&self, lease: &Lease) -> Result<()> {
        self.inner.renew(lease).await
    }
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        self.inner.complete(lease, events).await
    }
    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        self.inner.release(lease, events).await
    }
    async fn retire(&self, lease: &Lease) -> Result<()> {
        self.inner.retire(lease).await
    }
    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        self.inner.purge(scope, completed_before).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Checks that some seed finds the bug under its name. Another test checks that no seed fails without a bug.
fn caught(bug: Bug, name: &str) {
    let mut others = std::collections::BTreeSet::new();
    for seed in 0..SEEDS {
        let found = check(&simulate_with(seed, bug));
        if found.iter().any(|anomaly| anomaly.name == name) {
            return;
        }
        others.extend(found.into_iter().map(|anomaly| anomaly.name));
    }
    panic!("{bug:?} is not found as {name:?} within {SEEDS} seeds, but as {others:?}");
}

macro_rules! plants {
    ($($test:ident: $bug:ident => $name:literal,)*) => { $(
        #[test]
        fn $test() {
            caught(Bug::$bug, $name);
        }
    )* };
}

plants! {
    commits_what_is_in_flight: CommitsWhatIsInFlight => "committed past unfinished work",
    commits_on_receipt: CommitsOnReceipt => "committed past unfinished work",
    commits_nothing: CommitsNothing => "stalled",
    commits_an_old_epochs_work: CommitsAnOldEpochsWork => "committed past unfinished work",
    reorders_on_retry: Reorders => "reordered",
    forgets_what_failed: ForgetsWhatFailed => "settled wrongly",
    swallows_a_failed_dead_letter: SwallowsAFailedDeadLetter => "settled wrongly",
    empties_dead_letters: EmptiesDeadLetters => "dead letters incomplete",
    marks_before_handling: MarksBeforeHandling => "completed before it was handled",
    completes_on_burying: CompletesOnBurying => "completed before it was handled",
    handles_again_what_is_done: ForgetsWhatIsDone => "handled again after it was completed",
    delivers_after_revocation: DeliversAfterRevocation => "delivered after revocation",
    releases_what_a_handler_has: ReleasesAtOnce => "delivered after revocation",
    reads_on_without_a_bound: NeverPauses => "unbounded",
    stops_after_a_pause: NeverResumes => "stalled",
    settles_before_publishing: SettlesBeforePublishing => "settled wrongly",
    counts_readiness_as_handler_time: CountsReadinessAsHandlerTime => "settled wrongly",
    leaks_a_permit: LeaksAPermit => "stalled",
}
