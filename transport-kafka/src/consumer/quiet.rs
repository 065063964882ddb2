//! Partitions that return nothing although they have records.
//!
//! The client retries a fetch silently, whatever the broker's answer, and also when the broker closes its connection.
//! So the leaders of partitions that made no progress for a while are queried directly, over the member's connection.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_core::{Error, ErrorKind, Result, TopicPartition};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::fetched::{Lane, Seat, Want};
use super::slot::Stage;
use super::state::State;
use super::{Shared, unreadable};
use crate::client::admin::Asks;
use crate::client::peek::{ONE_BATCH, Peeked};
use crate::client::reader::Bad;
use crate::error::is_refused_fetch;

/// Interval between checks of partitions.
const EVERY: Duration = Duration::from_secs(3);
/// How many consecutive checks must agree: leaders change, brokers start, and connections are closed and reopened.
const LOOKS: u32 = 3;
/// How many polls must end without a record before a reader counts as cut off.
const POLLS: u64 = 2;

/// A partition being read, and its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    ticket: u64,
    from: u64,
    seat: Seat,
    /// Number of polls that its reader completed.
    polls: u64,
}

/// A partition that has not moved since it was first seen there.
#[derive(Debug)]
struct Seen {
    sight: Sight,
    /// Number of consecutive checks in which the broker refused the fetch.
    refused: u32,
    /// Number of consecutive checks in which there were records.
    ahead: u32,
}

impl Seen {
    fn at(sight: Sight) -> Self {
        Self { sight, refused: 0, ahead: 0 }
    }
}

/// Results of earlier checks.
#[derive(Debug, Default)]
struct Quiet {
    seen: HashMap<TopicPartition, Seen>,
    looks: usize,
}

/// Consequence of a check.
#[derive(Debug)]
enum Finding {
    /// The partition cannot be read.
    Refused(Want, Error),
    /// The right to read it is missing.
    Denied(Error),
}

/// Checks partitions that return nothing, until it is aborted.
pub(super) async fn watch(shared: Arc<Shared>, asks: Asks) {
    let asks = asks.within(EVERY);
    let mut quiet = Quiet::default();
    loop {
        sleep(EVERY).await;
        let sights = shared.lock().sights();
        let places = quiet.look(sights);
        let asked = places.iter().map(|(broker, places)| asks.peek(*broker, places, ONE_BATCH));
        for answers in join_all(asked).await {
            let answers = answers.unwrap_or_else(|error| {
                debug!(error = error.report(), "quiet partitions can't be looked at");
                HashMap::new()
            });
            for (partition, answer) in answers {
                match quiet.judge(&partition, answer) {
                    Some(Finding::Refused(want, error)) => hold(&shared, &asks, &quiet, want, error).await,
                    Some(Finding::Denied(error)) => shared.change(|state| state.trouble = Some(error)),
                    None => {}
                }
            }
        }
        // Not in the loop's head, where the lock would be held throughout.
        let now = shared.lock().sights();
        for seat in quiet.cut_off(&now) {
            shut(&shared, seat);
        }
    }
}

async fn hold(shared: &Shared, asks: &Asks, quiet: &Quiet, want: Want, cause: Error) {
    let Some(seen) = quiet.seen.get(&want.partition) else { return };
    let (partition, offset) = (want.partition.clone(), want.from);
    // An error that would be retried is beyond retries here.
    let kind = if cause.is_retryable() { ErrorKind::Undecodable } else { cause.kind() };
    let error = Error::caused_by(kind, format!("cannot read the batch of {partition} at offset {offset}"), cause);
    unreadable::hold(shared, asks, seen.sight.seat.broker, &want, Bad { partition, offset, error }).await;
}

/// Moves a reader's partitions to another reader of the same broker.
fn shut(shared: &Shared, seat: Seat) {
    if let Some(moved) = shared.change(|state| state.shut(seat)) {
        warn!(
            broker = seat.broker,
            reader = ?seat.lane,
            partitions = moved,
            "a broker does not answer one of a reader's connections; its partitions share another one, which is slower, until the consumer is opened again: check the broker's limits of connections"
        );
    }
}

impl Quiet {
    /// Records the positions of partitions; returns, by leader, those that have not moved since the last check.
    fn look(&mut self, sights: HashMap<TopicPartition, Sight>) -> HashMap<i32, Vec<(TopicPartition, u64)>> {
        let stayed = |seen: &Seen, now: &Sight| seen.sight.ticket == now.ticket && seen.sight.from == now.from;
        let moved = |(partition, now): (&TopicPartition, &Sight)| {
            let before = self.seen.get(partition)?;
            (before.sight.ticket == now.ticket && before.sight.from != now.from).then_some(now.seat)
        };
        let lively: HashSet<Seat> = sights.iter().filter_map(moved).collect();
        let mut places: HashMap<i32, Vec<(TopicPartition, u64)>> = HashMap::new();
        let mut next = HashMap::new();
        for (partition, now) in sights {
            let before = self.seen.remove(&partition).filter(|seen| stayed(seen, &now));
            if before.is_some() {
                places.entry(now.seat.broker).or_default().push((partition.clone(), now.from));
            }
            let mut seen = before.unwrap_or_else(|| Seen::at(now.clone()));
            if lively.contains(&now.seat) {
                // The reader works, but reads other partitions first.
                seen = Seen { ahead: 0, sight: now, ..seen };
            }
            next.insert(partition, seen);
        }
        self.seen = next;
        self.looks = self.looks.wrapping_add(1);
        for places in places.values_mut() {
            // The answer has a single batch: each partition gets its turn.
            places.sort_unstable();
            let turn = self.looks % places.len();
            places.rotate_left(turn);
        }
        places
    }

    /// Evaluates a leader's answer for a partition that has not moved.
    fn judge(&mut self, partition: &TopicPartition, answer: Result<Peeked>) -> Option<Finding> {
        let seen = self.seen.get_mut(partition)?;
        let (refused, ahead) = (seen.refused + 1, seen.ahead + 1);
        (seen.refused, seen.ahead) = (0, 0);
        match answer {
            Ok(peeked) if peeked.end > seen.sight.from => seen.ahead = ahead,
            Err(error) if error.kind() == ErrorKind::Denied => return Some(Finding::Denied(error)),
            Err(error) if is_refused_fetch(&error) => {
                seen.refused = refused;
                let Sight { ticket, from, .. } = seen.sight;
                let want = Want { partition: partition.clone(), ticket, from, held: false };
                return (refused >= LOOKS).then_some(Finding::Refused(want, error));
            }
            _ => {}
        }
        None
    }

    /// Returns the readers that return nothing for any of their partitions, although there are records.
    fn cut_off(&self, now: &HashMap<TopicPartition, Sight>) -> HashSet<Seat> {
        let is_cut_off = |(partition, seen): (&TopicPartition, &Seen)| {
            let now = now.get(partition)?;
            let stays = now.ticket == seen.sight.ticket && now.from == seen.sight.from;
            let polled = now.polls.saturating_sub(seen.sight.polls) >= POLLS;
            (stays && polled && seen.ahead >= LOOKS).then_some(now.seat)
        };
        self.seen.iter().filter_map(is_cut_off).collect()
    }
}

impl State {
    /// Returns the partitions being read.
    fn sights(&self) -> HashMap<TopicPartition, Sight> {
        let reads = self.slots.iter().filter(|(partition, slot)| {
            let free = slot.stuck.is_none() && !self.paused.contains(*partition);
            free && slot.stage == Stage::Reading && slot.ticket != 0
        });
        let sight = reads.filter_map(|(partition, slot)| {
            let seat = self.seat(slot)?;
            let polls = self.polls.get(&seat).copied().unwrap_or(0);
            Some((partition.clone(), Sight { ticket: slot.ticket, from: slot.fetched, seat, polls }))
        });
        sight.collect()
    }

    /// Counts a completed poll of this reader.
    pub(super) fn polled(&mut self, seat: Seat) {
        *self.polls.entry(seat).or_default() += 1;
    }

    /// Stops using this reader, if another one can take its partitions. Returns how many partitions move.
    fn shut(&mut self, seat: Seat) -> Option<usize> {
        let mut shut = self.shut.clone();
        if !shut.insert(seat) || open(&shut, self.seconds, seat) == seat {
            return None;
        }
        let moves: HashSet<TopicPartition> = {
            let of = self.slots.iter().filter(|(_, slot)| self.seat(slot) == Some(seat));
            of.map(|(partition, _)| partition.clone()).collect()
        };
        self.shut = shut;
        for slot in self.slots.values_mut().filter(|slot| slot.ticket != 0 && moves.contains(&*slot.origin)) {
            self.tickets += 1;
            slot.ticket = self.tickets;
        }
        self.plan += 1;
        Some(moves.len())
    }
}

/// Returns the seat to use in place of this one, or this one if no other is open.
pub(super) fn open(shut: &HashSet<Seat>, seconds: bool, seat: Seat) -> Seat {
    let others = [Lane::First, Lane::Second].into_iter().filter(|lane| *lane == Lane::First || seconds);
    let lanes = std::iter::once(seat.lane).chain(others);
    let mut open = lanes.map(|lane| Seat { lane, ..seat }).filter(|seat| !shut.contains(seat));
    open.next().unwrap_or(seat)
}

#[cfg(test)]
mod tests {
    use krafka::KrafkaError;
    use krafka::error::ErrorCode;

    use super::*;
    use crate::error::failed;

    const FIRST: Seat = Seat { broker: 1, lane: Lane::First };
    const SECOND: Seat = Seat { broker: 1, lane: Lane::Second };

    fn at(partition: u32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn sights(polls: u64, each: &[(u32, u64, Seat)]) -> HashMap<TopicPartition, Sight> {
        each.iter().map(|(p, from, seat)| (at(*p), Sight { ticket: 1, from: *from, seat: *seat, polls })).collect()
    }

    fn ahead() -> Result<Peeked> {
        Ok(Peeked { end: 9, high: 9, batch: None, behind: None })
    }

    fn refused(code: ErrorCode) -> Result<Peeked> {
        Err(failed("read", KrafkaError::broker(code, "no")))
    }

    #[test]
    fn what_moves_is_left_alone() {
        let mut quiet = Quiet::default();
        assert!(quiet.look(sights(0, &[(0, 5, FIRST), (1, 5, FIRST)])).is_empty());
        assert_eq!(quiet.look(sights(0, &[(0, 6, FIRST), (1, 5, FIRST)])), [(1, vec![(at(1), 5)])].into());
        assert!(quiet.look(sights(0, &[(0, 7, FIRST)])).is_empty());
    }

    #[test]
    fn a_refusal_that_stays_is_found() {
        let mut quiet = Quiet::default();
        for (code, found) in [(ErrorCode::CorruptMessage, true), (ErrorCode::NotLeaderForPartition, false)] {
            let mut last = None;
            for _ in 0..LOOKS {
                quiet.look(sights(0, &[(0, 5, FIRST)]));
                assert!(last.is_none(), "too early");
                last = quiet.judge(&at(0), refused(code));
            }
            assert_eq!(matches!(last, Some(Finding::Refused(Want { from: 5, ticket: 1, .. }, _))), found, "{code:?}");
        }
        let denied = quiet.judge(&at(0), refused(ErrorCode::TopicAuthorizationFailed));
        assert!(matches!(denied, Some(Finding::Denied(_))), "{denied:?}");
    }

    #[test]
    fn a_reader_that_brings_nothing_is_cut_off() {
        let mut quiet = Quiet::default();
        quiet.look(sights(0, &[(0, 5, FIRST), (1, 5, SECOND)]));
        for look in 1..=LOOKS {
            let now = sights(u64::from(look), &[(0, 5 + u64::from(look), FIRST), (1, 5, SECOND)]);
            quiet.look(now.clone());
            assert!(quiet.cut_off(&now).is_empty(), "too early: {look}");
            assert!(quiet.judge(&at(1), ahead()).is_none());
        }
        assert_eq!(quiet.cut_off(&sights(9, &[(1, 5, SECOND)])), [SECOND].into());
        assert!(quiet.cut_off(&sights(1, &[(1, 5, SECOND)])).is_empty(), "it is still busy with one poll");
        assert!(quiet.cut_off(&sights(9, &[(1, 6, SECOND)])).is_empty(), "it moved meanwhile");
    }

    #[test]
    fn a_reader_that_is_busy_with_others_is_not_cut_off() {
        let mut quiet = Quiet::default();
        for look in 0..9 {
            let now = sights(look, &[(0, 5 + look, FIRST), (1, 5, FIRST)]);
            quiet.look(now.clone());
            assert!(quiet.judge(&at(1), ahead()).is_none());
            assert!(quiet.cut_off(&now).is_empty());
        }
    }

    #[test]
    fn another_reader_takes_over() {
        let mut shut = HashSet::from([SECOND]);
        assert_eq!(open(&shut, true, SECOND), FIRST);
        assert_eq!(open(&shut, true, FIRST), FIRST);
        assert_eq!(open(&HashSet::from([FIRST]), true, FIRST), SECOND);
        shut.insert(FIRST);
        assert_eq!(open(&shut, true, FIRST), FIRST, "there is none");
    }
}
