//! Fetched records that are not handed out yet, and the positions that fetchers fetch next.
//!
//! A *ticket* numbers a reading: a partition, by one fetcher, from one offset on. When a partition
//! is sought, moved or reset it gets a new ticket, and results under the old one, which may be in
//! flight, are dropped. So no lock is held while a fetch runs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidings_core::{Fetched, Progress, RecordBatch, Result, Step, TopicPartition};

use super::assigned::{AssignedPartition, Chunk, Stage};
use super::stall_check;
use super::state::{State, not_ours};
use crate::client::fetcher::FetchedRecords;

/// Divisor of the limit that gives the share of paused partitions: beyond half of the limit, their prefetched batches
/// are dropped, and fetched again when the partition is resumed.
const PAUSED_SHARE: usize = 2;

/// A partition assigned to a fetcher, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchTarget {
    pub(super) partition: TopicPartition,
    /// The reading; a fetcher seeks only when it changes.
    pub(super) ticket: u64,
    /// Offset to seek to if the reading is new.
    pub(super) from: u64,
    /// Epoch of the leader that appended what was fetched before, if it is known.
    pub(super) leader_epoch: Option<i32>,
    /// Whether it is paused or cannot be read: the fetcher keeps its position and fetches none.
    pub(super) held: bool,
}

/// A fetcher of partitions that one broker leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FetcherId {
    pub(super) broker: i32,
    pub(super) kind: FetcherKind,
}

/// The fetchers of a broker: one of the first two decodes while the broker answers the other. The second is used where
/// a broker leads several partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FetcherKind {
    First,
    Second,
    /// For partitions whose batches decompress to much more: it fetches batches one by one.
    Single,
}

impl FetcherKind {
    /// Returns the other of the first two fetchers.
    ///
    /// The single fetcher has no other: it is for partitions that must not be prefetched in bulk.
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Single => Self::Single,
        }
    }
}

/// An item that `next` hands out.
#[derive(Debug)]
pub(super) enum NextStep {
    Step(Step),
    /// Converted to [`Step::Records`] without the lock.
    Records(ReadyRecords),
}

/// The next records of a partition to hand out.
#[derive(Debug)]
pub(super) struct ReadyRecords {
    origin: Arc<TopicPartition>,
    epoch: u64,
    next: u64,
    records: FetchedRecords,
}

impl From<ReadyRecords> for Fetched {
    fn from(ReadyRecords { origin, epoch, next, records }: ReadyRecords) -> Self {
        Self::new(RecordBatch::new(origin, records.into_records()), epoch, next)
    }
}

impl State {
    /// Returns records of the partition whose turn it is, or that its next ones cannot be read.
    ///
    /// Partitions take turns, one chunk each, so that a full one does not starve the others.
    pub(super) fn pop_read(&mut self, max_records: usize) -> Option<NextStep> {
        while let Some(partition) = self.ready.pop_front() {
            if self.paused.contains(&partition) {
                continue;
            }
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            let Some(mut chunk) = assigned.queue.pop_front() else {
                if let Some(step) = assigned.report_hold() {
                    return Some(NextStep::Step(step));
                }
                continue;
            };
            assigned.queued -= chunk.size;
            self.buffered -= chunk.size;
            if chunk.records.len() > max_records {
                let rest = chunk.records.split_off(max_records);
                let size = rest.size();
                let rest = Chunk { records: rest, size, ..chunk };
                chunk.next = chunk.records.next().unwrap_or(chunk.next);
                assigned.queued += rest.size;
                self.buffered += rest.size;
                assigned.queue.push_front(rest);
            }
            assigned.position = chunk.next;
            let (origin, epoch) = (Arc::clone(&assigned.origin), assigned.mark.epoch);
            if assigned.has_output() {
                self.ready.push_back(partition);
            }
            return Some(NextStep::Records(ReadyRecords { origin, epoch, next: chunk.next, records: chunk.records }));
        }
        None
    }

    /// Drops prefetched records.
    ///
    /// The reading ends: what is in flight for it is dropped when it comes.
    pub(super) fn clear(&mut self, partition: &TopicPartition) {
        if let Some(assigned) = self.assigned.get_mut(partition) {
            self.buffered -= assigned.queued;
            assigned.queued = 0;
            assigned.queue.clear();
            assigned.hold = None;
            assigned.fetched = assigned.position;
            assigned.ticket = 0;
        }
    }

    /// Returns the bytes that paused partitions keep from the others.
    fn kept_by_paused(&self) -> usize {
        self.paused.iter().filter_map(|p| self.assigned.get(p)).map(|assigned| assigned.queued).sum()
    }

    /// Checks whether there is room to prefetch more.
    ///
    /// A fetch may exceed the bound by its own size, since that is not known before.
    pub(super) fn has_room(&self) -> bool {
        self.buffered < self.max_buffered
    }

    /// Checks whether there is room to prefetch more than these bytes, which are fetched and not unpacked.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.buffered.saturating_add(bytes) < self.max_buffered
    }

    /// Returns the partitions that this fetcher reads.
    pub(super) fn targets(&self, fetcher: FetcherId) -> Vec<FetchTarget> {
        let wanted = |(partition, assigned): (&TopicPartition, &AssignedPartition)| {
            let reading = self.fetcher(assigned) == Some(fetcher) && assigned.ticket != 0;
            reading.then(|| FetchTarget {
                partition: partition.clone(),
                ticket: assigned.ticket,
                from: assigned.fetched,
                leader_epoch: assigned.leader_epoch,
                held: assigned.hold.is_some() || self.paused.contains(partition),
            })
        };
        self.assigned.iter().filter_map(wanted).collect()
    }

    /// Checks whether the next offset to fetch lies beyond the offset that the fetcher was reset to.
    ///
    /// The client resets a position that lies beyond the log to its end, without a word.
    pub(super) fn is_beyond(&self, partition: &TopicPartition, ticket: u64, position: u64) -> bool {
        self.assigned
            .get(partition)
            .is_some_and(|assigned| assigned.ticket == ticket && ticket != 0 && position < assigned.fetched)
    }

    /// Adds a fetcher's result: records, and the offset after them and any gap.
    ///
    /// Ignored unless the reading is current and the offset is new.
    pub(super) fn accept(&mut self, partition: &TopicPartition, ticket: u64, chunk: Chunk) {
        let is_new =
            |assigned: &AssignedPartition| assigned.ticket == ticket && ticket != 0 && chunk.next > assigned.fetched;
        if !self.assigned.get(partition).is_some_and(is_new) {
            return;
        }
        let share = self.max_buffered / PAUSED_SHARE;
        let beyond = self.paused.contains(partition) && self.kept_by_paused() + chunk.size > share;
        let Some(assigned) = self.assigned.get_mut(partition) else { return };
        if beyond {
            // Result of a poll that was in flight when the partition was paused.
            self.tickets += 1;
            assigned.ticket = self.tickets;
            self.plan += 1;
            return;
        }
        let size = chunk.size;
        assigned.fetched = chunk.next;
        assigned.leader_epoch = chunk.leader_epoch.or(assigned.leader_epoch);
        assigned.queued += size;
        self.buffered += size;
        assigned.queue.push_back(chunk);
        if assigned.queue.len() == 1 {
            self.ready.push_back(partition.clone());
        }
        if assigned.fetch_mode.record_fetch(size, self.large) {
            self.tickets += 1;
            assigned.ticket = self.tickets;
            self.plan += 1;
            self.balance();
        }
    }

    /// Updates the leaders; readings move to the new ones.
    pub(super) fn update_leaders(&mut self, topic: &str, leaders: &HashMap<u32, Option<i32>>) {
        for (partition, assigned) in &mut self.assigned {
            let Some(leader) = leaders.get(&partition.partition).filter(|_| partition.topic == *topic) else {
                continue;
            };
            // Without a leader the old one may still be right: the answer may be from before the election.
            if leader.is_some() && assigned.leader != *leader {
                assigned.leader = *leader;
                assigned.replica = None;
                assigned.second = false;
                if assigned.ticket != 0 {
                    self.tickets += 1;
                    assigned.ticket = self.tickets;
                }
                self.plan += 1;
            }
        }
        self.balance();
    }

    /// Checks whether one broker leads several of the assigned partitions.
    pub(super) fn shares_a_broker(&self) -> bool {
        let mut seen = HashSet::new();
        self.assigned.values().filter_map(|assigned| assigned.leader).any(|leader| !seen.insert(leader))
    }

    /// Enables the second fetchers.
    pub(super) fn enable_second(&mut self) {
        self.second_enabled = true;
        self.balance();
    }

    /// Balances partitions between the two fetchers of each broker; the most recent readings move.
    pub(super) fn balance(&mut self) {
        if !self.second_enabled {
            return;
        }
        let mut counts: HashMap<FetcherId, usize> = HashMap::new();
        let is_disabled = |broker| {
            [FetcherKind::First, FetcherKind::Second]
                .iter()
                .any(|kind| self.disabled.contains(&FetcherId { broker, kind: *kind }))
        };
        let shared = |assigned: &&mut AssignedPartition| {
            assigned.ticket != 0 && !assigned.fetch_mode.single && !assigned.leader.is_some_and(is_disabled)
        };
        let mut assigned: Vec<_> = self.assigned.values_mut().filter(shared).collect();
        for fetcher in assigned.iter().filter_map(|assigned| assigned.fetcher()) {
            *counts.entry(fetcher).or_default() += 1;
        }
        assigned.sort_unstable_by_key(|assigned| Reverse(assigned.ticket));
        for assigned in assigned {
            let Some(fetcher) = assigned.fetcher() else { continue };
            let other = FetcherId { kind: fetcher.kind.other(), ..fetcher };
            let of = |fetcher: &FetcherId| counts.get(fetcher).copied().unwrap_or(0);
            if of(&fetcher) > of(&other) + 1 {
                *counts.entry(fetcher).or_default() -= 1;
                *counts.entry(other).or_default() += 1;
                assigned.second = other.kind == FetcherKind::Second;
                self.tickets += 1;
                assigned.ticket = self.tickets;
                self.plan += 1;
            }
        }
    }

    /// Checks whether a partition is assigned and being read.
    pub(super) fn reads(&self, partition: &TopicPartition) -> bool {
        self.assigned.get(partition).is_some_and(|assigned| assigned.stage == Stage::Reading)
    }

    /// Returns the fetcher of a partition, while its leader is known.
    ///
    /// Returns `None` without a leader: nothing can be fetched then.
    pub(super) fn fetcher(&self, assigned: &AssignedPartition) -> Option<FetcherId> {
        Some(stall_check::usable(&self.disabled, self.second_enabled, assigned.fetcher()?))
    }

    /// Returns the fetchers that have partitions to read.
    pub(super) fn fetchers(&self) -> HashSet<FetcherId> {
        self.assigned.values().filter_map(|assigned| self.fetcher(assigned)).collect()
    }

    /// Continues reading at another offset.
    ///
    /// # Errors
    /// [`Fenced`](tidings_core::ErrorKind::Fenced) unless the partition is assigned and read.
    pub(super) fn move_to(&mut self, partition: &TopicPartition, offset: u64, asked: bool) -> Result<()> {
        if self.assigned.get(partition).is_none_or(|assigned| assigned.stage != Stage::Reading) {
            return Err(not_ours(partition));
        }
        self.clear(partition);
        self.tickets += 1;
        if let Some(assigned) = self.assigned.get_mut(partition) {
            assigned.ticket = self.tickets;
            assigned.position = offset;
            assigned.fetched = offset;
            assigned.leader_epoch = None;
            // Records read again must be committed again, wherever the log ends by then.
            if asked || assigned.committed.is_some_and(|committed| committed > offset) {
                assigned.back_since = Some(assigned.ticket);
            }
        }
        self.plan += 1;
        Ok(())
    }

    /// Stops handing out records. Prefetched ones are kept, up to the share of paused partitions.
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) {
        self.paused.extend(partitions.iter().cloned());
        self.plan += 1;
        if self.kept_by_paused() > self.max_buffered / PAUSED_SHARE {
            for partition in partitions {
                self.reread(partition);
            }
        }
    }

    /// Returns the progress of each partition, without the end of its log.
    pub(super) fn progress(&self) -> Vec<Progress> {
        let reading = |(_, assigned): &(&TopicPartition, &AssignedPartition)| assigned.stage != Stage::Starting;
        let progress = |(partition, assigned): (&TopicPartition, &AssignedPartition)| {
            let mut progress =
                Progress::new(partition.clone(), assigned.position, assigned.committed, assigned.fetched);
            progress.paused = self.paused.contains(partition);
            progress
        };
        self.assigned.iter().filter(reading).map(progress).collect()
    }

    /// Drops what is prefetched; it is fetched again from the position.
    fn reread(&mut self, partition: &TopicPartition) {
        if self.assigned.get(partition).is_some_and(|assigned| assigned.stage == Stage::Reading && assigned.queued > 0)
        {
            self.clear(partition);
            self.tickets += 1;
            if let Some(assigned) = self.assigned.get_mut(partition) {
                assigned.ticket = self.tickets;
            }
        }
    }
}

impl AssignedPartition {
    /// Checks whether there is anything to hand out.
    pub(super) fn has_output(&self) -> bool {
        !self.queue.is_empty() || self.hold.as_ref().is_some_and(|hold| !hold.reported)
    }

    /// Returns the fetcher of this partition, while its leader is known.
    fn fetcher(&self) -> Option<FetcherId> {
        let kind = match (self.fetch_mode.single, self.second) {
            (true, _) => FetcherKind::Single,
            (false, true) => FetcherKind::Second,
            (false, false) => FetcherKind::First,
        };
        let broker = self.replica.map(|(replica, _)| replica).or(self.leader)?;
        Some(FetcherId { broker, kind })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::{Assignment, Commit, Timestamp};

    use super::super::epoch::{EpochMark, Generation};
    use super::super::replica::PreviousPosition;
    use super::super::start::FoundStart;
    use super::super::state::StartHints;
    use super::*;

    const FIRST: FetcherId = FetcherId { broker: 1, kind: FetcherKind::First };
    const SECOND: FetcherId = FetcherId { broker: 1, kind: FetcherKind::Second };
    const SINGLE: FetcherId = FetcherId { broker: 1, kind: FetcherKind::Single };

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    /// Returns a state with one partition being read, and its epoch.
    fn reading(max_buffered: usize) -> (State, u64) {
        let mut state = State::new(max_buffered, Duration::from_secs(60));
        state.large = usize::MAX;
        let epoch = add(&mut state, &[at()], 1);
        (state, epoch)
    }

    /// Assigns partitions that this broker leads; returns their epoch.
    fn add(state: &mut State, partitions: &[TopicPartition], broker: i32) -> u64 {
        let lookup = state.register(partitions.to_vec());
        let mark = EpochMark::next(None, Generation { number: 1, newer: true }, Timestamp::now());
        let found = |p: &TopicPartition| FoundStart { assignment: Assignment::new(p.clone(), mark.epoch, 0), mark };
        let leaders = partitions.iter().map(|p| (p.clone(), Some(broker))).collect();
        let single = HashSet::new();
        state.assign(lookup, partitions.iter().map(found).collect(), &StartHints { leaders, single });
        mark.epoch
    }

    fn partitions(numbers: std::ops::Range<u32>) -> Vec<TopicPartition> {
        numbers.map(|number| TopicPartition::new("t", number)).collect()
    }

    fn chunk(next: u64, size: usize) -> Chunk {
        Chunk { size, ..Chunk::gap(next) }
    }

    /// Polls in flight when partitions were paused bring records that these must not keep.
    #[tokio::test]
    async fn paused_partitions_leave_room_to_the_others() {
        let (mut state, _) = reading(1_000);
        let first = state.targets(FIRST).remove(0).ticket;
        state.accept(&at(), first, chunk(5, 400));
        state.pause(&[at()]);
        assert!(state.buffered <= 500, "{}", state.buffered);
        state.accept(&at(), first, chunk(9, 700));
        assert_eq!(state.buffered, 400, "bytes of a paused partition");
        // Dropped records come again, from the same offset.
        state.accept(&at(), first, chunk(12, 1));
        let target = state.targets(FIRST).remove(0);
        assert_eq!((target.from, target.held), (5, true));
        state.resume(&[at()]);
        state.accept(&at(), target.ticket, chunk(9, 700));
        assert_eq!((state.assigned[&at()].fetched, state.buffered), (9, 1_100));
    }

    #[tokio::test]
    async fn two_readers_share_what_a_broker_leads() {
        let mut state = State::new(1_000, Duration::from_secs(60));
        add(&mut state, &partitions(0..1), 1);
        assert!(!state.shares_a_broker());
        add(&mut state, &partitions(1..5), 1);
        assert_eq!(state.fetchers(), HashSet::from([FIRST]), "without a second connection it reads all");
        state.enable_second();
        let read = |state: &State| (state.targets(FIRST).len(), state.targets(SECOND).len());
        assert!(matches!(read(&state), (2, 3) | (3, 2)), "{:?}", read(&state));
        assert!(state.targets(FIRST).iter().any(|target| target.partition.partition == 0), "what is being read stays");
        let second = state.targets(SECOND);
        state.lose(&second.into_iter().map(|target| target.partition).collect::<Vec<_>>());
        assert!(matches!(read(&state), (1, 1) | (1, 2) | (2, 1)), "{:?}", read(&state));
        add(&mut state, &partitions(5..6), 2);
        state.update_leaders("t", &(0..6).map(|p| (p, Some(2))).collect());
        assert_eq!(read(&state), (0, 0));
        assert_eq!(
            state.fetchers(),
            [FetcherKind::First, FetcherKind::Second].map(|kind| FetcherId { broker: 2, kind }).into()
        );
    }

    /// Records that the other fetcher still brings would be handed out twice.
    #[tokio::test]
    async fn a_partition_that_moves_between_readers_is_read_once() {
        let mut state = State::new(1_000, Duration::from_secs(60));
        state.enable_second();
        add(&mut state, &partitions(0..4), 1);
        let (first, second) = (state.targets(FIRST), state.targets(SECOND));
        state.lose(&second.into_iter().map(|target| target.partition).collect::<Vec<_>>());
        let moved = state.targets(SECOND).remove(0);
        let before = first.into_iter().find(|target| target.partition == moved.partition).unwrap();
        state.accept(&moved.partition, before.ticket, chunk(5, 10));
        assert_eq!((state.assigned[&moved.partition].fetched, state.buffered), (0, 0));
        state.accept(&moved.partition, moved.ticket, chunk(5, 10));
        assert_eq!((state.assigned[&moved.partition].fetched, state.buffered), (5, 10));
    }

    #[tokio::test]
    async fn a_partition_that_unpacks_to_much_is_read_batch_by_batch() {
        let (mut state, _) = reading(1_000);
        state.large = 250;
        let ticket = state.targets(FIRST).remove(0).ticket;
        state.accept(&at(), ticket, chunk(5, 251));
        assert!(state.targets(FIRST).is_empty());
        let single = state.targets(SINGLE).remove(0);
        state.accept(&at(), ticket, chunk(9, 251));
        assert_eq!(single.from, 5, "what the other reader still has comes again");
        let mut next = 5;
        while let Some(target) = state.targets(SINGLE).pop() {
            next += 1;
            state.accept(&at(), target.ticket, chunk(next, 1));
        }
        assert_eq!(state.targets(FIRST).remove(0).from, next);
    }

    #[tokio::test]
    async fn a_restart_that_comes_late_moves_nothing() {
        let (mut state, _) = reading(1_000);
        let before = state.targets(FIRST).remove(0).ticket;
        state.move_to(&at(), 70, true).unwrap();
        assert!(state.restart(&at(), before, 50..=100, false).is_none(), "the caller went elsewhere meanwhile");
        assert_eq!(state.assigned[&at()].fetched, 70);
        let now = state.targets(FIRST).remove(0).ticket;
        assert!(state.restart(&at(), now, 50..=100, true).is_none(), "the leader has what is read next");
        assert_eq!(state.assigned[&at()].fetched, 70);
        assert_eq!(state.restart(&at(), now, 80..=100, true), Some(PreviousPosition { next: 70, committed: None }));
        assert_eq!(state.assigned[&at()].fetched, 80);
    }

    /// Otherwise the lag would be zero, with all of the new log unread.
    #[tokio::test]
    async fn what_is_committed_beyond_a_log_that_was_cut_counts_for_nothing() {
        let (mut state, epoch) = reading(1_000);
        let ticket = state.targets(FIRST).remove(0).ticket;
        state.accept(&at(), ticket, chunk(20, 10));
        assert!(state.pop_read(10).is_some());
        state.committed(&Commit::new(at(), epoch, 20), state.tickets);
        assert_eq!(
            state.restart(&at(), ticket, 0..=5, false),
            Some(PreviousPosition { next: 20, committed: Some(20) })
        );
        let progress = state.progress().remove(0);
        assert_eq!((progress.position, progress.committed), (0, None));
        assert_eq!(state.may_commit(&Commit::new(at(), epoch, 3)).unwrap(), Some(()));
    }

    #[tokio::test]
    async fn a_commit_under_way_does_not_undo_a_seek() {
        let (mut state, epoch) = reading(1_000);
        let (early, late) = (Commit::new(at(), epoch, 101), Commit::new(at(), epoch, 11));
        let before = state.tickets;
        state.move_to(&at(), 10, true).unwrap();
        state.committed(&early, before);
        assert_eq!(state.may_commit(&late).unwrap(), Some(()), "what follows the seek is to be sent");
        let after = state.tickets;
        state.committed(&late, after);
        assert_eq!(state.may_commit(&Commit::new(at(), epoch, 5)).unwrap(), None, "from there on nothing goes back");
    }
}
