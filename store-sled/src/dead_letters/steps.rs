//! Steps of listings, limits and times of letters.

use tempfile::TempDir;
use tidings_core::{StoredRecord, TopicPartition};

use super::*;

const CACHE: u64 = 1 << 20;
const NOW: Timestamp = Timestamp::from_millis(7);

fn letters() -> (TempDir, Letters) {
    let directory = tempfile::tempdir().unwrap();
    let table = Table::create(&directory.path().join("letters"), CACHE, NOW).unwrap();
    (directory, Letters::start(table).unwrap())
}

fn letter(offset: u64, size: usize) -> DeadLetter {
    let record = StoredRecord::new(offset, NOW).with_value(vec![7; size]);
    DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Failed)
}

/// Buries letters of a size, committed, and returns their identities.
fn buried(letters: &mut Letters, count: u64, size: usize) -> BTreeSet<LetterId> {
    let all: Vec<_> = (0..count).map(|offset| letter(offset, size)).collect();
    all.iter().for_each(|letter| letters.bury(letter, u64::MAX).unwrap().unwrap());
    letters.commit(NOW).unwrap();
    all.iter().map(DeadLetter::id).collect()
}

/// Returns the number of letters in each step of a listing, with the number from which the next step continues.
fn steps(letters: &Letters, query: &LetterQuery, limit: usize) -> Vec<(usize, Option<u64>)> {
    let (mut steps, mut from) = (Vec::new(), Some(0));
    while let Some(number) = from {
        let page = letters.list(query, number, limit).unwrap();
        steps.push((page.letters.len(), page.next));
        from = page.next;
    }
    steps
}

#[test]
fn a_step_of_a_listing_is_bounded_by_its_limit_and_by_letters() {
    let (_directory, mut letters) = letters();
    let ids = buried(&mut letters, 2_001, 1);
    let all = LetterQuery::default();
    for query in [all.clone(), all.with_ids(ids)] {
        assert_eq!(steps(&letters, &query, 5_000), [(1_000, Some(1_000)), (1_000, Some(2_000)), (1, None)]);
        assert_eq!(steps(&letters, &query, 900), [(900, Some(900)), (900, Some(1_800)), (201, None)]);
        let none = query.with_service("other");
        assert_eq!(steps(&letters, &none, 1), [(0, Some(1_000)), (0, Some(2_000)), (0, None)]);
    }
}

#[test]
fn a_step_of_a_listing_is_bounded_by_bytes() {
    let (_directory, mut letters) = letters();
    let ids = buried(&mut letters, 6, 1 << 20);
    let all = LetterQuery::default();
    for query in [all.clone(), all.with_ids(ids)] {
        assert_eq!(steps(&letters, &query, 9), [(4, Some(4)), (2, None)]);
    }
}

#[test]
fn an_identity_is_bounded_as_a_whole() {
    let (_directory, mut letters) = letters();
    // An identity takes 17 bytes in addition to its names.
    for (length, fits) in [(1_031, true), (1_032, false)] {
        let origin = TopicPartition::new("t".repeat(length), 0);
        let letter = DeadLetter::new("s".repeat(1_000), origin, StoredRecord::new(1, NOW), ErrorKind::Failed);
        let answer = letters.bury(&letter, u64::MAX).unwrap();
        assert_eq!(answer.map_err(|error| error.kind()), if fits { Ok(()) } else { Err(ErrorKind::TooLarge) });
    }
}

#[test]
fn a_closed_letter_is_forgotten_after_its_time_alone() {
    let (_directory, mut letters) = letters();
    let ids = buried(&mut letters, 1, 1);
    for id in &ids {
        assert!(letters.resolve(id, &Resolution::redriven("ann"), NOW).unwrap());
    }
    letters.commit(NOW).unwrap();
    for (oldest, entries) in [(NOW, 2), (Timestamp::from_millis(8), 0)] {
        assert!(!letters.forget_closed(oldest).unwrap());
        letters.commit(NOW).unwrap();
        assert_eq!(letters.table.entries(), entries, "at {oldest}");
    }
}
