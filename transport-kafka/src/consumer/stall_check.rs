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

use super::assigned::Stage;
use super::fetch_buffer::{FetchTarget, FetcherId, FetcherKind};
use super::state::State;
use super::{Shared, unreadable};
use crate::client::admin::ClusterClient;
use crate::client::fetcher::UnreadableBatch;
use crate::client::peek::{ONE_BATCH, Peeked};
use crate::error::is_refused_fetch;

/// Interval between checks of partitions.
const CHECK_EVERY: Duration = Duration::from_secs(3);
/// How many consecutive checks must agree: leaders change, brokers start, and connections are closed and reopened.
const CHECKS: u32 = 3;
/// The same for records that a fetcher does not return, where it may read from a follower in its rack: that may lag
/// behind the leader, which is asked, for `replica.lag.time.max.ms` (30 s by default) before it is no longer used.
const CHECKS_WITH_RACK: u32 = 12;
/// How many polls must end without a record before a fetcher counts as cut off.
const POLLS: u64 = 2;

/// A partition being read, and its progress.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    ticket: u64,
    /// Next offset to fetch.
    from: u64,
    fetcher: FetcherId,
    /// Number of polls that its fetcher completed.
    polls: u64,
}

/// A partition that has not moved since it was first seen there.
///
/// It is forgotten as soon as it moves, is paused or leaves.
#[derive(Debug)]
struct QuietPartition {
    observation: Observation,
    /// Number of consecutive checks in which the broker refused the fetch.
    refused: u32,
    /// Number of consecutive checks in which there were records.
    ahead: u32,
}

impl QuietPartition {
    fn at(observation: Observation) -> Self {
        Self { observation, refused: 0, ahead: 0 }
    }
}

/// Results of earlier checks.
#[derive(Debug)]
struct StallCheck {
    /// Partitions by their last observation.
    seen: HashMap<TopicPartition, QuietPartition>,
    /// Number of checks; it decides which partition is first in a request.
    checks: usize,
    /// How many consecutive checks must find records that a fetcher does not return.
    needed: u32,
}

/// Consequence of a check.
///
/// A healthy partition that is only empty leads to none.
#[derive(Debug)]
enum Finding {
    /// The partition cannot be read.
    Refused(FetchTarget, Error),
    /// The right to read it is missing.
    Denied(Error),
}

/// Checks partitions that return nothing, until it is aborted.
///
/// `has_rack` is whether fetchers may read from followers. Each broker is asked once per check, for all of its quiet
/// partitions.
pub(super) async fn watch(shared: Arc<Shared>, cluster: ClusterClient, has_rack: bool) {
    let cluster = cluster.within(CHECK_EVERY);
    let mut stall_check = StallCheck::new(has_rack);
    loop {
        sleep(CHECK_EVERY).await;
        let observations = shared.lock().observations();
        let targets = stall_check.observe(observations);
        let asked = targets.iter().map(|(broker, targets)| cluster.peek(*broker, targets, ONE_BATCH));
        for answers in join_all(asked).await {
            let answers = answers.unwrap_or_else(|error| {
                debug!(error = error.report(), "cannot query partitions that make no progress; the query is repeated");
                HashMap::new()
            });
            for (partition, answer) in answers {
                match stall_check.judge(&partition, answer) {
                    Some(Finding::Refused(target, error)) => hold(&shared, &cluster, &stall_check, target, error).await,
                    Some(Finding::Denied(error)) => shared.change(|state| state.trouble = Some(error)),
                    None => {}
                }
            }
        }
        // Not in the loop's head, where the lock would be held throughout.
        let now = shared.lock().observations();
        for fetcher in stall_check.cut_off(&now) {
            disable(&shared, fetcher);
        }
    }
}

/// Holds the partition, so that the caller learns of the bad batch and may skip it.
async fn hold(shared: &Shared, cluster: &ClusterClient, stall_check: &StallCheck, target: FetchTarget, cause: Error) {
    let Some(seen) = stall_check.seen.get(&target.partition) else { return };
    let (partition, offset) = (target.partition.clone(), target.from);
    // An error that would be retried is beyond retries here.
    let kind = if cause.is_retryable() { ErrorKind::Undecodable } else { cause.kind() };
    let error = Error::caused_by(kind, format!("cannot read the batch of {partition} at offset {offset}"), cause);
    unreadable::hold(
        shared,
        cluster,
        seen.observation.fetcher.broker,
        &target,
        UnreadableBatch { partition, offset, error },
    )
    .await;
}

/// Moves a fetcher's partitions to another fetcher of the same broker.
///
/// Logged as a warning: the broker limits connections, or one is broken for good.
fn disable(shared: &Shared, fetcher: FetcherId) {
    if let Some(moved) = shared.change(|state| state.disable(fetcher)) {
        warn!(
            broker = fetcher.broker,
            reader = ?fetcher.kind,
            partitions = moved,
            "a broker does not answer one of the consumer's connections; its partitions share another one, which is slower, until the consumer is opened again: check the broker's connection limits"
        );
    }
}

impl StallCheck {
    fn new(has_rack: bool) -> Self {
        Self { seen: HashMap::new(), checks: 0, needed: if has_rack { CHECKS_WITH_RACK } else { CHECKS } }
    }

    /// Records the positions of partitions; returns, by leader, those that have not moved since the last check.
    ///
    /// A partition whose fetcher moved another one is waiting for its turn, and starts over.
    fn observe(
        &mut self,
        observations: HashMap<TopicPartition, Observation>,
    ) -> HashMap<i32, Vec<(TopicPartition, u64)>> {
        let stayed = |seen: &QuietPartition, now: &Observation| {
            seen.observation.ticket == now.ticket && seen.observation.from == now.from
        };
        let moved = |(partition, now): (&TopicPartition, &Observation)| {
            let before = self.seen.get(partition)?;
            (before.observation.ticket == now.ticket && before.observation.from != now.from).then_some(now.fetcher)
        };
        let lively: HashSet<FetcherId> = observations.iter().filter_map(moved).collect();
        let mut targets: HashMap<i32, Vec<(TopicPartition, u64)>> = HashMap::new();
        let mut next = HashMap::new();
        for (partition, now) in observations {
            let before = self.seen.remove(&partition).filter(|seen| stayed(seen, &now));
            if before.is_some() {
                targets.entry(now.fetcher.broker).or_default().push((partition.clone(), now.from));
            }
            let mut seen = before.unwrap_or_else(|| QuietPartition::at(now.clone()));
            if lively.contains(&now.fetcher) {
                // The fetcher works, but reads other partitions first.
                seen = QuietPartition { ahead: 0, observation: now, ..seen };
            }
            next.insert(partition, seen);
        }
        self.seen = next;
        self.checks = self.checks.wrapping_add(1);
        for targets in targets.values_mut() {
            // The answer has a single batch: each partition gets its turn.
            targets.sort_unstable();
            let turn = self.checks % targets.len();
            targets.rotate_left(turn);
        }
        targets
    }

    /// Evaluates a leader's answer for a partition that has not moved.
    ///
    /// Refusals and records in wait are counted separately; each resets the other.
    fn judge(&mut self, partition: &TopicPartition, answer: Result<Peeked>) -> Option<Finding> {
        let seen = self.seen.get_mut(partition)?;
        let (refused, ahead) = (seen.refused + 1, seen.ahead + 1);
        (seen.refused, seen.ahead) = (0, 0);
        match answer {
            Ok(peeked) if peeked.end > seen.observation.from => seen.ahead = ahead,
            Err(error) if error.kind() == ErrorKind::Denied => return Some(Finding::Denied(error)),
            Err(error) if is_refused_fetch(&error) => {
                seen.refused = refused;
                let Observation { ticket, from, .. } = seen.observation;
                let target =
                    FetchTarget { partition: partition.clone(), ticket, from, leader_epoch: None, held: false };
                return (refused >= CHECKS).then_some(Finding::Refused(target, error));
            }
            _ => {}
        }
        None
    }

    /// Returns the fetchers that return nothing for any of their partitions, although there are records.
    ///
    /// Only partitions that still stand there count, and only after the fetcher has polled in vain.
    fn cut_off(&self, now: &HashMap<TopicPartition, Observation>) -> HashSet<FetcherId> {
        let is_cut_off = |(partition, seen): (&TopicPartition, &QuietPartition)| {
            let now = now.get(partition)?;
            let stays = now.ticket == seen.observation.ticket && now.from == seen.observation.from;
            let polled = now.polls.saturating_sub(seen.observation.polls) >= POLLS;
            (stays && polled && seen.ahead >= self.needed).then_some(now.fetcher)
        };
        self.seen.iter().filter_map(is_cut_off).collect()
    }
}

impl State {
    /// Returns the partitions being read.
    ///
    /// Paused and held partitions are left out: they stand still on purpose.
    fn observations(&self) -> HashMap<TopicPartition, Observation> {
        let reads = self.assigned.iter().filter(|(partition, assigned)| {
            let free = assigned.hold.is_none() && !self.paused.contains(*partition);
            free && assigned.stage == Stage::Reading && assigned.ticket != 0
        });
        let observation = reads.filter_map(|(partition, assigned)| {
            let fetcher = self.fetcher(assigned)?;
            let polls = self.polls.get(&fetcher).copied().unwrap_or(0);
            Some((partition.clone(), Observation { ticket: assigned.ticket, from: assigned.fetched, fetcher, polls }))
        });
        observation.collect()
    }

    /// Counts a completed poll of this fetcher.
    ///
    /// Without this count an idle fetcher, which polls nothing, would look cut off.
    pub(super) fn polled(&mut self, fetcher: FetcherId) {
        *self.polls.entry(fetcher).or_default() += 1;
    }

    /// Stops using this fetcher, if another one can take its partitions. Returns how many partitions move.
    fn disable(&mut self, fetcher: FetcherId) -> Option<usize> {
        let mut disabled = self.disabled.clone();
        if !disabled.insert(fetcher) || usable(&disabled, self.second_enabled, fetcher) == fetcher {
            return None;
        }
        let moves: HashSet<TopicPartition> = {
            let of = self.assigned.iter().filter(|(_, assigned)| self.fetcher(assigned) == Some(fetcher));
            of.map(|(partition, _)| partition.clone()).collect()
        };
        self.disabled = disabled;
        for assigned in
            self.assigned.values_mut().filter(|assigned| assigned.ticket != 0 && moves.contains(&*assigned.origin))
        {
            self.tickets += 1;
            assigned.ticket = self.tickets;
        }
        self.plan += 1;
        Some(moves.len())
    }
}

/// Returns the fetcher to use instead of this one, or this one if no other is open.
///
/// The first of these that is not disabled: the fetcher itself, the first one, the second one if
/// enabled.
pub(super) fn usable(disabled: &HashSet<FetcherId>, second_enabled: bool, fetcher: FetcherId) -> FetcherId {
    let others = [FetcherKind::First, FetcherKind::Second]
        .into_iter()
        .filter(|kind| *kind == FetcherKind::First || second_enabled);
    let kinds = std::iter::once(fetcher.kind).chain(others);
    let mut open = kinds.map(|kind| FetcherId { kind, ..fetcher }).filter(|fetcher| !disabled.contains(fetcher));
    open.next().unwrap_or(fetcher)
}

#[cfg(test)]
mod tests {
    use krafka::KrafkaError;
    use krafka::error::ErrorCode;

    use super::*;
    use crate::error::failed;

    const FIRST: FetcherId = FetcherId { broker: 1, kind: FetcherKind::First };
    const SECOND: FetcherId = FetcherId { broker: 1, kind: FetcherKind::Second };

    fn at(partition: u32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn observations(polls: u64, each: &[(u32, u64, FetcherId)]) -> HashMap<TopicPartition, Observation> {
        each.iter()
            .map(|(p, from, fetcher)| (at(*p), Observation { ticket: 1, from: *from, fetcher: *fetcher, polls }))
            .collect()
    }

    fn ahead() -> Result<Peeked> {
        Ok(Peeked { end: 9, high: 9, batch: None, behind: None })
    }

    fn refused(code: ErrorCode) -> Result<Peeked> {
        Err(failed("read", KrafkaError::broker(code, "no")))
    }

    #[test]
    fn what_moves_is_left_alone() {
        let mut stall_check = StallCheck::new(false);
        assert!(stall_check.observe(observations(0, &[(0, 5, FIRST), (1, 5, FIRST)])).is_empty());
        assert_eq!(
            stall_check.observe(observations(0, &[(0, 6, FIRST), (1, 5, FIRST)])),
            [(1, vec![(at(1), 5)])].into()
        );
        assert!(stall_check.observe(observations(0, &[(0, 7, FIRST)])).is_empty());
    }

    #[test]
    fn a_refusal_that_stays_is_found() {
        let mut stall_check = StallCheck::new(false);
        for (code, found) in [(ErrorCode::CorruptMessage, true), (ErrorCode::NotLeaderForPartition, false)] {
            let mut last = None;
            for _ in 0..CHECKS {
                stall_check.observe(observations(0, &[(0, 5, FIRST)]));
                assert!(last.is_none(), "too early");
                last = stall_check.judge(&at(0), refused(code));
            }
            assert_eq!(
                matches!(last, Some(Finding::Refused(FetchTarget { from: 5, ticket: 1, .. }, _))),
                found,
                "{code:?}"
            );
        }
        let denied = stall_check.judge(&at(0), refused(ErrorCode::TopicAuthorizationFailed));
        assert!(matches!(denied, Some(Finding::Denied(_))), "{denied:?}");
    }

    #[test]
    fn a_reader_that_brings_nothing_is_cut_off() {
        let mut stall_check = StallCheck::new(false);
        stall_check.observe(observations(0, &[(0, 5, FIRST), (1, 5, SECOND)]));
        for observe in 1..=CHECKS {
            let now = observations(u64::from(observe), &[(0, 5 + u64::from(observe), FIRST), (1, 5, SECOND)]);
            stall_check.observe(now.clone());
            assert!(stall_check.cut_off(&now).is_empty(), "too early: {observe}");
            assert!(stall_check.judge(&at(1), ahead()).is_none());
        }
        assert_eq!(stall_check.cut_off(&observations(9, &[(1, 5, SECOND)])), [SECOND].into());
        assert!(stall_check.cut_off(&observations(1, &[(1, 5, SECOND)])).is_empty(), "it is still busy with one poll");
        assert!(stall_check.cut_off(&observations(9, &[(1, 6, SECOND)])).is_empty(), "it moved meanwhile");
    }

    /// It may be the follower that lags, and not the connection that is dead.
    #[test]
    fn a_fetcher_that_may_read_from_a_follower_is_given_more_time() {
        let mut stall_check = StallCheck::new(true);
        stall_check.observe(observations(0, &[(0, 5, SECOND)]));
        let found = (1..30).find(|polls| {
            let now = observations(*polls, &[(0, 5, SECOND)]);
            stall_check.observe(now.clone());
            assert!(stall_check.judge(&at(0), ahead()).is_none());
            !stall_check.cut_off(&observations(99, &[(0, 5, SECOND)])).is_empty()
        });
        assert_eq!(found, Some(u64::from(CHECKS_WITH_RACK)));
    }

    #[test]
    fn a_reader_that_is_busy_with_others_is_not_cut_off() {
        let mut stall_check = StallCheck::new(false);
        for observe in 0..9 {
            let now = observations(observe, &[(0, 5 + observe, FIRST), (1, 5, FIRST)]);
            stall_check.observe(now.clone());
            assert!(stall_check.judge(&at(1), ahead()).is_none());
            assert!(stall_check.cut_off(&now).is_empty());
        }
    }

    #[test]
    fn another_reader_takes_over() {
        let mut disabled = HashSet::from([SECOND]);
        assert_eq!(usable(&disabled, true, SECOND), FIRST);
        assert_eq!(usable(&disabled, true, FIRST), FIRST);
        assert_eq!(usable(&HashSet::from([FIRST]), true, FIRST), SECOND);
        disabled.insert(FIRST);
        assert_eq!(usable(&disabled, true, FIRST), FIRST, "there is none");
    }
}
