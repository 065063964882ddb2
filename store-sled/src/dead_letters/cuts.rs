//! Commits of letters that are cut off half-way.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidings_core::{StoredRecord, TopicPartition};

use super::*;
use crate::disk::Cut;

const CACHE: u64 = 1 << 20;
const NOW: Timestamp = Timestamp::from_millis(7);
const LATER: Timestamp = Timestamp::from_millis(9);

fn new() -> (TempDir, PathBuf, Letters) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters");
    let letters = Letters::start(Table::create(&path, CACHE, NOW).unwrap()).unwrap();
    (directory, path, letters)
}

fn reopened(letters: Letters, path: &Path) -> Letters {
    drop(letters);
    Letters::start(Table::open(path, CACHE).unwrap()).unwrap()
}

fn letter(offset: u64, size: usize) -> DeadLetter {
    let record = StoredRecord::new(offset, NOW).with_value(vec![7; size]);
    DeadLetter::new("svc", TopicPartition::new("t", 2), record, ErrorKind::Failed)
}

fn bury(letters: &mut Letters, buried: &[DeadLetter]) {
    buried.iter().for_each(|letter| letters.bury(letter, u64::MAX).unwrap().unwrap());
}

fn resolve(letters: &mut Letters, closed: &[DeadLetter]) {
    let by = Resolution::redriven("ann");
    for letter in closed {
        letters.resolve(&letter.id(), &by, NOW).unwrap();
    }
}

fn listed(letters: &Letters) -> Vec<DeadLetter> {
    letters.list(&LetterQuery::default(), 0, usize::MAX).unwrap().letters
}

/// Commits each key in a separate batch, of which `batches` become durable. Returns whether that was all.
fn commit_cut(letters: &mut Letters, batches: usize) -> bool {
    letters.table.cut(Cut { keys: 1, batches });
    letters.commit(NOW).is_ok()
}

/// Cuts a commit off after each number of keys: prepares new letters, whose last changes are not committed, and checks
/// them once they are opened again. The text names the cut.
fn cut_anywhere(prepare: impl Fn(&mut Letters), check: impl Fn(Letters, &Path, &str)) {
    for cut in 0.. {
        let (_directory, path, mut letters) = new();
        prepare(&mut letters);
        let whole = commit_cut(&mut letters, cut);
        check(reopened(letters, &path), &path, &format!("after {cut} keys"));
        if whole {
            break;
        }
    }
}

fn committed(letters: &mut Letters, change: impl FnOnce(&mut Letters)) {
    change(letters);
    letters.commit(NOW).unwrap();
}

fn entries(letters: &Letters, prefix: u8) -> usize {
    letters.table.scan(vec![prefix], vec![prefix]).count()
}

#[test]
fn letters_whose_second_batch_failed_can_be_buried_again() {
    let many: Vec<_> = (0..100).map(|offset| letter(offset, 2 << 10)).collect();
    for buried in [many, vec![letter(1, 100 << 10)]] {
        let (_directory, path, mut letters) = new();
        bury(&mut letters, &buried);
        letters.table.cut(Cut { keys: 500, batches: 1 });
        letters.commit(NOW).unwrap_err();
        letters = reopened(letters, &path);
        bury(&mut letters, &buried);
        letters.commit(NOW).unwrap();
        let mut found = listed(&letters);
        found.sort_by_key(|letter| letter.record.offset);
        assert!(found == buried, "{} of {}", found.len(), buried.len());
    }
}

#[test]
fn letters_whose_second_batch_failed_can_be_closed_again() {
    let many: Vec<_> = (0..600).map(|offset| letter(offset, 1)).collect();
    for buried in [many, vec![letter(1, 100 << 10)]] {
        let (_directory, path, mut letters) = new();
        bury(&mut letters, &buried);
        letters.commit(NOW).unwrap();
        resolve(&mut letters, &buried);
        letters.table.cut(Cut { keys: 500, batches: 1 });
        letters.commit(NOW).unwrap_err();
        letters = reopened(letters, &path);
        resolve(&mut letters, &buried);
        letters.commit(NOW).unwrap();
        bury(&mut letters, &buried);
        letters.commit(NOW).unwrap();
        assert!(listed(&letters).is_empty());
        assert_eq!((letters.open, entries(&letters, CLOSED)), (0, buried.len()));
    }
}

#[test]
fn a_burying_cut_off_anywhere_leaves_whole_letters_or_none() {
    let buried = [letter(1, 9 << 10), letter(2, 1)];
    cut_anywhere(
        |letters| bury(letters, &buried),
        |mut letters, _, cut| {
            let found = listed(&letters);
            assert!(buried.starts_with(&found), "{cut}");
            assert_eq!(letters.open, found.len() as u64, "{cut}");
            committed(&mut letters, |letters| bury(letters, &buried));
            assert_eq!(listed(&letters), buried, "{cut}");
        },
    );
}

#[test]
fn a_closing_cut_off_anywhere_is_done_or_not() {
    let buried = [letter(1, 9 << 10), letter(2, 1)];
    cut_anywhere(
        |letters| {
            committed(letters, |letters| bury(letters, &buried));
            resolve(letters, &buried);
        },
        |mut letters, _, cut| {
            let open = listed(&letters);
            assert!(buried.ends_with(&open), "{cut}");
            let closed = buried.len() - open.len();
            assert_eq!(entries(&letters, CLOSED), closed, "{cut}: what is closed will be forgotten");
            assert_eq!(letters.open, open.len() as u64, "{cut}");
            committed(&mut letters, |letters| resolve(letters, &buried));
            bury(&mut letters, &buried);
            assert_eq!(listed(&letters), [], "{cut}");
            letters.forget_closed(LATER).unwrap();
            letters.commit(NOW).unwrap();
            assert_eq!(letters.table.entries(), 0, "{cut}");
        },
    );
}

#[test]
fn a_burying_closed_before_it_was_durable_is_listed_never() {
    let buried = [letter(1, 9 << 10)];
    cut_anywhere(
        |letters| {
            bury(letters, &buried);
            resolve(letters, &buried);
        },
        |letters, _, cut| {
            assert_eq!(listed(&letters), [], "{cut}");
            assert_eq!(entries(&letters, CLOSED), entries(&letters, IDENTITY), "{cut}");
        },
    );
}

#[test]
fn a_forgetting_cut_off_anywhere_takes_no_letter_that_is_buried_anew() {
    let buried = [letter(1, 9 << 10), letter(2, 1)];
    cut_anywhere(
        |letters| {
            committed(letters, |letters| bury(letters, &buried));
            committed(letters, |letters| resolve(letters, &buried));
            letters.forget_closed(LATER).unwrap();
        },
        |mut letters, path, cut| {
            committed(&mut letters, |letters| bury(letters, &buried));
            let open = listed(&letters);
            letters.forget_closed(LATER).unwrap();
            letters.commit(NOW).unwrap();
            assert_eq!(entries(&letters, CLOSED), 0, "{cut}");
            letters = reopened(letters, path);
            assert_eq!(listed(&letters), open, "{cut}");
            assert_eq!(letters.open, open.len() as u64, "{cut}");
        },
    );
}
