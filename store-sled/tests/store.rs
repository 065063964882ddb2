//! The rules of claims on sled: what outlives a restart, whose claims end when, and what a clock can do to it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use tempfile::tempdir;
use tidings_core::audit::{AuditHash, AuditSink, StoredAudit};
use tidings_core::{
    Claim, DeadLetter, DeadLetterSink, ErrorKind, IdempotencyStore, ReleasedClaim, StoredRecord, Timestamp,
    TopicPartition,
};
use tidings_sled::{SledConfig, SledStore};

use crate::common::{Hands, TTL, claim, complete, event, fresh, granted, lease, scope};

const HOUR: Duration = Duration::from_secs(3_600);

async fn open(path: &std::path::Path, hands: &Hands) -> SledStore {
    let config = SledConfig::new(path).with_clock(hands.clone()).with_retention(7 * HOUR);
    SledStore::open_with(config).await.unwrap()
}

#[tokio::test]
async fn done_outlives_a_restart() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let (lease_1, event) = (lease(&store).await, fresh());
    assert_eq!(claim(&store, &lease_1, &event).await, granted(0, 0));
    complete(&store, &lease_1, &event).await.unwrap();
    store.close().await;
    let store = SledStore::open(directory.path()).await.unwrap();
    let lease_2 = lease(&store).await;
    assert_eq!(claim(&store, &lease_2, &event).await, Claim::Done);
}

#[tokio::test]
async fn opening_ends_earlier_claims_at_once_and_counts_the_deaths() {
    let directory = tempdir().unwrap();
    let event = fresh();
    let mut first = None;
    for crashes in 0..3 {
        let store = SledStore::open(directory.path()).await.unwrap();
        let lease = lease(&store).await;
        assert_eq!(claim(&store, &lease, &event).await, granted(crashes, 0));
        first.get_or_insert(lease);
        store.close().await;
    }
    let store = SledStore::open(directory.path()).await.unwrap();
    let error = complete(&store, &first.unwrap(), &event).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_second_claim_waits_for_the_first_lease() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let (one, two, event) = (lease(&store).await, lease(&store).await, fresh());
    let twins = store.claim(&one, &[event.clone(), event.clone()]).await.unwrap();
    assert_eq!(twins[0], granted(0, 0));
    assert!(matches!(twins[1], Claim::Held { at_most } if at_most <= TTL));
    assert!(matches!(claim(&store, &two, &event).await, Claim::Held { .. }));
    assert_eq!(complete(&store, &two, &event).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_released_claim_is_free_and_keeps_its_attempts_over_a_restart() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    store.release(&one, &[ReleasedClaim::new(event.id, 2)]).await.unwrap();
    assert_eq!(claim(&store, &one, &event).await, granted(0, 2));
    store.release(&one, &[ReleasedClaim::new(event.id, 3)]).await.unwrap();
    store.close().await;
    let store = SledStore::open(directory.path()).await.unwrap();
    let two = lease(&store).await;
    assert_eq!(claim(&store, &two, &event).await, granted(0, 5));
}

#[tokio::test]
async fn a_retired_lease_leaves_no_death() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    store.retire(&one).await.unwrap();
    assert_eq!(store.renew(&one).await.unwrap_err().kind(), ErrorKind::Fenced);
    let two = lease(&store).await;
    assert_eq!(claim(&store, &two, &event).await, granted(0, 0));
    assert_eq!(complete(&store, &one, &event).await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn the_claim_of_a_lease_that_did_not_renew_can_be_taken() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (one, two, event) = (lease(&store).await, lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    hands.pass(TTL - Duration::from_millis(1));
    store.renew(&two).await.unwrap();
    assert_eq!(claim(&store, &two, &event).await, Claim::Held { at_most: Duration::from_millis(1) });
    hands.pass(Duration::from_millis(1));
    assert_eq!(store.renew(&one).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(claim(&store, &two, &event).await, granted(1, 0));
    assert_eq!(complete(&store, &one, &event).await.unwrap_err().kind(), ErrorKind::Fenced);
    complete(&store, &two, &event).await.unwrap();
}

#[tokio::test]
async fn a_dead_lease_can_complete_what_nobody_took() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    hands.pass(2 * TTL);
    complete(&store, &one, &event).await.unwrap();
    let error = store.claim(&one, &[fresh()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_wall_clock_set_back_lengthens_no_claim() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    hands.set_back(HOUR);
    hands.pass(TTL);
    let two = lease(&store).await;
    assert_eq!(claim(&store, &two, &event).await, granted(1, 0));
}

#[tokio::test]
async fn a_wall_clock_set_back_lengthens_no_retention_even_over_a_restart() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    complete(&store, &one, &event).await.unwrap();
    store.close().await;
    hands.set_back(HOUR);
    let store = open(directory.path(), &hands).await;
    // A second part begins, and the first one ends its retention, measured from before the clock was set back.
    hands.pass(HOUR);
    let two = lease(&store).await;
    claim(&store, &two, &fresh()).await;
    hands.pass(7 * HOUR);
    let three = lease(&store).await;
    assert_eq!(claim(&store, &three, &event).await, granted(0, 0));
}

#[tokio::test]
async fn done_is_remembered_for_the_retention_and_then_dropped_with_its_directory() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (one, event) = (lease(&store).await, fresh());
    claim(&store, &one, &event).await;
    complete(&store, &one, &event).await.unwrap();
    let generations = || {
        let names = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|n| n.to_string_lossy().starts_with("events-")).count()
    };
    for hour in 0..7 {
        hands.pass(HOUR);
        let each = lease(&store).await;
        assert_eq!(claim(&store, &each, &event).await, Claim::Done, "after {hour} hours");
        let other = fresh();
        claim(&store, &each, &other).await;
        complete(&store, &each, &other).await.unwrap();
        store.retire(&each).await.unwrap();
    }
    assert!(generations() <= 9, "{}", generations());
    hands.pass(HOUR);
    let last = lease(&store).await;
    assert_eq!(claim(&store, &last, &event).await, granted(0, 0));
    assert!(generations() <= 9, "{}", generations());
}

#[tokio::test]
async fn a_live_claim_outlives_the_directory_it_was_written_in() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let (event, ttl) = (fresh(), 100 * HOUR);
    let long = store.acquire_lease(&scope(), ttl).await.unwrap();
    claim(&store, &long, &event).await;
    for _ in 0..10 {
        hands.pass(HOUR);
        claim(&store, &long, &fresh()).await;
    }
    let other = lease(&store).await;
    assert!(matches!(claim(&store, &other, &event).await, Claim::Held { .. }));
    store.close().await;
    let store = open(directory.path(), &hands).await;
    let next = lease(&store).await;
    assert_eq!(claim(&store, &next, &event).await, granted(1, 0));
}

#[tokio::test]
async fn a_purge_takes_old_done_events_of_its_scope_and_no_claims() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let other_scope = store.acquire_lease(&"other".into(), 100 * HOUR).await.unwrap();
    let one = store.acquire_lease(&scope(), 100 * HOUR).await.unwrap();
    let old: Vec<_> = (0..5_000).map(|_| fresh()).collect();
    store.claim(&one, &old).await.unwrap();
    // Done in another part than they were claimed in: what is left of the claim must not count.
    hands.pass(HOUR);
    store.complete(&one, &old).await.unwrap();
    store.claim(&other_scope, &old[..1]).await.unwrap();
    store.complete(&other_scope, &old[..1]).await.unwrap();
    let held = fresh();
    claim(&store, &one, &held).await;
    hands.pass(Duration::from_secs(1));
    let young = fresh();
    claim(&store, &one, &young).await;
    complete(&store, &one, &young).await.unwrap();
    let before = tidings_sled::Clock::wall(&hands);
    assert_eq!(store.purge(&scope(), before).await.unwrap(), 5_000);
    assert_eq!(claim(&store, &one, &old[7]).await, granted(0, 0));
    assert_eq!(claim(&store, &one, &young).await, Claim::Done);
    assert!(matches!(claim(&store, &one, &held).await, Claim::Held { .. }));
    assert_eq!(claim(&store, &other_scope, &old[0]).await, Claim::Done);
}

#[tokio::test]
async fn a_purge_takes_all_however_the_ids_end() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let one = store.acquire_lease(&scope(), HOUR).await.unwrap();
    // More than are forgotten in one step, all in one shard of the index.
    let events: Vec<_> = (1..=4_500_u128).map(|i| event(uuid::Uuid::from_u128(i << 8))).collect();
    store.claim(&one, &events).await.unwrap();
    store.complete(&one, &events).await.unwrap();
    hands.pass(Duration::from_secs(1));
    assert_eq!(store.purge(&scope(), tidings_sled::Clock::wall(&hands)).await.unwrap(), 4_500);
    assert!(store.claim(&one, &events).await.unwrap().iter().all(|claim| *claim == granted(0, 0)));
}

#[tokio::test]
async fn claims_beyond_the_bound_are_refused_and_those_of_the_dead_make_room() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let config = SledConfig::new(directory.path()).with_clock(hands.clone()).with_max_claims(5_000);
    let store = SledStore::open_with(config).await.unwrap();
    let one = lease(&store).await;
    let events: Vec<_> = (0..5_000).map(|_| fresh()).collect();
    store.claim(&one, &events).await.unwrap();
    assert!(store.claim(&one, &[fresh()]).await.unwrap_err().is_retryable());
    hands.pass(TTL);
    let two = lease(&store).await;
    assert_eq!(claim(&store, &two, &events[3]).await, granted(1, 0));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let clone = store.clone();
    let one = lease(&store).await;
    store.close().await;
    clone.close().await;
    assert_eq!(clone.renew(&one).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_dropped_call_loses_nothing_that_others_were_told() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let one = lease(&store).await;
    for _ in 0..50 {
        let event = fresh();
        let both = [event.clone(), fresh()];
        let dropped = store.claim(&one, &both);
        // Polled once, so that it is on its way, and then dropped.
        tokio::select! { biased; _ = dropped => {}, () = std::future::ready(()) => {} }
        assert!(matches!(claim(&store, &one, &event).await, Claim::Held { .. }));
    }
}

#[tokio::test]
async fn the_longest_times_are_taken_everywhere() {
    let directory = tempdir().unwrap();
    let hands = Hands::new();
    let longest = || {
        SledConfig::new(directory.path())
            .with_clock(hands.clone())
            .with_retention(Duration::MAX)
            .with_answer_within(Duration::MAX)
            .with_max_reopen_wait(Duration::MAX)
            .with_max_waiting(u32::MAX)
            .with_max_claims(usize::MAX)
            .with_max_letters(u64::MAX)
    };
    let event = fresh();
    for is_done in [false, true] {
        let store = SledStore::open_with(longest()).await.unwrap();
        let forever = store.acquire_lease(&scope(), Duration::MAX).await.unwrap();
        hands.pass(100 * 365 * 24 * HOUR);
        store.renew(&forever).await.unwrap();
        if is_done {
            assert_eq!(claim(&store, &forever, &event).await, Claim::Done);
        } else {
            assert_eq!(claim(&store, &forever, &event).await, granted(0, 0));
            complete(&store, &forever, &event).await.unwrap();
        }
        store.close().await;
    }
}

#[tokio::test]
async fn the_size_counts_events_exactly_and_grows_with_letters_and_audit_records() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let empty = store.size().await.unwrap();
    assert_eq!(empty.events, 0);
    let (one, events) = (lease(&store).await, [fresh(), fresh(), fresh()]);
    store.claim(&one, &events).await.unwrap();
    complete(&store, &one, &events[0]).await.unwrap();
    store.release(&one, &[ReleasedClaim::new(events[1].id, 0)]).await.unwrap();
    let claimed = store.size().await.unwrap();
    assert!(claimed.events == 2 && claimed.bytes >= empty.bytes && empty.bytes > 0, "{empty:?} {claimed:?}");
    let record = StoredRecord::new(1, Timestamp::from_millis(5)).with_value(vec![7; 3 << 20]);
    let letter = DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed);
    store.bury(vec![letter]).await.remove(0).unwrap();
    let size = store.size().await.unwrap();
    assert!(size.events == 2 && size.bytes > claimed.bytes + (2 << 20), "{claimed:?} {size:?}");
}

#[tokio::test]
async fn audit_records_are_purged_by_their_age_and_counted_over_all_steps() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let store = open(directory.path(), &hands).await;
    let record = |seq| StoredAudit::new("ops", seq, AuditHash::ZERO, AuditHash::ZERO, "r");
    let append = async |seqs: std::ops::Range<u64>| {
        for answer in store.append(seqs.map(record).collect()).await {
            answer.unwrap();
        }
    };
    append(0..2_500).await;
    hands.pass(HOUR);
    append(2_500..2_503).await;
    assert_eq!(store.purge_audit(2 * HOUR).await.unwrap(), 0);
    assert_eq!(store.purge_audit(HOUR / 2).await.unwrap(), 2_500);
    let left = store.read(None, usize::MAX).await.unwrap().records;
    assert_eq!(left, (2_500..2_503).map(record).collect::<Vec<_>>());
}

#[tokio::test]
async fn audit_records_beyond_the_bound_are_refused_with_those_behind_them() {
    let directory = tempdir().unwrap();
    let store = SledStore::open_with(SledConfig::new(directory.path()).with_max_audit_records(2)).await.unwrap();
    let record = |chain: &str, seq| StoredAudit::new(chain, seq, AuditHash::ZERO, AuditHash::ZERO, "r");
    let answers = store.append(vec![record("a", 0), record("a", 1), record("a", 2), record("a", 0)]).await;
    let accepted: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, true, false, false]);
    assert!(answers[2].as_ref().unwrap_err().is_retryable());
    // A record of another chain is not behind the refused one.
    let answers = store.append(vec![record("b", 0), record("a", 1)]).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true]);
}
