//! I5: a store that can't answer says so, and never `Done`, never `Granted`.

use tidings_core::IdempotencyStore;

use super::rig::{Is, Rig, events};
use crate::case::{Case, Checked, broken, cases};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] =
    cases![i5_a_store_that_is_down_says_so[Outage], i5_an_outage_forgets_nothing[Outage],];

/// Checks that `answer` is a retryable error.
fn is_retryable<T: std::fmt::Debug>(what: &str, answer: tidings_core::Result<T>) -> Checked {
    match answer {
        Err(error) if error.is_retryable() => Ok(()),
        Err(error) => broken(format!("{what}: a retryable error"), format!("{} ({})", error.report(), error.kind())),
        Ok(answer) => broken(format!("{what}: a retryable error"), format!("Ok({answer:?})")),
    }
}

async fn i5_a_store_that_is_down_says_so(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (lease, store, event) = (rig.acquire_lease(&scope).await?, rig.store()?, events(1));
    rig.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    rig.outage(true).await?;
    let checked = async {
        is_retryable("claim", rig.try_claim(&lease, &events(1)).await?)?;
        is_retryable("complete", rig.complete_one(&lease, &event[0]).await?)?;
        is_retryable("renew", rig.renew(&lease).await?)?;
        is_retryable("purge", rig.within("purge", store.purge(&scope, tidings_core::Timestamp::now())).await?)?;
        let another = store.acquire_lease(&scope, super::rig::LONG);
        is_retryable("lease", rig.within("lease", another).await?)
    }
    .await;
    rig.outage(false).await?;
    checked
}

async fn i5_an_outage_forgets_nothing(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (lease, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let all = events(2);
    rig.claims("new events", &lease, &all, &[Is::Granted; 2]).await?;
    rig.complete(&lease, &all[..1]).await?;
    rig.outage(true).await?;
    drop(rig.try_claim(&other, &all).await?);
    rig.outage(false).await?;
    rig.eventually("an answer after the outage", || async {
        Ok(rig.try_claim(&other, &events(1)).await?.ok().map(drop))
    })
    .await?;
    rig.claims("done and held, as before", &other, &all, &[Is::Done, Is::Held]).await
}
