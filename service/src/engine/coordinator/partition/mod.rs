//! One assignment of a partition: what it admits, what may be committed, and how it ends.

mod due;
mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{Assignment, Commit, Error, ErrorKind, Fetched, RecordBatch, TopicPartition, Unreadable};
use tokio::time::Instant;

use super::held::Held;
use super::revocation::{Leave, LeaveStep, Remaining, Revocation};
use super::tracker::Tracker;
use super::troubles::{Troubles, reason};
use super::waiting::Waiting;
use super::watch::Watch;
use crate::engine::assigned::{Assigned, AssignmentId};
use crate::engine::messages::Cause;
use crate::engine::tiers::Level;
use crate::logs;
use crate::status::{Hold, PauseReason};

/// One assignment of a partition. It knows neither channels nor tasks nor the consumer: its owner carries out what it
/// decides.
#[derive(Debug)]
pub(super) struct Partition {
    assigned: Arc<Assigned>,
    tracker: Tracker,
    committed: Option<u64>,
    /// A commit was refused because another member owns the partition: no other is tried.
    fenced: bool,
    end: u64,
    start: Start,
    troubles: Troubles,
    pauses: BTreeSet<PauseReason>,
    held: Held,
    revocation: Option<Revocation>,
    /// The records that are not due, if the partition is of a retry topic.
    waiting: Option<Box<Waiting>>,
    pub(super) watch: Watch,
}

/// The conditions under which the first record of an assignment is dispatched.
#[derive(Debug)]
struct Start {
    /// The start offset is committed. Otherwise a crash would resume at an offset of a former log, or elsewhere.
    committed: bool,
    /// An earlier assignment of the partition to this service still has work in flight.
    behind: bool,
    /// The batches that arrived meanwhile.
    early: Vec<Fetched>,
    /// The number of records of such batches that were dropped when the assignment began to end.
    dropped: usize,
}

/// A batch for the workers.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) assigned: Arc<Assigned>,
    /// The batch's number in its tracker.
    pub(super) number: u64,
    pub(super) batch: RecordBatch,
    /// The bytes that are in flight since then.
    pub(super) bytes: usize,
}

/// The effect of fetched records on an assignment.
#[derive(Debug)]
pub(super) enum Admitted {
    Dispatch(Dispatch),
    /// They are kept until the assignment starts, or belong to another one.
    Nothing,
    /// They are of a retry topic, and are dispatched when they are due.
    Waiting,
    /// They come below those that were read: the log was truncated or recreated. Another assignment has to take them.
    Rewound(Assignment, Fetched),
}

impl Partition {
    /// Creates the state of a new assignment, which is `behind` an earlier one that has not ended; `tier` is the level
    /// of a retry topic.
    pub(super) fn new(id: AssignmentId, assignment: &Assignment, behind: bool, tier: Option<Level>) -> Self {
        // A committed offset beyond the start is of a former log.
        let committed = assignment.committed == Some(assignment.start_offset);
        let pauses = if committed && !behind { BTreeSet::new() } else { [PauseReason::Starting].into() };
        Self {
            assigned: Arc::new(Assigned::new(id, Arc::new(assignment.partition.clone()), assignment.epoch, tier)),
            tracker: Tracker::new(assignment.start_offset),
            committed: assignment.committed,
            fenced: false,
            end: assignment.start_offset,
            start: Start { committed, behind, early: Vec::new(), dropped: 0 },
            troubles: Troubles::default(),
            pauses,
            held: Held::default(),
            revocation: None,
            waiting: tier.map(|_| Box::default()),
            watch: Watch::new(assignment.committed.filter(|committed| *committed > assignment.start_offset)),
        }
    }

    pub(super) fn origin(&self) -> &TopicPartition {
        &self.assigned.origin
    }

    pub(super) fn epoch(&self) -> u64 {
        self.assigned.epoch
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.revocation.is_some()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::is_lost)
    }

    /// Returns whether it ends because an operator moves the position.
    pub(super) fn is_seeking(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::is_seeking)
    }

    /// Returns whether the consumer moves the position now. A commit meanwhile would be that of the old position, and
    /// take the place of the one that may go back.
    pub(super) fn is_moving(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::is_moving)
    }

    /// Records that the consumer moves the position now; returns the lowest offset that is not settled.
    pub(super) fn begin_move(&mut self) -> u64 {
        if let Some(revocation) = &mut self.revocation {
            revocation.begin_move();
        }
        self.tracker.watermark()
    }

    /// Takes fetched records in.
    pub(super) fn admit(&mut self, fetched: Fetched) -> Admitted {
        if self.assigned.epoch != fetched.epoch || self.is_leaving() {
            return Admitted::Nothing;
        }
        let start = fetched.batch.records().first().map_or(fetched.next_offset, |record| record.offset);
        if start < self.reached() {
            return Admitted::Rewound(self.rewound(start), fetched);
        }
        self.held.read_on(fetched.next_offset);
        self.end = self.end.max(fetched.next_offset);
        if let Some(waiting) = &mut self.waiting {
            waiting.push(fetched, Instant::now());
            return Admitted::Waiting;
        }
        self.watch.clock.fetched(fetched.batch.records().last().map(|record| record.timestamp));
        if self.may_begin() {
            return Admitted::Dispatch(self.dispatch(fetched));
        }
        self.start.early.push(fetched);
        Admitted::Nothing
    }

    /// Returns the assignment that begins at `start`. Work of this one must settle none of its records.
    pub(super) fn rewound(&self, start: u64) -> Assignment {
        // The committed offset is left out: a commit in flight may still change it.
        Assignment::new(self.origin().clone(), self.epoch(), start)
    }

    fn may_begin(&self) -> bool {
        self.start.committed && !self.start.behind
    }

    fn dispatch(&mut self, fetched: Fetched) -> Dispatch {
        let (batch, before) = (fetched.batch.clone(), self.tracker.bytes());
        let number = self.tracker.push(fetched);
        Dispatch { assigned: self.assigned.clone(), number, batch, bytes: self.tracker.bytes() - before }
    }

    /// Returns the batches that arrived before the assignment could start, if it can start now.
    fn begin(&mut self) -> Vec<Dispatch> {
        if !self.may_begin() {
            return Vec::new();
        }
        self.pauses.remove(&PauseReason::Starting);
        let early = std::mem::take(&mut self.start.early);
        early.into_iter().map(|fetched| self.dispatch(fetched)).collect()
    }

    /// Records that the earlier assignment of the partition has ended.
    pub(super) fn earlier_ended(&mut self) -> Vec<Dispatch> {
        self.start.behind = false;
        self.begin()
    }

    /// Counts the range up to `next` as read, unless later records have arrived already: an operator skipped it.
    pub(super) fn pass_over(&mut self, next: u64) -> Option<Fetched> {
        self.held.read_on(next);
        let nothing = || RecordBatch::new(self.origin().clone(), Vec::new());
        (next > self.reached()).then(|| Fetched::new(nothing(), self.epoch(), next))
    }

    /// Returns the offset after the last record received.
    pub(super) fn reached(&self) -> u64 {
        let early = self.start.early.last().map(|fetched| fetched.next_offset);
        early.or_else(|| self.waiting.as_ref()?.reached()).unwrap_or(self.tracker.next())
    }

    /// Settles records of a batch; returns the bytes that are not in flight any more.
    pub(super) fn settle(&mut self, number: u64, indexes: impl IntoIterator<Item = u32>) -> usize {
        let before = self.tracker.bytes();
        self.tracker.settle(number, indexes);
        before - self.tracker.bytes()
    }

    /// Returns the position to commit: the lowest offset that is not settled, unless it is committed, or must not be.
    pub(super) fn position(&self) -> Option<u64> {
        let next = self.tracker.watermark();
        (!self.is_lost() && !self.is_moving() && !self.fenced && self.committed != Some(next)).then_some(next)
    }

    /// Returns the commit of the [position](Self::position), which is attempted now.
    pub(super) fn next_commit(&mut self) -> Option<Commit> {
        let next = self.position()?;
        if let Some(revocation) = &mut self.revocation {
            revocation.try_commit(next);
        }
        Some(Commit::new(self.origin().clone(), self.epoch(), next))
    }

    /// Returns whether its records wait for the commit of its start.
    pub(super) fn waits_for_commit(&self) -> bool {
        !self.start.committed && !self.fenced && !self.is_leaving()
    }

    /// Records that `next` is committed; returns the batches that waited for that.
    pub(super) fn committed(&mut self, next: u64) -> Vec<Dispatch> {
        self.committed = Some(next);
        if std::mem::replace(&mut self.start.committed, true) { Vec::new() } else { self.begin() }
    }

    /// Records that a commit failed; returns whether it may be repeated.
    ///
    /// If another member owns the partition it is not: the step that says so is still to come, and a repetition would
    /// keep it from being read.
    pub(super) fn not_committed(&mut self, error: &Error) -> bool {
        self.fenced |= error.kind() == ErrorKind::Fenced;
        error.kind() != ErrorKind::Fenced
    }

    /// Counts a dependency that is down for one of its records, or up again.
    pub(super) fn trouble(&mut self, cause: Cause, raised: bool, text: String) {
        let is_down = self.troubles.count(cause, raised, text);
        self.pause(reason(cause), is_down);
    }

    /// Pauses fetching for `reason`, or ends that pause.
    pub(super) fn pause(&mut self, reason: PauseReason, paused: bool) {
        let changed = if paused { self.pauses.insert(reason) } else { self.pauses.remove(&reason) };
        if changed {
            self.watch.touch();
        }
    }

    pub(super) fn is_paused_by(&self, reason: PauseReason) -> bool {
        self.pauses.contains(&reason)
    }

    /// Returns whether its records must not be fetched now. Those of a partition that is being revoked would not be
    /// handled here.
    pub(super) fn wants_pause(&self) -> bool {
        !self.pauses.is_empty() || self.is_leaving() || self.holds_records()
    }

    /// Tells the workers whether it is paused at a bound; returns whether it is now and was not before.
    pub(super) fn reached_bound(&self) -> bool {
        let at_bound = self.is_paused_by(PauseReason::Bytes) || self.is_paused_by(PauseReason::Span);
        self.assigned.set_at_bound(at_bound) && at_bound
    }

    /// Holds only this partition at a range that cannot be read. All records before it are tracked, and are settled and
    /// committed.
    pub(super) fn unreadable(&mut self, unreadable: &Unreadable, service: &str) {
        if self.epoch() != unreadable.epoch {
            return;
        }
        let cause = unreadable.error.report();
        let line = logs::Unreadable {
            service: &service,
            topic: &self.origin().topic.as_str(),
            partition: &self.origin().partition,
            offset: &unreadable.offset,
            next_offset: &unreadable.next_offset,
            error: &cause,
        };
        line.log();
        self.held.hold(unreadable.offset, unreadable.next_offset, cause);
    }

    /// Records that the dead letter of the record at `offset` could not be written; `None`: that it was eventually.
    pub(super) fn unburied(&mut self, offset: u64, error: Option<String>) {
        match error {
            Some(error) => self.held.unburied(offset, error),
            None => self.held.settled(offset),
        }
    }

    pub(super) fn holds(&self) -> Vec<Hold> {
        self.held.all()
    }

    /// Begins its end; returns whether it had not begun before.
    pub(super) fn leave(&mut self, leave: Leave, limit: Duration, now: Instant) -> bool {
        if let Some(revocation) = &mut self.revocation {
            revocation.again(leave, limit, now);
            return false;
        }
        self.revocation = Some(Revocation::new(leave, limit, now));
        self.assigned.stop();
        self.waiting.iter_mut().for_each(|waiting| waiting.clear());
        self.start.dropped = self.start.early.drain(..).map(|fetched| fetched.batch.len()).sum();
        true
    }

    /// Returns the next step of its end; `None` if it is not ending.
    pub(super) fn poll_leave(&mut self, now: Instant) -> Option<LeaveStep> {
        let remaining = Remaining {
            // Every chunk and record in flight holds a reference; this one is ours.
            quiet: Arc::strong_count(&self.assigned) == 1,
            settled: self.tracker.watermark(),
            committed: self.committed,
            fenced: self.fenced,
        };
        let revocation = self.revocation.as_mut()?;
        let step = revocation.poll(remaining, now);
        if step == LeaveStep::Cancel {
            revocation.cancel(now);
            self.assigned.cancel();
        }
        Some(step)
    }

    /// Returns when the next step of the revocation, or a record of a retry topic, is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.revocation {
            Some(revocation) => revocation.due(),
            None => self.next_due(),
        }
    }

    /// Returns whether only its release is left.
    pub(super) fn has_ended(&self) -> bool {
        self.revocation.as_ref().is_some_and(Revocation::has_ended)
    }

    pub(super) fn span(&self) -> u64 {
        self.tracker.span()
    }

    pub(super) fn bytes(&self) -> usize {
        self.tracker.bytes()
    }

    /// Updates the end of the log.
    pub(super) fn set_end(&mut self, end: u64) {
        self.end = self.tracker.next().max(end);
    }

    /// Returns whether nothing of it is in flight, and nothing waits to be dispatched.
    pub(super) fn is_idle(&self) -> bool {
        self.tracker.unsettled() == 0 && self.start.early.is_empty() && !self.is_leaving() && !self.is_due_soon()
    }

    /// Returns whether all that was settled is committed.
    pub(super) fn is_committed(&self) -> bool {
        self.committed == Some(self.tracker.watermark())
    }

    /// Returns whether everything up to the end of the log is committed.
    pub(super) fn is_at_end(&self) -> bool {
        self.committed.is_some_and(|committed| committed >= self.due_end())
    }

    /// Returns whether progress is expected: there is lag, and it can be read.
    pub(super) fn has_lag(&self) -> bool {
        let due = if self.held.is_unreadable() { self.tracker.next() } else { self.due_end() };
        due > self.tracker.watermark()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
    use proptest::test_runner::Config;
    use tidings_core::{StoredRecord, Timestamp};

    use super::*;

    /// Something that happens to an assignment.
    #[derive(Debug, Clone)]
    enum Happens {
        /// Records arrive: which of the next offsets exist, and the gap behind them.
        Fetched(Vec<bool>, u8),
        /// A record in flight is settled.
        Settled(usize),
        /// Workers let go of a batch, whatever is settled of it.
        LetGo(usize),
        /// The pending commit is answered: accepted, refused, or refused for good.
        Answered(u8),
        Leave(Leave),
        TimePasses(u16),
        EarlierEnded,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let time = Duration::from_secs(5);
        let leaves = prop_oneof![
            Just(Leave::Revoking(time)),
            Just(Leave::Lost),
            Just(Leave::Replaced),
            Just(Leave::Shutdown(time)),
            Just(Leave::Seeking(time)),
        ];
        prop_oneof![
            4 => (prop::collection::vec(any::<bool>(), 0..6), 0_u8..3).prop_map(|(p, gap)| Happens::Fetched(p, gap)),
            8 => any::<usize>().prop_map(Happens::Settled),
            3 => any::<usize>().prop_map(Happens::LetGo),
            4 => (0_u8..10).prop_map(Happens::Answered),
            1 => leaves.prop_map(Happens::Leave),
            3 => (0_u16..4_000).prop_map(Happens::TimePasses),
            1 => Just(Happens::EarlierEnded),
        ]
    }

    /// An assignment with its workers and its broker, as simple as possible.
    struct World {
        partition: Partition,
        now: Instant,
        /// The records that arrived and are not settled.
        unsettled: BTreeSet<u64>,
        next_offset: u64,
        /// The batches that workers have, with the records of each that are not settled.
        in_flight: Vec<(Dispatch, Vec<(u32, u64)>)>,
        committing: Option<u64>,
        /// All offsets that were ever sent to the broker, and the last one that it accepted.
        sent: u64,
        accepted: Option<u64>,
        cancelled: bool,
        ended: bool,
    }

    impl World {
        fn new(committed: bool, behind: bool) -> Self {
            let mut assignment = Assignment::new(TopicPartition::new("t", 0), 1, 10);
            assignment.committed = committed.then_some(10);
            Self {
                partition: Partition::new(1, &assignment, behind, None),
                now: Instant::now(),
                unsettled: BTreeSet::new(),
                next_offset: 10,
                in_flight: Vec::new(),
                committing: None,
                sent: 0,
                accepted: None,
                cancelled: false,
                ended: false,
            }
        }

        fn dispatched(&mut self, dispatches: Vec<Dispatch>) {
            for dispatch in dispatches {
                let offsets = dispatch.batch.records().iter().map(|record| record.offset);
                let open = (0_u32..).zip(offsets).collect();
                self.in_flight.push((dispatch, open));
            }
        }

        fn fetched(&mut self, present: &[bool], gap: u8) {
            let offsets = (self.next_offset..).zip(present).filter(|(_, present)| **present).map(|(offset, _)| offset);
            let offsets: Vec<u64> = offsets.collect();
            self.next_offset += present.len() as u64 + u64::from(gap);
            let records = offsets.iter().map(|o| StoredRecord::new(*o, Timestamp::default())).collect();
            let batch = RecordBatch::new(TopicPartition::new("t", 0), records);
            // Records that an ending assignment does not admit are read again by the next owner.
            self.unsettled.extend(&offsets);
            match self.partition.admit(Fetched::new(batch, 1, self.next_offset)) {
                Admitted::Dispatch(dispatch) => self.dispatched(vec![dispatch]),
                Admitted::Nothing => {}
                Admitted::Rewound(..) | Admitted::Waiting => panic!("offsets only grow here, and wait for nothing"),
            }
        }

        fn settled(&mut self, pick: usize) {
            let open: Vec<(usize, usize)> = self
                .in_flight
                .iter()
                .enumerate()
                .flat_map(|(b, (_, open))| (0..open.len()).map(move |r| (b, r)))
                .collect();
            let Some((batch, record)) = open.get(pick.checked_rem(open.len()).unwrap_or(0)).copied() else { return };
            let (dispatch, open) = &mut self.in_flight[batch];
            let (index, offset) = open.swap_remove(record);
            self.partition.settle(dispatch.number, [index]);
            self.unsettled.remove(&offset);
        }

        fn commit(&mut self) {
            if self.committing.is_some() {
                return;
            }
            let Some(commit) = self.partition.next_commit() else { return };
            assert!(commit.next_offset >= self.sent, "positions fall: {} after {}", commit.next_offset, self.sent);
            let lowest = self.unsettled.first().copied().unwrap_or(u64::MAX);
            assert!(commit.next_offset <= lowest, "{} is committed, {lowest} is not settled", commit.next_offset);
            (self.sent, self.committing) = (commit.next_offset, Some(commit.next_offset));
        }

        fn answered(&mut self, answer: u8) {
            let Some(next) = self.committing.take() else { return };
            match answer {
                0 => drop(self.partition.not_committed(&Error::new(ErrorKind::Fenced, "x"))),
                1..3 => assert!(self.partition.not_committed(&Error::new(ErrorKind::Unavailable, "x"))),
                _ => {
                    self.accepted = Some(next);
                    let begun = self.partition.committed(next);
                    self.dispatched(begun);
                }
            }
        }

        fn poll(&mut self) {
            match self.partition.poll_leave(self.now) {
                Some(LeaveStep::Release) => {
                    let is_committed =
                        self.accepted.is_none_or(|at| self.unsettled.first().is_none_or(|low| at <= *low));
                    assert!(is_committed, "the next owner does not read what is not settled");
                    self.end();
                }
                Some(LeaveStep::Forget) => self.end(),
                Some(LeaveStep::Commit) => self.commit(),
                Some(LeaveStep::Wait) => assert!(!self.in_flight.is_empty(), "nothing to wait for"),
                Some(LeaveStep::Move) if self.committing.is_none() => {
                    assert_eq!(self.partition.begin_move(), self.partition.begin_move(), "it stays until it has moved");
                    assert_eq!(self.partition.position(), None, "nothing is committed while the consumer moves");
                    let next = self.partition.rewound(3);
                    assert_eq!((next.start_offset, next.committed), (3, None), "the new position is committed first");
                    self.partition.leave(Leave::Replaced, Duration::ZERO, self.now);
                }
                Some(LeaveStep::Move) => {}
                Some(LeaveStep::Cancel) => self.cancelled = true,
                None => {}
            }
        }

        fn end(&mut self) {
            assert!(self.in_flight.is_empty() || self.cancelled, "its work goes on under the next owner");
            self.ended = true;
        }

        fn take(&mut self, happens: Happens) {
            match happens {
                Happens::Fetched(present, gap) => self.fetched(&present, gap),
                Happens::Settled(pick) => self.settled(pick),
                Happens::LetGo(pick) => {
                    // Workers let go of what is not settled only of an assignment that ends.
                    if let Some(at) = pick.checked_rem(self.in_flight.len())
                        && (self.partition.is_leaving() || self.in_flight[at].1.is_empty())
                    {
                        self.in_flight.swap_remove(at);
                    }
                }
                Happens::Answered(answer) => self.answered(answer),
                Happens::Leave(leave) => drop(self.partition.leave(leave, Duration::from_secs(3), self.now)),
                Happens::TimePasses(millis) => self.now += Duration::from_millis(millis.into()),
                Happens::EarlierEnded => {
                    let begun = self.partition.earlier_ended();
                    self.dispatched(begun);
                }
            }
            if self.partition.waits_for_commit() {
                self.commit();
            }
            self.poll();
        }
    }

    fn check(committed: bool, behind: bool, all: Vec<Happens>) {
        let mut world = World::new(committed, behind);
        for (number, happens) in all.into_iter().enumerate() {
            world.take(happens);
            if world.ended {
                return;
            }
            if number % 5 == 0 {
                world.commit();
            }
        }
        // However it went, an end comes to an end.
        world.take(Happens::Leave(Leave::Revoking(Duration::from_secs(5))));
        for _ in 0..20 {
            world.take(Happens::TimePasses(2_000));
            world.take(Happens::Answered(1));
        }
        assert!(world.ended, "it never ends");
    }

    proptest! {
        #![proptest_config(Config { cases: 5_000, ..Default::default() })]
        #[test]
        fn positions_never_fall_and_an_end_loses_no_unsettled_record(
            committed in any::<bool>(),
            behind in any::<bool>(),
            all in prop::collection::vec(happens(), 0..60),
        ) {
            check(committed, behind, all);
        }
    }

    #[test]
    fn a_log_that_went_back_needs_another_assignment() {
        let mut world = World::new(true, false);
        world.fetched(&[true, true, true], 0);
        let batch = RecordBatch::new(TopicPartition::new("t", 0), vec![StoredRecord::new(4, Timestamp::default())]);
        let Admitted::Rewound(assignment, _) = world.partition.admit(Fetched::new(batch, 1, 5)) else {
            panic!("offsets below those that were read belong to another log")
        };
        assert_eq!((assignment.start_offset, assignment.committed), (4, None));
        assert_eq!(Partition::new(2, &assignment, false, None).position(), Some(4), "the new start is committed");
    }

    #[test]
    fn records_that_arrived_before_the_start_are_given_back_too() {
        let mut world = World::new(true, true);
        world.fetched(&[true, true], 0);
        world.take(Happens::Leave(Leave::Lost));
        assert_eq!(world.partition.returned().map(|returned| returned.records), Some(2));
    }

    #[test]
    fn a_start_counts_as_committed_only_if_it_is() {
        let mut assignment = Assignment::new(TopicPartition::new("t", 0), 1, 10);
        assignment.committed = Some(99);
        let mut partition = Partition::new(1, &assignment, false, None);
        assert!(partition.waits_for_commit());
        assert_eq!(partition.next_commit().map(|commit| commit.next_offset), Some(10));
    }
}
