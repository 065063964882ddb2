//! I1: one lease per scope and event. I6: the history in a grant.
//!
//! A claim that is granted twice means an event that is handled twice; one that is never granted
//! again means an event that is lost. The cases look for both.

use std::collections::HashSet;

use tidings_core::{Claim, EventRef, History, IdempotencyStore};

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, cases, holds, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i1_an_event_is_granted_to_one_lease,
    i1_twins_within_one_call_are_granted_once,
    i1_a_claim_is_not_granted_again_to_its_own_lease,
    i1_many_leases_at_once_are_granted_one_claim,
    i1_scopes_are_apart,
    i1_each_event_of_a_call_has_its_own_answer,
    i1_no_event_has_no_answer,
    i1_thousands_of_events_in_one_call,
    i1_a_released_claim_can_be_taken_at_once,
    i1_releasing_what_another_has_leaves_it,
    i1_a_type_does_not_tell_events_apart,
    i1_leases_have_ids_of_their_own,
    i1_a_dropped_claim_is_whole_or_absent,
    i6_a_first_grant_has_no_history,
    i6_released_attempts_are_counted,
    i6_attempts_are_the_events_own,
    i6_a_release_counts_as_no_death,
    i6_a_finished_event_takes_its_history_along,
];

async fn i1_an_event_is_granted_to_one_lease(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.claims("an event that another has", &other, &event, &[Is::Held]).await?;
    fixture.complete(&one, &event).await?;
    fixture.claims("an event that is done", &other, &event, &[Is::Done]).await
}

/// A batch may contain the same event twice, after a redelivery.
async fn i1_twins_within_one_call_are_granted_once(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let [a, b] = [events(1).remove(0), events(1).remove(0)];
    let twins = [a.clone(), b.clone(), a.clone(), a, b];
    let expected = [Is::Granted, Is::Granted, Is::Held, Is::Held, Is::Held];
    fixture.claims("twins", &lease, &twins, &expected).await
}

/// A redelivery to the same instance while its handler still runs.
async fn i1_a_claim_is_not_granted_again_to_its_own_lease(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let event = events(1);
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.claims("an event that the lease has by an earlier claim", &lease, &event, &[Is::Held]).await
}

async fn i1_many_leases_at_once_are_granted_one_claim(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let asked = events(20);
    let mut claiming = tokio::task::JoinSet::new();
    for turn in 0..16 {
        let (store, lease, mut asked) = (fixture.store()?, fixture.acquire_lease(&scope).await?, asked.clone());
        // Each in another order, so that stores that lock rows meet each other.
        asked.rotate_left(turn % 20);
        claiming.spawn(async move {
            let claims = store.claim(&lease, &asked).await;
            claims.map(|claims| asked.into_iter().zip(claims).collect::<Vec<_>>())
        });
    }
    let mut granted: Vec<EventRef> = Vec::new();
    for answer in fixture.within("all claims", claiming.join_all()).await? {
        let of_one = answer?;
        granted.extend(of_one.into_iter().filter(|(_, c)| matches!(c, Claim::Granted(_))).map(|(e, _)| e));
    }
    let unique: HashSet<_> = granted.iter().map(|e| e.id).collect();
    same("grants and events granted", (20, 20), (granted.len(), unique.len()))
}

/// Each service handles each event once.
async fn i1_scopes_are_apart(fixture: &Fixture) -> Checked {
    let event = events(1);
    let one = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let other = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.claims("the same event in another scope", &other, &event, &[Is::Granted]).await?;
    fixture.complete(&one, &event).await?;
    fixture.claims("what is done in another scope only", &other, &event, &[Is::Held]).await
}

async fn i1_each_event_of_a_call_has_its_own_answer(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(4);
    fixture.claims("two of them", &one, &all[..2], &[Is::Granted; 2]).await?;
    fixture.complete(&one, &all[..1]).await?;
    fixture.claims("done, held, new, new", &other, &all, &[Is::Done, Is::Held, Is::Granted, Is::Granted]).await
}

async fn i1_no_event_has_no_answer(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    fixture.claims("no event", &lease, &[], &[]).await?;
    fixture.complete(&lease, &[]).await?;
    fixture.release(&lease, &[], 0).await
}

/// More than a statement's parameters or a table's batch.
async fn i1_thousands_of_events_in_one_call(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3_000);
    fixture.claims("new events", &one, &all, &vec![Is::Granted; 3_000]).await?;
    fixture.complete(&one, &all).await?;
    fixture.claims("done events", &other, &all, &vec![Is::Done; 3_000]).await
}

async fn i1_a_released_claim_can_be_taken_at_once(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3);
    fixture.claims("new events", &one, &all, &[Is::Granted; 3]).await?;
    fixture.release(&one, &all[..2], 0).await?;
    let expected = [Is::Granted, Is::Granted, Is::Held];
    fixture.claims("two released, one not", &other, &all, &expected).await
}

/// A late release of a lease that lost its claim.
async fn i1_releasing_what_another_has_leaves_it(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other, third) = (
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
    );
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.release(&other, &event, 5).await?;
    fixture.claims("a claim that another tried to release", &third, &event, &[Is::Held]).await?;
    fixture.release(&one, &event, 1).await?;
    // The attempts of the previous owner, and none of the other's.
    fixture.grants(&third, &event, History::new(0, 1)).await
}

/// The id is the identity: a producer may rename a type.
async fn i1_a_type_does_not_tell_events_apart(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let one = events(1).remove(0);
    let renamed = EventRef::new(one.id, "another.type");
    fixture.claims("one id, two types", &lease, &[one, renamed], &[Is::Granted, Is::Held]).await
}

async fn i1_leases_have_ids_of_their_own(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let ids = [
        fixture.acquire_lease(&scope).await?.id,
        fixture.acquire_lease(&scope).await?.id,
        fixture.acquire_lease(&scope).await?.id,
    ];
    holds(ids.iter().collect::<HashSet<_>>().len() == 3, "three ids", ids)
}

/// The call may have claimed or not; retiring its lease makes the event free in both cases.
async fn i1_a_dropped_claim_is_whole_or_absent(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    for times in 0..6 {
        let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
        let event = events(1);
        let store = fixture.store()?;
        drop(poll_times(times, store.claim(&one, &event)).await);
        // Claims of the dropped call end with its lease and block other leases no longer.
        fixture.retire(&one).await?;
        let taken = fixture.eventually("the event", || async {
            let claims = fixture.claim(&other, &event).await?;
            Ok(claims.into_iter().find(|claim| matches!(claim, Claim::Granted(_))))
        });
        holds(matches!(taken.await?, Claim::Granted(_)), "a grant", times)?;
    }
    Ok(())
}

async fn i6_a_first_grant_has_no_history(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    fixture.grants(&lease, &events(3), History::default()).await
}

/// They add up over all holders, so that retries end although instances change.
async fn i6_released_attempts_are_counted(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.grants(&one, &event, History::default()).await?;
    fixture.release(&one, &event, 2).await?;
    fixture.grants(&other, &event, History::new(0, 2)).await?;
    fixture.release(&other, &event, 3).await?;
    fixture.grants(&one, &event, History::new(0, 5)).await?;
    fixture.release(&one, &event, 0).await?;
    fixture.grants(&other, &event, History::new(0, 5)).await
}

/// Neither another event nor another scope inherits them.
async fn i6_attempts_are_the_events_own(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let [one, other] = [events(1), events(1)];
    fixture.grants(&lease, &one, History::default()).await?;
    fixture.release(&lease, &one, 4).await?;
    fixture.grants(&lease, &other, History::default()).await?;
    let elsewhere = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    fixture.grants(&elsewhere, &one, History::default()).await
}

async fn i6_a_release_counts_as_no_death(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    for _ in 0..3 {
        fixture.grants(&one, &event, History::default()).await?;
        fixture.release(&one, &event, 0).await?;
    }
    fixture.grants(&other, &event, History::default()).await
}

/// After a purge the event is unknown; its old attempts must not count against a new one.
async fn i6_a_finished_event_takes_its_history_along(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.grants(&lease, &event, History::default()).await?;
    fixture.release(&lease, &event, 3).await?;
    fixture.grants(&lease, &event, History::new(0, 3)).await?;
    fixture.complete(&lease, &event).await?;
    let purged = fixture.purge_all(&scope).await?;
    same("events purged", 1, purged)?;
    // A purged event is like a new one.
    fixture.grants(&lease, &event, History::default()).await
}
