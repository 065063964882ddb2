//! I1, I2, I3, I6 and I7 with many events in one call: each answer is its event's, in whatever order and state they come.
//!
//! A store that handles a list by parts, in an order of its own or as a whole answers short lists of
//! one state correctly. The lists here mix states, and their ids are in no order.

use tidings_core::{Claim, ErrorKind, EventRef, History, IdempotencyStore, ReleasedClaim};
use uuid::Uuid;

use super::fixture::{Fixture, Is, events};
use crate::case::{Case, Checked, broken, cases, same};

pub(super) const CASES: &[Case<dyn IdempotencyStore>] = cases![
    i1_answers_come_in_the_order_of_the_call,
    i1_ids_that_differ_in_one_bit_are_apart,
    i2_a_purge_of_thousands_is_whole,
    i3_retiring_releases_every_claim,
    i6_each_event_of_an_expired_lease_counts_one_crash,
    i6_each_event_of_a_release_has_its_own_attempts,
    i7_each_event_of_a_complete_has_its_own_answer,
];

/// More than a page, a chunk or a statement of a store may take, and quick to check.
const MANY: usize = 150;

/// Creates events whose ids are in no order.
fn unordered(count: usize) -> Vec<EventRef> {
    (0..count).map(|_| EventRef::new(Uuid::new_v4(), "conformance.event")).collect()
}

/// Returns every `step`th event, from the `first` on.
fn each(events: &[EventRef], first: usize, step: usize) -> Vec<EventRef> {
    events.iter().skip(first).step_by(step).cloned().collect()
}

/// Returns `count` answers that repeat `pattern`.
fn repeated<T: Copy>(pattern: &[T], count: usize) -> Vec<T> {
    pattern.iter().copied().cycle().take(count).collect()
}

async fn i1_answers_come_in_the_order_of_the_call(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let mut all = unordered(MANY);
    let (done, held) = (each(&all, 1, 3), each(&all, 2, 3));
    fixture.claims("new events", &one, &done, &vec![Is::Granted; done.len()]).await?;
    fixture.complete(&one, &done).await?;
    fixture.claims("new events", &one, &held, &vec![Is::Granted; held.len()]).await?;
    // Twins that lie far apart.
    all.push(all[0].clone());
    let mut expected = repeated(&[Is::Granted, Is::Done, Is::Held], MANY);
    expected.push(Is::Held);
    fixture.claims("new, done and held events by turns, and a twin", &other, &all, &expected).await
}

/// An id is compared in full: neither cut nor hashed.
async fn i1_ids_that_differ_in_one_bit_are_apart(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let base = Uuid::new_v4().as_u128();
    let flipped = (0..u128::BITS).map(|bit| base ^ (1 << bit));
    let all: Vec<_> = flipped.map(|id| EventRef::new(Uuid::from_u128(id), "conformance.event")).collect();
    fixture.claims("ids of other bits", &one, &all, &vec![Is::Granted; all.len()]).await?;
    fixture.complete(&one, &each(&all, 0, 2)).await?;
    let expected = repeated(&[Is::Done, Is::Held], all.len());
    fixture.claims("every other one done", &other, &all, &expected).await?;
    let itself = [EventRef::new(Uuid::from_u128(base), "conformance.event")];
    fixture.claims("the id that all differ from", &other, &itself, &[Is::Granted]).await
}

async fn i2_a_purge_of_thousands_is_whole(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let lease = fixture.acquire_lease(&scope).await?;
    let all = events(2_500);
    fixture.claims("new events", &lease, &all, &vec![Is::Granted; all.len()]).await?;
    fixture.complete(&lease, &all).await?;
    same("events purged", 2_500, fixture.purge_all(&scope).await?)?;
    fixture.claims("purged events", &lease, &all, &vec![Is::Granted; all.len()]).await
}

async fn i3_retiring_releases_every_claim(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = unordered(700);
    for call in all.chunks(200) {
        fixture.claims("new events", &one, call, &vec![Is::Granted; call.len()]).await?;
    }
    fixture.retire(&one).await?;
    fixture.grants(&other, &all, History::default()).await
}

/// However often others asked for the events meanwhile, and whatever happens to them afterwards.
async fn i6_each_event_of_an_expired_lease_counts_one_crash(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let dying = fixture.lease_for(&scope, fixture.pace.lifetime).await?;
    let (one, other) = (fixture.acquire_lease(&scope).await?, fixture.acquire_lease(&scope).await?);
    let all = unordered(MANY);
    fixture.grants(&dying, &all, History::default()).await?;
    for _ in 0..3 {
        fixture.claims("events of a living lease", &one, &all, &[Is::Held; MANY]).await?;
    }
    fixture.outlive().await?;
    fixture.grants(&one, &all, History::new(1, 0)).await?;
    fixture.claims("events that were taken over", &other, &all, &[Is::Held; MANY]).await?;
    // A release and a retirement are no crashes.
    fixture.release(&one, &each(&all, 0, 2), 0).await?;
    fixture.retire(&one).await?;
    fixture.grants(&other, &all, History::new(1, 0)).await
}

/// Events that are done, or another's, are not affected.
async fn i6_each_event_of_a_release_has_its_own_attempts(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other, third) = (
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
    );
    let all = unordered(MANY);
    let (done, others) = (each(&all, 1, 3), each(&all, 2, 3));
    fixture.claims("new events", &other, &others, &vec![Is::Granted; others.len()]).await?;
    fixture.claim(&one, &all).await?;
    fixture.complete(&one, &done).await?;
    let released: Vec<_> =
        all.iter().zip(1..).map(|(event, attempts)| ReleasedClaim::new(event.id, attempts)).collect();
    fixture.release_each(&one, &released).await?;
    for ((at, released), claim) in released.iter().enumerate().zip(fixture.claim(&third, &all).await?) {
        match (at % 3, claim) {
            (0, Claim::Granted(came)) => {
                same("the history of a released event", History::new(0, released.attempts), came)?
            }
            (1, Claim::Done) | (2, Claim::Held { .. }) => {}
            (_, other) => return broken("released, done and held events by turns", format!("{other:?} at {at}"))?,
        }
    }
    Ok(())
}

/// An event that was done before, or is another's, is not its neighbour's concern.
async fn i7_each_event_of_a_complete_has_its_own_answer(fixture: &Fixture) -> Checked {
    let scope = fixture.fresh("scope");
    let (one, other, third) = (
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
        fixture.acquire_lease(&scope).await?,
    );
    let mut all = unordered(MANY - 2);
    let (done, mine, others) = (each(&all, 0, 4), each(&all, 1, 4), each(&all, 2, 4));
    for (lease, claimed) in [(&one, &done), (&one, &mine), (&other, &others)] {
        fixture.claims("new events", lease, claimed, &vec![Is::Granted; claimed.len()]).await?;
    }
    fixture.complete(&one, &done).await?;
    // Twins, of a new event and of one that was done before.
    all.extend([all[1].clone(), all[0].clone()]);
    let fenced = Some(ErrorKind::Fenced);
    let mut expected = repeated(&[None, None, fenced, fenced], MANY - 2);
    expected.extend([None, None]);
    same(
        "answers to completing done, claimed, another's and unclaimed events",
        expected,
        fixture.completes(&one, &all).await?,
    )?;
    let expected = repeated(&[Is::Done, Is::Done, Is::Held, Is::Granted], MANY - 2);
    fixture.claims("the events afterwards", &third, &all[..MANY - 2], &expected).await?;
    same("events purged", (done.len() + mine.len()) as u64, fixture.purge_all(&scope).await?)
}
