//! I2, I3 and I6 in a store that deletes done events older than its retention, and nothing else.

use std::time::Duration;

use tidings_core::{EventRef, IdempotencyStore, Name};

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, cases, same};
use crate::hooks::Hook;

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i2_done_events_are_kept_for_the_retention_and_forgotten_later[Retention],
    i3_claims_outlive_the_retention[Retention],
    i6_attempts_are_kept_within_the_retention[Retention],
];

/// Number of steps of a retention: a store may delete in parts.
const STEPS: u32 = 8;

/// Completes a new event under a lease of its own.
async fn one_more(fixture: &Fixture, scope: &Name) -> Checked<EventRef> {
    let (lease, event) = (fixture.acquire_lease(scope).await?, events(1));
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.complete(&lease, &event).await?;
    Ok(event[0].clone())
}

async fn done(fixture: &Fixture, scope: &Name, events: &[EventRef]) -> Checked<Vec<bool>> {
    let store = fixture.store()?;
    Ok(fixture.within("done", store.done(scope, events)).await??)
}

/// Events are completed all the time, in this scope and in another one.
async fn i2_done_events_are_kept_for_the_retention_and_forgotten_later(fixture: &Fixture) -> Checked {
    let (scope, other, part) = (fixture.fresh("scope"), fixture.fresh("scope"), fixture.pace.retention / STEPS);
    drop(fixture.another(Hook::Retention).await?);
    let mut all = Vec::new();
    for _ in 0..STEPS - 1 {
        all.push(one_more(fixture, &scope).await?);
        one_more(fixture, &other).await?;
        fixture.pass(part).await?;
        same("events within the retention", vec![true; all.len()], done(fixture, &scope, &all).await?)?;
    }
    let lease = fixture.acquire_lease(&scope).await?;
    fixture.claims("events within the retention", &lease, &all, &vec![Is::Done; all.len()]).await?;
    for _ in 0..STEPS * 2 {
        fixture.pass(part).await?;
        one_more(fixture, &other).await?;
    }
    fixture
        .eventually("old events are forgotten", || async {
            one_more(fixture, &other).await?;
            let left = done(fixture, &scope, &all).await?;
            Ok(left.iter().all(|done| !done).then_some(()))
        })
        .await?;
    let lease = fixture.acquire_lease(&scope).await?;
    fixture.claims("forgotten events", &lease, &all, &vec![Is::Granted; all.len()]).await?;
    let young = [one_more(fixture, &scope).await?];
    same("a young event", vec![true], done(fixture, &scope, &young).await?)
}

/// The event of a handler that takes longer than the retention is not granted to another lease.
async fn i3_claims_outlive_the_retention(fixture: &Fixture) -> Checked {
    let (scope, part) = (fixture.fresh("scope"), fixture.pace.retention / STEPS);
    drop(fixture.another(Hook::Retention).await?);
    let long = Duration::from_secs(3_600).max(fixture.pace.retention * 20);
    let (lease, all) = (fixture.lease_for(&scope, long).await?, events(3));
    fixture.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    for _ in 0..STEPS * 3 {
        fixture.pass(part).await?;
        one_more(fixture, &scope).await?;
    }
    let store = fixture.store()?;
    let other = fixture.within("a lease", store.acquire_lease(&scope, long)).await??;
    let claims = fixture.try_claim(&other, &all).await??;
    let held = claims.iter().filter(|claim| matches!(claim, tidings_core::Claim::Held { .. })).count();
    same("claims that are held", 3, held)?;
    fixture.complete(&lease, &all[..2]).await?;
    same("events that are done", vec![true, true, false], done(fixture, &scope, &all).await?)
}

async fn i6_attempts_are_kept_within_the_retention(fixture: &Fixture) -> Checked {
    let (scope, part) = (fixture.fresh("scope"), fixture.pace.retention / STEPS);
    drop(fixture.another(Hook::Retention).await?);
    let (lease, event) = (fixture.acquire_lease(&scope).await?, events(1));
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.release(&lease, &event, 3).await?;
    for _ in 0..STEPS / 2 {
        fixture.pass(part).await?;
        one_more(fixture, &scope).await?;
    }
    let other = fixture.acquire_lease(&scope).await?;
    fixture.grants(&other, &event, tidings_core::History::new(0, 3)).await
}
