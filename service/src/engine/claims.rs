//! A service's lease: registered, renewed at a third of its ttl, and trusted no longer than its own clock allows.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, EventRef, IdempotencyStore, Lease, Name, Result};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::work::after;

/// The store, and the lease that this service's claims are made by.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) store: Arc<dyn IdempotencyStore>,
    scope: Name,
    ttl: Duration,
    /// The lease, and until when it surely lives: counted from before the call that renewed it. Under one lock, so that
    /// nobody sees the time of one lease beside another.
    current: Mutex<Option<(Arc<Lease>, Instant)>>,
    ours: Mutex<Ours>,
    /// Woken when all that was to be given back is.
    given_back: Notify,
}

/// The claims of this service.
#[derive(Debug, Default)]
struct Ours {
    /// Events that are asked for, claimed or being given back here, each with the lease. A later lease's claim of the
    /// same event is another one.
    taken: HashSet<(Uuid, Uuid)>,
    /// Of these, how many are being given back.
    giving_back: usize,
}

/// A claim of this service, or what may be one: as long as it is kept, nobody else here asks for the event by the same
/// lease. Two deliveries of one event could not be told apart by the store: what one of them gives back, because the
/// answer to its claim was lost, would be the other's; and a release that is sent again would take a new claim away.
///
/// To drop it tells the store nothing.
#[derive(Debug)]
pub(crate) struct Hold {
    claims: Arc<Claims>,
    event: Uuid,
    lease: Arc<Lease>,
    giving_back: bool,
}

impl Hold {
    pub(crate) fn event(&self) -> Uuid {
        self.event
    }

    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Whether it surely counts now: something may begin by it.
    pub(crate) fn is_current(&self) -> bool {
        self.claims.lease().is_some_and(|lease| lease.id == self.lease.id)
    }

    /// It is about to be given back, which those wait for that end the service.
    pub(crate) fn giving_back(mut self) -> Self {
        if !std::mem::replace(&mut self.giving_back, true) {
            lock(&self.claims.ours).giving_back += 1;
        }
        self
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut ours = lock(&self.claims.ours);
        ours.taken.remove(&(self.event, self.lease.id));
        if self.giving_back {
            ours.giving_back -= 1;
            if ours.giving_back == 0 {
                self.claims.given_back.notify_waiters();
            }
        }
    }
}

/// What came of a call of `claim`: the store's answer, and of each event that was asked for what holds it.
pub(crate) type Answered = (Vec<Option<Hold>>, Result<Vec<Claim>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn IdempotencyStore>, scope: Name, ttl: Duration) -> Self {
        let (ours, given_back) = (Mutex::default(), Notify::new());
        Self { store, scope, ttl, current: Mutex::new(None), ours, given_back }
    }

    /// The lease, unless its time may be over: then nothing may begin by its claims.
    pub(crate) fn lease(&self) -> Option<Arc<Lease>> {
        let current = lock(&self.current);
        current.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(lease, _)| lease.clone())
    }

    /// Waits until no claim is being given back.
    pub(crate) async fn all_given_back(&self) {
        loop {
            let notified = self.given_back.notified();
            if lock(&self.ours).giving_back == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Claims events by `lease`. Of those that are this service's already, or may be, it says that they are held.
    pub(crate) async fn claim(self: &Arc<Self>, lease: &Arc<Lease>, events: &[EventRef]) -> Answered {
        let held = Claim::Held { at_most: Duration::ZERO };
        let holds: Vec<Option<Hold>> = {
            let mut ours = lock(&self.ours);
            let hold = |event| Hold { claims: Arc::clone(self), event, lease: Arc::clone(lease), giving_back: false };
            events.iter().map(|event| ours.taken.insert((event.id, lease.id)).then(|| hold(event.id))).collect()
        };
        let asked: Cow<'_, [EventRef]> = if holds.iter().all(Option::is_some) {
            events.into()
        } else {
            events.iter().zip(&holds).filter(|(_, hold)| hold.is_some()).map(|(event, _)| event.clone()).collect()
        };
        let answer = if asked.is_empty() { Ok(Vec::new()) } else { self.store.claim(lease, &asked).await };
        // A store that says less than it was asked for grants nothing by it.
        let spread = |claims: Vec<Claim>| {
            let mut claims = claims.into_iter();
            let answer = |hold: &Option<Hold>| hold.as_ref().and_then(|_| claims.next()).unwrap_or(held);
            holds.iter().map(answer).collect()
        };
        let answer = answer.map(spread);
        (holds, answer)
    }

    /// The error of a call that needs a lease while there is none.
    pub(crate) fn no_lease(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("claim events in {}: the lease's time is over", self.scope))
    }

    /// How long to wait between renewals.
    pub(crate) fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// Renews the lease, or registers a new one where there is none, for a ttl from `since` on, which is no later than
    /// this call. `false`: it was taken for dead, and there is none now.
    pub(crate) async fn renew(&self, since: Instant) -> Result<bool> {
        let lease = lock(&self.current).as_ref().map(|(lease, _)| lease.clone());
        if let Some(lease) = lease {
            match self.store.renew(&lease).await {
                Ok(()) => {
                    *lock(&self.current) = Some((lease, after(since, self.ttl)));
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    tracing::warn!(scope = %self.scope, "the lease of this service expired");
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

    /// Ends the lease: its claims are free at once.
    pub(crate) async fn retire(&self) -> Result<()> {
        let current = lock(&self.current).take();
        match current {
            Some((lease, _)) => self.store.retire(&lease).await,
            None => Ok(()),
        }
    }
}
