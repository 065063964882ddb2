//! A generation: events written within one part of the retention.
//!
//! The journal is only appended to, and replayed into the index when the store is opened. It is
//! never compacted: a generation is dropped whole once its youngest entry is past the retention.

use std::path::Path;

use tidings_core::Timestamp;

use super::index::Index;
use super::table::Table;
use crate::codec::{Changes, EventKey, State, replay};
use crate::error::{Broken, Result};

/// Prefix of all keys of a journal, followed by the number of the piece.
const PIECE: u8 = b'j';

/// A journal of event states in a table, and the resulting index in memory.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Its number in the name of its directory; never used again.
    pub(crate) number: u64,
    /// When it became the current one. It ends when the next one begins.
    pub(crate) began: Timestamp,
    pub(crate) table: Table,
    index: Index,
    /// Changes that are in the index but not yet in the table.
    changes: Changes,
    /// The number of the next piece.
    next: u64,
}

impl Generation {
    /// Creates an empty generation that is in no manifest yet.
    pub(crate) fn create(number: u64, path: &Path, cache: u64, now: Timestamp) -> Result<Self> {
        let table = Table::create(path, cache, now)?;
        Ok(Self { number, began: now, table, index: Index::new(), changes: Changes::default(), next: 0 })
    }

    /// Opens a generation and replays its journal.
    ///
    /// # Errors
    /// [`Corrupt`](tidings_core::ErrorKind::Corrupt) if the table is incomplete or a piece is
    /// malformed.
    pub(crate) fn open(number: u64, began: Timestamp, path: &Path, cache: u64) -> Result<Self> {
        let table = Table::open(path, cache)?;
        let mut index = Index::new();
        let mut next = 0;
        for item in table.scan(vec![PIECE], vec![PIECE]) {
            let (key, piece) = item?;
            // The table's seal proves that none is missing.
            next = number_in(&key).map_or(next, |number| number + 1);
            let replayed = replay(&piece, |key, state| index.set(key, state));
            replayed.ok_or_else(|| Broken::corrupt(path, "an entry of the journal is malformed"))?;
        }
        Ok(Self { number, began, table, index, changes: Changes::default(), next })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Changes the state of an event, with the next [`commit`](Self::commit).
    ///
    /// The index changes at once, so that later calls of the same commit see it.
    pub(crate) fn set(&mut self, key: EventKey, state: Option<State>) {
        self.index.set(key, state);
        self.changes.push(key, state);
    }

    /// Makes all changes durable.
    pub(crate) fn commit(&mut self, now: Timestamp) -> Result<()> {
        for piece in self.changes.take() {
            let key = [&[PIECE][..], &self.next.to_be_bytes()].concat();
            self.next += 1;
            self.table.put(key, Some(piece));
        }
        self.table.commit(now)
    }
}

/// Returns the number of a piece from its key.
fn number_in(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|number| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use tidings_core::History;
    use uuid::Uuid;

    use super::*;

    const CACHE: u64 = 1 << 20;

    fn reopened(generation: Generation, path: &Path) -> Generation {
        let (number, began) = (generation.number, generation.began);
        generation.table.close().unwrap();
        Generation::open(number, began, path, CACHE).unwrap()
    }

    #[test]
    fn the_last_state_of_each_event_is_there_after_each_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let now = Timestamp::from_millis(7);
        let mut generation = Generation::create(3, &path, CACHE, now).unwrap();
        let keys: Vec<_> = (0..1_500).map(|i| EventKey { scope: i % 2, id: Uuid::now_v7() }).collect();
        let states = [
            None,
            Some(State::Claimed(Uuid::now_v7(), History::new(1, 0))),
            Some(State::Idle(History::new(1, 2))),
            Some(State::Done(now)),
        ];
        for round in 0..states.len() {
            for (place, key) in keys.iter().enumerate() {
                generation.set(*key, states[(round + place) % states.len()]);
            }
            generation.commit(now).unwrap();
            generation = reopened(generation, &path);
            let found = keys.iter().map(|key| generation.index().get(*key));
            assert!(found.enumerate().all(|(place, found)| found == states[(round + place) % states.len()]));
            assert_eq!(generation.index().len(), keys.len() / states.len() * 3);
        }
    }

    #[test]
    fn a_journal_that_is_opened_again_goes_on_behind_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let now = Timestamp::from_millis(7);
        let mut generation = Generation::create(0, &path, CACHE, now).unwrap();
        let keys: Vec<_> = (0..3).map(|scope| EventKey { scope, id: Uuid::now_v7() }).collect();
        for key in &keys {
            generation.set(*key, Some(State::Done(now)));
            generation.commit(now).unwrap();
            generation = reopened(generation, &path);
        }
        assert!(keys.iter().all(|key| generation.index().get(*key) == Some(State::Done(now))));
    }

    #[test]
    fn what_was_not_committed_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let key = EventKey { scope: 1, id: Uuid::now_v7() };
        let mut generation = Generation::create(0, &path, CACHE, Timestamp::from_millis(1)).unwrap();
        generation.set(key, Some(State::Done(Timestamp::from_millis(2))));
        assert_eq!(reopened(generation, &path).index().get(key), None);
    }
}
