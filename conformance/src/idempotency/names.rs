//! I1 and I2 by names, I6 by numbers: scopes, types and counts of any form.

use tidings_core::{Claim, ErrorKind, EventRef, History, IdempotencyStore, Lease, Name, ReleasedClaim};
use uuid::Uuid;

use super::fixture::{Fixture, Is, LONG, events};
use crate::case::{Case, Checked, broken, cases, holds, same};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i1_scopes_of_similar_names_are_apart,
    i1_a_type_of_any_form_is_taken,
    i6_attempts_of_any_number_are_counted,
    i6_a_claim_released_twice_is_counted_once,
];

/// The longest scope that each store must take, in bytes.
const MUST_FIT: usize = 48;

/// Returns names that a store may take for one another: by prefix, case, blanks, wildcards, or where it cuts them.
fn similar(base: &str) -> Vec<Name> {
    let mut names: Vec<String> = ["", "-eu", "-EU", "-eu-1", " ", "\u{e9}", "e\u{301}", "%", "\0", "/eu"]
        .into_iter()
        .map(|suffix| format!("{base}{suffix}"))
        .collect();
    names.extend([base.to_uppercase(), base.replace('-', "_"), format!(" {base}"), base[..base.len() - 1].to_owned()]);
    names.extend(["a", "b"].map(|end| format!("{}{end}", "x".repeat(600))));
    names.into_iter().map(Name::from).collect()
}

impl Fixture {
    /// Acquires a lease, unless the store refuses a long scope.
    async fn lease_if_it_fits(&self, scope: &Name) -> Checked<Option<Lease>> {
        let store = self.store()?;
        match self.within("a lease", store.acquire_lease(scope, LONG)).await? {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.kind() == ErrorKind::Invalid && scope.len() > MUST_FIT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Services named `shop` and `shop-eu` share a store.
async fn i1_scopes_of_similar_names_are_apart(fixture: &Fixture) -> Checked {
    let base = fixture.fresh("s");
    let mut leases = Vec::new();
    for scope in similar(&base) {
        leases.extend(fixture.lease_if_it_fits(&scope).await?);
    }
    // Each scope has an event of its own that is done in it, and a claim of its own on one that all share.
    let (all, shared) = (events(leases.len()), events(1));
    for (lease, event) in leases.iter().zip(all.chunks(1)) {
        fixture.claims("an event of this scope alone", lease, event, &[Is::Granted]).await?;
        fixture.complete(lease, event).await?;
        fixture.claims("an event that others have, too", lease, &shared, &[Is::Granted]).await?;
    }
    for (at, lease) in leases.iter().enumerate() {
        let expected: Vec<_> = (0..all.len()).map(|of| if of == at { Is::Done } else { Is::Granted }).collect();
        let what = format!("its own event and those of other scopes, in {:?}", lease.scope);
        fixture.claims(&what, lease, &all, &expected).await?;
    }
    same("events purged", 1, fixture.purge_all(&base).await?)?;
    for (lease, event) in leases.iter().zip(all.chunks(1)).skip(1) {
        fixture.claims("what is done in a scope that was not purged", lease, event, &[Is::Done]).await?;
    }
    Ok(())
}

/// The type is for people: a store may cut it, but handles the event.
async fn i1_a_type_of_any_form_is_taken(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let types = ["".to_owned(), "a\0b".to_owned(), "\u{e9}".repeat(200), "x".repeat(300), "x".repeat(10_000)];
    let all: Vec<_> = types.into_iter().map(|name| EventRef::new(Uuid::now_v7(), name)).collect();
    fixture.claims("new events", &lease, &all, &vec![Is::Granted; all.len()]).await?;
    fixture.complete(&lease, &all).await?;
    fixture.claims("done events", &lease, &all, &vec![Is::Done; all.len()]).await
}

/// They saturate where the store's numbers end, and never start again.
async fn i6_attempts_of_any_number_are_counted(fixture: &Fixture) -> Checked {
    let lease = fixture.acquire_lease(&fixture.fresh("scope")).await?;
    let event = events(1);
    let mut sum = 0;
    for attempts in [300, 70_000, 20_000_000] {
        fixture.grants(&lease, &event, History::new(0, sum)).await?;
        fixture.release(&lease, &event, attempts).await?;
        sum += attempts;
    }
    fixture.grants(&lease, &event, History::new(0, sum)).await?;
    for _ in 0..2 {
        fixture.release(&lease, &event, u32::MAX).await?;
        match fixture.claim(&lease, &event).await?[..] {
            [Claim::Granted(History { attempts, .. })] => {
                holds(attempts >= i32::MAX.unsigned_abs(), "2147483647 attempts or more", attempts)?;
            }
            ref other => return broken("Granted", format!("{other:?}")),
        }
    }
    Ok(())
}

/// As after a lost answer, or in a batch with a redelivery.
async fn i6_a_claim_released_twice_is_counted_once(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let event = events(1);
    fixture.grants(&one, &event, History::default()).await?;
    let twins = [ReleasedClaim::new(event[0].id, 2), ReleasedClaim::new(event[0].id, 3)];
    fixture.release_each(&one, &twins).await?;
    fixture.release(&one, &event, 5).await?;
    fixture.grants(&other, &event, History::new(0, 2)).await?;
    fixture.release(&one, &event, 7).await?;
    fixture.release(&other, &event, 1).await?;
    fixture.grants(&one, &event, History::new(0, 3)).await
}
