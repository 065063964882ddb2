//! I5: a store that can't answer says so, and never `Done`, never `Granted`.

use tidings_core::IdempotencyStore;

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, broken, cases};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i5_a_store_that_is_down_says_so[Outage],
    i5_an_outage_forgets_nothing[Outage],
    i5_a_lost_answer_is_no_success[LostAnswers],
    i5_a_call_with_a_lost_answer_can_be_repeated[LostAnswers],
];

/// Checks that `answer` is a retryable error.
fn is_retryable<T: std::fmt::Debug>(what: &str, answer: tidings_core::Result<T>) -> Checked {
    match answer {
        Err(error) if error.is_retryable() => Ok(()),
        Err(error) => broken(format!("{what}: a retryable error"), format!("{} ({})", error.report(), error.kind())),
        Ok(answer) => broken(format!("{what}: a retryable error"), format!("Ok({answer:?})")),
    }
}

/// `Done` would lose the event, `Granted` would handle it twice.
async fn i5_a_store_that_is_down_says_so(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (lease, store, event) = (fixture.acquire_lease(&scope).await?, fixture.store()?, events(1));
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.outage(true).await?;
    let checked = async {
        is_retryable("claim", fixture.try_claim(&lease, &events(1)).await?)?;
        is_retryable("complete", fixture.complete_one(&lease, &event[0]).await?)?;
        is_retryable("renew", fixture.renew(&lease).await?)?;
        let released = [tidings_core::ReleasedClaim::new(event[0].id, 1)];
        is_retryable("release", fixture.within("release", store.release(&lease, &released)).await?)?;
        is_retryable("retire", fixture.within("retire", store.retire(&lease)).await?)?;
        is_retryable("purge", fixture.within("purge", store.purge(&scope, tidings_core::Timestamp::now())).await?)?;
        is_retryable("done", fixture.within("done", store.done(&scope, &event)).await?)?;
        let another = store.acquire_lease(&scope, super::fixture::LONG);
        is_retryable("lease", fixture.within("lease", another).await?)
    }
    .await;
    fixture.outage(false).await?;
    checked
}

/// A store that is rebuilt empty after an outage is caught.
async fn i5_an_outage_forgets_nothing(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (lease, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(2);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 2]).await?;
    fixture.complete(&lease, &all[..1]).await?;
    fixture.outage(true).await?;
    drop(fixture.try_claim(&other, &all).await?);
    fixture.outage(false).await?;
    fixture
        .eventually("an answer after the outage", || async {
            Ok(fixture.try_claim(&other, &events(1)).await?.ok().map(drop))
        })
        .await?;
    fixture.claims("done and held, as before", &other, &all, &[Is::Done, Is::Held]).await
}

/// Each call may have been applied, so none may answer as if its result were certain.
async fn i5_a_lost_answer_is_no_success(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (lease, store, event) = (fixture.acquire_lease(&scope).await?, fixture.store()?, events(1));
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.lost_answers(true).await?;
    let checked = async {
        is_retryable("claim", fixture.try_claim(&lease, &events(1)).await?)?;
        is_retryable("renew", fixture.renew(&lease).await?)?;
        is_retryable("done", fixture.within("done", store.done(&scope, &event)).await?)?;
        is_retryable("purge", fixture.within("purge", store.purge(&scope, tidings_core::Timestamp::default())).await?)?;
        let released = [tidings_core::ReleasedClaim::new(event[0].id, 1)];
        is_retryable("release", fixture.within("release", store.release(&lease, &released)).await?)?;
        is_retryable("complete", fixture.complete_one(&lease, &event[0]).await?)?;
        is_retryable("retire", fixture.within("retire", store.retire(&lease)).await?)?;
        let another = store.acquire_lease(&scope, super::fixture::LONG);
        is_retryable("lease", fixture.within("lease", another).await?)
    }
    .await;
    fixture.lost_answers(false).await?;
    checked
}

/// Calls can be repeated, and no event is granted to another lease meanwhile.
async fn i5_a_call_with_a_lost_answer_can_be_repeated(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (lease, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&lease, &all[..1]).await?;
    fixture.lost_answers(true).await?;
    let checked = async {
        is_retryable("complete", fixture.complete_one(&lease, &all[1]).await?)?;
        is_retryable("claim", fixture.try_claim(&other, &all).await?)
    }
    .await;
    fixture.lost_answers(false).await?;
    checked?;
    fixture.claims("the last event", &other, &all[2..], &[Is::Held]).await?;
    fixture.complete(&lease, &all[1..]).await?;
    fixture.claims("events that were completed, once or twice", &other, &all, &[Is::Done; 3]).await
}
