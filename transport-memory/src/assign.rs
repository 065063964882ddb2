//! Partition assignment: sticky, balanced and deterministic.
//!
//! The order of the inputs decides all ties, never a hash or a clock, so that a test sees the same
//! assignment in each run. Stickiness matters because each move costs a revocation: its records in
//! flight are finished or cancelled, and its offsets committed, before another member may read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidings_core::{Name, TopicPartition};

/// Identity of a member. Ids grow with each join, so their order is the order of joining.
pub(crate) type MemberId = u64;
/// The member that each partition is meant for, whether or not it owns the partition yet.
pub(crate) type Targets = BTreeMap<TopicPartition, MemberId>;

/// Assigns `partitions` (sorted) to `members` by the topics that each reads.
///
/// A partition stays where it was in `before`, unless its member is gone or balance needs it to move: no member ends
/// with two partitions more than another that could take one of them, be it by passing others on.
pub(crate) fn assign(
    partitions: &[TopicPartition],
    members: &BTreeMap<MemberId, BTreeSet<Name>>,
    before: &Targets,
) -> Targets {
    let mut plan = Plan { members, owners: Targets::new(), counts: members.keys().map(|id| (*id, 0)).collect() };
    let reads = |id: &MemberId, p: &TopicPartition| members.get(id).is_some_and(|topics| topics.contains(&p.topic));
    for partition in partitions {
        if let Some(id) = before.get(partition).filter(|id| reads(id, partition)) {
            plan.give(partition, *id);
        }
    }
    for partition in partitions {
        if !plan.owners.contains_key(partition) {
            // The first of the members with the fewest partitions; members are in the order of joining.
            let candidates = members.keys().filter(|id| reads(id, partition));
            if let Some(id) = candidates.min_by_key(|id| plan.counts[id]) {
                plan.give(partition, *id);
            }
        }
    }
    while plan.improve() {}
    plan.owners
}

/// An assignment in progress.
struct Plan<'a> {
    /// Topics of each member; a member is only given partitions of these.
    members: &'a BTreeMap<MemberId, BTreeSet<Name>>,
    owners: Targets,
    /// Number of partitions of each member. Invariant: it agrees with `owners`, as only `give`
    /// changes either.
    counts: BTreeMap<MemberId, usize>,
}

impl Plan<'_> {
    /// Makes `to` the owner of `partition`, taking it from its previous owner.
    fn give(&mut self, partition: &TopicPartition, to: MemberId) {
        if let Some(from) = self.owners.insert(partition.clone(), to) {
            *self.counts.entry(from).or_default() -= 1;
        }
        *self.counts.entry(to).or_default() += 1;
    }

    /// Shifts one partition from a member to one that has at least two fewer; `false` if there is no such pair.
    fn improve(&mut self) -> bool {
        let mut by_count: Vec<(usize, MemberId)> = self.counts.iter().map(|(id, count)| (*count, *id)).collect();
        by_count.sort_by_key(|(count, id)| (std::cmp::Reverse(*count), *id));
        for (count, from) in by_count {
            if let Some(path) = self.path(from, count) {
                for (partition, to) in path {
                    self.give(&partition, to);
                }
                return true;
            }
        }
        false
    }

    /// The shortest chain of moves from `from` to a member with at least two partitions fewer.
    ///
    /// A direct move is not always possible: where members read different topics, the fullest
    /// member may have to pass a partition to a third one, which passes on another. A breadth-first
    /// search finds the chain with the fewest moves.
    fn path(&self, from: MemberId, count: usize) -> Option<Vec<(TopicPartition, MemberId)>> {
        let mut came: BTreeMap<MemberId, (MemberId, TopicPartition)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            if self.counts[&at] + 2 <= count {
                return Some(trace(&came, from, at));
            }
            // The last partition moves first, so that the early ones, which people look at, stay.
            let owned = self.owners.iter().rev().filter(|(_, owner)| **owner == at);
            for (partition, _) in owned {
                for (next, topics) in self.members {
                    if *next != from && !came.contains_key(next) && topics.contains(&partition.topic) && *next != at {
                        came.insert(*next, (at, partition.clone()));
                        queue.push_back(*next);
                    }
                }
            }
        }
        None
    }
}

/// Follows the search's steps back from `at` to `from`, and returns the moves of the chain.
fn trace(
    came: &BTreeMap<MemberId, (MemberId, TopicPartition)>,
    from: MemberId,
    mut at: MemberId,
) -> Vec<(TopicPartition, MemberId)> {
    let mut moves = Vec::new();
    while at != from {
        let (previous, partition) = &came[&at];
        moves.push((partition.clone(), at));
        at = *previous;
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(topics: &[(&str, u32)]) -> Vec<TopicPartition> {
        topics.iter().flat_map(|(t, n)| (0..*n).map(|p| TopicPartition::new(*t, p))).collect()
    }

    fn members(lists: &[(MemberId, &[&str])]) -> BTreeMap<MemberId, BTreeSet<Name>> {
        lists.iter().map(|(id, topics)| (*id, topics.iter().map(|t| Name::from(*t)).collect())).collect()
    }

    fn counts(targets: &Targets) -> Vec<usize> {
        let mut counts: BTreeMap<MemberId, usize> = BTreeMap::new();
        for id in targets.values() {
            *counts.entry(*id).or_default() += 1;
        }
        counts.into_values().collect()
    }

    #[test]
    fn partitions_are_spread_evenly() {
        let targets = assign(
            &partitions(&[("a", 3), ("b", 4)]),
            &members(&[(1, &["a", "b"]), (2, &["a", "b"])]),
            &Targets::new(),
        );
        assert_eq!(counts(&targets), [4, 3]);
    }

    #[test]
    fn a_new_member_takes_only_its_share() {
        let all = partitions(&[("a", 6)]);
        let before = assign(&all, &members(&[(1, &["a"]), (2, &["a"])]), &Targets::new());
        let after = assign(&all, &members(&[(1, &["a"]), (2, &["a"]), (3, &["a"])]), &before);
        assert_eq!(counts(&after), [2, 2, 2]);
        assert_eq!(all.iter().filter(|p| before[p] != after[p]).count(), 2);
    }

    #[test]
    fn a_members_partitions_go_to_the_others_and_nothing_else_moves() {
        let all = partitions(&[("a", 6)]);
        let before = assign(&all, &members(&[(1, &["a"]), (2, &["a"]), (3, &["a"])]), &Targets::new());
        let after = assign(&all, &members(&[(1, &["a"]), (3, &["a"])]), &before);
        assert_eq!(counts(&after), [3, 3]);
        assert!(all.iter().all(|p| before[p] == 2 || before[p] == after[p]));
    }

    #[test]
    fn a_partition_goes_only_to_who_reads_its_topic() {
        let targets =
            assign(&partitions(&[("a", 2), ("b", 2)]), &members(&[(1, &["a"]), (2, &["b"])]), &Targets::new());
        assert!(targets.iter().all(|(p, id)| (*id == 1) == (p.topic == *"a")));
    }

    #[test]
    fn a_topic_that_nobody_reads_is_nobodys() {
        assert!(assign(&partitions(&[("a", 2)]), &members(&[(1, &["b"])]), &Targets::new()).is_empty());
    }

    #[test]
    fn balance_is_reached_by_passing_on() {
        // 1 reads only x, 3 only y: 1's surplus reaches 3 by way of 2.
        let all = partitions(&[("x", 6), ("y", 3)]);
        let mut before = Targets::new();
        for p in &all {
            let id = match (p.topic.as_str(), p.partition) {
                ("x", 0..4) => 1,
                ("y", 0..2) => 3,
                _ => 2,
            };
            before.insert(p.clone(), id);
        }
        let after = assign(&all, &members(&[(1, &["x"]), (2, &["x", "y"]), (3, &["y"])]), &before);
        assert_eq!(counts(&after), [3, 3, 3]);
    }
}
