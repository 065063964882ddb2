//! The service's lease: registered, renewed at a third of its ttl, and expired by this process's own clock.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, EventRef, IdempotencyStore, Lease, Name, Result};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::logs;
use crate::telemetry::ClaimSnapshot;
use crate::time::after;

/// The store, and the lease under which this service claims events.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) store: Arc<dyn IdempotencyStore>,
    scope: Name,
    ttl: Duration,
    /// The lease, and the time until which it is certainly valid: counted from before the call that renewed it. Both
    /// are under one lock, so that no reader pairs one lease with another's time.
    current: Mutex<Option<(Arc<Lease>, Instant)>>,
    ours: Mutex<Ours>,
    answers: Answers,
    /// Notified when no claim is being released any more.
    released: Notify,
}

/// The store's answers to claims, counted once per request.
#[derive(Debug, Default)]
struct Answers {
    granted: AtomicU64,
    refused: AtomicU64,
    duplicates: AtomicU64,
}

impl Answers {
    fn count(&self, claims: &[Claim]) {
        let add = |counter: &AtomicU64, answers: fn(&&Claim) -> bool| {
            counter.fetch_add(claims.iter().filter(answers).count() as u64, Ordering::Relaxed);
        };
        add(&self.granted, |claim| matches!(claim, Claim::Granted(_)));
        add(&self.refused, |claim| matches!(claim, Claim::Held { .. }));
        add(&self.duplicates, |claim| matches!(claim, Claim::Done));
    }
}

/// The claims of this service.
#[derive(Debug, Default)]
struct Ours {
    /// Events that are requested, claimed or being released here, each with its lease. A later lease's claim of the
    /// same event is a separate entry.
    taken: HashSet<(Uuid, Uuid)>,
    /// The number of entries that are being released.
    releasing: usize,
}

/// A claim of this service, or a possible one: while it exists, no other delivery of this service claims the same
/// event under the same lease. The store could not tell two deliveries of one event apart: if one releases its claim
/// because the answer was lost, that would release the other's; and a repeated release would remove a new claim.
///
/// Dropping it does not notify the store.
#[derive(Debug)]
pub(crate) struct ClaimGuard {
    claims: Arc<Claims>,
    event: Uuid,
    lease: Arc<Lease>,
    releasing: bool,
}

impl ClaimGuard {
    pub(crate) fn event(&self) -> Uuid {
        self.event
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Returns whether the lease is certainly valid: only then may work begin under this claim.
    pub(crate) fn is_current(&self) -> bool {
        self.claims.lease().is_some_and(|lease| lease.id == self.lease.id)
    }

    /// Marks the claim as being released; a shutdown waits for it.
    pub(crate) fn releasing(mut self) -> Self {
        if !std::mem::replace(&mut self.releasing, true) {
            lock(&self.claims.ours).releasing += 1;
        }
        self
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        let mut ours = lock(&self.claims.ours);
        ours.taken.remove(&(self.event, self.lease.id));
        if self.releasing {
            ours.releasing -= 1;
            if ours.releasing == 0 {
                self.claims.released.notify_waiters();
            }
        }
    }
}

/// The result of a call of `claim`: a guard per requested event, and the store's answer.
pub(crate) type Answered = (Vec<Option<ClaimGuard>>, Result<Vec<Claim>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn IdempotencyStore>, scope: Name, ttl: Duration) -> Self {
        let (ours, released) = (Mutex::default(), Notify::new());
        Self { store, scope, ttl, current: Mutex::new(None), ours, answers: Answers::default(), released }
    }

    /// Returns the lease, unless it may have expired: then no work may begin under its claims.
    pub(crate) fn lease(&self) -> Option<Arc<Lease>> {
        let current = lock(&self.current);
        current.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(lease, _)| lease.clone())
    }

    /// Waits until no claim is being released.
    pub(crate) async fn all_released(&self) {
        loop {
            let notified = self.released.notified();
            if lock(&self.ours).releasing == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Claims events under `lease`. Reports events as held if this service has, or may have, claimed them already.
    pub(crate) async fn claim(self: &Arc<Self>, lease: &Arc<Lease>, events: &[EventRef]) -> Answered {
        let held = Claim::Held { at_most: Duration::ZERO };
        let guards: Vec<Option<ClaimGuard>> = {
            let mut ours = lock(&self.ours);
            let guard =
                |event| ClaimGuard { claims: Arc::clone(self), event, lease: Arc::clone(lease), releasing: false };
            events.iter().map(|event| ours.taken.insert((event.id, lease.id)).then(|| guard(event.id))).collect()
        };
        let asked: Cow<'_, [EventRef]> = if guards.iter().all(Option::is_some) {
            events.into()
        } else {
            events.iter().zip(&guards).filter(|(_, guard)| guard.is_some()).map(|(event, _)| event.clone()).collect()
        };
        let answer = if asked.is_empty() { Ok(Vec::new()) } else { self.store.claim(lease, &asked).await };
        if let Ok(claims) = &answer {
            self.answers.count(claims);
        }
        // A store that returns too few answers grants none of the missing ones.
        let spread = |claims: Vec<Claim>| {
            let mut claims = claims.into_iter();
            let answer = |guard: &Option<ClaimGuard>| guard.as_ref().and_then(|_| claims.next()).unwrap_or(held);
            guards.iter().map(answer).collect()
        };
        let answer = answer.map(spread);
        (guards, answer)
    }

    /// Returns the error of a call that needs a lease while there is none.
    pub(crate) fn no_lease(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("claim events in {}: the lease's time is over", self.scope))
    }

    /// Returns the counters of claims.
    pub(crate) fn snapshot(&self) -> ClaimSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Answers { granted, refused, duplicates } = &self.answers;
        let held = lock(&self.ours).taken.len();
        ClaimSnapshot { held, granted: load(granted), refused: load(refused), duplicates: load(duplicates) }
    }

    /// Returns the interval between renewals.
    pub(crate) fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// Renews the lease, or registers a new one if there is none. It is valid for a ttl from `since`, which is no
    /// later than this call. Returns `false` if the lease had expired; there is none then.
    pub(crate) async fn renew(&self, since: Instant) -> Result<bool> {
        let lease = lock(&self.current).as_ref().map(|(lease, _)| lease.clone());
        if let Some(lease) = lease {
            match self.store.renew(&lease).await {
                Ok(()) => {
                    *lock(&self.current) = Some((lease, after(since, self.ttl)));
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    logs::LeaseExpired { scope: &self.scope.as_str() }.log();
                    *lock(&self.current) = None;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        let lease = Arc::new(self.store.acquire_lease(&self.scope, self.ttl).await?);
        *lock(&self.current) = Some((lease, after(since, self.ttl)));
        Ok(true)
    }

    /// Retires the lease: its claims are free at once.
    pub(crate) async fn retire(&self) -> Result<()> {
        let current = lock(&self.current).take();
        match current {
            Some((lease, _)) => self.store.retire(&lease).await,
            None => Ok(()),
        }
    }
}
