//! A service's holder: registered, renewed at a third of its ttl, and trusted no longer than its own clock allows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Holder, IdempotencyStore, Name, Result};
use tokio::time::Instant;
use uuid::Uuid;

/// The store, and the holder that this service's claims are made by.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) store: Arc<dyn IdempotencyStore>,
    scope: Name,
    ttl: Duration,
    started: Instant,
    current: Mutex<Option<Arc<Holder>>>,
    /// Until when the holder surely lives, in microseconds after `started`. Counted from before the call that renewed it.
    valid_until: AtomicU64,
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn IdempotencyStore>, scope: Name, ttl: Duration) -> Self {
        let started = Instant::now();
        Self { store, scope, ttl, started, current: Mutex::new(None), valid_until: AtomicU64::new(0) }
    }

    /// The holder, unless its time may be over: then nothing may begin by its claims.
    pub(crate) fn holder(&self) -> Option<Arc<Holder>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current.filter(|_| self.is_alive())
    }

    /// Whether claims of this holder still count.
    pub(crate) fn is_current(&self, id: Uuid) -> bool {
        self.holder().is_some_and(|holder| holder.id == id)
    }

    fn is_alive(&self) -> bool {
        self.micros(Instant::now()) < self.valid_until.load(Ordering::Acquire)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
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
        let holder = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = Instant::now();
        if let Some(holder) = holder {
            match self.store.renew(&holder).await {
                Ok(()) => {
                    self.extend(before);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Fenced => {
                    tracing::warn!(scope = %self.scope, "the holder of this service's claims was taken for dead");
                    self.valid_until.store(0, Ordering::Release);
                }
                Err(error) => return Err(error),
            }
        }
        let before = Instant::now();
        let holder = self.store.holder(&self.scope, self.ttl).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(holder));
        self.extend(before);
        Ok(())
    }

    fn extend(&self, from: Instant) {
        self.valid_until.store(self.micros(from + self.ttl), Ordering::Release);
    }

    /// Ends the holder: its claims are free at once.
    pub(crate) async fn retire(&self) -> Result<()> {
        let holder = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.valid_until.store(0, Ordering::Release);
        match holder {
            Some(holder) => self.store.retire(&holder).await,
            None => Ok(()),
        }
    }
}
