//! State of a consumer: its partitions, their fetched records, and the steps that wait to be handed out.
//!
//! It has one lock, never held across an await point. The member, the fetchers and the callers of
//! [`Consumer`](tidings_core::Consumer) share nothing else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tidings_core::{Assignment, Commit, Error, ErrorKind, Result, Revocation, Step, TopicPartition};
use tokio::time::Instant;

use super::assigned::{AssignedPartition, Stage};
use super::epoch::EpochMark;
use super::fetch_buffer::{FetcherId, NextStep};
use super::fetch_mode::FetchMode;
use super::start::FoundStart;

/// Divisor of the prefetch limit that gives a large size for one partition.
///
/// A fetch of that size is a quarter of all that may be prefetched.
const LARGE_SHARE: usize = 4;

/// Invariants: `buffered` is the sum of `queued`; a partition in `ready` has output or is skipped;
/// tickets and plans only grow.
#[derive(Debug)]
pub(super) struct State {
    pub(super) assigned: HashMap<TopicPartition, AssignedPartition>,
    /// Partitions paused by the caller; some may not be assigned yet.
    pub(super) paused: HashSet<TopicPartition>,
    /// Steps in order; all of them come before records.
    pub(super) steps: VecDeque<PendingStep>,
    /// Partitions that may have output, in the order of their turns.
    pub(super) ready: VecDeque<TopicPartition>,
    pub(super) buffered: usize,
    /// Prefetch limit in bytes; fetchers rest at it.
    pub(super) max_buffered: usize,
    /// Bytes that count as large for one fetch of one partition.
    pub(super) large: usize,
    /// The last number given to a reading or a lookup.
    pub(super) tickets: u64,
    /// The last epoch of each partition that was assigned.
    pub(super) last_epochs: HashMap<TopicPartition, u64>,
    /// Grows when the plan of the fetchers changes.
    pub(super) plan: u64,
    /// Whether the second fetchers are available.
    pub(super) second_enabled: bool,
    /// Fetchers that a broker does not answer.
    pub(super) disabled: HashSet<FetcherId>,
    /// Number of polls that each fetcher completed.
    pub(super) polls: HashMap<FetcherId, u64>,
    /// All calls fail from then on; the tasks have ended.
    pub(super) closed: bool,
    /// A background error; `next` reports it once.
    pub(super) trouble: Option<Error>,
    /// When the last step was handed out, if `next` was not called since.
    pub(super) handed_out: Option<Instant>,
    /// When the group's coordinator last answered.
    pub(super) last_answer: Instant,
    /// Silence of the coordinator after which the membership counts as ended.
    pub(super) session_timeout: Duration,
    /// The membership ended on our side; the member has to leave and to join again.
    pub(super) ended: bool,
    /// The group has accepted the member, as of its last poll.
    pub(super) is_member: bool,
    /// Error that ended the membership for good.
    pub(super) fatal: Option<(ErrorKind, String)>,
}

/// A step that waits to be handed out.
///
/// Kept apart from records, which wait per partition.
#[derive(Debug)]
pub(super) enum PendingStep {
    Assigned(Vec<Assignment>),
    Revoking(Revocation),
    Lost(Vec<TopicPartition>),
}

/// Knowledge of partitions before they are read.
#[derive(Debug, Default)]
pub(super) struct StartHints {
    /// Leaders by partition, asked together with the starts.
    pub(super) leaders: HashMap<TopicPartition, Option<i32>>,
    /// Partitions that begin with a compressed batch, so that the decompressed size of a fetch is unknown.
    pub(super) single: HashSet<TopicPartition>,
}

impl State {
    pub(super) fn new(max_buffered: usize, session_timeout: Duration) -> Self {
        Self {
            assigned: HashMap::new(),
            paused: HashSet::new(),
            steps: VecDeque::new(),
            ready: VecDeque::new(),
            buffered: 0,
            max_buffered,
            large: max_buffered / LARGE_SHARE,
            tickets: 0,
            last_epochs: HashMap::new(),
            plan: 0,
            second_enabled: false,
            disabled: HashSet::new(),
            polls: HashMap::new(),
            closed: false,
            trouble: None,
            handed_out: None,
            last_answer: Instant::now(),
            session_timeout,
            ended: false,
            is_member: false,
            fatal: None,
        }
    }

    /// Returns the next item for `next`, if any.
    ///
    /// Steps come first, then records, then errors: a permanent one each time, a transient one
    /// once.
    pub(super) fn take_next(&mut self, max_records: usize) -> Option<Result<NextStep>> {
        if self.closed {
            return Some(Err(closed()));
        }
        // A process that was suspended for long must not begin with records fetched before.
        self.expire();
        if let Some(next) = self.pop(max_records) {
            return Some(Ok(next));
        }
        if let Some((kind, what)) = &self.fatal {
            return Some(Err(Error::new(*kind, what.clone())));
        }
        self.trouble.take().map(Err)
    }

    /// Ends the membership after the coordinator was silent for a session timeout: other members may have the
    /// partitions.
    pub(super) fn expire(&mut self) {
        if self.last_answer.elapsed() > self.session_timeout && !self.assigned.is_empty() {
            self.end();
        }
    }

    /// Loses all partitions; the member has to join again.
    pub(super) fn end(&mut self) {
        self.lose(&self.owned());
        self.is_member = false;
        self.ended = true;
    }

    /// Takes a step or, without one, records, and starts the caller's idle time.
    fn pop(&mut self, max_records: usize) -> Option<NextStep> {
        let next = match self.pop_step() {
            Some(step) => NextStep::Step(step),
            None => self.pop_read(max_records)?,
        };
        self.handed_out = Some(Instant::now());
        Some(next)
    }

    /// The deadline of a revocation starts here: the caller gets all of it.
    fn pop_step(&mut self) -> Option<Step> {
        Some(match self.steps.pop_front()? {
            PendingStep::Assigned(assignments) => Step::Assigned(assignments),
            PendingStep::Lost(partitions) => Step::Lost(partitions),
            PendingStep::Revoking(revocation) => {
                let deadline = Instant::now() + revocation.deadline;
                for partition in &revocation.partitions {
                    if let Some(assigned) = self.assigned.get_mut(partition) {
                        assigned.stage = Stage::Revoking(Some(deadline));
                    }
                }
                Step::Revoking(revocation)
            }
        })
    }

    /// Registers newly assigned partitions, whose starts and epochs are not looked up yet; returns the number of the
    /// lookup.
    ///
    /// An older assignment of the same partition is forgotten: its start lookup finds another
    /// number.
    pub(super) fn register(&mut self, partitions: Vec<TopicPartition>) -> u64 {
        self.tickets += 1;
        for partition in partitions {
            self.forget(&partition);
            self.assigned.insert(partition.clone(), AssignedPartition::new(partition, self.tickets));
        }
        self.tickets
    }

    /// Returns those of `partitions` whose start is still to be looked up under this number; none once closed.
    pub(super) fn starting(&self, partitions: &[TopicPartition], lookup: u64) -> Vec<TopicPartition> {
        let starting = |p: &&TopicPartition| {
            !self.closed
                && self
                    .assigned
                    .get(*p)
                    .is_some_and(|assigned| assigned.stage == Stage::Starting && assigned.lookup == lookup)
        };
        partitions.iter().filter(starting).cloned().collect()
    }

    /// Applies the starts found under this number: informs the caller, and lets fetchers begin.
    ///
    /// Partitions that were revoked or lost during the lookup are left out.
    pub(super) fn assign(&mut self, lookup: u64, found: Vec<FoundStart>, hints: &StartHints) {
        let mut told = Vec::new();
        for FoundStart { mut assignment, mark } in found {
            let Some(assigned) = self.assigned.get_mut(&assignment.partition) else { continue };
            if assigned.stage != Stage::Starting || assigned.lookup != lookup {
                continue;
            }
            let last = self.last_epochs.entry(assignment.partition.clone()).or_default();
            assigned.mark = mark.after(*last);
            *last = assigned.mark.epoch;
            assignment.epoch = assigned.mark.epoch;
            self.tickets += 1;
            assigned.stage = Stage::Reading;
            assigned.ticket = self.tickets;
            assigned.position = assignment.start_offset;
            assigned.fetched = assignment.start_offset;
            // A commit beyond the log belongs to another log: in this one, nothing is committed.
            assigned.committed = assignment.committed.filter(|committed| *committed <= assignment.start_offset);
            // If the log no longer holds the committed offset, continuing is a move.
            assigned.back_since = assignment.missing.as_ref().map(|_| assigned.ticket);
            assigned.leader = hints.leaders.get(&assignment.partition).copied().flatten();
            if self.large != usize::MAX && hints.single.contains(&assignment.partition) {
                assigned.fetch_mode = FetchMode::single();
            }
            told.push(assignment);
        }
        if !told.is_empty() {
            self.steps.push_back(PendingStep::Assigned(told));
            self.plan += 1;
            self.balance();
        }
    }

    /// Starts a revocation. Returns the partitions that the caller knows and has to release.
    ///
    /// Partitions that the caller never learned of are released at once.
    pub(super) fn revoke(&mut self, partitions: &[TopicPartition], deadline: Duration) -> Vec<TopicPartition> {
        let unseen = self.take_back(partitions);
        let mut known = Vec::new();
        for partition in partitions {
            let starting = self.assigned.get(partition).is_none_or(|assigned| assigned.stage == Stage::Starting);
            if starting || unseen.contains(partition) {
                self.forget(partition);
                continue;
            }
            self.clear(partition);
            if let Some(assigned) = self.assigned.get_mut(partition) {
                assigned.stage = Stage::Revoking(None);
                known.push(partition.clone());
            }
        }
        if !known.is_empty() {
            self.steps.push_back(PendingStep::Revoking(Revocation::new(known.clone(), deadline)));
        }
        self.plan += 1;
        self.balance();
        known
    }

    /// Returns those of `partitions` that are not released yet, and the deadline for that.
    pub(super) fn held(&self, partitions: &[TopicPartition]) -> (Vec<TopicPartition>, Option<Instant>) {
        let mut until = None;
        let mut held = Vec::new();
        for partition in partitions {
            if let Some(Stage::Revoking(deadline)) = self.assigned.get(partition).map(|assigned| assigned.stage) {
                held.push(partition.clone());
                until = until.or(deadline);
            }
        }
        (held, until)
    }

    /// Releases revoked partitions.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if self.assigned.get(partition).is_some_and(|assigned| matches!(assigned.stage, Stage::Revoking(_))) {
                self.forget(partition);
            }
        }
    }

    /// Removes lost partitions and reports those that the caller knows.
    ///
    /// A pending revocation of them is withdrawn: the caller gets `Lost` alone.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition]) {
        let unseen = self.take_back(partitions);
        let known: Vec<TopicPartition> = partitions
            .iter()
            .filter(|p| {
                self.assigned.get(*p).is_some_and(|assigned| assigned.stage != Stage::Starting) && !unseen.contains(*p)
            })
            .cloned()
            .collect();
        for partition in partitions {
            self.forget(partition);
        }
        for waiting in &mut self.steps {
            if let PendingStep::Revoking(revocation) = waiting {
                revocation.partitions.retain(|p| !partitions.contains(p));
            }
        }
        self.steps.retain(|waiting| !matches!(waiting, PendingStep::Revoking(r) if r.partitions.is_empty()));
        if !known.is_empty() {
            self.steps.push_back(PendingStep::Lost(known));
        }
        self.plan += 1;
        self.balance();
    }

    /// Returns all assigned partitions.
    pub(super) fn owned(&self) -> Vec<TopicPartition> {
        self.assigned.keys().cloned().collect()
    }

    /// Withdraws assignments that were not handed out yet: the caller never learns of them.
    fn take_back(&mut self, partitions: &[TopicPartition]) -> HashSet<TopicPartition> {
        let mut unseen = HashSet::new();
        for waiting in &mut self.steps {
            if let PendingStep::Assigned(assignments) = waiting {
                assignments.retain(|a| {
                    let back = partitions.contains(&a.partition);
                    if back {
                        unseen.insert(a.partition.clone());
                    }
                    !back
                });
            }
        }
        self.steps.retain(|waiting| !matches!(waiting, PendingStep::Assigned(a) if a.is_empty()));
        unseen
    }

    /// Removes a partition and its records.
    fn forget(&mut self, partition: &TopicPartition) {
        self.clear(partition);
        self.assigned.remove(partition);
    }

    /// Reads paused partitions again. Prefetched records are handed out at once.
    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.paused.remove(partition);
            if self.assigned.get(partition).is_some_and(AssignedPartition::has_output)
                && !self.ready.contains(partition)
            {
                self.ready.push_back(partition.clone());
            }
        }
        self.plan += 1;
    }

    /// Checks whether a commit may be sent: `None` if a later offset is already committed.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if the partition is not assigned under this epoch, or its
    /// revocation is overdue.
    pub(super) fn may_commit(&self, commit: &Commit) -> Result<Option<()>> {
        let assigned = self.assigned.get(&commit.partition).filter(|assigned| assigned.mark.epoch == commit.epoch);
        let assigned = assigned.ok_or_else(|| not_ours(&commit.partition))?;
        match assigned.stage {
            Stage::Starting => return Err(not_ours(&commit.partition)),
            Stage::Revoking(Some(deadline)) if deadline <= Instant::now() => return Err(not_ours(&commit.partition)),
            _ => {}
        }
        let back =
            assigned.committed.is_some_and(|committed| commit.next_offset < committed) && assigned.back_since.is_none();
        Ok((!back).then_some(()))
    }

    /// Returns the mark of a commit's assignment.
    pub(super) fn mark(&self, commit: &Commit) -> Option<EpochMark> {
        let assigned = self.assigned.get(&commit.partition).filter(|assigned| assigned.mark.epoch == commit.epoch);
        assigned.map(|assigned| assigned.mark)
    }

    /// Records an accepted commit; `readings` is the number of readings when it was requested.
    ///
    /// A commit for an assignment that has ended meanwhile is not recorded.
    pub(super) fn committed(&mut self, commit: &Commit, readings: u64) {
        if let Some(assigned) =
            self.assigned.get_mut(&commit.partition).filter(|assigned| assigned.mark.epoch == commit.epoch)
        {
            assigned.committed = Some(commit.next_offset);
            // A commit in flight when its partition went back ends nothing.
            assigned.back_since = assigned.back_since.filter(|since| *since > readings);
        }
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the consumer is closed")
}

pub(super) fn not_ours(partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::Fenced, format!("{partition} is not assigned to this member under this epoch"))
}
