//! I3: claims live as long as their lease. I6: crashes are counted.
//!
//! Time passes by the setup's hook or by waiting. A lease that is outlived stands for a process
//! that has crashed: nothing else tells the store.

use std::time::Duration;

use tidings_core::{ErrorKind, History, IdempotencyStore, MIN_LEASE_TTL};

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, cases, granted, refused, same};
use crate::setup::Clock;

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

async fn i3_a_claim_lives_as_long_as_its_lease(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    // Longer than others live in this suite: a claim has no time of its own.
    fixture.outlive().await?;
    fixture.claims("a claim of a living lease", &other, &event, &[Is::Held]).await?;
    fixture.complete(&one, &event).await
}

/// For several times its ttl.
async fn i3_a_renewed_lease_keeps_its_claims(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    // By thirds of the ttl, which leave a busy machine a whole lifetime to be late.
    let lease = fixture.lease_for(&scope, fixture.pace.lifetime * 3).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    for _ in 0..5 {
        fixture.pass(fixture.pace.lifetime).await?;
        granted("renew in time", fixture.renew(&lease).await?)?;
    }
    fixture.claims("a claim of a renewed lease", &other, &event, &[Is::Held]).await?;
    fixture.complete(&lease, &event).await
}

async fn i3_a_claim_of_a_dead_lease_can_be_taken(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let all = events(3);
    fixture.claims("new events", &dying, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&dying, &all[..1]).await?;
    fixture.outlive().await?;
    let expected = [Is::Done, Is::Granted, Is::Granted];
    fixture.claims("events of an expired lease", &other, &all, &expected).await?;
    fixture.complete(&other, &all[1..]).await
}

/// The old holder was only slow, and finishes after the new one began.
async fn i3_completing_what_was_taken_over_is_fenced(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    fixture.outlive().await?;
    fixture.claims("an event of an expired lease", &other, &event, &[Is::Granted]).await?;
    let late = fixture.complete_one(&dying, &event[0]).await?;
    refused("the old lease's complete", &[ErrorKind::Fenced], late)?;
    // It did not count: the event is the new lease's, and not done.
    let third = fixture.acquire_lease(&scope).await?;
    fixture.claims("the event", &third, &event, &[Is::Held]).await?;
    fixture.complete(&other, &event).await?;
    fixture.claims("the event", &third, &event, &[Is::Done]).await
}

async fn i3_a_dead_lease_can_neither_renew_nor_claim(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    fixture.claims("a new event", &dying, &events(1), &[Is::Granted]).await?;
    fixture.outlive().await?;
    refused("renewing an expired lease", &[ErrorKind::Fenced], fixture.renew(&dying).await?)?;
    refused("a claim of an expired lease", &[ErrorKind::Fenced], fixture.try_claim(&dying, &events(1)).await?)
}

async fn i3_a_death_is_its_leases_alone(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let (living, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let [dead, alive] = [events(1), events(1)];
    fixture.claims("a new event", &dying, &dead, &[Is::Granted]).await?;
    fixture.claims("another new event", &living, &alive, &[Is::Granted]).await?;
    fixture.outlive().await?;
    let both = [dead[0].clone(), alive[0].clone()];
    fixture.claims("the expired lease's and the living one's", &other, &both, &[Is::Granted, Is::Held]).await
}

/// A clean shutdown must not make others wait for the ttl.
async fn i3_retiring_releases_at_once(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3);
    fixture.claims("new events", &one, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&one, &all[..1]).await?;
    fixture.retire(&one).await?;
    fixture.claims("events of a retired lease", &other, &all, &[Is::Done, Is::Granted, Is::Granted]).await
}

async fn i3_a_retired_lease_is_over(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.retire(&one).await?;
    refused("a claim of a retired lease", &[ErrorKind::Fenced], fixture.try_claim(&one, &events(1)).await?)?;
    refused("renewing a retired lease", &[ErrorKind::Fenced], fixture.renew(&one).await?)?;
    fixture.claims("its event", &other, &event, &[Is::Granted]).await?;
    refused("its complete", &[ErrorKind::Fenced], fixture.complete_one(&one, &event[0]).await?)?;
    // Retiring again, as after a lost answer, takes nothing from the current owner.
    fixture.retire(&one).await?;
    fixture.complete(&other, &event).await
}

/// Another instance waits that long before it asks again.
async fn i3_held_says_how_long_at_most(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    let claims = fixture.claim(&other, &event).await?;
    let [tidings_core::Claim::Held { at_most }] = claims[..] else {
        return crate::case::broken("Held", format!("{claims:?}"));
    };
    crate::case::holds(at_most <= fixture.pace.lifetime, "a ttl at most", at_most)?;
    // To the instant, where the suite sets the clock.
    let rounding = match fixture.pace.clock {
        Clock::Paused => Duration::ZERO,
        Clock::Real => (fixture.pace.lifetime / 20).min(Duration::from_millis(100)),
    };
    fixture.pass(at_most + rounding).await?;
    fixture.claims("the event after as long as it said", &other, &event, &[Is::Granted]).await
}

async fn i3_releasing_what_was_taken_over_leaves_it(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let (other, third) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    fixture.outlive().await?;
    fixture.claims("an event of an expired lease", &other, &event, &[Is::Granted]).await?;
    let store = fixture.store()?;
    let late = [tidings_core::ReleasedClaim::new(event[0].id, 9)];
    // Refused or ignored, but without effect.
    if let Err(error) = fixture.within("release", store.release(&dying, &late)).await? {
        same("the kind of refusal", ErrorKind::Fenced, error.kind())?;
    }
    fixture.claims("the event", &third, &event, &[Is::Held]).await
}

/// The longest duration must not overflow the store's clock.
async fn i3_a_ttl_is_refused_only_where_it_is_too_short(fixture: &Fixture) -> Checked {
    let (scope, store) = (fixture.fresh("scope"), fixture.store()?);
    for short in [Duration::ZERO, Duration::from_nanos(1), MIN_LEASE_TTL - Duration::from_nanos(1)] {
        let answer = fixture.within("an answer", store.acquire_lease(&scope, short)).await?;
        refused("a lease that is dead at once", &[ErrorKind::Invalid], answer)?;
    }
    fixture.lease_for(&scope, MIN_LEASE_TTL).await?;
    let (longest, other) = (fixture.lease_for(&scope, Duration::MAX).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &longest, &event, &[Is::Granted]).await?;
    granted("renew the lease", fixture.renew(&longest).await?)?;
    let claims = fixture.claim(&other, &event).await?;
    let is_held = matches!(claims[..], [tidings_core::Claim::Held { .. }]);
    crate::case::holds(is_held, "Held, for however long", format!("{claims:?}"))?;
    fixture.complete(&longest, &event).await
}

/// An event that kills each process that handles it has to be found.
async fn i6_deaths_are_counted(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let event = events(1);
    for crashes in 0..3 {
        let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
        fixture.grants(&dying, &event, History::new(crashes, 0)).await?;
        fixture.outlive().await?;
    }
    let last = fixture.acquire_lease(&scope).await?;
    fixture.grants(&last, &event, History::new(3, 0)).await
}

async fn i6_deaths_and_attempts_add_up(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let event = events(1);
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    fixture.grants(&dying, &event, History::default()).await?;
    fixture.release(&dying, &event, 2).await?;
    fixture.grants(&dying, &event, History::new(0, 2)).await?;
    fixture.outlive().await?;
    let next = fixture.acquire_lease(&scope).await?;
    fixture.grants(&next, &event, History::new(1, 2)).await?;
    fixture.release(&next, &event, 1).await?;
    fixture.grants(&next, &event, History::new(1, 3)).await
}

async fn i6_retiring_counts_as_no_death(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.grants(&one, &event, History::default()).await?;
    fixture.retire(&one).await?;
    fixture.grants(&other, &event, History::default()).await
}
