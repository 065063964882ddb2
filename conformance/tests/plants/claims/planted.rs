//! The wrapper with the bugs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    Claim, Error, ErrorKind, EventRef, Guarantees, History, IdempotencyStore, Lease, Name, ReleasedClaim, Result,
    Timestamp, async_trait,
};
use tidings_memory::MemoryStore;
use tokio::time::Instant;
use uuid::Uuid;

use super::Bug;

type Key = (Name, Uuid);

/// The state that the wrapper keeps of the store.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The leases that were acquired, the oldest first, with their ends; `None` for a retired one.
    leases: Vec<(Lease, Option<Instant>)>,
    /// The last claimant of each event, the latest last.
    claims: Vec<(Key, Lease)>,
    done: Vec<Key>,
    released: HashSet<(Key, Uuid)>,
    /// Times that an event was found held.
    polls: HashMap<Key, u32>,
    /// Answers in place of the store's.
    answers: HashMap<Key, Claim>,
    /// Added to what a grant says of crashes and attempts.
    added: HashMap<Key, (i64, u32)>,
}

#[derive(Debug)]
pub(super) struct Planted {
    pub(super) inner: MemoryStore,
    pub(super) bug: Bug,
    pub(super) known: Arc<Mutex<Known>>,
}

/// Calls the store with a long list in the order of its ids, as one that answers by its index does.
async fn sorted<T, F>(events: &[EventRef], call: impl FnOnce(Vec<EventRef>) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<Vec<T>>>,
{
    let mut events = events.to_vec();
    if events.len() > 100 {
        events.sort_by_key(|event| event.id);
    }
    call(events).await
}

impl Planted {
    pub(super) fn new(bug: Bug) -> Self {
        Self { inner: MemoryStore::new(), bug, known: Arc::default() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restarts the process that uses the store: its leases are gone.
    pub(super) fn restarted(&self) -> Self {
        let Known { leases, mut claims, done, mut answers, mut added, .. } = std::mem::take(&mut *self.known());
        claims.retain(|(_, by)| leases.iter().any(|(lease, until)| lease.id == by.id && until.is_none()));
        match self.bug {
            Bug::CountsRetirementsAtRestart => added.extend(claims.into_iter().map(|(key, _)| (key, (1, 0)))),
            Bug::RestoresWhatWasPurged => answers.extend(done.iter().map(|key| (key.clone(), Claim::Done))),
            _ => {}
        }
        let known = Known { answers, added, done, ..Known::default() };
        Self { inner: self.inner.clone(), bug: self.bug, known: Arc::new(Mutex::new(known)) }
    }

    fn scope(&self, scope: &Name) -> Name {
        match self.bug {
            Bug::CutsScopes => scope.chars().take(40).collect::<String>().into(),
            Bug::FoldsTheCaseOfScopes => scope.to_lowercase().into(),
            Bug::TrimsScopes => scope.trim().into(),
            _ => scope.clone(),
        }
    }

    fn lease(&self, lease: &Lease) -> Lease {
        let mut lease = lease.clone();
        lease.scope = self.scope(&lease.scope);
        lease
    }

    fn id(&self, id: Uuid) -> Uuid {
        if self.bug == Bug::IgnoresTheLastBit { Uuid::from_u128(id.as_u128() & !1) } else { id }
    }

    fn events(&self, events: &[EventRef]) -> Vec<EventRef> {
        events.iter().map(|event| EventRef::new(self.id(event.id), &event.event_type)).collect()
    }

    fn claims_of(&self, lease: Uuid) -> Vec<Key> {
        let known = self.known();
        known.claims.iter().filter(|(_, by)| by.id == lease).map(|(key, _)| key.clone()).collect()
    }

    fn is_retired(&self, lease: &Lease) -> bool {
        self.known().leases.iter().any(|(of, until)| of.id == lease.id && until.is_none())
    }

    async fn is_over(&self, lease: &Lease) -> bool {
        self.inner.renew(lease).await.is_err_and(|error| error.kind() == ErrorKind::Fenced)
    }

    /// Ends leases earlier or later than the store does, by this wrapper's own count.
    async fn end_leases(&self) {
        let over: Vec<Lease> = {
            let known = self.known();
            let leases = known.leases.iter().filter(|(_, until)| until.is_some_and(|until| until <= Instant::now()));
            leases.map(|(lease, _)| lease.clone()).collect()
        };
        for lease in over.iter().filter(|_| self.bug == Bug::RenewsByHalf) {
            drop(self.inner.retire(lease).await);
        }
    }

    /// Notes a claim's answer, and returns the one that the bug makes of it.
    fn answered(&self, lease: &Lease, id: Uuid, claim: Claim) -> Claim {
        let key = (lease.scope.clone(), id);
        let mut known = self.known();
        if let Some(answer) = known.answers.get(&key) {
            return *answer;
        }
        let before = known.claims.iter().rev().find(|(of, _)| *of == key).map(|(_, by)| by.clone());
        match claim {
            Claim::Granted(history) => {
                let over = |by: &Lease| known.done.contains(&key) || known.released.contains(&(key.clone(), by.id));
                let before = before.filter(|by| !over(by));
                if let Some(at_most) = self.still_living(&known, before.as_ref()) {
                    return Claim::Held { at_most };
                }
                known.claims.push((key.clone(), lease.clone()));
                known.released.remove(&(key.clone(), lease.id));
                let (crashes, attempts) = known.added.get(&key).copied().unwrap_or_default();
                let polls = known.polls.remove(&key).unwrap_or_default();
                self.history(history, crashes, attempts, polls)
            }
            Claim::Held { at_most } => {
                *known.polls.entry(key).or_default() += 1;
                let ttl = before.map_or(at_most, |lease| lease.ttl);
                Claim::Held { at_most: if self.bug == Bug::SaysTheWholeTtl { ttl } else { at_most } }
            }
            other => other,
        }
    }

    fn still_living(&self, known: &Known, before: Option<&Lease>) -> Option<Duration> {
        let before = before.filter(|_| self.bug == Bug::AddsRenewalsUp)?;
        let (_, until) = known.leases.iter().find(|(lease, _)| lease.id == before.id)?;
        until.and_then(|until| until.checked_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn history(&self, history: History, crashes: i64, attempts: u32, polls: u32) -> Claim {
        let polled = self.bug == Bug::CountsEveryPoll && history.crashes > 0;
        let crashes = i64::from(history.crashes) + crashes + if polled { i64::from(polls) } else { 0 };
        let attempts = history.attempts.saturating_add(attempts);
        let attempts = if self.bug == Bug::WrapsAttempts { attempts & 0xffff } else { attempts };
        Claim::Granted(History::new(u32::try_from(crashes).unwrap_or_default(), attempts))
    }

    /// Completes the events of a call as far as the bug lets it.
    async fn completed(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let done = |event: &EventRef| self.known().done.contains(&(lease.scope.clone(), event.id));
        match self.bug {
            Bug::CompletesInTheOrderOfIds => {
                sorted(events, async |events| self.inner.complete(lease, &events).await).await
            }
            Bug::StopsAtADoneEvent => {
                let until = events.iter().position(done).unwrap_or(events.len());
                let mut answers = self.inner.complete(lease, &events[..until]).await?;
                answers.resize_with(events.len(), || Ok(()));
                Ok(answers)
            }
            Bug::LosesALateComplete if self.is_over(lease).await => {
                let mine = self.claims_of(lease.id);
                let later = self.known().claims.clone();
                let taken =
                    |key: &Key| later.iter().rev().find(|(of, _)| of == key).is_some_and(|(_, by)| by.id != lease.id);
                match mine.is_empty() || mine.iter().any(taken) {
                    true => self.inner.complete(lease, events).await,
                    false => Ok(events.iter().map(|_| Ok(())).collect()),
                }
            }
            _ => self.inner.complete(lease, events).await,
        }
    }

    async fn retired(&self, lease: &Lease) {
        let (mine, over) = (self.claims_of(lease.id), self.is_over(lease).await);
        let leases: Vec<Lease> = self.known().leases.iter().map(|(lease, _)| lease.clone()).collect();
        match self.bug {
            Bug::RetiresAHundredClaims => {
                let held = mine.into_iter().skip(100).map(|key| (key, Claim::Held { at_most: lease.ttl }));
                self.known().answers.extend(held);
            }
            Bug::RetiringReleasesTheScope if !over => {
                for other in leases.iter().filter(|other| other.scope == lease.scope) {
                    let claims = self.claims_of(other.id);
                    let released: Vec<_> = claims.iter().map(|(_, id)| ReleasedClaim::new(*id, 0)).collect();
                    drop(self.inner.release(other, &released).await);
                }
            }
            Bug::ForgetsTheCrashOfALateRetirement if over => {
                self.known().added.extend(mine.into_iter().map(|key| (key, (-1, 0))));
            }
            _ => {}
        }
    }

    fn renewed(&self, lease: &Lease) {
        let now = Instant::now();
        if let Some((of, until)) = self.known().leases.iter_mut().find(|(of, _)| of.id == lease.id) {
            *until = match (self.bug, *until) {
                (Bug::RenewsByHalf, _) => now.checked_add(of.ttl / 2),
                (Bug::AddsRenewalsUp, Some(until)) => until.checked_add(of.ttl),
                (_, until) => until,
            };
        }
    }
}

#[async_trait]
impl IdempotencyStore for Planted {
    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        self.inner.done(&self.scope(scope), events).await
    }

    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        let mut lease = self.inner.acquire_lease(&self.scope(scope), ttl).await?;
        self.known().leases.push((lease.clone(), Instant::now().checked_add(ttl)));
        if self.bug == Bug::KeepsAHundredLeases && self.known().leases.len() > 100 {
            let (oldest, _) = self.known().leases.remove(0);
            self.inner.retire(&oldest).await?;
        }
        lease.scope = scope.clone();
        Ok(lease)
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        let (lease, events) = (self.lease(lease), self.events(events));
        if self.bug == Bug::RefusesLongTypes && events.iter().any(|event| event.event_type.len() > 255) {
            return Err(Error::new(ErrorKind::Invalid, "claim: the type is too long"));
        }
        self.end_leases().await;
        let knows = self.known().leases.iter().any(|(known, _)| known.id == lease.id);
        let by = match self.bug {
            Bug::TakesUnknownLeases if !knows => self.inner.acquire_lease(&lease.scope, lease.ttl).await?,
            _ => lease.clone(),
        };
        let claims = match self.bug {
            Bug::ClaimsInTheOrderOfIds => sorted(&events, async |events| self.inner.claim(&by, &events).await).await,
            _ => self.inner.claim(&by, &events).await,
        };
        if self.bug == Bug::ClaimsThoughFenced && claims.as_ref().is_err_and(|error| error.kind() == ErrorKind::Fenced)
        {
            let keys = events.iter().map(|event| ((lease.scope.clone(), event.id), Claim::Held { at_most: lease.ttl }));
            self.known().answers.extend(keys);
        }
        let claims = claims?;
        Ok(events.iter().zip(claims).map(|(event, claim)| self.answered(&lease, event.id, claim)).collect())
    }

    async fn renew(&self, lease: &Lease) -> Result<()> {
        let lease = self.lease(lease);
        let answer = self.inner.renew(&lease).await;
        if answer.is_ok() {
            self.renewed(&lease);
        } else if self.bug == Bug::RevivesByARefusedRenewal && !self.is_retired(&lease) {
            let held = self.claims_of(lease.id).into_iter().map(|key| (key, Claim::Held { at_most: lease.ttl }));
            self.known().answers.extend(held);
        }
        if self.bug == Bug::RenewsTheScope {
            let leases: Vec<Lease> = self.known().leases.iter().map(|(lease, _)| lease.clone()).collect();
            // Each for as long as it takes until nothing waits for it.
            for other in leases.iter().filter(|other| other.scope == lease.scope && other.id != lease.id) {
                let held = self.claims_of(other.id).into_iter().map(|key| (key, Claim::Held { at_most: other.ttl }));
                self.known().answers.extend(held);
            }
        }
        answer
    }

    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        let (lease, events) = (self.lease(lease), self.events(events));
        let mut answers = self.completed(&lease, &events).await?;
        let (fenced, accepted) = (answers.iter().any(Result::is_err), answers.iter().any(Result::is_ok));
        let done = events.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        let done: Vec<Key> = done.map(|(event, _)| (lease.scope.clone(), event.id)).collect();
        self.known().done.extend(done);
        match self.bug {
            Bug::FencesAllForOne if fenced => {
                answers.fill_with(|| Err(Error::new(ErrorKind::Fenced, "complete: one of them is another's")));
            }
            Bug::AcceptsAllForOne if accepted => answers.fill_with(|| Ok(())),
            _ => {}
        }
        Ok(answers)
    }

    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        let lease = self.lease(lease);
        let mut events: Vec<_> = events.iter().map(|e| ReleasedClaim::new(self.id(e.id), e.attempts)).collect();
        let first = events.first().map_or(0, |event| event.attempts);
        match self.bug {
            Bug::ReleasesAHundred => events.truncate(100),
            Bug::ReleasesWithTheFirstAttempts => events.iter_mut().for_each(|event| event.attempts = first),
            _ => {}
        }
        for event in &events {
            let key = (lease.scope.clone(), event.id);
            let mut known = self.known();
            if self.bug == Bug::ReleasesWhatIsDone && known.done.contains(&key) {
                known.answers.insert(key.clone(), Claim::Granted(History::default()));
            }
            if !known.released.insert((key.clone(), lease.id)) && self.bug == Bug::CountsARepeatedRelease {
                known.added.entry(key).or_default().1 += event.attempts;
            }
        }
        let answer = self.inner.release(&lease, &events).await;
        if self.bug == Bug::AcceptsReleasesWhenDown { Ok(()) } else { answer }
    }

    async fn retire(&self, lease: &Lease) -> Result<()> {
        let lease = self.lease(lease);
        self.retired(&lease).await;
        self.known().leases.iter_mut().filter(|(of, _)| of.id == lease.id).for_each(|(_, until)| *until = None);
        self.inner.retire(&lease).await
    }

    async fn purge(&self, scope: &Name, completed_before: Timestamp) -> Result<u64> {
        const DAY: i64 = 86_400_000;
        let (scope, millis) = (self.scope(scope), completed_before.millis());
        let before = match self.bug {
            Bug::PurgesByTheDay => Timestamp::from_millis(millis.div_euclid(DAY).saturating_add(1).saturating_mul(DAY)),
            Bug::WrapsNegativeTimes if millis < 0 => Timestamp::from_millis(i64::MAX),
            _ => completed_before,
        };
        let purged = self.inner.purge(&scope, before).await?;
        if self.bug == Bug::PurgesAThousand && purged > 1_000 {
            let left: Vec<_> = self.known().done.iter().skip(1_000).map(|key| (key.clone(), Claim::Done)).collect();
            self.known().answers.extend(left);
        }
        Ok(purged)
    }

    fn guarantees(&self) -> Guarantees {
        // The reopen hook of these tests keeps the store, as a disk would.
        Guarantees::all()
    }
}
