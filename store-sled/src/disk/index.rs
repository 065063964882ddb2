//! In-memory index of the events of a generation.
//!
//! It holds every event of its generation, so that a claim never reads the disk. Done events
//! outnumber all others by far; their entry is an id, a scope and a time.

use std::array;

use tidings_core::Timestamp;

use crate::codec::{EventKey, EventMap, NameId, State};

/// A growing map copies itself while all callers wait, so the index has several maps, which grow one by one.
const SHARDS: usize = 64;

/// The state that the journal of a generation yields.
///
/// Invariant: an event is in at most one of the maps.
#[derive(Debug)]
pub(crate) struct Index {
    /// Done events, nearly all, stored compactly.
    done: [EventMap<At>; SHARDS],
    /// Events that are claimed, or released with a history.
    open: EventMap<State>,
}

/// A time in milliseconds, as bytes to avoid alignment padding.
type At = [u8; 8];

impl Index {
    pub(crate) fn new() -> Self {
        Self { done: array::from_fn(|_| EventMap::default()), open: EventMap::default() }
    }

    /// Returns the state of an event; `None` if this generation does not know it.
    pub(crate) fn get(&self, key: EventKey) -> Option<State> {
        match self.done[shard_of(key)].get(&key) {
            Some(at) => Some(State::Done(time(*at))),
            None => self.open.get(&key).copied(),
        }
    }

    /// Changes the state of an event; `None` removes it.
    pub(crate) fn set(&mut self, key: EventKey, state: Option<State>) {
        let done = &mut self.done[shard_of(key)];
        match state {
            Some(State::Done(at)) => {
                done.insert(key, at.millis().to_ne_bytes());
                self.open.remove(&key);
            }
            state => {
                done.remove(&key);
                match state {
                    Some(state) => self.open.insert(key, state),
                    None => self.open.remove(&key),
                };
            }
        }
    }

    /// Returns the number of known events.
    pub(crate) fn len(&self) -> usize {
        self.open.len() + self.done.iter().map(EventMap::len).sum::<usize>()
    }

    /// Returns the number of done events of a shard; `None` if the shard does not exist.
    pub(crate) fn done_in(&self, shard: usize) -> Option<usize> {
        self.done.get(shard).map(EventMap::len)
    }

    /// Returns events of a scope in a shard that were done before `before`.
    ///
    /// In no particular order.
    pub(crate) fn done_before(
        &self,
        shard: usize,
        scope: NameId,
        before: Timestamp,
    ) -> impl Iterator<Item = EventKey> + '_ {
        let old = move |(key, at): &(&EventKey, &At)| key.scope == scope && time(**at) < before;
        self.done.get(shard).into_iter().flatten().filter(old).map(|(key, _)| *key)
    }
}

fn time(at: At) -> Timestamp {
    Timestamp::from_millis(i64::from_ne_bytes(at))
}

/// Returns the shard of an event, which never changes.
fn shard_of(key: EventKey) -> usize {
    // The end of an id is random, or derived from something random.
    usize::from(key.id.as_bytes()[15]) % SHARDS
}

#[cfg(test)]
mod tests {
    use tidings_core::History;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_last_state_counts() {
        let mut index = Index::new();
        let key = EventKey { scope: 1, id: Uuid::now_v7() };
        let (idle, done) = (State::Idle(History::new(1, 2)), State::Done(Timestamp::from_millis(-5)));
        for state in [Some(idle), Some(done), Some(idle), None, Some(done), None] {
            index.set(key, state);
            assert_eq!((index.get(key), index.len()), (state, usize::from(state.is_some())));
        }
    }

    #[test]
    fn done_events_are_found_by_scope_and_time() {
        let mut index = Index::new();
        let keys: Vec<_> = (0..200).map(|i| EventKey { scope: i % 2, id: Uuid::now_v7() }).collect();
        for (key, at) in keys.iter().zip(0..) {
            index.set(*key, Some(State::Done(Timestamp::from_millis(at))));
        }
        // An event at exactly this time is not older.
        let before = Timestamp::from_millis(101);
        let shards = (0..).take_while(|shard| index.done_in(*shard).is_some());
        let found = shards.flat_map(|shard| index.done_before(shard, 1, before)).collect::<Vec<_>>();
        assert_eq!(found.len(), 50);
        assert!(keys[..100].iter().filter(|key| key.scope == 1).all(|key| found.contains(key)));
    }

    #[test]
    fn done_events_are_spread_over_all_shards() {
        let mut index = Index::new();
        for id in 0..=255_u128 {
            index.set(EventKey { scope: 1, id: Uuid::from_u128(id) }, Some(State::Done(Timestamp::from_millis(1))));
        }
        assert_eq!((0..).map_while(|shard| index.done_in(shard)).collect::<Vec<_>>(), [4; SHARDS]);
    }

    #[test]
    fn a_done_event_takes_few_bytes() {
        assert!(size_of::<(EventKey, At)>() <= 26);
    }
}
