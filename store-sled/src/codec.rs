//! Keys and values as they lie in the tables of events.

use tidings_core::{History, Timestamp};
use uuid::Uuid;

/// A name's number: see [`Names`](crate::disk::Names).
pub(crate) type NameId = u16;

const EVENT: u8 = b'e';
const CLAIMED: u8 = 1;
const IDLE: u8 = 2;
const DONE: u8 = 3;

/// An event within a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EventKey {
    pub(crate) scope: NameId,
    pub(crate) id: Uuid,
}

impl EventKey {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = scope_prefix(self.scope);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes
    }
}

/// What all keys of a scope begin with.
pub(crate) fn scope_prefix(scope: NameId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(19);
    bytes.push(EVENT);
    bytes.extend_from_slice(&scope.to_be_bytes());
    bytes
}

/// What is known about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) event_type: NameId,
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Taken by a holder, with what happened before.
    Claimed(Uuid, History),
    /// Taken by nobody, with what happened before.
    Idle(History),
    /// Handled, at this time.
    Done(Timestamp),
}

impl Entry {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(27);
        let tag = match self.state {
            State::Claimed(..) => CLAIMED,
            State::Idle(_) => IDLE,
            State::Done(_) => DONE,
        };
        bytes.push(tag);
        bytes.extend_from_slice(&self.event_type.to_be_bytes());
        match self.state {
            State::Claimed(holder, history) => {
                bytes.extend_from_slice(holder.as_bytes());
                push_history(&mut bytes, history);
            }
            State::Idle(history) => push_history(&mut bytes, history),
            State::Done(at) => bytes.extend_from_slice(&at.millis().to_be_bytes()),
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let (event_type, rest) = rest.split_first_chunk()?;
        let state = match *tag {
            CLAIMED => {
                let (holder, rest) = rest.split_first_chunk()?;
                State::Claimed(Uuid::from_bytes(*holder), history(rest)?)
            }
            IDLE => State::Idle(history(rest)?),
            DONE => State::Done(Timestamp::from_millis(i64::from_be_bytes(rest.try_into().ok()?))),
            _ => return None,
        };
        Some(Self { event_type: NameId::from_be_bytes(*event_type), state })
    }
}

fn push_history(bytes: &mut Vec<u8>, history: History) {
    bytes.extend_from_slice(&history.deaths.to_be_bytes());
    bytes.extend_from_slice(&history.attempts.to_be_bytes());
}

fn history(bytes: &[u8]) -> Option<History> {
    let (deaths, rest) = bytes.split_first_chunk()?;
    Some(History::new(u32::from_be_bytes(*deaths), u32::from_be_bytes(rest.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_bytes() {
        let states = [
            State::Claimed(Uuid::now_v7(), History::new(1, 2)),
            State::Idle(History::new(3, u32::MAX)),
            State::Done(Timestamp::from_millis(-5)),
        ];
        for state in states {
            let entry = Entry { event_type: 513, state };
            assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        }
    }

    #[test]
    fn foreign_bytes_are_no_entry() {
        assert_eq!(Entry::from_bytes(&[]), None);
        assert_eq!(Entry::from_bytes(&[9, 0, 0, 1]), None);
        assert_eq!(Entry::from_bytes(&[DONE, 0, 0, 1]), None);
    }
}
