//! A store that misbehaves in configurable ways.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    Claim, Error, ErrorKind, EventRef, Guarantees, IdempotencyStore, Lease, Name, ReleasedClaim, Result, Timestamp,
    async_trait,
};
use tidings_memory::MemoryStore;
use tokio::time::sleep;

use crate::common::Log;

/// A memory store that injects the configured faults, and otherwise forwards calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Odd {
    pub(crate) inner: MemoryStore,
    pub(crate) claim_takes: Duration,
    pub(crate) release_takes: Duration,
    /// The number of events requested, per call.
    pub(crate) claims: Log,
    /// The number of releases that are carried out but reported as failed.
    pub(crate) denied_releases: Arc<AtomicUsize>,
    /// An event whose claim is never released.
    pub(crate) keeps: Arc<Mutex<Option<uuid::Uuid>>>,
    /// Renewals are carried out but reported as failed.
    pub(crate) denies_renewals: Arc<AtomicBool>,
    /// The number of claims that are carried out late, after their answer was lost and they were released.
    pub(crate) late_claims: Arc<AtomicUsize>,
    /// The number of completions that return an empty answer.
    pub(crate) short_completes: Arc<AtomicUsize>,
    /// The answers to the next claims, as if other leases had the events meanwhile.
    pub(crate) script: Arc<Mutex<VecDeque<Claim>>>,
    /// From the second claim on, a claim takes longer than a lease is valid, and renewals are lost.
    pub(crate) late: bool,
}

impl Odd {
    fn is_late(&self) -> bool {
        self.late && self.claims.lines().len() > 1
    }
}

#[async_trait]
impl IdempotencyStore for Odd {
    async fn acquire_lease(&self, scope: &Name, ttl: Duration) -> Result<Lease> {
        self.inner.acquire_lease(scope, ttl).await
    }
    async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Claim>> {
        self.claims.add(format!("claim {}", events.len()));
        if !self.claim_takes.is_zero() {
            sleep(self.claim_takes).await;
        }
        if self.is_late() {
            sleep(lease.ttl * 2).await;
        }
        let scripted = self.script.lock().expect("no test panics with it").pop_front();
        if let Some(claim) = scripted {
            return Ok(vec![claim; events.len()]);
        }
        if self.late_claims.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            let (inner, lease, events) = (self.inner.clone(), lease.clone(), events.to_vec());
            tokio::spawn(async move {
                sleep(Duration::from_millis(10)).await;
                drop(inner.claim(&lease, &events).await);
            });
            return Err(Error::new(ErrorKind::Indeterminate, "claim: the answer is lost"));
        }
        self.inner.claim(lease, events).await
    }
    async fn renew(&self, lease: &Lease) -> Result<()> {
        if self.is_late() {
            return Err(Error::new(ErrorKind::Unavailable, "renew the lease: no answer"));
        }
        self.inner.renew(lease).await?;
        match self.denies_renewals.load(SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "renew the lease: the answer is lost")),
            false => Ok(()),
        }
    }
    async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Result<Vec<Result<()>>> {
        match self.short_completes.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Ok(Vec::new()),
            Err(_) => self.inner.complete(lease, events).await,
        }
    }
    async fn release(&self, lease: &Lease, events: &[ReleasedClaim]) -> Result<()> {
        if !self.release_takes.is_zero() {
            sleep(self.release_takes).await;
        }
        let keeps = *self.keeps.lock().expect("no test panics with it");
        if events.iter().any(|event| Some(event.id) == keeps) {
            return Err(Error::new(ErrorKind::Unavailable, "give claims back: not this one"));
        }
        self.inner.release(lease, events).await?;
        match self.denied_releases.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, "give claims back: the answer is lost")),
            Err(_) => Ok(()),
        }
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
