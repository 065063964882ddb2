//! I3 and I6 at the edges of a lease: renewals, ends that come late, and leases that the store does not know.

use std::time::Duration;

use tidings_core::{Claim, ErrorKind, EventRef, History, IdempotencyStore, Lease};

use super::fixture::{Fixture, Is, LONG, events};
use crate::case::{Case, Checked, broken, cases, granted, holds, refused, same};
use crate::context::poll_times;

/// Claims that may meet a dropped call in turn.
const REPEATS: usize = 100;

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i3_a_renewal_lasts_a_whole_ttl,
    i3_renewals_do_not_add_up,
    i3_renewing_and_retiring_concern_one_lease,
    i3_a_fenced_call_changes_nothing,
    i3_an_unknown_lease_is_fenced,
    i3_a_late_complete_counts_or_is_fenced,
    i3_hundreds_of_leases_live_at_once,
    i3_held_says_the_rest_of_the_lease,
    i4_a_dropped_release_can_be_repeated,
    i6_retiring_too_late_is_a_crash,
    restart_a_retired_lease_is_no_crash[Reopen],
    restart_a_claim_from_before_is_no_others[Reopen],
];

impl Fixture {
    /// Claims one event that must be held, and returns for how long at most.
    async fn held(&self, lease: &Lease, event: &EventRef) -> Checked<Duration> {
        match self.claim(lease, std::slice::from_ref(event)).await?[..] {
            [Claim::Held { at_most }] => Ok(at_most),
            ref other => broken("Held", format!("{other:?}")),
        }
    }
}

/// From the renewal on, not from the end that the lease had before.
async fn i3_a_renewal_lasts_a_whole_ttl(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lifetime = fixture.pace.lifetime;
    let lease = fixture.lease_for(&scope, lifetime * 3).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.pass(lifetime * 2).await?;
    granted("renew in time", fixture.renew(&lease).await?)?;
    fixture.pass(lifetime * 2).await?;
    let at_most = fixture.held(&other, &event[0]).await?;
    holds(at_most <= lifetime, "what is left of the ttl at most", at_most)?;
    fixture.complete(&lease, &event).await
}

/// An instance that renews often and then dies must not block its events for long.
async fn i3_renewals_do_not_add_up(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    for _ in 0..20 {
        granted("renew", fixture.renew(&dying).await?)?;
    }
    fixture.outlive().await?;
    fixture.grants(&other, &event, History::new(1, 0)).await
}

/// Not the other leases of its scope, and not those of other scopes.
async fn i3_renewing_and_retiring_concern_one_lease(fixture: &Fixture) -> Checked {
    let (scope, elsewhere) = (fixture.fresh("scope"), fixture.fresh("scope"));
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let renewed = fixture.lease_for(&scope, fixture.pace.lifetime * 3).await?;
    let (retiring, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let (theirs, asking) = (fixture.acquire_lease(&elsewhere).await?, fixture.acquire_lease(&elsewhere).await?);
    let all = events(4);
    for (lease, event) in [&dying, &renewed, &retiring, &theirs].into_iter().zip(all.chunks(1)) {
        fixture.claims("a new event", lease, event, &[Is::Granted]).await?;
    }
    granted("renew", fixture.renew(&renewed).await?)?;
    fixture.retire(&retiring).await?;
    fixture.claims("a claim of another scope", &asking, &all[3..], &[Is::Held]).await?;
    fixture.claims("claims of other leases", &other, &all[..3], &[Is::Held, Is::Held, Is::Granted]).await?;
    fixture.outlive().await?;
    fixture.claims("a claim of the one that was not renewed", &other, &all[..2], &[Is::Granted, Is::Held]).await
}

/// A lease that has ended is not revived by asking, and claims nothing by a call that is refused.
async fn i3_a_fenced_call_changes_nothing(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let other = fixture.acquire_lease(&scope).await?;
    let [event, new] = [events(1), events(1)];
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    fixture.outlive().await?;
    for _ in 0..2 {
        refused("renewing an expired lease", &[ErrorKind::Fenced], fixture.renew(&dying).await?)?;
        refused("a claim of an expired lease", &[ErrorKind::Fenced], fixture.try_claim(&dying, &new).await?)?;
    }
    fixture.grants(&other, &event, History::new(1, 0)).await?;
    fixture.grants(&other, &new, History::default()).await?;
    // Nor does a complete that is refused end the claim of the lease that has it.
    refused("its complete", &[ErrorKind::Fenced], fixture.complete_one(&dying, &event[0]).await?)?;
    fixture.complete(&other, &event).await
}

/// As one that was purged, or that another store has made.
async fn i3_an_unknown_lease_is_fenced(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (known, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let unknown = Lease::new(scope, LONG);
    let [event, new] = [events(1), events(1)];
    fixture.claims("a new event", &known, &event, &[Is::Granted]).await?;
    refused("a claim of an unknown lease", &[ErrorKind::Fenced], fixture.try_claim(&unknown, &new).await?)?;
    refused("renewing an unknown lease", &[ErrorKind::Fenced], fixture.renew(&unknown).await?)?;
    for event in [&event[0], &new[0]] {
        refused("its complete", &[ErrorKind::Fenced], fixture.complete_one(&unknown, event).await?)?;
    }
    fixture.retire(&unknown).await?;
    let both = [event[0].clone(), new[0].clone()];
    fixture.claims("a claim, and an event that has none", &other, &both, &[Is::Held, Is::Granted]).await
}

/// The work is done, and no other lease has the event. Either answer is fine, but it has to be true.
async fn i3_a_late_complete_counts_or_is_fenced(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    fixture.outlive().await?;
    let late = fixture.complete_one(&dying, &event[0]).await?;
    let expected = if late.is_ok() { Is::Done } else { Is::Granted };
    if late.is_err() {
        refused("a complete of an expired lease", &[ErrorKind::Fenced], late)?;
    }
    let next = fixture.acquire_lease(&scope).await?;
    fixture.claims("the event, as its late complete was answered", &next, &event, &[expected]).await
}

async fn i3_hundreds_of_leases_live_at_once(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (all, mut leases) = (events(120), Vec::new());
    for event in all.chunks(1) {
        let lease = fixture.acquire_lease(&scope).await?;
        fixture.claims("a new event", &lease, event, &[Is::Granted]).await?;
        leases.push(lease);
    }
    let other = fixture.acquire_lease(&scope).await?;
    fixture.claims("events of living leases", &other, &all, &[Is::Held; 120]).await?;
    for (lease, event) in leases.iter().zip(all.chunks(1)) {
        granted("renew", fixture.renew(lease).await?)?;
        fixture.complete(lease, event).await?;
    }
    Ok(())
}

/// Another instance waits that long before it asks again.
async fn i3_held_says_the_rest_of_the_lease(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lifetime = fixture.pace.lifetime;
    let (long, short) = (fixture.acquire_lease(&scope).await?, fixture.lease_for(&scope, lifetime * 3).await?);
    let other = fixture.acquire_lease(&scope).await?;
    let all = events(2);
    fixture.claims("a new event", &long, &all[..1], &[Is::Granted]).await?;
    fixture.claims("a new event", &short, &all[1..], &[Is::Granted]).await?;
    let at_most = fixture.held(&other, &all[0]).await?;
    holds(at_most > LONG / 2 && at_most <= LONG, "nearly the whole ttl", at_most)?;
    fixture.pass(lifetime * 2).await?;
    let at_most = fixture.held(&other, &all[1]).await?;
    holds(at_most <= lifetime, "the last third of the ttl at most", at_most)
}

/// Dropped after each number of polls; the attempts count once.
async fn i4_a_dropped_release_can_be_repeated(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    for times in 0..6 {
        let event = events(1);
        fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
        let (store, released) = (fixture.store()?, [tidings_core::ReleasedClaim::new(event[0].id, 2)]);
        drop(poll_times(times, store.release(&one, &released)).await);
        fixture.release(&one, &event, 2).await?;
        grants_after_a_dropped_call(fixture, &other, &event, History::new(0, 2)).await?;
    }
    Ok(())
}

/// Claims an event again while it is held for no time: a dropped call may still run on a server, and a claim that meets
/// it is to be repeated. A release that was not kept is held for the rest of the lease.
async fn grants_after_a_dropped_call(
    fixture: &Fixture,
    lease: &Lease,
    event: &[EventRef],
    history: History,
) -> Checked {
    for _ in 0..REPEATS {
        let is_met = |claim: &Claim| matches!(claim, Claim::Held { at_most } if at_most.is_zero());
        match fixture.claim(lease, event).await?.first() {
            Some(claim) if is_met(claim) => {}
            Some(Claim::Granted(came)) => return same("the history of a granted event", history, *came),
            other => return broken("Granted", format!("{other:?}")),
        }
    }
    broken("Granted", format!("held for no time, {REPEATS} times"))
}

/// The lease has expired with the event claimed: that its instance was only slow is not known.
async fn i6_retiring_too_late_is_a_crash(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let [free, taken] = [events(1), events(1)];
    for event in [&free, &taken] {
        fixture.grants(&dying, event, History::default()).await?;
    }
    fixture.outlive().await?;
    fixture.grants(&one, &taken, History::new(1, 0)).await?;
    fixture.retire(&dying).await?;
    fixture.claims("what was taken over", &other, &taken, &[Is::Held]).await?;
    fixture.grants(&other, &free, History::new(1, 0)).await?;
    // And it counts once.
    fixture.release(&other, &free, 0).await?;
    fixture.grants(&one, &free, History::new(1, 0)).await
}

async fn restart_a_retired_lease_is_no_crash(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(3);
    fixture.grants(&lease, &all, History::default()).await?;
    fixture.release(&lease, &all[..1], 0).await?;
    fixture.retire(&lease).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    let next = fixture.acquire_lease(&scope).await?;
    fixture.grants(&next, &all, History::default()).await?;
    same("the new lease is another", false, next.id == lease.id)
}

/// The lease can still complete and release the event until another lease has claimed it.
async fn restart_a_claim_from_before_is_no_others(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (old, all) = (fixture.lease_for(&scope, fixture.pace.lifetime).await?, events(2));
    fixture.claims("new events", &old, &all, &[Is::Granted; 2]).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    let other = fixture.acquire_lease(&scope).await?;
    let completed = fixture.complete_one(&other, &all[0]).await?;
    refused("a complete of an event that another lease has claimed", &[ErrorKind::Fenced], completed)?;
    fixture.release(&other, &all[1..], 7).await?;
    fixture.outlive().await?;
    let next = fixture.acquire_lease(&scope).await?;
    fixture.grants(&next, &all, History::new(1, 0)).await
}
