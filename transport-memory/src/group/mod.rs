//! Consumer groups: members, assignments and committed offsets.
//!
//! The group is passive: no task or thread runs for it. Deadlines of members and revocations are
//! applied by the next call that locks the group ([`Group::at`]); waiting members sleep no longer
//! than until the next deadline, so that one of them notices it. On tokio's paused clock this makes
//! rebalances deterministic.
//!
//! A partition has a *target* and an *owner*. A rebalance sets targets; the owner changes only once
//! the previous one has released the partition, lost it or let the deadline pass. At each moment a
//! partition has at most one owner, and each ownership has an epoch of its own (clauses C3 and C4
//! of [`Consumer`](tidings_core::Consumer)).

mod member;
mod offsets;
mod rebalance;
mod transactions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_core::{
    ConsumerOptions, Error, ErrorKind, Fetched, GroupDescription, GroupState, MemberDescription, Name, Progress,
    Result, SeekTo, Step, TopicPartition, Unreadable,
};
use tokio::time::Instant;

use self::member::{Found, Life, Member};
use self::offsets::Committed;
use crate::assign::{MemberId, Targets};
use crate::broker::Broker;
use crate::error::{closed, lock, not_owned, unreadable};
use crate::log::PartitionLog;
use crate::signal::Signal;

/// Longer than any process lives.
///
/// Added to an instant where a deadline is out of the clock's range, but an instant is needed.
const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);

/// A consumer group. It outlives its members as long as it has commits.
#[derive(Debug)]
pub(crate) struct Group {
    name: Name,
    /// Taken before the locks of topics and logs, after the broker's map of groups.
    state: Mutex<State>,
}

/// Everything that one lock guards.
#[derive(Debug, Default)]
struct State {
    /// Members by id, thus in the order of joining; dead ones stay until they look again or leave.
    members: BTreeMap<MemberId, Member>,
    /// Owners of partitions. One without an entry is free: its target is given it at the next
    /// rebalance.
    owned: BTreeMap<TopicPartition, Owned>,
    /// Target member of each partition; it becomes the owner once the previous one released it.
    targets: Targets,
    /// Committed offsets, which outlive members and owners.
    offsets: BTreeMap<TopicPartition, Committed>,
    /// Number of partitions of each topic when the group first started.
    known: Option<BTreeMap<Name, u32>>,
    /// Start offsets of partitions without a commit, by the start policy: decided once, so that the next owner does
    /// not skip records that the previous one received.
    starts: BTreeMap<TopicPartition, u64>,
}

/// Current assignment of a partition.
#[derive(Debug)]
struct Owned {
    member: MemberId,
    /// Taken from the broker's counter, so that no two assignments share an epoch, not even across
    /// a deletion of the group.
    epoch: u64,
    log: Arc<PartitionLog>,
    /// Set from the decision to move the partition until it is released, lost or overdue.
    revoking: Option<Revoking>,
    /// Set after a seek or a truncated log: then the next commit may go back.
    rewound: bool,
}

/// Deadline of a revocation; `None` until its step is handed out.
///
/// The clock starts when the consumer is told, not when the move is decided: a slow handler keeps
/// its member from calling `next`, and must not lose the time that it was promised.
#[derive(Debug, Clone, Copy)]
struct Revoking {
    deadline: Option<Instant>,
}

/// Result of looking for a consumer's next step.
#[derive(Debug)]
pub(crate) enum Look {
    /// The step, already removed from the member.
    Step(Step),
    /// No step; look again at this time, when another member may expire, which only waiting members notice.
    Wait(Option<Instant>),
}

impl Group {
    pub(crate) fn new(name: Name) -> Self {
        Self { name, state: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Locks the state and applies all deadlines that have passed.
    ///
    /// Every call goes through here, except those that must not see time pass while the broker is
    /// down.
    fn at(&self, broker: &Broker, now: Instant) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        state.tick(broker, now);
        state
    }

    /// Returns whether the group has no members and no commits.
    pub(crate) fn is_vacant(&self) -> bool {
        let state = lock(&self.state);
        state.members.is_empty() && state.offsets.is_empty()
    }

    /// Returns whether a member takes part; static members that are away count until they expire.
    pub(crate) fn has_members(&self, broker: &Broker) -> bool {
        let state = self.at(broker, Instant::now());
        state.members.values().any(Member::takes_part)
    }

    /// Returns whether this member takes part: it has not expired, and was not replaced.
    pub(crate) fn takes_part(&self, broker: &Broker, id: MemberId) -> bool {
        let state =
            if broker.faults.down_since().is_some() { lock(&self.state) } else { self.at(broker, Instant::now()) };
        state.members.get(&id).is_some_and(Member::takes_part)
    }

    pub(crate) fn wake_all(&self) {
        lock(&self.state).members.values().for_each(Member::wake);
    }

    /// Adds a member and rebalances. A static member takes over the partitions of its predecessor
    /// with the same instance id, whose next call is fenced.
    pub(crate) fn join(&self, broker: &Broker, options: ConsumerOptions, signal: Arc<Signal>) -> MemberId {
        let now = Instant::now();
        let mut state = self.at(broker, now);
        state
            .known
            .get_or_insert_with(|| broker.topics().iter().map(|t| (t.name.clone(), t.logs().len() as u32)).collect());
        let id = broker.next_serial();
        let before = options.instance_id.clone();
        state.members.insert(id, Member::new(options, signal, now));
        if let Some(instance) = before {
            state.take_over(broker, id, &instance);
        }
        state.rebalance(broker);
        id
    }

    /// Removes a member and rebalances. A static member keeps its partitions until its session
    /// timeout, so that a restart within it moves none.
    pub(crate) fn leave(&self, broker: &Broker, id: MemberId) {
        let now = Instant::now();
        let mut state = self.at(broker, now);
        let Some(member) = state.members.get_mut(&id) else { return };
        if member.options.instance_id.is_some() && member.takes_part() {
            member.empty();
            member.life = Life::Away(now);
        } else {
            state.remove(id);
            state.rebalance(broker);
        }
        // Waiting members must learn the deadline of a static member.
        state.members.values().for_each(Member::wake);
    }

    /// Returns the next step of a member.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if it is no member any more.
    ///
    /// A member that expired between two calls joins again here: `Lost` is pending for it, and the
    /// rebalance assigns it partitions after that.
    pub(crate) fn look(&self, broker: &Broker, id: MemberId, now: Instant) -> Result<Look> {
        let mut state = lock(&self.state);
        // First, so that a late member has expired even if no other member noticed.
        state.tick(broker, now);
        let member = state.members.get_mut(&id).ok_or_else(fenced)?;
        if std::mem::replace(&mut member.life, Life::Pending) == Life::Dead {
            state.rebalance(broker);
        }
        match state.step(broker, id, now) {
            Some(step) => Ok(Look::Step(step)),
            None => Ok(Look::Wait(state.next_deadline(id, now))),
        }
    }

    /// Like `look`, while the broker is unreachable: returns earlier steps, and `Lost` once the session has ended.
    pub(crate) fn look_alone(&self, broker: &Broker, id: MemberId, now: Instant, since: Instant) -> Result<Look> {
        let mut state = lock(&self.state);
        let member = state.members.get_mut(&id).ok_or_else(fenced)?;
        member.life = Life::Pending;
        let end = since.checked_add(member.options.session_timeout);
        if end.is_none_or(|end| now < end) {
            return Ok(Look::Wait(end));
        }
        state.lose_of(id);
        match state.step(broker, id, now) {
            Some(step) => Ok(Look::Step(step)),
            None => Ok(Look::Wait(None)),
        }
    }

    /// Records that a call of `next` ended without a step.
    pub(crate) fn idle(&self, id: MemberId) {
        if let Some(member) = lock(&self.state).members.get_mut(&id)
            && member.life == Life::Pending
        {
            member.life = Life::Busy(Instant::now());
        }
    }

    /// Ends the member's ownership of partitions that it was told to give up. Those that it was not
    /// told about stay: their step is still pending, and it would be reported for a partition long
    /// gone.
    pub(crate) fn release(&self, broker: &Broker, id: MemberId, partitions: &[TopicPartition]) {
        let mut state = self.at(broker, Instant::now());
        for partition in partitions {
            let told = |o: &&Owned| o.member == id && o.revoking.is_some_and(|r| r.deadline.is_some());
            if state.owned.get(partition).filter(told).is_some() {
                state.disown(partition);
            }
        }
        state.rebalance(broker);
    }

    pub(crate) fn pause(&self, id: MemberId, partitions: &[TopicPartition]) {
        if let Some(member) = lock(&self.state).members.get_mut(&id) {
            member.pause(partitions);
        }
    }

    pub(crate) fn resume(&self, id: MemberId, partitions: &[TopicPartition]) {
        if let Some(member) = lock(&self.state).members.get_mut(&id) {
            member.resume(partitions);
        }
    }

    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if the partition is not the member's.
    ///
    /// Moves the read position and returns the offset, clamped to the log. A later commit may go
    /// back: without a seek, a lower offset is an outdated commit and is ignored.
    pub(crate) fn seek(&self, broker: &Broker, id: MemberId, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        let now = Instant::now();
        let mut state = self.at(broker, now);
        let State { members, owned, .. } = &mut *state;
        let owned = owned.get_mut(partition).filter(|o| o.member == id).ok_or_else(|| not_owned("seek", partition))?;
        let offset = owned.log.find(to, broker.clock.at(now));
        owned.rewound = true;
        if let Some(member) = members.get_mut(&id) {
            if let Some(assigned) = member.assigned_mut(partition) {
                assigned.position = offset;
                assigned.told_unreadable = false;
            }
            member.wake();
        }
        Ok(offset)
    }

    /// Returns position, commit and log bounds of each owned partition, sorted.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed) if it is no member any more.
    pub(crate) fn progress(&self, broker: &Broker, id: MemberId) -> Result<Vec<Progress>> {
        let now = Instant::now();
        let state = self.at(broker, now);
        let member = state.members.get(&id).ok_or_else(|| closed("progress", "consumer"))?;
        let mut all: Vec<Progress> = Vec::with_capacity(member.assigned().len());
        for assigned in member.assigned() {
            let partition = assigned.log.origin().clone();
            let committed = state.offsets.get(&partition).map(|c| c.next);
            let (start, end) = assigned.log.bounds(broker.clock.at(now));
            let mut progress = Progress::new(partition, assigned.position, committed, end);
            progress.start = start;
            progress.paused = assigned.paused;
            all.push(progress);
        }
        all.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok(all)
    }

    /// Describes the group as Kafka does: rebalancing while a target differs from its owner.
    pub(crate) fn describe(&self, broker: &Broker) -> GroupDescription {
        let state = self.at(broker, Instant::now());
        let living = state.members.iter().filter(|(_, member)| member.takes_part());
        let members: Vec<MemberDescription> = living
            .map(|(id, member)| {
                let partitions = state.owned.iter().filter(|(_, o)| o.member == *id).map(|(p, _)| p.clone()).collect();
                let name = member.options.instance_id.as_deref().map_or_else(|| transactions::name(*id), str::to_owned);
                MemberDescription::new(name, "tidings", partitions)
            })
            .collect();
        let moving = state.targets.iter().any(|(p, id)| state.owned.get(p).is_none_or(|o| o.member != *id))
            || state.owned.values().any(|o| o.revoking.is_some());
        let is = match (members.is_empty(), moving) {
            (true, _) => GroupState::Empty,
            (_, true) => GroupState::Rebalancing,
            _ => GroupState::Stable,
        };
        GroupDescription::new(&self.name, is, members)
    }
}

/// The error of a member that another with its instance id has replaced.
fn fenced() -> Error {
    Error::new(ErrorKind::Fenced, "next: another member with the same instance id has replaced this one")
}

impl State {
    /// Hands out the member's pending step, or else records.
    ///
    /// The loop ends: an overtaken partition queues a step, which the next round returns. Handing
    /// out a revocation starts its deadline. Handing out any step begins the member's idle time.
    fn step(&mut self, broker: &Broker, id: MemberId, now: Instant) -> Option<Step> {
        let step = loop {
            let member = self.members.get_mut(&id)?;
            if let Some(step) = member.steps.pop_front() {
                break step;
            }
            match member.read(&broker.faults, broker.clock.at(now))? {
                Found::Records { batch, epoch, next } => break Step::Records(Fetched::new(batch, epoch, next)),
                Found::Unreadable { partition, epoch, range } => {
                    let unreadable = Unreadable::new(partition, epoch, range.start, unreadable());
                    break Step::Unreadable(unreadable.with_next_offset(range.end));
                }
                Found::Overtaken { partition, position, start } => {
                    self.overtaken(broker, id, &partition, position..start);
                }
            }
        };
        if let Step::Revoking(revocation) = &step {
            // A deadline beyond the clock's range never passes, but the member still gets one.
            let deadline = Some(now.checked_add(revocation.deadline).unwrap_or_else(|| now + FOR_EVER));
            for partition in &revocation.partitions {
                let owned = self.owned.get_mut(partition).filter(|o| o.member == id);
                if let Some(revoking) = owned.and_then(|o| o.revoking.as_mut()) {
                    revoking.deadline = deadline;
                }
            }
            // Other members must notice when the deadline passes.
            self.members.values().for_each(Member::wake);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.life = Life::Busy(now);
        }
        Some(step)
    }
}
