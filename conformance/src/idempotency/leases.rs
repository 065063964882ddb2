//! I3: claims live as long as their lease. I6: crashes are counted.

use std::time::Duration;

use tidings_core::{ErrorKind, History, IdempotencyStore, MIN_LEASE_TTL};

use super::rig::{Is, Rig, events};
use crate::case::{Case, Checked, cases, granted, refused, same};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i3_a_claim_lives_as_long_as_its_lease,
    i3_a_renewed_lease_keeps_its_claims,
    i3_a_claim_of_a_dead_lease_can_be_taken,
    i3_completing_what_was_taken_over_is_fenced,
    i3_a_dead_lease_can_neither_renew_nor_claim,
    i3_a_death_is_its_leases_alone,
    i3_retiring_releases_at_once,
    i3_a_retired_lease_is_over,
    i3_held_says_how_long_at_most,
    i3_releasing_what_was_taken_over_leaves_it,
    i3_a_ttl_is_refused_only_where_it_is_too_short,
    i6_deaths_are_counted,
    i6_deaths_and_attempts_add_up,
    i6_retiring_counts_as_no_death,
];

async fn i3_a_claim_lives_as_long_as_its_lease(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    // Longer than others live in this suite: a claim has no time of its own.
    rig.outlive().await?;
    rig.claims("a claim of a living lease", &other, &event, &[Is::Held]).await?;
    rig.complete(&one, &event).await
}

async fn i3_a_renewed_lease_keeps_its_claims(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    // By thirds of the ttl, which leave a busy machine a whole lifetime to be late.
    let lease = rig.lease_for(&scope, rig.pace.lifetime * 3).await?;
    let other = rig.acquire_lease(&scope).await?;
    let event = events(1);
    rig.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    for _ in 0..5 {
        rig.pass(rig.pace.lifetime).await?;
        granted("renew in time", rig.renew(&lease).await?)?;
    }
    rig.claims("a claim of a renewed lease", &other, &event, &[Is::Held]).await?;
    rig.complete(&lease, &event).await
}

async fn i3_a_claim_of_a_dead_lease_can_be_taken(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let other = rig.acquire_lease(&scope).await?;
    let all = events(3);
    rig.claims("new events", &dying, &all, &[Is::Granted; 3]).await?;
    rig.complete(&dying, &all[..1]).await?;
    rig.outlive().await?;
    let expected = [Is::Done, Is::Granted, Is::Granted];
    rig.claims("events of an expired lease", &other, &all, &expected).await?;
    rig.complete(&other, &all[1..]).await
}

async fn i3_completing_what_was_taken_over_is_fenced(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let other = rig.acquire_lease(&scope).await?;
    let event = events(1);
    rig.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    rig.outlive().await?;
    rig.claims("an event of an expired lease", &other, &event, &[Is::Granted]).await?;
    let late = rig.complete_one(&dying, &event[0]).await?;
    refused("the old lease's complete", &[ErrorKind::Fenced], late)?;
    // It did not count: the event is the new lease's, and not done.
    let third = rig.acquire_lease(&scope).await?;
    rig.claims("the event", &third, &event, &[Is::Held]).await?;
    rig.complete(&other, &event).await?;
    rig.claims("the event", &third, &event, &[Is::Done]).await
}

async fn i3_a_dead_lease_can_neither_renew_nor_claim(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    rig.claims("a new event", &dying, &events(1), &[Is::Granted]).await?;
    rig.outlive().await?;
    refused("renewing an expired lease", &[ErrorKind::Fenced], rig.renew(&dying).await?)?;
    refused("a claim of an expired lease", &[ErrorKind::Fenced], rig.try_claim(&dying, &events(1)).await?)
}

async fn i3_a_death_is_its_leases_alone(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let (living, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let [dead, alive] = [events(1), events(1)];
    rig.claims("a new event", &dying, &dead, &[Is::Granted]).await?;
    rig.claims("another new event", &living, &alive, &[Is::Granted]).await?;
    rig.outlive().await?;
    let both = [dead[0].clone(), alive[0].clone()];
    rig.claims("the expired lease's and the living one's", &other, &both, &[Is::Granted, Is::Held]).await
}

async fn i3_retiring_releases_at_once(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let all = events(3);
    rig.claims("new events", &one, &all, &[Is::Granted; 3]).await?;
    rig.complete(&one, &all[..1]).await?;
    rig.retire(&one).await?;
    rig.claims("events of a retired lease", &other, &all, &[Is::Done, Is::Granted, Is::Granted]).await
}

async fn i3_a_retired_lease_is_over(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    rig.retire(&one).await?;
    refused("a claim of a retired lease", &[ErrorKind::Fenced], rig.try_claim(&one, &events(1)).await?)?;
    refused("renewing a retired lease", &[ErrorKind::Fenced], rig.renew(&one).await?)?;
    rig.claims("its event", &other, &event, &[Is::Granted]).await?;
    refused("its complete", &[ErrorKind::Fenced], rig.complete_one(&one, &event[0]).await?)?;
    // Retiring again, as after a lost answer, takes nothing from the current owner.
    rig.retire(&one).await?;
    rig.complete(&other, &event).await
}

async fn i3_held_says_how_long_at_most(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let other = rig.acquire_lease(&scope).await?;
    let event = events(1);
    rig.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    let claims = rig.claim(&other, &event).await?;
    let [tidings_core::Claim::Held { at_most }] = claims[..] else {
        return crate::case::broken("Held", format!("{claims:?}"));
    };
    crate::case::holds(at_most <= rig.pace.lifetime, "a ttl at most", at_most)?;
    rig.pass(at_most + (rig.pace.lifetime / 20).min(Duration::from_millis(100))).await?;
    rig.claims("the event after as long as it said", &other, &event, &[Is::Granted]).await
}

async fn i3_releasing_what_was_taken_over_leaves_it(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let (other, third) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    rig.outlive().await?;
    rig.claims("an event of an expired lease", &other, &event, &[Is::Granted]).await?;
    let store = rig.store()?;
    let late = [tidings_core::ReleasedClaim::new(event[0].id, 9)];
    // Refused or ignored, but without effect.
    if let Err(error) = rig.within("release", store.release(&dying, &late)).await? {
        same("the kind of refusal", ErrorKind::Fenced, error.kind())?;
    }
    rig.claims("the event", &third, &event, &[Is::Held]).await
}

async fn i3_a_ttl_is_refused_only_where_it_is_too_short(rig: &Rig) -> Checked {
    let (scope, store) = (rig.fresh("scope"), rig.store()?);
    for short in [Duration::ZERO, Duration::from_nanos(1), MIN_LEASE_TTL - Duration::from_nanos(1)] {
        let answer = rig.within("an answer", store.acquire_lease(&scope, short)).await?;
        refused("a lease that is dead at once", &[ErrorKind::Invalid], answer)?;
    }
    rig.lease_for(&scope, MIN_LEASE_TTL).await?;
    let (longest, other) = (rig.lease_for(&scope, Duration::MAX).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &longest, &event, &[Is::Granted]).await?;
    granted("renew the lease", rig.renew(&longest).await?)?;
    let claims = rig.claim(&other, &event).await?;
    let is_held = matches!(claims[..], [tidings_core::Claim::Held { .. }]);
    crate::case::holds(is_held, "Held, for however long", format!("{claims:?}"))?;
    rig.complete(&longest, &event).await
}

async fn i6_deaths_are_counted(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let event = events(1);
    for crashes in 0..3 {
        let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
        rig.grants(&dying, &event, History::new(crashes, 0)).await?;
        rig.outlive().await?;
    }
    let last = rig.acquire_lease(&scope).await?;
    rig.grants(&last, &event, History::new(3, 0)).await
}

async fn i6_deaths_and_attempts_add_up(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let event = events(1);
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    rig.grants(&dying, &event, History::default()).await?;
    rig.release(&dying, &event, 2).await?;
    rig.grants(&dying, &event, History::new(0, 2)).await?;
    rig.outlive().await?;
    let next = rig.acquire_lease(&scope).await?;
    rig.grants(&next, &event, History::new(1, 2)).await?;
    rig.release(&next, &event, 1).await?;
    rig.grants(&next, &event, History::new(1, 3)).await
}

async fn i6_retiring_counts_as_no_death(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.grants(&one, &event, History::default()).await?;
    rig.retire(&one).await?;
    rig.grants(&other, &event, History::default()).await
}
