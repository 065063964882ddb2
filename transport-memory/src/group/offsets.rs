//! Committed offsets and start positions of a group.
//!
//! A committed offset is the next one to read, as in Kafka: all records before it are settled. It
//! never goes back by itself; it may after a seek, a reset, or a truncation of the log.
//!
//! A partition without a commit starts by the policy of the member that first owns it. The decision
//! is remembered: with `Latest`, an owner that fails before its first commit would otherwise make
//! the next one skip the records in between.

use std::ops::Range;
use std::sync::Arc;

use tidings_core::{
    Assignment, Commit, Error, ErrorKind, Name, PartitionLag, PartitionReset, ResetTo, Result, SeekTo, Start,
    Timestamp, TopicPartition,
};
use tokio::time::Instant;

use super::{Group, State};
use crate::assign::MemberId;
use crate::broker::Broker;
use crate::error::{has_members, no_topic, not_owned};
use crate::log::PartitionLog;

/// A partition's committed offset.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    /// Offset of the next record to read.
    pub(super) next: u64,
    /// The committer's note, returned with the next assignment.
    metadata: Option<String>,
    // Kept as it came; with one log per partition there is nothing to acknowledge singly.
    #[expect(dead_code, reason = "a consumer's assignment has no place for it yet")]
    settled_beyond: Vec<Range<u64>>,
}

impl Group {
    /// Commits for a member; answer `i` is commit `i`'s, and a refusal leaves the others alone.
    pub(crate) fn commit(&self, broker: &Broker, id: MemberId, commits: Vec<Commit>) -> Vec<Result<()>> {
        let mut state = self.at(broker, Instant::now());
        commits.into_iter().map(|commit| state.commit(id, commit)).collect()
    }

    /// Returns the lag of each partition with a commit or an owner.
    ///
    /// Partitions of deleted topics are left out.
    pub(crate) fn lag(&self, broker: &Broker) -> Vec<PartitionLag> {
        let now = Instant::now();
        let state = self.at(broker, now);
        let mut partitions: Vec<&TopicPartition> = state.offsets.keys().chain(state.owned.keys()).collect();
        partitions.sort();
        partitions.dedup();
        let lag = |partition: &TopicPartition| {
            let (start, end) = broker.log(partition)?.bounds(broker.clock.at(now));
            let committed = state.offsets.get(partition).map(|c| c.next);
            Some(PartitionLag::new(partition.clone(), committed, start, end))
        };
        partitions.into_iter().filter_map(lag).collect()
    }

    /// Moves the committed offsets of all partitions of `topics`, and returns the moves. A dry run
    /// only returns them.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) while it has members: they would commit over the new
    /// offsets. [`NotFound`](ErrorKind::NotFound) for a missing topic; then nothing has moved.
    pub(crate) fn reset(
        &self,
        broker: &Broker,
        topics: &[Name],
        to: ResetTo,
        dry_run: bool,
    ) -> Result<Vec<PartitionReset>> {
        if self.has_members(broker) {
            return Err(has_members("reset", self.name()));
        }
        let now = Instant::now();
        let mut state = self.at(broker, now);
        let mut moves = Vec::new();
        for name in topics {
            let topic = broker.topic(name).ok_or_else(|| no_topic("reset", name))?;
            for log in topic.logs().iter() {
                let from = state.offsets.get(log.origin()).map(|c| c.next);
                moves.push(PartitionReset::new(log.origin().clone(), from, place(log, from, to, broker.clock.at(now))));
            }
        }
        if !dry_run {
            for to in &moves {
                let committed = Committed { next: to.to, metadata: None, settled_beyond: Vec::new() };
                state.offsets.insert(to.partition.clone(), committed);
            }
        }
        Ok(moves)
    }

    /// Sets the committed offsets of partitions, all or none.
    ///
    /// # Errors
    /// As [`reset`](Self::reset), and [`Invalid`](ErrorKind::Invalid) for an offset outside of the log.
    pub(crate) fn set_offsets(&self, broker: &Broker, offsets: &[(TopicPartition, u64)]) -> Result<()> {
        if self.has_members(broker) {
            return Err(has_members("alter offsets", self.name()));
        }
        for (at, offset) in offsets {
            let missing = || Error::new(ErrorKind::NotFound, format!("alter offsets: there is no partition {at}"));
            let log = broker.log(at).ok_or_else(missing)?;
            let (start, end) = (log.bounds(broker.clock.at(Instant::now())).0, log.end());
            if !(start..=end).contains(offset) {
                let what = format!("alter offsets of group {:?}: the log of {at} has no offset {offset}", self.name());
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        let mut state = self.at(broker, Instant::now());
        for (at, offset) in offsets {
            let committed = Committed { next: *offset, metadata: None, settled_beyond: Vec::new() };
            state.offsets.insert(at.clone(), committed);
        }
        Ok(())
    }

    /// Forgets all commits and starts, as if the group had never existed.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) while it has members.
    pub(crate) fn clear(&self, broker: &Broker) -> Result<()> {
        if self.has_members(broker) {
            return Err(has_members("delete group", self.name()));
        }
        let mut state = self.at(broker, Instant::now());
        state.offsets.clear();
        state.starts.clear();
        state.known = None;
        Ok(())
    }
}

/// Returns the offset that a reset moves to, within the log's bounds. A shift is relative to the
/// committed offset or, without one, to the oldest record.
fn place(log: &PartitionLog, from: Option<u64>, to: ResetTo, now: Timestamp) -> u64 {
    match to {
        ResetTo::Position(place) => log.find(place, now),
        ResetTo::Shift(by) => {
            let from = from.unwrap_or_else(|| log.bounds(now).0);
            log.find(SeekTo::Offset(from.saturating_add_signed(by)), now)
        }
        // Unknown variants added by core move nothing.
        _ => from.unwrap_or_else(|| log.bounds(now).0),
    }
}

impl State {
    /// Commits one offset.
    ///
    /// A lower offset than the committed one succeeds and changes nothing, since commits may arrive
    /// out of order; only the first commit after a seek or truncation may move back.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if member and epoch are not the owner's,
    /// [`Invalid`](ErrorKind::Invalid) beyond the log's end.
    fn commit(&mut self, id: MemberId, commit: Commit) -> Result<()> {
        self.check(id, &commit)?;
        self.apply(commit);
        Ok(())
    }

    /// Checks a commit, without any change.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit).
    pub(super) fn check(&self, id: MemberId, commit: &Commit) -> Result<()> {
        let owner = self.owned.get(&commit.partition).filter(|o| o.member == id && o.epoch == commit.epoch);
        let owner = owner.ok_or_else(|| not_owned("commit", &commit.partition))?;
        if commit.next_offset > owner.log.stable_end() && commit.next_offset > owner.log.end() {
            let text =
                format!("commit {}: next offset {} is beyond the end of the log", commit.partition, commit.next_offset);
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        Ok(())
    }

    /// Makes a commit that was checked under the same lock.
    pub(super) fn apply(&mut self, commit: Commit) {
        let Some(owner) = self.owned.get_mut(&commit.partition) else { return };
        let before = self.offsets.get(&commit.partition).map(|c| c.next);
        if before.is_some_and(|before| commit.next_offset < before) && !owner.rewound {
            return;
        }
        // A commit that goes forward ends it as well: a later, lower one would be outdated.
        owner.rewound = false;
        let Commit { next_offset, metadata, settled_beyond, .. } = commit;
        self.offsets.insert(commit.partition, Committed { next: next_offset, metadata, settled_beyond });
    }

    /// Returns the next offset to read by the group's commit, if there is one.
    pub(super) fn committed(&self, partition: &TopicPartition) -> Option<u64> {
        self.offsets.get(partition).map(|committed| committed.next)
    }

    /// Returns a member's start offset on a newly assigned partition.
    ///
    /// It is the committed offset, or the policy's without one. An offset that the log no longer
    /// contains becomes the oldest one: dropped records are reported as `missing`, a truncated log
    /// is read from its beginning. Both are logged as warnings.
    pub(super) fn start_of(
        &mut self,
        log: &Arc<PartitionLog>,
        epoch: u64,
        policy: Start,
        now: Timestamp,
    ) -> Assignment {
        let partition = log.origin();
        let (oldest, end) = (log.bounds(now).0, log.end());
        let committed = self.offsets.get(partition);
        let wanted = match committed {
            Some(committed) => committed.next,
            None => self.first_start(log, policy, now),
        };
        // An offset beyond the end was committed on a log that no longer exists: nothing of this one was read.
        let start = if wanted > end { oldest } else { wanted.max(oldest) };
        if start != wanted {
            tracing::warn!(
                topic = %partition.topic,
                partition = partition.partition,
                committed = wanted,
                log_start = oldest,
                log_end = end,
                start,
                "the committed offset is not in the log; reading starts at the oldest record"
            );
        }
        let mut assignment = Assignment::new(partition.clone(), epoch, start);
        if let Some(committed) = self.offsets.get(partition) {
            assignment.committed = Some(committed.next);
            assignment.metadata.clone_from(&committed.metadata);
        }
        assignment.missing = (wanted < oldest).then_some(wanted..oldest);
        assignment
    }

    /// Returns the start offset of a partition by the start policy. A partition created after the group first started
    /// begins at its beginning.
    ///
    /// Otherwise a group that starts at the latest record would skip what is published to a new
    /// partition before its first rebalance.
    fn first_start(&mut self, log: &PartitionLog, policy: Start, now: Timestamp) -> u64 {
        let partition = log.origin();
        let known = self.known.as_ref().and_then(|known| known.get(&partition.topic));
        let existed = known.is_some_and(|count| partition.partition < *count);
        let place = match policy {
            Start::Latest => SeekTo::Latest,
            Start::Time(time) => SeekTo::Time(time),
            _ => SeekTo::Earliest,
        };
        let first = || if existed { log.find(place, now) } else { log.find(SeekTo::Earliest, now) };
        *self.starts.entry(partition.clone()).or_insert_with(first)
    }
}
