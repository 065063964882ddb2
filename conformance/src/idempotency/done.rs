//! I2: `Done` until purged. I4 and restart: it is durable. I7: only `complete` writes it.

use std::time::Duration;

use tidings_core::{ErrorKind, IdempotencyStore, Name, Timestamp};

use super::rig::{Is, Rig, events};
use crate::case::{Case, Checked, cases, refused, same};
use crate::cx::poll_times;

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
    restart_what_is_done_survives[Reopen],
    restart_released_attempts_survive[Reopen],
    restart_a_claim_of_a_dead_process_ends[Reopen],
];

impl Rig {
    /// Purges all done events of a scope.
    pub(super) async fn purge_all(&self, scope: &Name) -> Checked<u64> {
        // Far ahead, as the store's clock counts and not this host's.
        self.purge(scope, Timestamp::now().saturating_add(Duration::from_secs(86_400))).await
    }

    async fn purge(&self, scope: &Name, before: Timestamp) -> Checked<u64> {
        let store = self.store()?;
        let purged = self.within("purge", store.purge(scope, before)).await??;
        self.note(format!("purged {purged} of {scope} before {before}"));
        Ok(purged)
    }
}

async fn i2_done_stays_done(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let lease = rig.acquire_lease(&scope).await?;
    let all = events(5);
    rig.claims("new events", &lease, &all, &[Is::Granted; 5]).await?;
    rig.complete(&lease, &all).await?;
    rig.retire(&lease).await?;
    let next = rig.acquire_lease(&scope).await?;
    for _ in 0..2 {
        rig.claims("events that are done", &next, &all, &[Is::Done; 5]).await?;
    }
    Ok(())
}

async fn i2_completing_twice_is_one_completion(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    rig.complete(&one, &event).await?;
    rig.complete(&one, &event).await?;
    rig.claims("a done event", &other, &event, &[Is::Done]).await?;
    same("events purged", 1, rig.purge_all(&scope).await?)
}

async fn i2_a_purge_forgets_what_is_old_enough(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let lease = rig.acquire_lease(&scope).await?;
    let all = events(3);
    rig.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    rig.complete(&lease, &all).await?;
    same("events purged", 3, rig.purge_all(&scope).await?)?;
    rig.claims("purged events", &lease, &all, &[Is::Granted; 3]).await
}

async fn i2_a_purge_keeps_what_is_newer(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let lease = rig.acquire_lease(&scope).await?;
    let all = events(3);
    rig.claims("new events", &lease, &all, &[Is::Granted; 3]).await?;
    rig.complete(&lease, &all).await?;
    let long_ago = Timestamp::now().saturating_sub(Duration::from_secs(86_400));
    same("events purged", 0, rig.purge(&scope, long_ago).await?)?;
    rig.claims("events that are still done", &lease, &all, &[Is::Done; 3]).await
}

async fn i2_a_purge_leaves_live_claims(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    same("events purged", 0, rig.purge_all(&scope).await?)?;
    rig.claims("a claim that lived through a purge", &other, &event, &[Is::Held]).await?;
    rig.complete(&one, &event).await?;
    rig.claims("an event that is done", &other, &event, &[Is::Done]).await
}

async fn i2_a_purge_leaves_other_scopes(rig: &Rig) -> Checked {
    // One name is the other's beginning: what purges by prefix is caught.
    let (scope, other) = (rig.fresh("scope"), rig.fresh("scope"));
    let longer: Name = format!("{scope}-b").into();
    let event = events(1);
    for scope in [&scope, &other, &longer] {
        let lease = rig.acquire_lease(scope).await?;
        rig.claims("a new event", &lease, &event, &[Is::Granted]).await?;
        rig.complete(&lease, &event).await?;
    }
    same("events purged", 1, rig.purge_all(&scope).await?)?;
    for scope in [&other, &longer] {
        let lease = rig.acquire_lease(scope).await?;
        rig.claims("what is done in another scope", &lease, &event, &[Is::Done]).await?;
    }
    Ok(())
}

async fn i2_a_purge_of_nothing_is_none(rig: &Rig) -> Checked {
    same("events purged", 0, rig.purge_all(&rig.fresh("scope")).await?)
}

async fn i4_what_is_done_is_seen_by_every_lease_at_once(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    for event in events(10).chunks(1) {
        rig.claims("a new event", &one, event, &[Is::Granted]).await?;
        rig.complete(&one, event).await?;
        rig.claims("an event that is done by now", &other, event, &[Is::Done]).await?;
    }
    Ok(())
}

async fn i4_a_dropped_complete_can_be_repeated(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    for times in 0..6 {
        let event = events(1);
        rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
        let store = rig.store()?;
        drop(poll_times(times, store.complete(&one, &event)).await);
        rig.complete(&one, &event).await?;
        rig.claims("an event that is done", &other, &event, &[Is::Done]).await?;
    }
    Ok(())
}

async fn i7_a_claim_alone_is_not_done(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    rig.claims("an event that is being handled", &other, &event, &[Is::Held]).await?;
    rig.retire(&one).await?;
    rig.claims("an event that nobody handled", &other, &event, &[Is::Granted]).await
}

async fn i7_a_release_is_not_done(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    // Like a service that buried the event: a redriven event must not look handled.
    rig.release(&one, &event, 3).await?;
    rig.claims("an event that was given back", &other, &event, &[Is::Granted]).await
}

async fn i7_completing_releases_and_completes_nothing_else(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let all = events(3);
    rig.claims("new events", &one, &all, &[Is::Granted; 3]).await?;
    rig.complete(&one, &all[1..2]).await?;
    rig.claims("the one and the others", &other, &all, &[Is::Held, Is::Done, Is::Held]).await
}

async fn i7_completing_what_was_never_claimed_is_fenced(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let (one, other) = (rig.acquire_lease(&scope).await?, rig.acquire_lease(&scope).await?);
    let event = events(1);
    rig.claims("a new event", &one, &event, &[Is::Granted]).await?;
    let answer = rig.complete_one(&other, &event[0]).await?;
    refused("completing what another has claimed", &[ErrorKind::Fenced], answer)?;
    rig.claims("the event", &other, &event, &[Is::Held]).await?;
    rig.complete(&one, &event).await
}

async fn i7_a_death_is_not_done(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let event = events(1);
    rig.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    rig.outlive().await?;
    let next = rig.acquire_lease(&scope).await?;
    rig.claims("an event whose lease expired", &next, &event, &[Is::Granted]).await
}

async fn restart_what_is_done_survives(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let lease = rig.acquire_lease(&scope).await?;
    let all = events(200);
    rig.claims("new events", &lease, &all, &[Is::Granted; 200]).await?;
    rig.complete(&lease, &all).await?;
    drop(rig.reopen(rig.store()?).await?);
    let next = rig.acquire_lease(&scope).await?;
    rig.claims("done before the restart", &next, &all, &[Is::Done; 200]).await
}

async fn restart_released_attempts_survive(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let lease = rig.acquire_lease(&scope).await?;
    let event = events(1);
    rig.claims("a new event", &lease, &event, &[Is::Granted]).await?;
    rig.release(&lease, &event, 3).await?;
    drop(rig.reopen(rig.store()?).await?);
    let next = rig.acquire_lease(&scope).await?;
    rig.grants(&next, &event, tidings_core::History::new(0, 3)).await
}

async fn restart_a_claim_of_a_dead_process_ends(rig: &Rig) -> Checked {
    let scope = rig.fresh("scope");
    let dying = rig.lease_for(&scope, rig.pace.lifetime).await?;
    let event = events(1);
    rig.claims("a new event", &dying, &event, &[Is::Granted]).await?;
    drop(rig.reopen(rig.store()?).await?);
    rig.outlive().await?;
    let next = rig.acquire_lease(&scope).await?;
    rig.grants(&next, &event, tidings_core::History::new(1, 0)).await?;
    refused("the expired lease's complete", &[ErrorKind::Fenced], rig.complete_one(&dying, &event[0]).await?)
}
