//! Dead letters on sled: kept byte for byte over a restart, listed and closed once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "only a part of it is needed here")]
mod common;

use std::time::Duration;

use bytes::Bytes;
use tempfile::tempdir;
use tidings_core::{
    DeadLetter, DeadLetterSink, DeadLetterStore, ErrorKind, LetterQuery, Resolution, StoredRecord, Timestamp,
    TopicPartition,
};
use tidings_sled::{SledConfig, SledStore};

use crate::common::Hands;

fn letter(offset: u64, value: impl Into<Bytes>) -> DeadLetter {
    let record = StoredRecord::new(offset, Timestamp::from_millis(5)).with_key("k").with_value(value);
    DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed).with_error("no").with_attempts(4)
}

async fn bury(store: &SledStore, letters: Vec<DeadLetter>) {
    for answer in store.bury(letters).await {
        answer.unwrap();
    }
}

fn discarded() -> Resolution {
    Resolution::discarded("ann", "test data")
}

#[tokio::test]
async fn letters_of_any_size_outlive_a_restart_in_the_order_of_burying() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let letters = vec![letter(9, vec![7; 3 << 20]), letter(2, "small"), letter(5, "")];
    bury(&store, letters.clone()).await;
    store.close().await;
    let store = SledStore::open(directory.path()).await.unwrap();
    assert_eq!(store.list(&LetterQuery::default()).await.unwrap(), letters);
}

/// A letter about the record that a topic made anew has at this offset.
fn anew(offset: u64) -> DeadLetter {
    let mut letter = letter(offset, "new");
    letter.record.timestamp = Timestamp::from_millis(6);
    letter
}

#[tokio::test]
async fn a_record_of_a_topic_made_anew_is_not_taken_for_the_letter_of_the_old_one() {
    let directory = tempdir().unwrap();
    let (day, hands) = (Duration::from_secs(86_400), Hands::new());
    let config = SledConfig::new(directory.path()).with_clock(hands.clone()).with_retention(day);
    let store = SledStore::open_with(config.clone()).await.unwrap();
    bury(&store, vec![letter(1, "old"), letter(2, "old")]).await;
    assert_eq!(store.resolve(&[letter(1, "").id()], &discarded()).await.unwrap(), [true]);
    let answers = store.bury(vec![anew(1), anew(2)]).await;
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    let open = store.list(&LetterQuery::default()).await.unwrap();
    assert_eq!(
        open.iter().map(|l| (l.record.offset, l.record.timestamp.millis())).collect::<Vec<_>>(),
        [(2, 5), (1, 6)]
    );
    store.close().await;
    // The expiry of the closed letter does not delete the open one.
    hands.pass(day * 3);
    let store = SledStore::open_with(config).await.unwrap();
    assert_eq!(store.list(&LetterQuery::default()).await.unwrap(), open);
    assert_eq!(store.resolve(&[anew(1).id()], &discarded()).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_letter_buried_twice_is_listed_once_even_after_it_was_closed() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    bury(&store, vec![letter(1, "a"), letter(1, "a")]).await;
    assert_eq!(store.list(&LetterQuery::default()).await.unwrap().len(), 1);
    let ids = [letter(1, "").id(), letter(2, "").id()];
    assert_eq!(store.resolve(&ids, &discarded()).await.unwrap(), [true, false]);
    store.close().await;
    let store = SledStore::open(directory.path()).await.unwrap();
    bury(&store, vec![letter(1, "a")]).await;
    assert_eq!(store.list(&LetterQuery::default()).await.unwrap(), []);
    assert_eq!(store.resolve(&ids, &discarded()).await.unwrap(), [false, false]);
}

#[tokio::test]
async fn pages_go_on_behind_a_letter_also_when_it_was_closed() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    bury(&store, (0..2_500).map(|n| letter(n, "x")).collect()).await;
    let mut query = LetterQuery::default().with_limit(600);
    let mut seen = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        store.resolve(&[last.id()], &discarded()).await.unwrap();
        query = query.with_after(last.id());
        seen.extend(page.iter().map(|l| l.record.offset));
    }
    assert_eq!(seen, (0..2_500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_query_skips_what_it_does_not_want() {
    let directory = tempdir().unwrap();
    let store = SledStore::open(directory.path()).await.unwrap();
    let mut letters: Vec<_> = (0..1_500).map(|n| letter(n, "x")).collect();
    letters[1_400].kind = ErrorKind::Undecodable;
    bury(&store, letters).await;
    let query = LetterQuery::default().with_kind(ErrorKind::Undecodable).with_limit(1);
    let found = store.list(&query).await.unwrap();
    assert_eq!(found.iter().map(|l| l.record.offset).collect::<Vec<_>>(), [1_400]);
}

#[tokio::test]
async fn a_full_store_refuses_letters_until_some_are_closed() {
    let directory = tempdir().unwrap();
    let store = SledStore::open_with(SledConfig::new(directory.path()).with_max_letters(1)).await.unwrap();
    let answers = store.bury(vec![letter(1, "a"), letter(2, "b")]).await;
    assert!(answers[0].is_ok());
    assert!(answers[1].as_ref().unwrap_err().is_retryable());
    store.resolve(&[letter(1, "").id()], &discarded()).await.unwrap();
    bury(&store, vec![letter(2, "b")]).await;
}

#[tokio::test]
async fn all_closed_letters_past_their_retention_are_forgotten_however_many() {
    let (directory, hands) = (tempdir().unwrap(), Hands::new());
    let retention = Duration::from_secs(7 * 3_600);
    let config = SledConfig::new(directory.path()).with_clock(hands.clone()).with_retention(retention);
    let store = SledStore::open_with(config).await.unwrap();
    let letters: Vec<_> = (0..6_000).map(|n| letter(n, "x")).collect();
    bury(&store, letters.clone()).await;
    let ids: Vec<_> = letters.iter().map(DeadLetter::id).collect();
    assert!(store.resolve(&ids, &discarded()).await.unwrap().iter().all(|closed| *closed));
    hands.pass(retention + Duration::from_secs(1));
    for _ in 0..3 {
        store.size().await.unwrap();
    }
    // A letter that was forgotten is a new one when it is buried again.
    bury(&store, letters).await;
    let all = LetterQuery::default().with_limit(usize::MAX);
    assert_eq!(store.list(&all).await.unwrap().len(), 6_000);
}
