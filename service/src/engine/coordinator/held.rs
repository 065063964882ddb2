//! The holds of an assignment: it cannot be read on, or a dead letter cannot be written.

use std::collections::BTreeMap;

use crate::status::{Hold, PauseReason};

/// The holds of an assignment.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The range that cannot be read.
    unreadable: Option<Hold>,
    /// Records whose dead letters could not be written, by offset.
    letters: BTreeMap<u64, String>,
}

impl Held {
    /// Returns whether reading has stopped here.
    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Returns the offset from which on records cannot be read.
    pub(super) fn unreadable_from(&self) -> Option<u64> {
        self.unreadable.as_ref().map(|hold| hold.offset)
    }

    /// Holds the partition at a range that cannot be read.
    pub(super) fn hold(&mut self, offset: u64, next_offset: Option<u64>, cause: String) {
        self.unreadable = Some(Hold { reason: PauseReason::Unreadable, offset, next_offset, cause });
    }

    /// Records that records up to `next` arrived: a range before that is readable again.
    pub(super) fn read_on(&mut self, next: u64) {
        self.unreadable.take_if(|hold| hold.offset < next);
    }

    /// Records that the dead letter of the record at `offset` could not be written.
    pub(super) fn unburied(&mut self, offset: u64, error: String) {
        self.letters.insert(offset, error);
    }

    /// Records that the record at `offset` is settled.
    pub(super) fn settled(&mut self, offset: u64) {
        self.letters.remove(&offset);
    }

    /// Returns all holds, by offset.
    pub(super) fn all(&self) -> Vec<Hold> {
        let letter = |(offset, cause): (&u64, &String)| Hold {
            reason: PauseReason::DeadLetters,
            offset: *offset,
            next_offset: Some(offset + 1),
            cause: cause.clone(),
        };
        self.letters.iter().map(letter).chain(self.unreadable.clone()).collect()
    }

    /// Returns why the partition cannot be read on, if it cannot.
    pub(super) fn problem(&self) -> Option<String> {
        let hold = self.unreadable.as_ref()?;
        let until = hold.next_offset.map_or_else(String::new, |next| format!(" to {}", next.saturating_sub(1)));
        Some(format!("offset {}{until} cannot be read, the partition is held there: {}", hold.offset, hold.cause))
    }
}
