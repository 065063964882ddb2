//! What store cases are made of: holders, events, claims.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Claim, EventRef, History, Holder, IdempotencyStore, Name, Release, Result};
use uuid::Uuid;

use crate::case::{Checked, broken, granted, holds, only, same};
use crate::cx::Cx;

/// A store case at work.
pub(super) type Rig = Cx<dyn IdempotencyStore>;

/// Long beside anything that a case does.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// New events.
pub(super) fn events(count: usize) -> Vec<EventRef> {
    (0..count).map(|_| EventRef::new(Uuid::now_v7(), "conformance.event")).collect()
}

/// One of the few things that a claim can be, without how long it may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Granted,
    Held,
    Done,
}

impl Rig {
    pub(super) fn store(&self) -> Checked<Arc<dyn IdempotencyStore>> {
        self.backend()
    }

    /// A holder in `scope` that outlives the case.
    pub(super) async fn holder(&self, scope: &Name) -> Checked<Holder> {
        self.holder_for(scope, LONG).await
    }

    /// A holder in `scope` that dies without being renewed for `ttl`.
    pub(super) async fn holder_for(&self, scope: &Name, ttl: Duration) -> Checked<Holder> {
        let store = self.store()?;
        let holder = self.within("a holder", store.holder(scope, ttl)).await??;
        self.note(format!("holder {} in {scope}, ttl {ttl:?}", brief(&holder)));
        same("the holder's scope", scope, &holder.scope)?;
        same("the holder's ttl", ttl, holder.ttl)?;
        Ok(holder)
    }

    pub(super) async fn try_claim(&self, holder: &Holder, events: &[EventRef]) -> Checked<Result<Vec<Claim>>> {
        let store = self.store()?;
        let answer = self.within("claims", store.claim(holder, events)).await?;
        self.note(format!("holder {} claims {} events: {answer:?}", brief(holder), events.len()));
        Ok(answer)
    }

    /// Claims; as many answers as events.
    pub(super) async fn claim(&self, holder: &Holder, events: &[EventRef]) -> Checked<Vec<Claim>> {
        let claims = granted("claim", self.try_claim(holder, events).await?)?;
        same("answers to claim", events.len(), claims.len())?;
        Ok(claims)
    }

    /// Claims, and compares what kind of answers come.
    pub(super) async fn claims(&self, what: &str, holder: &Holder, events: &[EventRef], expected: &[Is]) -> Checked {
        let came = self.claim(holder, events).await?;
        same(what, expected.to_vec(), came.iter().map(kind).collect::<Checked<_>>()?)
    }

    /// All of `events` are granted, with this history.
    pub(super) async fn grants(&self, holder: &Holder, events: &[EventRef], history: History) -> Checked {
        for claim in self.claim(holder, events).await? {
            match claim {
                Claim::Granted(came) => same("the history of a granted event", history, came)?,
                other => return broken("Granted", format!("{other:?}")),
            }
        }
        Ok(())
    }

    /// Completes; each must be `Ok`.
    pub(super) async fn complete(&self, holder: &Holder, events: &[EventRef]) -> Checked {
        let answers = self.try_complete(holder, events).await??;
        same("answers to complete", events.len(), answers.len())?;
        answers.into_iter().try_for_each(|answer| granted("complete", answer))
    }

    pub(super) async fn try_complete(&self, holder: &Holder, events: &[EventRef]) -> Checked<Result<Vec<Result<()>>>> {
        let store = self.store()?;
        let answer = self.within("an answer to complete", store.complete(holder, events)).await?;
        self.note(format!("holder {} completes {} events: {answer:?}", brief(holder), events.len()));
        Ok(answer)
    }

    /// The answer to completing one event, be it refused as a whole or alone.
    pub(super) async fn complete_one(&self, holder: &Holder, event: &EventRef) -> Checked<Result<()>> {
        match self.try_complete(holder, std::slice::from_ref(event)).await? {
            Ok(answers) => only("complete", answers),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Gives claims back, each with so many attempts.
    pub(super) async fn release(&self, holder: &Holder, events: &[EventRef], attempts: u32) -> Checked {
        let store = self.store()?;
        let releases: Vec<Release> = events.iter().map(|event| Release::new(event.id, attempts)).collect();
        self.note(format!("holder {} releases {} events, {attempts} attempts", brief(holder), events.len()));
        Ok(self.within("release", store.release(holder, &releases)).await??)
    }

    pub(super) async fn renew(&self, holder: &Holder) -> Checked<Result<()>> {
        let store = self.store()?;
        let answer = self.within("renew", store.renew(holder)).await?;
        self.note(format!("holder {} renews: {answer:?}", brief(holder)));
        Ok(answer)
    }

    pub(super) async fn retire(&self, holder: &Holder) -> Checked {
        let store = self.store()?;
        self.note(format!("holder {} retires", brief(holder)));
        Ok(self.within("retire", store.retire(holder)).await??)
    }
}

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

fn brief(holder: &Holder) -> String {
    holder.id.simple().to_string().split_off(24)
}
