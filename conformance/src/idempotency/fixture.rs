//! Helpers of store cases: leases, events, claims.
//!
//! Helpers check the number of answers and the scope and ttl of leases, so that the cases need not.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Claim, Error, ErrorKind, EventRef, History, IdempotencyStore, Lease, Name, ReleasedClaim, Result};
use uuid::Uuid;

use crate::case::{Checked, broken, granted, holds, only, same};
use crate::context::Context;

/// Context of a store case.
pub(super) type Fixture = Context<dyn IdempotencyStore>;

/// Longer than any case takes.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// New events.
pub(super) fn events(count: usize) -> Vec<EventRef> {
    (0..count).map(|_| EventRef::new(Uuid::now_v7(), "conformance.event")).collect()
}

/// The variant of a claim's answer, without its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Granted,
    Held,
    Done,
}

impl Fixture {
    /// Returns the store that is open now.
    pub(super) fn store(&self) -> Checked<Arc<dyn IdempotencyStore>> {
        self.backend()
    }

    /// Acquires a lease in `scope` that outlives the case.
    pub(super) async fn acquire_lease(&self, scope: &Name) -> Checked<Lease> {
        self.lease_for(scope, LONG).await
    }

    /// Acquires a lease in `scope` that expires unless it is renewed within `ttl`.
    pub(super) async fn lease_for(&self, scope: &Name, ttl: Duration) -> Checked<Lease> {
        let store = self.store()?;
        let lease = self.within("a lease", store.acquire_lease(scope, ttl)).await??;
        self.note(format!("lease {} in {scope}, ttl {ttl:?}", brief(&lease)));
        same("the lease's scope", scope, &lease.scope)?;
        same("the lease's ttl", ttl, lease.ttl)?;
        Ok(lease)
    }

    /// Claims events and returns the call's answer, refused or not.
    pub(super) async fn try_claim(&self, lease: &Lease, events: &[EventRef]) -> Checked<Result<Vec<Claim>>> {
        let store = self.store()?;
        let answer = self.within("claims", store.claim(lease, events)).await?;
        self.note(format!("lease {} claims {} events: {answer:?}", brief(lease), events.len()));
        Ok(answer)
    }

    /// Claims events, and checks that there are as many answers as events.
    pub(super) async fn claim(&self, lease: &Lease, events: &[EventRef]) -> Checked<Vec<Claim>> {
        let claims = granted("claim", self.try_claim(lease, events).await?)?;
        same("answers to claim", events.len(), claims.len())?;
        Ok(claims)
    }

    /// Claims events and compares the variants of the answers.
    pub(super) async fn claims(&self, what: &str, lease: &Lease, events: &[EventRef], expected: &[Is]) -> Checked {
        let came = self.claim(lease, events).await?;
        same(what, expected.to_vec(), came.iter().map(kind).collect::<Checked<_>>()?)
    }

    /// Checks that all of `events` are granted with this history.
    pub(super) async fn grants(&self, lease: &Lease, events: &[EventRef], history: History) -> Checked {
        for claim in self.claim(lease, events).await? {
            match claim {
                Claim::Granted(came) => same("the history of a granted event", history, came)?,
                other => return broken("Granted", format!("{other:?}")),
            }
        }
        Ok(())
    }

    /// Completes events; each must be `Ok`.
    pub(super) async fn complete(&self, lease: &Lease, events: &[EventRef]) -> Checked {
        let answers = self.try_complete(lease, events).await??;
        same("answers to complete", events.len(), answers.len())?;
        answers.into_iter().try_for_each(|answer| granted("complete", answer))
    }

    /// Completes events and returns the call's answer, refused or not.
    pub(super) async fn try_complete(&self, lease: &Lease, events: &[EventRef]) -> Checked<Result<Vec<Result<()>>>> {
        let store = self.store()?;
        let answer = self.within("an answer to complete", store.complete(lease, events)).await?;
        self.note(format!("lease {} completes {} events: {answer:?}", brief(lease), events.len()));
        Ok(answer)
    }

    /// Completes one event and returns its result, whether the call or the event was refused.
    pub(super) async fn complete_one(&self, lease: &Lease, event: &EventRef) -> Checked<Result<()>> {
        match self.try_complete(lease, std::slice::from_ref(event)).await? {
            Ok(answers) => only("complete", answers),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Completes events and returns the kind of each one's error.
    pub(super) async fn completes(&self, lease: &Lease, events: &[EventRef]) -> Checked<Vec<Option<ErrorKind>>> {
        let answers = self.try_complete(lease, events).await??;
        Ok(answers.iter().map(|answer| answer.as_ref().err().map(Error::kind)).collect())
    }

    /// Releases claims, each with `attempts`.
    pub(super) async fn release(&self, lease: &Lease, events: &[EventRef], attempts: u32) -> Checked {
        let releases: Vec<ReleasedClaim> = events.iter().map(|event| ReleasedClaim::new(event.id, attempts)).collect();
        self.release_each(lease, &releases).await
    }

    /// Releases claims, each with its attempts.
    pub(super) async fn release_each(&self, lease: &Lease, releases: &[ReleasedClaim]) -> Checked {
        let store = self.store()?;
        let first = releases.first().map_or(0, |release| release.attempts);
        self.note(format!("lease {} releases {} events, the first of {first} attempts", brief(lease), releases.len()));
        Ok(self.within("release", store.release(lease, releases)).await??)
    }

    /// Renews a lease and returns the answer.
    pub(super) async fn renew(&self, lease: &Lease) -> Checked<Result<()>> {
        let store = self.store()?;
        let answer = self.within("renew", store.renew(lease)).await?;
        self.note(format!("lease {} renews: {answer:?}", brief(lease)));
        Ok(answer)
    }

    /// Retires a lease, which must succeed.
    pub(super) async fn retire(&self, lease: &Lease) -> Checked {
        let store = self.store()?;
        self.note(format!("lease {} retires", brief(lease)));
        Ok(self.within("retire", store.retire(lease)).await??)
    }
}

/// A held claim must say for how long at most, within any ttl of the suite.
fn kind(claim: &Claim) -> Checked<Is> {
    match claim {
        Claim::Granted(_) => Ok(Is::Granted),
        Claim::Held { at_most } => {
            holds(*at_most <= LONG, "a claim that is held for a ttl at most", at_most)?;
            Ok(Is::Held)
        }
        Claim::Done => Ok(Is::Done),
        other => broken("a claim that the suite knows", format!("{other:?}")),
    }
}

/// The end of the lease's id: ids made together begin alike.
fn brief(lease: &Lease) -> String {
    lease.id.simple().to_string().split_off(24)
}
