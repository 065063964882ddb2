//! A store that deletes by retention, with a bug.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidings_conformance::{Setup, idempotency};
use tidings_core::{
    Claim, EventRef, Guarantees, IdempotencyStore, Lease, Name, ReleasedClaim, Result, Timestamp, async_trait,
};
use tidings_memory::MemoryStore;
use tokio::time::Instant;

const RETENTION: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ForgetsNothing,
    ForgetsByHalf,
    ForgetsInOneScope,
    EndsOldLeases,
    ForgetsWhatIsNotDone,
}

#[derive(Debug)]
struct Forgetful {
    inner: MemoryStore,
    bug: Bug,
    opened: (Timestamp, Instant),
    /// In the order of their first leases.
    scopes: Mutex<Vec<Name>>,
    leases: Mutex<Vec<(Instant, Lease)>>,
}

impl Forgetful {
    fn new(bug: Bug) -> Self {
        let opened = (Timestamp::now(), Instant::now());
        Self { inner: MemoryStore::new(), bug, opened, scopes: Mutex::default(), leases: Mutex::default() }
    }

    /// Deletes old entries, in all scopes.
    async fn forget(&self) -> Result<()> {
        let age = match self.bug {
            Bug::ForgetsNothing => return Ok(()),
            Bug::ForgetsByHalf => RETENTION / 2,
            Bug::ForgetsWhatIsNotDone => Duration::ZERO,
            _ => RETENTION,
        };
        let before = self.opened.0.saturating_add(self.opened.1.elapsed()).saturating_sub(age);
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let most = if self.bug == Bug::ForgetsInOneScope { 1 } else { usize::MAX };
        for scope in scopes.iter().rev().take(most) {
            self.inner.purge(scope, before).await?;
        }
        let old: Vec<Lease> = {
            let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            let is_old = |(began, _): &&(Instant, Lease)| began.elapsed() > RETENTION;
            leases.iter().filter(is_old).map(|(_, lease)| lease.clone()).collect()
        };
        for lease in old.iter().filter(|_| self.bug == Bug::EndsOldLeases) {
            self.inner.retire(lease).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl IdempotencyStore for Forgetful {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        {
            let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        self.forget().await?;
        let lease = self.inner.acquire_lease(scope, ttl).await?;
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), lease.clone()));
        Ok(lease)
    }

    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        self.inner.claim(lease, events).await
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

    async fn done(&self, scope: &Name, events: &[EventRef]) -> Result<Vec<bool>> {
        self.inner.done(scope, events).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn setup(bug: Bug) -> Setup<Forgetful> {
    let open = move || async move { Ok(Forgetful::new(bug)) };
    Setup::new("forgetful", open).with_paused_clock().with_retention(RETENTION, open)
}

plants! { idempotency:
    nothing_forgotten: ForgetsNothing => i2_done_events_are_kept_for_the_retention_and_forgotten_later,
    young_events_forgotten: ForgetsByHalf => i2_done_events_are_kept_for_the_retention_and_forgotten_later,
    one_scope_forgotten: ForgetsInOneScope => i2_done_events_are_kept_for_the_retention_and_forgotten_later,
    old_leases_ended: EndsOldLeases => i3_claims_outlive_the_retention,
    attempts_forgotten: ForgetsWhatIsNotDone => i6_attempts_are_kept_within_the_retention,
}
