//! Cooperative rebalancing: only moving partitions are revoked, and they are assigned once released.
//!
//! A rebalance computes targets ([`assign`]) and compares them with the owners. Free partitions are
//! given at once. An owned one that has to move is revoked: its owner gets
//! [`Step::Revoking`], finishes and commits its records, releases the partition,
//! and the release triggers the next rebalance, which gives it away. Partitions that stay are not
//! disturbed, as in Kafka's cooperative protocol (KIP-429).
//!
//! Losing differs from revoking: the owner is told afterwards, and its commits are fenced already.
//! It happens when a deadline passes, a topic is deleted, a log is truncated, or by an injected
//! fault.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tidings_core::{Assignment, Name, Revocation, Step, TopicPartition};
use tokio::time::Instant;

use super::member::{Life, Member};
use super::{Group, Owned, Revoking, State};
use crate::assign::{MemberId, assign};
use crate::broker::Broker;

impl Group {
    /// Reassigns partitions after topics or partitions were created.
    ///
    /// The deadlines that have passed are applied first, so that expired members are given nothing.
    pub(crate) fn rebalance(&self, broker: &Broker) {
        self.at(broker, Instant::now()).rebalance(broker);
    }

    /// Handles the deletion of a topic.
    ///
    /// Its owners lose its partitions, and its commits and starts are forgotten: a topic recreated
    /// under the name has other records at these offsets.
    pub(crate) fn forget_topic(&self, broker: &Broker, topic: &Name) {
        let mut state = self.at(broker, Instant::now());
        let owned = state.owned.keys().filter(|p| p.topic == *topic).cloned().collect();
        state.lose(owned);
        state.offsets.retain(|p, _| p.topic != *topic);
        state.starts.retain(|p, _| p.topic != *topic);
        if let Some(known) = &mut state.known {
            known.remove(topic);
        }
        state.rebalance(broker);
    }

    /// Takes a partition from its owner as if its session had ended; returns whether there was an
    /// owner.
    pub(crate) fn lose(&self, broker: &Broker, partition: &TopicPartition) -> bool {
        let mut state = self.at(broker, Instant::now());
        let owned = state.owned.contains_key(partition);
        state.lose(if owned { vec![partition.clone()] } else { Vec::new() });
        state.rebalance(broker);
        owned
    }

    /// Handles a truncation of `partition` at `end`: an owner that had read or committed more starts again.
    ///
    /// An owner that had not come that far keeps the partition: nothing that it saw is gone.
    pub(crate) fn truncated(&self, broker: &Broker, partition: &TopicPartition, end: u64) {
        let mut state = self.at(broker, Instant::now());
        let Some(owner) = state.owned.get(partition).map(|o| o.member) else { return };
        let assigned = state.members.get_mut(&owner).and_then(|member| member.assigned_mut(partition));
        if assigned.is_some_and(|assigned| assigned.position > end)
            || state.committed(partition).is_some_and(|next| next > end)
        {
            state.lose(vec![partition.clone()]);
            state.rebalance(broker);
        }
    }

    /// Takes all partitions from all members and assigns them anew.
    pub(crate) fn lose_all(&self, broker: &Broker) {
        let mut state = self.at(broker, Instant::now());
        let all = state.owned.keys().cloned().collect();
        state.lose(all);
        state.rebalance(broker);
    }

    /// Moves each partition to the next member that reads its topic, in the order of joining.
    /// Without another one, its owner is told to release it and gets it back.
    pub(crate) fn force_rebalance(&self, broker: &Broker, now: Instant) {
        let mut state = self.at(broker, now);
        let owned: Vec<_> = state.owned.iter().filter(|(_, o)| o.revoking.is_none()).collect();
        let moves: Vec<_> = owned.into_iter().map(|(p, o)| (p.clone(), o.member)).collect();
        let mut revoked: BTreeMap<MemberId, Vec<TopicPartition>> = BTreeMap::new();
        for (partition, owner) in moves {
            let candidates = |(_, m): &(&MemberId, &Member)| m.takes_part() && m.topics.contains(&partition.topic);
            let later = state.members.range(owner + 1..).find(candidates);
            let next = later.or_else(|| state.members.iter().find(candidates)).map(|(id, _)| *id);
            state.targets.insert(partition.clone(), next.unwrap_or(owner));
            revoked.entry(owner).or_default().push(partition);
        }
        state.revoke(revoked);
    }
}

impl State {
    /// Applies passed deadlines of revocations and of absent members.
    ///
    /// A member within `next` never expires here: it is alive by definition.
    pub(super) fn tick(&mut self, broker: &Broker, now: Instant) {
        let over = |o: &Owned| o.revoking.and_then(|r| r.deadline).is_some_and(|deadline| deadline <= now);
        let over: Vec<_> = self.owned.iter().filter(|(_, o)| over(o)).map(|(p, _)| p.clone()).collect();
        let due = |m: &Member| m.life != Life::Pending && m.dies_at(now).is_some_and(|at| at <= now);
        let dead: Vec<_> = self.members.iter().filter(|(_, m)| due(m)).map(|(id, _)| *id).collect();
        if over.is_empty() && dead.is_empty() {
            return;
        }
        self.lose(over);
        for id in dead {
            self.die(id);
        }
        self.rebalance(broker);
    }

    /// Expires a member. One that is away is removed; another keeps its place and loses its
    /// partitions, and its next call of `next` returns `Lost` and joins again.
    fn die(&mut self, id: MemberId) {
        if self.members.get(&id).is_some_and(|m| matches!(m.life, Life::Away(_))) {
            self.remove(id);
        } else {
            self.lose_of(id);
            if let Some(member) = self.members.get_mut(&id) {
                member.life = Life::Dead;
            }
        }
    }

    /// Returns the next deadline of another member or of a revocation, when `id` must look again.
    pub(super) fn next_deadline(&self, id: MemberId, now: Instant) -> Option<Instant> {
        let revoking = self.owned.values().filter_map(|o| o.revoking.and_then(|r| r.deadline));
        let others = self.members.iter().filter(|(other, _)| **other != id);
        revoking.chain(others.filter_map(|(_, member)| member.dies_at(now))).min()
    }

    /// Takes partitions from their owners, which get `Lost`.
    ///
    /// Each owner gets one step for all its partitions. A static member that is away gets none: its
    /// consumer is gone.
    pub(super) fn lose(&mut self, partitions: Vec<TopicPartition>) {
        let mut lost: BTreeMap<MemberId, Vec<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            if let Some(owner) = self.disown(&partition) {
                lost.entry(owner).or_default().push(partition);
            }
        }
        for (owner, partitions) in lost {
            if let Some(member) = self.members.get_mut(&owner).filter(|m| !matches!(m.life, Life::Away(_))) {
                member.queue(Step::Lost(partitions));
            }
        }
    }

    /// Takes all partitions of the member.
    pub(super) fn lose_of(&mut self, id: MemberId) {
        let all = self.owned.iter().filter(|(_, o)| o.member == id).map(|(p, _)| p.clone()).collect();
        self.lose(all);
    }

    /// Ends a partition's assignment; returns its owner.
    ///
    /// No step is queued: the owner has released the partition, or the caller tells it.
    pub(super) fn disown(&mut self, partition: &TopicPartition) -> Option<MemberId> {
        let owner = self.owned.remove(partition)?.member;
        if let Some(member) = self.members.get_mut(&owner) {
            member.remove_partition(partition);
        }
        Some(owner)
    }

    /// Removes a member and all its partitions.
    ///
    /// The partitions are free, for the caller's rebalance to give away.
    pub(super) fn remove(&mut self, id: MemberId) {
        if let Some(mut member) = self.members.remove(&id) {
            member.empty();
            member.wake();
        }
        self.owned.retain(|_, o| o.member != id);
    }

    /// Gives the new member `id` the place of the static member `instance`: its partitions don't move.
    ///
    /// Partitions that are being revoked are left out: the predecessor can't release them any more,
    /// so they are free and go where the rebalance wants them.
    pub(super) fn take_over(&mut self, broker: &Broker, id: MemberId, instance: &Name) {
        let same =
            |(other, m): &(&MemberId, &Member)| **other != id && m.options.instance_id.as_ref() == Some(instance);
        let Some(before) = self.members.iter().find(same).map(|(other, _)| *other) else { return };
        let kept = |o: &Owned| o.member == before && o.revoking.is_none();
        let partitions: Vec<_> = self.owned.iter().filter(|(_, o)| kept(o)).map(|(p, _)| p.clone()).collect();
        self.remove(before);
        self.targets.values_mut().filter(|target| **target == before).for_each(|target| *target = id);
        self.give(broker, BTreeMap::from([(id, partitions)]));
    }

    /// Does nothing while the broker is down: its coordinator can't be reached. `Faults::up`
    /// catches up.
    pub(super) fn rebalance(&mut self, broker: &Broker) {
        if broker.faults.down_since().is_some() {
            return;
        }
        let members: BTreeMap<MemberId, BTreeSet<Name>> =
            self.members.iter().filter(|(_, m)| m.takes_part()).map(|(id, m)| (*id, m.topics.clone())).collect();
        let topics: BTreeSet<&Name> = members.values().flatten().collect();
        let partitions: Vec<TopicPartition> = topics
            .into_iter()
            .filter_map(|name| broker.topic(name))
            .flat_map(|topic| topic.logs().iter().map(|log| log.origin().clone()).collect::<Vec<_>>())
            .collect();
        self.targets = assign(&partitions, &members, &self.targets);
        let mut given: BTreeMap<MemberId, Vec<TopicPartition>> = BTreeMap::new();
        let mut revoked: BTreeMap<MemberId, Vec<TopicPartition>> = BTreeMap::new();
        for (partition, target) in &self.targets {
            match self.owned.get(partition) {
                None => given.entry(*target).or_default().push(partition.clone()),
                Some(o) if o.member != *target && o.revoking.is_none() => {
                    revoked.entry(o.member).or_default().push(partition.clone());
                }
                Some(_) => {}
            }
        }
        self.revoke(revoked);
        self.give(broker, given);
    }

    /// Queues revocations. From now on no records of these partitions are read, while commits are
    /// accepted until they are released.
    pub(super) fn revoke(&mut self, revoked: BTreeMap<MemberId, Vec<TopicPartition>>) {
        for (id, partitions) in revoked {
            let Some(member) = self.members.get_mut(&id) else { continue };
            if let Life::Away(_) = member.life {
                // No member is present to release them.
                partitions.iter().for_each(|p| drop(self.owned.remove(p)));
                continue;
            }
            for partition in &partitions {
                member.stop_reading(partition);
                if let Some(owned) = self.owned.get_mut(partition) {
                    owned.revoking = Some(Revoking { deadline: None });
                }
            }
            member.queue(Step::Revoking(Revocation::new(partitions, member.options.revocation_deadline)));
        }
    }

    /// Makes each member the owner of its partitions and queues one step for them.
    fn give(&mut self, broker: &Broker, given: BTreeMap<MemberId, Vec<TopicPartition>>) {
        for (id, partitions) in given {
            let assignments: Vec<_> = partitions.iter().filter_map(|p| self.own(broker, id, p, None)).collect();
            self.tell(id, assignments);
        }
    }

    /// Queues `Assigned`, unless there is nothing to tell.
    fn tell(&mut self, id: MemberId, assignments: Vec<Assignment>) {
        if let Some(member) = self.members.get_mut(&id).filter(|_| !assignments.is_empty()) {
            member.queue(Step::Assigned(assignments));
        }
    }

    /// Assigns `partition` to the member, from the group's position or from the end of `missed`.
    ///
    /// Returns `None` if the topic or the member has disappeared. A start before the committed
    /// offset, as on a truncated log, allows the first commit to go back.
    fn own(
        &mut self,
        broker: &Broker,
        id: MemberId,
        partition: &TopicPartition,
        missed: Option<Range<u64>>,
    ) -> Option<Assignment> {
        let log = broker.log(partition)?;
        let epoch = broker.next_serial();
        let policy = self.members.get(&id)?.options.start;
        let mut assignment = self.start_of(&log, epoch, policy, broker.clock.now());
        if let Some(missed) = missed {
            assignment.start_offset = assignment.start_offset.max(missed.end);
            assignment.missing = Some(missed);
        }
        self.members.get_mut(&id)?.add_partition(std::sync::Arc::clone(&log), epoch, assignment.start_offset);
        let rewound = assignment.committed.is_some_and(|committed| assignment.start_offset < committed);
        let owned = Owned { member: id, epoch, log, revoking: None, rewound };
        self.owned.insert(partition.clone(), owned);
        Some(assignment)
    }

    /// Handles records dropped by retention before the member read them. Only `Assigned` reports them, so the
    /// partition is lost and assigned to the same member again, from the oldest remaining record.
    pub(super) fn overtaken(&mut self, broker: &Broker, id: MemberId, partition: &TopicPartition, gap: Range<u64>) {
        self.lose(vec![partition.clone()]);
        let again = self.own(broker, id, partition, Some(gap));
        self.tell(id, again.into_iter().collect());
    }
}
