//! I2: `Done` until purged. I4 and restart: it is durable. I7: only `complete` writes it. I8: a query tells it.

use std::time::Duration;

use tidings_core::{ErrorKind, EventRef, IdempotencyStore, Name, Timestamp};

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, cases, granted, refused, same};
use crate::context::poll_times;

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i2_done_stays_done,
    i2_completing_twice_is_one_completion,
    i2_a_purge_forgets_what_is_old_enough,
    i2_a_purge_keeps_what_is_newer,
    i2_a_purge_leaves_live_claims,
    i2_a_purge_leaves_other_scopes,
    i2_a_purge_of_nothing_is_none,
    i4_what_is_done_is_seen_by_every_lease_at_once,
    i4_a_dropped_complete_can_be_repeated,
    i7_a_claim_alone_is_not_done,
    i7_a_release_is_not_done,
    i7_completing_releases_and_completes_nothing_else,
    i7_completing_what_was_never_claimed_is_fenced,
    i7_a_death_is_not_done,
    i8_done_is_what_was_completed_in_the_scope,
    i8_a_query_claims_nothing_and_keeps_nothing_alive,
    restart_what_is_done_survives[Reopen],
    restart_released_attempts_survive[Reopen],
    restart_a_claim_of_a_dead_process_ends[Reopen],
];

impl Fixture {
    /// Purges all done events of a scope.
    pub(super) async fn purge_all(&self, scope: &Name) -> Checked<u64> {
        // Far ahead, as the store's clock counts and not this host's.
        self.purge(scope, Timestamp::now().saturating_add(Duration::from_secs(86_400))).await
    }

    /// Purges and adds the count to the history.
    pub(super) async fn purge(&self, scope: &Name, before: Timestamp) -> Checked<u64> {
        let store = self.store()?;
        let purged = self.within("purge", store.purge(scope, before)).await??;
        self.note(format!("purged {purged} of {scope} before {before}"));
        Ok(purged)
    }
}

async fn i2_done_stays_done(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(5);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 5]).await?;
    fixture.complete(&lease, &all).await?;
    fixture.retire(&lease).await?;
    let next = fixture.acquire_lease(&scope).await?;
    for _ in 0..2 {
        fixture.claims("events that are done", &next, &all, &[Is::Done; 5]).await?;
    }
    Ok(())
}

/// The answer to the first call may have been lost.
async fn i2_completing_twice_is_one_completion(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.complete(&one, &event).await?;
    fixture.complete(&one, &event).await?;
    fixture.claims("a done event", &other, &event, &[Is::Done]).await?;
    same("events purged", 1, fixture.purge_all(&scope).await?)
}

async fn i2_a_purge_forgets_what_is_old_enough(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(3);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&lease, &all).await?;
    same("events purged", 3, fixture.purge_all(&scope).await?)?;
    fixture.claims("purged events", &lease, &all, &[Is::Granted; 3]).await
}

async fn i2_a_purge_keeps_what_is_newer(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(3);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&lease, &all).await?;
    let long_ago = Timestamp::now().saturating_sub(Duration::from_secs(86_400));
    same("events purged", 0, fixture.purge(&scope, long_ago).await?)?;
    fixture.claims("events that are still done", &lease, &all, &[Is::Done; 3]).await
}

/// However old the claim is: its handler is at work.
async fn i2_a_purge_leaves_live_claims(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    same("events purged", 0, fixture.purge_all(&scope).await?)?;
    fixture.claims("a claim that lived through a purge", &other, &event, &[Is::Held]).await?;
    fixture.complete(&one, &event).await?;
    fixture.claims("an event that is done", &other, &event, &[Is::Done]).await
}

async fn i2_a_purge_leaves_other_scopes(fixture: &Fixture) -> Checked {
    // One name is the other's beginning: what purges by prefix is caught.
    let (scope, other) = (fixture.fresh("scope"), fixture.fresh("scope"));
    let longer: Name = format!("{scope}-b").into();
    let event = events(1);
    for scope in [&scope, &other, &longer] {
        let lease = fixture.acquire_lease(scope).await?;
        fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
        fixture.complete(&lease, &event).await?;
    }
    same("events purged", 1, fixture.purge_all(&scope).await?)?;
    for scope in [&other, &longer] {
        let lease = fixture.acquire_lease(scope).await?;
        fixture.claims("what is done in another scope", &lease, &event, &[Is::Done]).await?;
    }
    Ok(())
}

async fn i2_a_purge_of_nothing_is_none(fixture: &Fixture) -> Checked {
    same("events purged", 0, fixture.purge_all(&fixture.fresh("scope")).await?)
}

/// Catches caches of single instances.
async fn i4_what_is_done_is_seen_by_every_lease_at_once(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    for event in events(10).chunks(1) {
        fixture.claims("a new event", &one, event, &[Is::Granted]).await?;
        fixture.complete(&one, event).await?;
        fixture.claims("an event that is done by now", &other, event, &[Is::Done]).await?;
    }
    Ok(())
}

/// Dropped after each number of polls.
async fn i4_a_dropped_complete_can_be_repeated(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    for times in 0..6 {
        let event = events(1);
        fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
        let store = fixture.store()?;
        drop(poll_times(times, store.complete(&one, &event)).await);
        fixture.complete(&one, &event).await?;
        fixture.claims("an event that is done", &other, &event, &[Is::Done]).await?;
    }
    Ok(())
}

/// Catches stores that mark an event when it is claimed.
async fn i7_a_claim_alone_is_not_done(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.claims("an event that is being handled", &other, &event, &[Is::Held]).await?;
    fixture.retire(&one).await?;
    fixture.claims("an event that no member handled", &other, &event, &[Is::Granted]).await
}

async fn i7_a_release_is_not_done(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    // Like a service that buried the event: a redriven event must not look handled.
    fixture.release(&one, &event, 3).await?;
    fixture.claims("an event that was given back", &other, &event, &[Is::Granted]).await
}

async fn i7_completing_releases_and_completes_nothing_else(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3);
    fixture.claims("new events", &one, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&one, &all[1..2]).await?;
    fixture.claims("the one and the others", &other, &all, &[Is::Held, Is::Done, Is::Held]).await
}

/// An instance that lost its claim must learn it before it commits offsets.
async fn i7_completing_what_was_never_claimed_is_fenced(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    let answer = fixture.complete_one(&other, &event[0]).await?;
    refused("completing what another has claimed", &[ErrorKind::Fenced], answer)?;
    fixture.claims("the event", &other, &event, &[Is::Held]).await?;
    fixture.complete(&one, &event).await
}

async fn i7_a_death_is_not_done(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    fixture.outlive().await?;
    let next = fixture.acquire_lease(&scope).await?;
    fixture.claims("an event whose lease expired", &next, &event, &[Is::Granted]).await
}

async fn restart_what_is_done_survives(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(200);
    fixture.claims("new events", &lease, &all, &[Is::Granted; 200]).await?;
    fixture.complete(&lease, &all).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    let next = fixture.acquire_lease(&scope).await?;
    fixture.claims("done before the restart", &next, &all, &[Is::Done; 200]).await
}

async fn restart_released_attempts_survive(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let event = events(1);
    fixture.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    fixture.release(&lease, &event, 3).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    let next = fixture.acquire_lease(&scope).await?;
    fixture.grants(&next, &event, tidings_core::History::new(0, 3)).await
}

/// It counts as a crash, and the old lease can't complete any more.
async fn restart_a_claim_of_a_dead_process_ends(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let event = events(1);
    fixture.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    drop(fixture.reopen(fixture.store()?).await?);
    fixture.outlive().await?;
    let next = fixture.acquire_lease(&scope).await?;
    fixture.grants(&next, &event, tidings_core::History::new(1, 0)).await?;
    refused("the expired lease's complete", &[ErrorKind::Fenced], fixture.complete_one(&dying, &event[0]).await?)
}

impl Fixture {
    /// Asks which events are done.
    async fn which_done(&self, scope: &Name, events: &[EventRef]) -> Checked<Vec<bool>> {
        let store = self.store()?;
        let done = granted("done", self.within("done", store.done(scope, events)).await?)?;
        self.note(format!("of {} events in {scope} are done: {done:?}", events.len()));
        same("answers to done", events.len(), done.len())?;
        Ok(done)
    }
}

async fn i8_done_is_what_was_completed_in_the_scope(fixture: &Fixture) -> Checked {
    let (scope, other) = (fixture.fresh("scope"), fixture.fresh("scope"));
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(5);
    // Done, claimed, released, never seen, done.
    fixture.claims("new events", &lease, &all[..3], &[Is::Granted; 3]).await?;
    fixture.claims("a new event", &lease, &all[4..], &[Is::Granted]).await?;
    fixture.complete(&lease, &[all[0].clone(), all[4].clone()]).await?;
    fixture.release(&lease, &all[2..3], 1).await?;
    same("what is done", vec![true, false, false, false, true], fixture.which_done(&scope, &all).await?)?;
    let twice = [all[4].clone(), all[1].clone(), all[4].clone()];
    same("in the order of the call", vec![true, false, true], fixture.which_done(&scope, &twice).await?)?;
    same("what is done in another scope", vec![false; 5], fixture.which_done(&other, &all).await?)?;
    let longer: Name = format!("{scope}-eu").into();
    same("what is done in a longer scope", vec![false; 5], fixture.which_done(&longer, &all).await?)?;
    same("what is done of nothing", Vec::<bool>::new(), fixture.which_done(&scope, &[]).await?)?;
    fixture.purge_all(&scope).await?;
    same("what is done after a purge", vec![false; 5], fixture.which_done(&scope, &all).await?)
}

async fn i8_a_query_claims_nothing_and_keeps_nothing_alive(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let all = events(3);
    same("what is done in a new scope", vec![false; 3], fixture.which_done(&scope, &all).await?)?;
    let lease = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    fixture.claims("events that were asked for", &lease, &all, &[Is::Granted; 3]).await?;
    fixture.complete(&lease, &all[..1]).await?;
    for _ in 0..4 {
        fixture.pass(fixture.pace.lifetime / 2).await?;
        same("what is done", vec![true, false, false], fixture.which_done(&scope, &all).await?)?;
    }
    let next = fixture.acquire_lease(&scope).await?;
    fixture.claims("the events of a lease that ended", &next, &all, &[Is::Done, Is::Granted, Is::Granted]).await?;
    same("what is done", vec![true, false, false], fixture.which_done(&scope, &all).await?)?;
    same("events purged", 1, fixture.purge_all(&scope).await?)
}
