//! I2 and restart: what a purge takes, and when.

use std::time::Duration;

use tidings_core::{IdempotencyStore, Timestamp};

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, cases, same};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i2_a_purge_takes_what_is_older_alone,
    i2_a_purge_of_any_time_is_taken_literally,
    i2_a_release_undoes_nothing,
    restart_what_was_purged_stays_purged[Reopen],
];

/// The store's clock and this host's differ by less.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(86_400);

impl Fixture {
    /// Claims and completes one event of a new lease.
    async fn done(&self, scope: &tidings_core::Name) -> Checked<Vec<tidings_core::EventRef>> {
        let lease = self.acquire_lease(scope).await?;
        let event = events(1);
        self.claims("a new event", &lease, &event, &[Is::Granted]).await?;
        self.complete(&lease, &event).await?;
        Ok(event)
    }

    /// Returns the time of the store's clock, within `precision`: it is not this host's, and may be set forth.
    ///
    /// It is found by halves, each time by a purge in a new scope with one event.
    async fn store_time(&self, precision: Duration) -> Checked<Timestamp> {
        let now = Timestamp::now();
        let (mut from, mut to) = (now.saturating_sub(CLOCKS_DIFFER_BY), now.saturating_add(CLOCKS_DIFFER_BY));
        while u128::from(to.millis().abs_diff(from.millis())) > precision.as_millis().max(1) {
            let middle = Timestamp::from_millis(from.millis().midpoint(to.millis()));
            let scope = self.fresh("scope");
            self.done(&scope).await?;
            match self.purge(&scope, middle).await? {
                0 => from = middle,
                _ => to = middle,
            }
        }
        Ok(to)
    }
}

/// A purge that rounds its time, or that dates events by their claim, is caught.
async fn i2_a_purge_takes_what_is_older_alone(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let gap = fixture.pace.lifetime;
    let (early, late) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = events(3);
    fixture.claims("new events", &late, &all[2..], &[Is::Granted]).await?;
    fixture.claims("new events", &early, &all[..2], &[Is::Granted; 2]).await?;
    fixture.complete(&early, &all[..2]).await?;
    fixture.pass(gap).await?;
    let between = fixture.store_time(gap / 8).await?.saturating_sub(gap / 2);
    fixture.complete(&late, &all[2..]).await?;
    same("events purged", 2, fixture.purge(&scope, between).await?)?;
    let expected = [Is::Granted, Is::Granted, Is::Done];
    fixture.claims("two that were done before the time, and one after it", &late, &all, &expected).await?;
    same("events purged later", 1, fixture.purge_all(&scope).await?)
}

/// The earliest times that there are, and the latest.
async fn i2_a_purge_of_any_time_is_taken_literally(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let event = fixture.done(&scope).await?;
    let lease = fixture.acquire_lease(&scope).await?;
    for millis in [i64::MIN, i64::MIN + 1, -1_700_000_000_000, -1, 0, 1] {
        same("events purged", 0, fixture.purge(&scope, Timestamp::from_millis(millis)).await?)?;
        fixture.claims("an event that is done since", &lease, &event, &[Is::Done]).await?;
    }
    same("events purged", 1, fixture.purge(&scope, Timestamp::from_millis(i64::MAX)).await?)?;
    fixture.claims("a purged event", &lease, &event, &[Is::Granted]).await
}

/// Late calls of the lease that completed the event, and of others.
async fn i2_a_release_undoes_nothing(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.claims("a new event", &one, &event, &[Is::Granted]).await?;
    fixture.complete(&one, &event).await?;
    for lease in [&one, &other] {
        fixture.release(lease, &event, 1).await?;
        fixture.claims("a done event", &other, &event, &[Is::Done]).await?;
    }
    fixture.retire(&one).await?;
    fixture.claims("a done event of a retired lease", &other, &event, &[Is::Done]).await
}

async fn restart_what_was_purged_stays_purged(fixture: &Fixture) -> Checked {
    let (scope, kept) = (fixture.fresh("scope"), fixture.fresh("scope"));
    let (purged, done) = (fixture.done(&scope).await?, fixture.done(&kept).await?);
    same("events purged", 1, fixture.purge_all(&scope).await?)?;
    drop(fixture.reopen(fixture.store()?).await?);
    let lease = fixture.acquire_lease(&scope).await?;
    fixture.claims("an event purged before the restart", &lease, &purged, &[Is::Granted]).await?;
    let lease = fixture.acquire_lease(&kept).await?;
    fixture.claims("an event of another scope", &lease, &done, &[Is::Done]).await
}
