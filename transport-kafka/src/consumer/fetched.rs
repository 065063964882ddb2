//! Fetched records that are not handed out yet, and the positions that readers fetch next.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use tidings_core::{Fetched, Progress, RecordBatch, Result, Step, TopicPartition};

use super::quiet;
use super::slot::{Chunk, Slot, Stage};
use super::state::{State, not_ours};
use crate::client::reader::Run;

/// Divisor of the bound that gives the share of paused partitions: beyond half of the bound, their prefetched batches
/// are dropped, and fetched again when the partition is resumed.
const PAUSED_SHARE: usize = 2;

/// A partition assigned to a reader, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) partition: TopicPartition,
    pub(super) ticket: u64,
    pub(super) from: u64,
    pub(super) held: bool,
}

/// A reader of partitions that one broker leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seat {
    pub(super) broker: i32,
    pub(super) lane: Lane,
}

/// The readers of a broker: one of the first two decodes while the broker answers the other. The second is used where
/// a broker leads several partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    First,
    Second,
    /// For partitions whose batches decompress to much more: it fetches batches one by one.
    Single,
}

impl Lane {
    /// Returns the other of the first two readers.
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Single => Self::Single,
        }
    }
}

/// Position of a partition before it was reset to its oldest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// The offset that would have been fetched next.
    pub(super) next: u64,
    pub(super) committed: Option<u64>,
}

/// An item that `next` hands out.
#[derive(Debug)]
pub(super) enum Next {
    Step(Step),
    /// Converted to [`Step::Records`] without the lock.
    Records(Popped),
}

/// The next records of a partition to hand out.
#[derive(Debug)]
pub(super) struct Popped {
    origin: Arc<TopicPartition>,
    epoch: u64,
    next: u64,
    run: Run,
}

impl From<Popped> for Fetched {
    fn from(Popped { origin, epoch, next, run }: Popped) -> Self {
        Self::new(RecordBatch::new(origin, run.into_records()), epoch, next)
    }
}

impl State {
    /// Returns records of the partition whose turn it is, or that its next ones cannot be read.
    pub(super) fn pop_read(&mut self, max_records: usize) -> Option<Next> {
        while let Some(partition) = self.ready.pop_front() {
            if self.paused.contains(&partition) {
                continue;
            }
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            let Some(mut chunk) = slot.queue.pop_front() else {
                if let Some(step) = slot.tell_stuck() {
                    return Some(Next::Step(step));
                }
                continue;
            };
            slot.queued -= chunk.size;
            self.buffered -= chunk.size;
            if chunk.run.len() > max_records {
                let rest = chunk.run.split_off(max_records);
                let rest = Chunk { size: rest.size(), run: rest, next: chunk.next };
                chunk.next = chunk.run.next().unwrap_or(chunk.next);
                slot.queued += rest.size;
                self.buffered += rest.size;
                slot.queue.push_front(rest);
            }
            slot.position = chunk.next;
            let (origin, epoch) = (Arc::clone(&slot.origin), slot.mark.epoch);
            if slot.has_news() {
                self.ready.push_back(partition);
            }
            return Some(Next::Records(Popped { origin, epoch, next: chunk.next, run: chunk.run }));
        }
        None
    }

    /// Drops prefetched records.
    pub(super) fn clear(&mut self, partition: &TopicPartition) {
        if let Some(slot) = self.slots.get_mut(partition) {
            self.buffered -= slot.queued;
            slot.queued = 0;
            slot.queue.clear();
            slot.stuck = None;
            slot.fetched = slot.position;
            slot.ticket = 0;
        }
    }

    /// Returns the bytes that paused partitions keep from the others.
    fn kept_by_paused(&self) -> usize {
        self.paused.iter().filter_map(|p| self.slots.get(p)).map(|slot| slot.queued).sum()
    }

    /// Checks whether there is room to prefetch more.
    pub(super) fn has_room(&self) -> bool {
        self.buffered < self.max_buffered
    }

    /// Returns the partitions that this reader reads.
    pub(super) fn wants(&self, seat: Seat) -> Vec<Want> {
        let wanted = |(partition, slot): (&TopicPartition, &Slot)| {
            let reading = self.seat(slot) == Some(seat) && slot.ticket != 0;
            reading.then(|| Want {
                partition: partition.clone(),
                ticket: slot.ticket,
                from: slot.fetched,
                held: slot.stuck.is_some() || self.paused.contains(partition),
            })
        };
        self.slots.iter().filter_map(wanted).collect()
    }

    /// Checks whether the next offset to fetch lies beyond the offset that the reader was reset to.
    pub(super) fn is_beyond(&self, partition: &TopicPartition, ticket: u64, position: u64) -> bool {
        self.slots.get(partition).is_some_and(|slot| slot.ticket == ticket && ticket != 0 && position < slot.fetched)
    }

    /// Adds a reader's result: records, and the offset after them and any gap.
    pub(super) fn bring(&mut self, partition: &TopicPartition, ticket: u64, chunk: Chunk) {
        let is_new = |slot: &Slot| slot.ticket == ticket && ticket != 0 && chunk.next > slot.fetched;
        if !self.slots.get(partition).is_some_and(is_new) {
            return;
        }
        let share = self.max_buffered / PAUSED_SHARE;
        let beyond = self.paused.contains(partition) && self.kept_by_paused() + chunk.size > share;
        let Some(slot) = self.slots.get_mut(partition) else { return };
        if beyond {
            // Result of a poll that was in flight when the partition was paused.
            self.tickets += 1;
            slot.ticket = self.tickets;
            self.plan += 1;
            return;
        }
        let size = chunk.size;
        slot.fetched = chunk.next;
        slot.queued += size;
        self.buffered += size;
        slot.queue.push_back(chunk);
        if slot.queue.len() == 1 {
            self.ready.push_back(partition.clone());
        }
        if slot.pace.came(size, self.large) {
            self.tickets += 1;
            slot.ticket = self.tickets;
            self.plan += 1;
            self.spread();
        }
    }

    /// Updates the leaders; readings move to the new ones.
    pub(super) fn lead(&mut self, topic: &str, leaders: &HashMap<u32, Option<i32>>) {
        for (partition, slot) in &mut self.slots {
            let Some(leader) = leaders.get(&partition.partition).filter(|_| partition.topic == *topic) else {
                continue;
            };
            // Without a leader the old one may still be right: the answer may be from before the election.
            if leader.is_some() && slot.leader != *leader {
                slot.leader = *leader;
                slot.second = false;
                if slot.ticket != 0 {
                    self.tickets += 1;
                    slot.ticket = self.tickets;
                }
                self.plan += 1;
            }
        }
        self.spread();
    }

    /// Checks whether one broker leads several of the assigned partitions.
    pub(super) fn shares_a_broker(&self) -> bool {
        let mut seen = HashSet::new();
        self.slots.values().filter_map(|slot| slot.leader).any(|leader| !seen.insert(leader))
    }

    /// Enables the second readers.
    pub(super) fn use_seconds(&mut self) {
        self.seconds = true;
        self.spread();
    }

    /// Balances partitions between the two readers of each broker; the most recent readings move.
    pub(super) fn spread(&mut self) {
        if !self.seconds {
            return;
        }
        let mut counts: HashMap<Seat, usize> = HashMap::new();
        let is_shut =
            |broker| [Lane::First, Lane::Second].iter().any(|lane| self.shut.contains(&Seat { broker, lane: *lane }));
        let shared = |slot: &&mut Slot| slot.ticket != 0 && !slot.pace.single && !slot.leader.is_some_and(is_shut);
        let mut slots: Vec<_> = self.slots.values_mut().filter(shared).collect();
        for seat in slots.iter().filter_map(|slot| slot.seat()) {
            *counts.entry(seat).or_default() += 1;
        }
        slots.sort_unstable_by_key(|slot| Reverse(slot.ticket));
        for slot in slots {
            let Some(seat) = slot.seat() else { continue };
            let other = Seat { lane: seat.lane.other(), ..seat };
            let of = |seat: &Seat| counts.get(seat).copied().unwrap_or(0);
            if of(&seat) > of(&other) + 1 {
                *counts.entry(seat).or_default() -= 1;
                *counts.entry(other).or_default() += 1;
                slot.second = other.lane == Lane::Second;
                self.tickets += 1;
                slot.ticket = self.tickets;
                self.plan += 1;
            }
        }
    }

    /// Checks whether a partition is assigned and being read.
    pub(super) fn reads(&self, partition: &TopicPartition) -> bool {
        self.slots.get(partition).is_some_and(|slot| slot.stage == Stage::Reading)
    }

    /// Returns the reader of a partition, while its leader is known.
    pub(super) fn seat(&self, slot: &Slot) -> Option<Seat> {
        Some(quiet::open(&self.shut, self.seconds, slot.seat()?))
    }

    /// Returns the readers that have partitions to read.
    pub(super) fn seats(&self) -> HashSet<Seat> {
        self.slots.values().filter_map(|slot| self.seat(slot)).collect()
    }

    /// Continues reading at another offset.
    pub(super) fn move_to(&mut self, partition: &TopicPartition, offset: u64, asked: bool) -> Result<()> {
        if self.slots.get(partition).is_none_or(|slot| slot.stage != Stage::Reading) {
            return Err(not_ours(partition));
        }
        self.clear(partition);
        self.tickets += 1;
        if let Some(slot) = self.slots.get_mut(partition) {
            slot.ticket = self.tickets;
            slot.position = offset;
            slot.fetched = offset;
            // Records read again must be committed again, wherever the log ends by then.
            if asked || slot.committed.is_some_and(|committed| committed > offset) {
                slot.back_since = Some(slot.ticket);
            }
        }
        self.plan += 1;
        Ok(())
    }

    /// Continues at the oldest record, if this reading is still current: a later move takes precedence. If it is
    /// `doubted` that the next offset is out of the log, and the offset is within it, the position stays. Returns the
    /// previous position.
    pub(super) fn restart(
        &mut self,
        partition: &TopicPartition,
        ticket: u64,
        log: RangeInclusive<u64>,
        doubted: bool,
    ) -> Option<Left> {
        let slot = self.slots.get(partition).filter(|slot| slot.ticket == ticket && ticket != 0)?;
        if doubted && log.contains(&slot.fetched) {
            return None;
        }
        let left = Left { next: slot.fetched, committed: slot.committed };
        self.move_to(partition, *log.start(), false).ok()?;
        let slot = self.slots.get_mut(partition)?;
        // As at an assignment: a commit beyond the log belongs to another log.
        slot.committed = slot.committed.filter(|committed| committed <= log.end());
        Some(left)
    }

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
        let reading = |(_, slot): &(&TopicPartition, &Slot)| slot.stage != Stage::Starting;
        let progress = |(partition, slot): (&TopicPartition, &Slot)| {
            let mut progress = Progress::new(partition.clone(), slot.position, slot.committed, slot.fetched);
            progress.paused = self.paused.contains(partition);
            progress
        };
        self.slots.iter().filter(reading).map(progress).collect()
    }

    fn reread(&mut self, partition: &TopicPartition) {
        if self.slots.get(partition).is_some_and(|slot| slot.stage == Stage::Reading && slot.queued > 0) {
            self.clear(partition);
            self.tickets += 1;
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.ticket = self.tickets;
            }
        }
    }
}

impl Slot {
    /// Checks whether there is anything to hand out.
    pub(super) fn has_news(&self) -> bool {
        !self.queue.is_empty() || self.stuck.as_ref().is_some_and(|stuck| !stuck.told)
    }

    /// Returns the reader of this partition, while its leader is known.
    fn seat(&self) -> Option<Seat> {
        let lane = match (self.pace.single, self.second) {
            (true, _) => Lane::Single,
            (false, true) => Lane::Second,
            (false, false) => Lane::First,
        };
        self.leader.map(|broker| Seat { broker, lane })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidings_core::{Assignment, Commit, Timestamp};

    use super::super::epoch::{Generation, Mark};
    use super::super::start::Found;
    use super::super::state::Ahead;
    use super::*;

    const FIRST: Seat = Seat { broker: 1, lane: Lane::First };
    const SECOND: Seat = Seat { broker: 1, lane: Lane::Second };
    const SINGLE: Seat = Seat { broker: 1, lane: Lane::Single };

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
        let look = state.expect(partitions.to_vec());
        let mark = Mark::next(None, Generation { number: 1, newer: true }, Timestamp::now());
        let found = |p: &TopicPartition| Found { assignment: Assignment::new(p.clone(), mark.epoch, 0), mark };
        let leaders = partitions.iter().map(|p| (p.clone(), Some(broker))).collect();
        let single = HashSet::new();
        state.assign(look, partitions.iter().map(found).collect(), &Ahead { leaders, single });
        mark.epoch
    }

    fn partitions(numbers: std::ops::Range<u32>) -> Vec<TopicPartition> {
        numbers.map(|number| TopicPartition::new("t", number)).collect()
    }

    fn chunk(next: u64, size: usize) -> Chunk {
        Chunk { run: Run::default(), next, size }
    }

    /// Polls in flight when partitions were paused bring records that these must not keep.
    #[tokio::test]
    async fn paused_partitions_leave_room_to_the_others() {
        let (mut state, _) = reading(1_000);
        let first = state.wants(FIRST).remove(0).ticket;
        state.bring(&at(), first, chunk(5, 400));
        state.pause(&[at()]);
        assert!(state.buffered <= 500, "{}", state.buffered);
        state.bring(&at(), first, chunk(9, 700));
        assert_eq!(state.buffered, 400, "bytes of a paused partition");
        // Dropped records come again, from the same offset.
        state.bring(&at(), first, chunk(12, 1));
        let want = state.wants(FIRST).remove(0);
        assert_eq!((want.from, want.held), (5, true));
        state.resume(&[at()]);
        state.bring(&at(), want.ticket, chunk(9, 700));
        assert_eq!((state.slots[&at()].fetched, state.buffered), (9, 1_100));
    }

    #[tokio::test]
    async fn two_readers_share_what_a_broker_leads() {
        let mut state = State::new(1_000, Duration::from_secs(60));
        add(&mut state, &partitions(0..1), 1);
        assert!(!state.shares_a_broker());
        add(&mut state, &partitions(1..5), 1);
        assert_eq!(state.seats(), HashSet::from([FIRST]), "without a second connection it reads all");
        state.use_seconds();
        let read = |state: &State| (state.wants(FIRST).len(), state.wants(SECOND).len());
        assert!(matches!(read(&state), (2, 3) | (3, 2)), "{:?}", read(&state));
        assert!(state.wants(FIRST).iter().any(|want| want.partition.partition == 0), "what is being read stays");
        let second = state.wants(SECOND);
        state.lose(&second.into_iter().map(|want| want.partition).collect::<Vec<_>>());
        assert!(matches!(read(&state), (1, 1) | (1, 2) | (2, 1)), "{:?}", read(&state));
        add(&mut state, &partitions(5..6), 2);
        state.lead("t", &(0..6).map(|p| (p, Some(2))).collect());
        assert_eq!(read(&state), (0, 0));
        assert_eq!(state.seats(), [Lane::First, Lane::Second].map(|lane| Seat { broker: 2, lane }).into());
    }

    /// Records that the other reader still brings would be handed out twice.
    #[tokio::test]
    async fn a_partition_that_moves_between_readers_is_read_once() {
        let mut state = State::new(1_000, Duration::from_secs(60));
        state.use_seconds();
        add(&mut state, &partitions(0..4), 1);
        let (first, second) = (state.wants(FIRST), state.wants(SECOND));
        state.lose(&second.into_iter().map(|want| want.partition).collect::<Vec<_>>());
        let moved = state.wants(SECOND).remove(0);
        let before = first.into_iter().find(|want| want.partition == moved.partition).unwrap();
        state.bring(&moved.partition, before.ticket, chunk(5, 10));
        assert_eq!((state.slots[&moved.partition].fetched, state.buffered), (0, 0));
        state.bring(&moved.partition, moved.ticket, chunk(5, 10));
        assert_eq!((state.slots[&moved.partition].fetched, state.buffered), (5, 10));
    }

    #[tokio::test]
    async fn a_partition_that_unpacks_to_much_is_read_batch_by_batch() {
        let (mut state, _) = reading(1_000);
        state.large = 250;
        let ticket = state.wants(FIRST).remove(0).ticket;
        state.bring(&at(), ticket, chunk(5, 251));
        assert!(state.wants(FIRST).is_empty());
        let single = state.wants(SINGLE).remove(0);
        state.bring(&at(), ticket, chunk(9, 251));
        assert_eq!(single.from, 5, "what the other reader still has comes again");
        let mut next = 5;
        while let Some(want) = state.wants(SINGLE).pop() {
            next += 1;
            state.bring(&at(), want.ticket, chunk(next, 1));
        }
        assert_eq!(state.wants(FIRST).remove(0).from, next);
    }

    #[tokio::test]
    async fn a_restart_that_comes_late_moves_nothing() {
        let (mut state, _) = reading(1_000);
        let before = state.wants(FIRST).remove(0).ticket;
        state.move_to(&at(), 70, true).unwrap();
        assert!(state.restart(&at(), before, 50..=100, false).is_none(), "the caller went elsewhere meanwhile");
        assert_eq!(state.slots[&at()].fetched, 70);
        let now = state.wants(FIRST).remove(0).ticket;
        assert!(state.restart(&at(), now, 50..=100, true).is_none(), "the leader has what is read next");
        assert_eq!(state.slots[&at()].fetched, 70);
        assert_eq!(state.restart(&at(), now, 80..=100, true), Some(Left { next: 70, committed: None }));
        assert_eq!(state.slots[&at()].fetched, 80);
    }

    /// Otherwise the lag would be zero, with all of the new log unread.
    #[tokio::test]
    async fn what_is_committed_beyond_a_log_that_was_cut_counts_for_nothing() {
        let (mut state, epoch) = reading(1_000);
        let ticket = state.wants(FIRST).remove(0).ticket;
        state.bring(&at(), ticket, chunk(20, 10));
        assert!(state.pop_read(10).is_some());
        state.committed(&Commit::new(at(), epoch, 20), state.tickets);
        assert_eq!(state.restart(&at(), ticket, 0..=5, false), Some(Left { next: 20, committed: Some(20) }));
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
