//! The stores: I1 to I7, D1 and D3, and their faults.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use tidings_core::{
    Claim, Clause, DeadLetter, DeadLetterSink, DeadLetterStore, ErrorKind, EventRef, History, IdempotencyStore, Lease,
    LetterQuery, Name, ReleasedClaim, Resolution, StoredRecord, Timestamp,
};
use tidings_memory::{MemoryDeadLetters, MemoryStore};
use tokio::time::advance;
use uuid::Uuid;

use crate::common::tp;

const TTL: Duration = Duration::from_secs(15);

fn event() -> EventRef {
    EventRef::new(Uuid::now_v7(), "a.b")
}

async fn lease(store: &MemoryStore) -> Lease {
    store.acquire_lease(&"scope".into(), TTL).await.unwrap()
}

async fn claim(store: &MemoryStore, lease: &Lease, event: &EventRef) -> Claim {
    store.claim(lease, std::slice::from_ref(event)).await.unwrap().remove(0)
}

async fn complete(store: &MemoryStore, lease: &Lease, event: &EventRef) -> Result<(), ErrorKind> {
    store.complete(lease, std::slice::from_ref(event)).await.unwrap().remove(0).map_err(|e| e.kind())
}

fn granted(crashes: u32, attempts: u32) -> Claim {
    Claim::Granted(History::new(crashes, attempts))
}

#[tokio::test(start_paused = true)]
async fn i1_one_lease_has_an_event_twins_in_one_call_too() {
    let store = MemoryStore::new();
    let (a, b, event) = (lease(&store).await, lease(&store).await, event());
    let claims = store.claim(&a, &[event.clone(), event.clone()]).await.unwrap();
    assert_eq!(claims, [granted(0, 0), Claim::Held { at_most: TTL }]);
    advance(Duration::from_secs(5)).await;
    assert_eq!(claim(&store, &b, &event).await, Claim::Held { at_most: Duration::from_secs(10) });
    let elsewhere = store.acquire_lease(&"other".into(), TTL).await.unwrap();
    assert_eq!(claim(&store, &elsewhere, &event).await, granted(0, 0));
}

#[tokio::test(start_paused = true)]
async fn i2_done_stays_so_until_purged() {
    // The store reckons from the wall clock's time here, and by the paused clock.
    let start = Timestamp::now();
    let store = MemoryStore::new();
    let (a, old, new, live) = (lease(&store).await, event(), event(), event());
    for event in [&old, &new, &live] {
        claim(&store, &a, event).await;
    }
    complete(&store, &a, &old).await.unwrap();
    complete(&store, &a, &old).await.unwrap();
    advance(Duration::from_secs(10)).await;
    let between = start.saturating_add(Duration::from_secs(5));
    complete(&store, &a, &new).await.unwrap();
    store.renew(&a).await.unwrap();
    assert_eq!(store.purge(&"other".into(), between).await.unwrap(), 0);
    assert_eq!(store.purge(&"scope".into(), between).await.unwrap(), 1);
    assert_eq!(claim(&store, &a, &old).await, granted(0, 0));
    assert_eq!(claim(&store, &a, &new).await, Claim::Done);
    assert!(matches!(claim(&store, &a, &live).await, Claim::Held { .. }));
}

#[tokio::test(start_paused = true)]
async fn i3_a_dead_leases_claims_can_be_taken_and_it_is_fenced() {
    let store = MemoryStore::new();
    let (a, event) = (lease(&store).await, event());
    claim(&store, &a, &event).await;
    advance(Duration::from_secs(10)).await;
    store.renew(&a).await.unwrap();
    advance(Duration::from_secs(14)).await;
    let b = lease(&store).await;
    assert_eq!(claim(&store, &b, &event).await, Claim::Held { at_most: Duration::from_secs(1) });
    advance(Duration::from_secs(1)).await;
    assert_eq!(store.renew(&a).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(store.claim(&a, &[]).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(claim(&store, &b, &event).await, granted(1, 0));
    assert_eq!(complete(&store, &a, &event).await, Err(ErrorKind::Fenced));
    complete(&store, &b, &event).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn i3_a_dead_lease_may_complete_what_nobody_took() {
    let store = MemoryStore::new();
    let (a, event) = (lease(&store).await, event());
    claim(&store, &a, &event).await;
    advance(TTL).await;
    complete(&store, &a, &event).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn i5_a_store_that_is_down_says_so() {
    let store = MemoryStore::new();
    let (a, event) = (lease(&store).await, event());
    store.faults().down();
    let all = [event.clone()];
    assert_eq!(store.claim(&a, &all).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.acquire_lease(&"s".into(), TTL).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.faults().up();
    store.faults().fail_calls(1, ErrorKind::Indeterminate);
    assert_eq!(store.renew(&a).await.unwrap_err().kind(), ErrorKind::Indeterminate);
    store.faults().fail_completes(1, ErrorKind::Unavailable);
    assert_eq!(claim(&store, &a, &event).await, granted(0, 0));
    assert_eq!(store.complete(&a, &all).await.unwrap_err().kind(), ErrorKind::Unavailable);
    complete(&store, &a, &event).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_is_lost_is_carried_out() {
    let store = MemoryStore::new();
    let (a, event) = (lease(&store).await, event());
    let all = [event.clone()];
    store.faults().lose_answers(2);
    assert_eq!(store.claim(&a, &all).await.unwrap_err().kind(), ErrorKind::Indeterminate);
    assert_eq!(store.complete(&a, &all).await.unwrap_err().kind(), ErrorKind::Indeterminate);
    assert_eq!(claim(&store, &a, &event).await, Claim::Done);
}

#[tokio::test(start_paused = true)]
async fn i6_a_grant_tells_of_deaths_and_attempts() {
    let store = MemoryStore::new();
    let event = event();
    for crashes in 0..3 {
        let dying = lease(&store).await;
        assert_eq!(claim(&store, &dying, &event).await, granted(crashes, 0));
        advance(TTL).await;
    }
    let a = lease(&store).await;
    assert_eq!(claim(&store, &a, &event).await, granted(3, 0));
    store.release(&a, &[ReleasedClaim::new(event.id, 2)]).await.unwrap();
    assert_eq!(complete(&store, &a, &event).await, Err(ErrorKind::Fenced));
    assert_eq!(claim(&store, &a, &event).await, granted(3, 2));
    store.retire(&a).await.unwrap();
    let b = lease(&store).await;
    assert_eq!(claim(&store, &b, &event).await, granted(3, 2));
    let stranger = lease(&store).await;
    store.release(&stranger, &[ReleasedClaim::new(event.id, 9)]).await.unwrap();
    assert!(matches!(claim(&store, &stranger, &event).await, Claim::Held { .. }));
}

#[tokio::test(start_paused = true)]
async fn i7_only_completing_makes_it_done() {
    let store = MemoryStore::new();
    let (a, event) = (lease(&store).await, event());
    assert_eq!(complete(&store, &a, &event).await, Err(ErrorKind::Fenced));
    claim(&store, &a, &event).await;
    store.release(&a, &[ReleasedClaim::new(event.id, 0)]).await.unwrap();
    assert_eq!(claim(&store, &a, &event).await, granted(0, 0));
    assert!(!store.guarantees().is_shared());
    assert!(!store.guarantees().keeps(Clause::Restart));
}

#[tokio::test(start_paused = true)]
async fn a_bound_on_what_is_done_forgets_the_oldest() {
    let store = MemoryStore::new().with_max_done(2);
    let a = lease(&store).await;
    let events = [event(), event(), event()];
    store.claim(&a, &events).await.unwrap();
    store.complete(&a, &events).await.unwrap();
    assert_eq!(store.claim(&a, &events).await.unwrap(), [granted(0, 0), Claim::Done, Claim::Done]);
}

fn letter(service: &str, offset: u64) -> DeadLetter {
    let record = StoredRecord::new(offset, Timestamp::default()).with_value("x");
    DeadLetter::new(service, tp("t", 0), record, ErrorKind::Failed)
}

async fn listed(letters: &MemoryDeadLetters, query: &LetterQuery) -> Vec<u64> {
    letters.list(query).await.unwrap().iter().map(|l| l.record.offset).collect()
}

#[tokio::test]
async fn d3_a_letter_buried_twice_is_listed_once_and_stays_closed() {
    let letters = MemoryDeadLetters::new();
    assert!(letters.bury(vec![letter("s", 1), letter("s", 1), letter("r", 1)]).await.iter().all(Result::is_ok));
    assert_eq!(listed(&letters, &LetterQuery::default()).await, [1, 1]);
    let one = [letter("s", 1).id()];
    let redriven = Resolution::redriven("me");
    assert_eq!(letters.resolve(&one, &redriven).await.unwrap(), [true]);
    assert_eq!(letters.resolve(&one, &redriven).await.unwrap(), [false]);
    letters.bury(vec![letter("s", 1)]).await.remove(0).unwrap();
    assert!(listed(&letters, &LetterQuery::default().with_service("s")).await.is_empty());
}

#[tokio::test]
async fn d3_a_record_of_a_topic_made_anew_is_not_taken_for_the_letter_of_the_old_one() {
    let letters = MemoryDeadLetters::new().with_max_letters(2);
    let anew = |offset| {
        let mut letter = letter("s", offset);
        letter.record.timestamp = Timestamp::from_millis(9);
        letter
    };
    letters.bury(vec![letter("s", 1), letter("s", 2)]).await.into_iter().try_for_each(|answer| answer).unwrap();
    let redriven = Resolution::redriven("me");
    assert_eq!(letters.resolve(&[letter("s", 1).id()], &redriven).await.unwrap(), [true]);
    let answers = letters.bury(vec![anew(1), anew(2)]).await;
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(listed(&letters, &LetterQuery::default()).await, [2, 1]);
    // Only closed letters are forgotten, not the open one.
    for offset in [2, 3, 4] {
        letters.bury(vec![letter("s", offset)]).await.remove(0).unwrap();
        assert_eq!(letters.resolve(&[letter("s", offset).id()], &redriven).await.unwrap(), [true]);
    }
    assert_eq!(letters.resolve(&[anew(1).id()], &redriven).await.unwrap(), [true]);
}

#[tokio::test]
async fn letters_are_listed_by_pages_in_the_order_of_burying() {
    let letters = MemoryDeadLetters::new();
    letters.bury([3, 1, 2].map(|n| letter("s", n)).to_vec()).await;
    let page = LetterQuery::default().with_limit(2);
    assert_eq!(listed(&letters, &page).await, [3, 1]);
    letters.resolve(&[letter("s", 1).id()], &Resolution::redriven("me")).await.unwrap();
    assert_eq!(listed(&letters, &page.with_after(letter("s", 1).id())).await, [2]);
}

#[tokio::test]
async fn d1_a_full_or_broken_store_says_that_nothing_was_buried() {
    let letters = MemoryDeadLetters::new().with_max_letters(1);
    let answers = letters.bury(vec![letter("s", 1), letter("s", 2)]).await;
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    letters.faults().down();
    assert_eq!(letters.check(&[Name::from("t")]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(letters.bury(vec![letter("s", 1)]).await.remove(0).unwrap_err().kind(), ErrorKind::Unavailable);
    letters.faults().heal();
    assert_eq!(listed(&letters, &LetterQuery::default()).await, [1]);
}
