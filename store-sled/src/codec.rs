//! State of events and its encoding in a journal.
//!
//! A journal is a sequence of pieces, and a piece a sequence of runs. A run is a tag, a scope, the
//! new state, a count, and that many ids. A service claims and completes events in batches with one
//! lease and one time, so most of an event's entry is its id. All numbers are big-endian.
//!
//! The form is stored: a change needs another format number in the manifest.

use std::collections::HashMap;

use tidings_core::{History, Timestamp};
use uuid::Uuid;

/// Number of a name, assigned by the manifest.
pub(crate) type NameId = u16;

/// An event within a scope.
///
/// The same event has a separate state in each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EventKey {
    pub(crate) scope: NameId,
    pub(crate) id: Uuid,
}

/// A map keyed by event. Each event is looked up about nine times, for which std's hasher is slow; the seed is
/// random, since ids come from outside and must not be made to collide.
pub(crate) type EventMap<T> = HashMap<EventKey, T, foldhash::fast::RandomState>;

/// State of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Claimed by a lease, with its history.
    Claimed(Uuid, History),
    /// Not claimed, with its history.
    Idle(History),
    /// Handled, at this time.
    Done(Timestamp),
}

/// Tags of states in a run.
const CLAIMED: u8 = 1;
/// Bytes of an id.
const IDLE: u8 = 2;
const DONE: u8 = 3;
const FORGOTTEN: u8 = 4;

const ID: usize = 16;
/// Bytes of a history: crashes and attempts.
const HISTORY: usize = 8;

/// Common part of a run's changes: the scope and the new state; `None` if the events are forgotten.
type Head = (NameId, Option<State>);

/// Encodes changes in order, in pieces of bounded size. Adjacent changes with the same new state share its bytes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Pieces that have no more room.
    full: Vec<Vec<u8>>,
    /// The piece that is being written.
    piece: Vec<u8>,
    /// The last run of `piece`, and the position of its count.
    run: Option<(Head, usize)>,
}

impl Changes {
    /// Maximum size of a piece: sled keeps up to sixteen values in a page, and rewrites whole pages repeatedly.
    const PIECE: usize = 2 << 10;

    /// Appends a change; `None` forgets the event.
    pub(crate) fn push(&mut self, key: EventKey, state: Option<State>) {
        let head = (key.scope, state);
        if !self.joins_run(head) {
            self.begin_run(head);
        }
        self.piece.extend_from_slice(key.id.as_bytes());
    }

    /// Adds a change to the last run if it has the same head and there is room.
    fn joins_run(&mut self, head: Head) -> bool {
        let Some((last, at)) = self.run else { return false };
        if last != head || self.piece.len() + ID > Self::PIECE {
            return false;
        }
        let Some(count) = self.piece.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return false };
        *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
        true
    }

    /// Begins a run, in a new piece if even a single change would not fit.
    fn begin_run(&mut self, head: Head) {
        const LONGEST: usize = 1 + 2 + ID + HISTORY + 2;
        if self.piece.len() + LONGEST + ID > Self::PIECE {
            self.full.push(std::mem::take(&mut self.piece));
        }
        let (scope, state) = head;
        self.piece.push(match state {
            Some(State::Claimed(..)) => CLAIMED,
            Some(State::Idle(_)) => IDLE,
            Some(State::Done(_)) => DONE,
            None => FORGOTTEN,
        });
        self.piece.extend_from_slice(&scope.to_be_bytes());
        match state {
            Some(State::Claimed(lease, history)) => {
                self.piece.extend_from_slice(lease.as_bytes());
                push_history(&mut self.piece, history);
            }
            Some(State::Idle(history)) => push_history(&mut self.piece, history),
            Some(State::Done(at)) => self.piece.extend_from_slice(&at.millis().to_be_bytes()),
            None => {}
        }
        self.run = Some((head, self.piece.len()));
        self.piece.extend_from_slice(&1_u16.to_be_bytes());
    }

    /// Takes all pieces in order.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut pieces = std::mem::take(&mut self.full);
        if !self.piece.is_empty() {
            pieces.push(std::mem::take(&mut self.piece));
        }
        self.run = None;
        pieces
    }
}

/// Calls `change` for the changes of a piece, in order; `None` if it is malformed.
///
/// A piece that ends within a change is malformed as a whole, but the changes before it were
/// reported: the caller discards its index then.
pub(crate) fn replay(mut piece: &[u8], mut change: impl FnMut(EventKey, Option<State>)) -> Option<()> {
    while !piece.is_empty() {
        let tag = u8::from_be_bytes(cut(&mut piece)?);
        let scope = NameId::from_be_bytes(cut(&mut piece)?);
        let state = match tag {
            CLAIMED => Some(State::Claimed(Uuid::from_bytes(cut(&mut piece)?), cut_history(&mut piece)?)),
            IDLE => Some(State::Idle(cut_history(&mut piece)?)),
            DONE => Some(State::Done(Timestamp::from_millis(i64::from_be_bytes(cut(&mut piece)?)))),
            FORGOTTEN => None,
            _ => return None,
        };
        for _ in 0..u16::from_be_bytes(cut(&mut piece)?) {
            change(EventKey { scope, id: Uuid::from_bytes(cut(&mut piece)?) }, state);
        }
    }
    Some(())
}

/// Takes a fixed number of bytes off the front; `None` if there are fewer.
fn cut<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

fn cut_history(bytes: &mut &[u8]) -> Option<History> {
    Some(History::new(u32::from_be_bytes(cut(bytes)?), u32::from_be_bytes(cut(bytes)?)))
}

fn push_history(bytes: &mut Vec<u8>, history: History) {
    bytes.extend_from_slice(&history.crashes.to_be_bytes());
    bytes.extend_from_slice(&history.attempts.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: NameId) -> EventKey {
        EventKey { scope, id: Uuid::now_v7() }
    }

    fn replayed(pieces: &[Vec<u8>]) -> Vec<(EventKey, Option<State>)> {
        let mut changes = Vec::new();
        pieces.iter().for_each(|piece| replay(piece, |key, state| changes.push((key, state))).unwrap());
        changes
    }

    #[test]
    fn changes_survive_their_bytes_in_order() {
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        let states = [
            Some(State::Claimed(one, History::new(1, 2))),
            Some(State::Claimed(one, History::new(1, 2))),
            Some(State::Claimed(two, History::new(1, 2))),
            Some(State::Idle(History::new(3, u32::MAX))),
            Some(State::Done(Timestamp::from_millis(-5))),
            Some(State::Done(Timestamp::from_millis(-5))),
            None,
        ];
        let written: Vec<_> = (1..3).flat_map(|scope| states.map(|state| (key(scope), state))).collect();
        let mut changes = Changes::default();
        written.iter().for_each(|(key, state)| changes.push(*key, *state));
        assert_eq!(replayed(&changes.take()), written);
        assert!(changes.take().is_empty());
    }

    #[test]
    fn pieces_are_bounded_and_nothing_is_lost_between_them() {
        let states = [Some(State::Idle(History::new(1, 0))), Some(State::Done(Timestamp::from_millis(7)))];
        let written: Vec<_> = (0..5_000).map(|i| (key(513), states[usize::from(i % 700 < 3)])).collect();
        let mut changes = Changes::default();
        written.iter().for_each(|(key, state)| changes.push(*key, *state));
        let pieces = changes.take();
        assert!(pieces.iter().all(|piece| piece.len() <= Changes::PIECE));
        let (_, full) = pieces.split_last().unwrap();
        assert!(full.len() > 15 && full.iter().all(|piece| piece.len() > Changes::PIECE - 64), "they are filled");
        assert_eq!(replayed(&pieces), written);
    }

    #[test]
    fn foreign_bytes_are_no_piece() {
        let ignore = |_, _| {};
        assert_eq!(replay(&[9, 0, 0, 0, 1], ignore), None);
        assert_eq!(replay(&[DONE, 0, 0, 1], ignore), None);
        let mut changes = Changes::default();
        changes.push(key(1), None);
        let piece = changes.take().remove(0);
        assert_eq!(replay(&piece[..piece.len() - 1], ignore), None);
        assert_eq!(replay(&piece, ignore), Some(()));
    }
}
