//! A service's holder: registered, renewed at a third of its ttl, and trusted no longer than its own clock allows.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, EventRef, Holder, IdempotencyStore, Name, Release, Result};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::work::after;

/// The store, and the holder that this service's claims are made by.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) store: Arc<dyn IdempotencyStore>,
    scope: Name,
    ttl: Duration,
    /// The holder, and until when it surely lives: counted from before the call that renewed it. Under one lock, so that
    /// nobody sees the time of one holder beside another.
    current: Mutex<Option<(Arc<Holder>, Instant)>>,
    /// Events whose claim is being given back, each with the holder that had it. Until the store has answered nobody here
    /// asks for them again by that holder: the release would take the new claim away. A later holder's claim of the same
    /// event is another one.
    giving_back: Mutex<HashSet<(Uuid, Uuid)>>,
    /// Woken when all are given back.
    given_back: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn IdempotencyStore>, scope: Name, ttl: Duration) -> Self {
        let (giving_back, given_back) = (Mutex::default(), Notify::new());
        Self { store, scope, ttl, current: Mutex::new(None), giving_back, given_back }
    }

    /// The holder, unless its time may be over: then nothing may begin by its claims.
    pub(crate) fn holder(&self) -> Option<Arc<Holder>> {
        let current = lock(&self.current);
        current.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(holder, _)| holder.clone())
    }

    /// Whether claims of this holder still count.
    pub(crate) fn is_current(&self, id: Uuid) -> bool {
        self.holder().is_some_and(|holder| holder.id == id)
    }

    /// The claim of an event, made by `holder`, is about to be given back.
    pub(crate) fn gives_back(&self, event: Uuid, holder: Uuid) {
        lock(&self.giving_back).insert((event, holder));
    }

    /// These claims are given back, or ended with their holder.
    pub(crate) fn gave_back<'a>(&self, releases: impl IntoIterator<Item = &'a (Uuid, Release)>) {
        let mut giving_back = lock(&self.giving_back);
        for (holder, release) in releases {
            giving_back.remove(&(release.id, *holder));
        }
        if giving_back.is_empty() {
            self.given_back.notify_waiters();
        }
    }

    /// Waits until no claim is being given back.
    pub(crate) async fn all_given_back(&self) {
        loop {
            let notified = self.given_back.notified();
            if lock(&self.giving_back).is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// Claims events by `holder`. Of those that are still being given back it says that they are held.
    pub(crate) async fn claim(&self, holder: &Holder, events: &[EventRef]) -> Result<Vec<Claim>> {
        let waits: Vec<bool> = {
            let giving_back = lock(&self.giving_back);
            let of = |event: &EventRef| !giving_back.is_empty() && giving_back.contains(&(event.id, holder.id));
            events.iter().map(of).collect()
        };
        let held = Claim::Held { at_most: Duration::ZERO };
        if !waits.contains(&true) {
            let mut answers = self.store.claim(holder, events).await?;
            // A store that says less than it was asked for grants nothing by it.
            answers.resize(events.len(), held);
            return Ok(answers);
        }
        let asked: Vec<EventRef> =
            events.iter().zip(&waits).filter(|(_, waits)| !**waits).map(|(event, _)| event.clone()).collect();
        let answers = if asked.is_empty() { Vec::new() } else { self.store.claim(holder, &asked).await? };
        let mut answers = answers.into_iter();
        let answer = |waits: bool| if waits { None } else { answers.next() };
        Ok(waits.into_iter().map(answer).map(|answer| answer.unwrap_or(held)).collect())
    }

    /// The error of a call that needs a holder while there is none.
    pub(crate) fn no_holder(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("claim events in {}: the holder's time is over", self.scope))
    }

    /// How long to wait between renewals.
    pub(crate) fn renewal(&self) -> Duration {
        self.ttl / 3
    }

    /// Renews the holder, or registers a new one where there is none or it is dead.
    pub(crate) async fn renew(&self) -> Result<()> {
        let holder = lock(&self.current).as_ref().map(|(holder, _)| holder.clone());
        let before = Instant::now();
        if let Some(holder) = holder {
            match self.store.renew(&holder).await {
                Ok(()) => {
                    *lock(&self.current) = Some((holder, after(before, self.ttl)));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    tracing::warn!(scope = %self.scope, "the holder of this service's claims was taken for dead");
                    *lock(&self.current) = None;
                }
                Err(error) => return Err(error),
            }
        }
        let before = Instant::now();
        let holder = Arc::new(self.store.holder(&self.scope, self.ttl).await?);
        *lock(&self.current) = Some((holder, after(before, self.ttl)));
        Ok(())
    }

    /// Ends the holder: its claims are free at once.
    pub(crate) async fn retire(&self) -> Result<()> {
        let current = lock(&self.current).take();
        match current {
            Some((holder, _)) => self.store.retire(&holder).await,
            None => Ok(()),
        }
    }
}
