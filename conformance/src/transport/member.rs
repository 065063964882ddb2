//! A member of a group whose every step is checked, whatever the case is about.
//!
//! The invariants of C1, C2, C3 and C5 are checked here, at every step of every case: a violation
//! is caught wherever it happens, not only in the case that looks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use tidings_core::{
    Assignment, Commit, Consumer, ConsumerOptions, ErrorKind, Fetched, Name, Result, Revocation, Step, StoredRecord,
    TopicPartition, Unreadable,
};

use super::fixture::Fixture;
use crate::case::{Checked, broken, granted, holds, only, same};

/// A call of `next` that is polled again until it is ready.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Step>> + Send>>;

/// A partition that a member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) epoch: u64,
    /// Lowest offset that may come next.
    pub(crate) position: u64,
}

/// A consumer, and everything that it was told.
pub(crate) struct Member<'a> {
    fixture: &'a Fixture,
    pub(crate) index: usize,
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) options: ConsumerOptions,
    /// Kept between waits, so that only the cases of C6 depend on it.
    pub(crate) pending: Option<Pending>,
    /// Whether the members does not call `next`.
    pub(crate) idle: bool,
    /// Whether the case handles revocations; otherwise each is released at once.
    pub(crate) holds_on: bool,
    /// Partitions assigned and neither released nor lost.
    pub(crate) owned: BTreeMap<TopicPartition, Owned>,
    pub(crate) revoking: BTreeSet<TopicPartition>,
    pub(crate) revocations: Vec<Revocation>,
    /// All assignments until now, for the cases that look at them.
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) lost: Vec<TopicPartition>,
    pub(crate) paused: BTreeSet<TopicPartition>,
    pub(crate) received: BTreeMap<TopicPartition, Vec<StoredRecord>>,
    pub(crate) unreadable: Vec<Unreadable>,
    /// Whether the case has truncated a log: assignments may then start below the committed offset.
    pub(crate) set_back: bool,
    /// The permanent error that ended it; it is not polled any more.
    pub(crate) ended: Option<ErrorKind>,
}

impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received: Vec<_> = self.received.iter().map(|(p, r)| format!("{p}: {}", r.len())).collect();
        write!(f, "member {} has {:?}, revoking {:?}, ", self.index, self.owned, self.revoking)?;
        write!(f, "lost {:?}, received {received:?}", self.lost)?;
        self.ended.map_or(Ok(()), |kind| write!(f, ", ended as {kind}"))
    }
}

impl<'a> Member<'a> {
    pub(crate) fn new(
        fixture: &'a Fixture,
        index: usize,
        consumer: Arc<dyn Consumer>,
        options: ConsumerOptions,
    ) -> Self {
        Self {
            fixture,
            index,
            consumer,
            options,
            pending: None,
            idle: false,
            holds_on: false,
            owned: BTreeMap::new(),
            revoking: BTreeSet::new(),
            revocations: Vec::new(),
            assignments: Vec::new(),
            lost: Vec::new(),
            paused: BTreeSet::new(),
            received: BTreeMap::new(),
            unreadable: Vec::new(),
            set_back: false,
            ended: None,
        }
    }

    /// Adds a step to the history, with the member's number.
    fn note(&self, step: String) {
        self.fixture.note(format!("member {}: {step}", self.index));
    }

    /// Returns the number of records received from all partitions.
    pub(crate) fn count(&self) -> usize {
        self.received.values().map(Vec::len).sum()
    }

    /// State of a partition.
    pub(crate) fn of(&self, partition: &TopicPartition) -> &[StoredRecord] {
        self.received.get(partition).map_or(&[], Vec::as_slice)
    }

    /// Returns the epoch of a partition that it owns.
    pub(crate) fn epoch(&self, partition: &TopicPartition) -> Checked<u64> {
        match self.owned.get(partition) {
            Some(owned) => Ok(owned.epoch),
            None => broken(format!("{partition} is member {}'s", self.index), format!("{self:?}")),
        }
    }

    /// Returns the latest assignment of a partition.
    pub(crate) fn assignment(&self, partition: &TopicPartition) -> Checked<Assignment> {
        match self.assignments.iter().rev().find(|a| a.partition == *partition) {
            Some(assignment) => Ok(assignment.clone()),
            None => broken(format!("{partition} was assigned to member {}", self.index), format!("{self:?}")),
        }
    }

    /// Commits one partition and returns the result.
    pub(crate) async fn try_commit(&self, commit: Commit) -> Checked<Result<()>> {
        let what = format!("commit {} next {} of epoch {}", commit.partition, commit.next_offset, commit.epoch);
        let answers = self.fixture.within("an answer to commit", self.consumer.commit(vec![commit])).await?;
        let answer = only("commit", answers)?;
        self.note(format!("{what}: {answer:?}"));
        Ok(answer)
    }

    /// Commits `next` of a partition under its current epoch; must be `Ok`.
    pub(crate) async fn commit(&self, partition: &TopicPartition, next: u64) -> Checked {
        let commit = Commit::new(partition.clone(), self.epoch(partition)?, next);
        granted(&format!("commit {partition} next {next}"), self.try_commit(commit).await?)
    }

    /// Pauses: from now on a record of them is a failure.
    pub(crate) async fn pause(&mut self, partitions: &[TopicPartition]) -> Checked {
        self.fixture.within("pause", self.consumer.pause(partitions)).await??;
        self.note(format!("paused {partitions:?}"));
        self.paused.extend(partitions.iter().cloned());
        Ok(())
    }

    /// Resumes.
    pub(crate) async fn resume(&mut self, partitions: &[TopicPartition]) -> Checked {
        self.paused.retain(|p| !partitions.contains(p));
        self.note(format!("resume {partitions:?}"));
        Ok(self.fixture.within("resume", self.consumer.resume(partitions)).await??)
    }

    /// Releases partitions that are being revoked: from now on a record of them is a failure.
    pub(crate) async fn release(&mut self, partitions: &[TopicPartition]) -> Checked {
        self.fixture.within("release", self.consumer.release(partitions)).await??;
        self.note(format!("released {partitions:?}"));
        for p in partitions {
            if self.revoking.remove(p) {
                self.owned.remove(p);
            }
        }
        Ok(())
    }

    /// Seeks, and expects to continue reading from there.
    pub(crate) async fn seek(&mut self, partition: &TopicPartition, to: tidings_core::SeekTo) -> Checked<u64> {
        let at = self.fixture.within("seek", self.consumer.seek(partition, to)).await??;
        self.note(format!("seek {partition} to {to:?}: {at}"));
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.position = at;
        }
        Ok(at)
    }

    /// Takes a step and checks the invariants of every case.
    pub(crate) async fn take(&mut self, step: Step) -> Checked {
        match step {
            Step::Assigned(assignments) => {
                self.note(format!("assigned {}", brief(&assignments)));
                assignments.into_iter().try_for_each(|a| self.assigned(a))
            }
            Step::Records(fetched) => self.fetched(&fetched),
            Step::Revoking(revocation) => {
                self.note(format!("revoking {:?} within {:?}", revocation.partitions, revocation.deadline));
                self.revoked(revocation).await
            }
            Step::Lost(partitions) => {
                self.note(format!("lost {partitions:?}"));
                partitions.into_iter().try_for_each(|p| self.is_lost(p))
            }
            Step::Unreadable(unreadable) => {
                self.note(format!("unreadable {} from {}", unreadable.partition, unreadable.offset));
                self.unreadable.push(unreadable);
                Ok(())
            }
            other => broken("a step that the suite knows", format!("{other:?}")),
        }
    }

    /// An epoch must be higher than all before of this group and partition, by any member.
    fn assigned(&mut self, assignment: Assignment) -> Checked {
        let p = assignment.partition.clone();
        let known = self.options.topics.contains(&p.topic);
        holds(known, "an assignment of a topic that was asked for", &p)?;
        if self.owned.contains_key(&p) {
            return broken(format!("{p} is assigned once, until it is revoked or lost (C2)"), "it is assigned again");
        }
        let mut epochs = self.fixture.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = epochs.insert((self.options.group.clone(), p.clone()), assignment.epoch);
        if before.is_some_and(|before| before >= assignment.epoch) {
            return broken(format!("an epoch of {p} above {before:?} (C2)"), assignment.epoch);
        }
        if let (Some(committed), None) = (assignment.committed, assignment.missing.as_ref()) {
            holds(
                assignment.start_offset >= committed || self.set_back,
                "reading starts at what is committed (C1)",
                &assignment,
            )?;
        }
        self.owned.insert(p, Owned { epoch: assignment.epoch, position: assignment.start_offset });
        self.assignments.push(assignment);
        Ok(())
    }

    /// Records must be of an owned partition, under its epoch, in order, and not paused.
    fn fetched(&mut self, fetched: &Fetched) -> Checked {
        let p = (**fetched.batch.origin()).clone();
        let records = fetched.batch.records();
        let offsets: Vec<u64> = records.iter().map(|r| r.offset).collect();
        let span = offsets.first().zip(offsets.last());
        self.note(format!("{} records of {p} {span:?}, next {}", records.len(), fetched.next_offset));
        if self.paused.contains(&p) && !records.is_empty() {
            return broken(format!("no record of {p}, which is paused (C5)"), format!("offsets {offsets:?}"));
        }
        let Some(owned) = self.owned.get_mut(&p) else {
            return broken(
                format!("no record of {p} but between its assignment and its end (C2)"),
                format!("{span:?}"),
            );
        };
        same(&format!("the epoch of {p}'s records (C2)"), owned.epoch, fetched.epoch)?;
        let most = self.options.max_batch_records;
        holds(records.len() <= most, &format!("at most {most} records at once"), records.len())?;
        let mut position = owned.position;
        for offset in offsets {
            if offset < position {
                return broken(format!("records of {p} in order, from {position} (C1)"), format!("offset {offset}"));
            }
            position = offset + 1;
        }
        holds(
            fetched.next_offset >= position,
            &format!("a next of {p} behind its records, {position} (C2)"),
            fetched.next_offset,
        )?;
        owned.position = fetched.next_offset;
        self.received.entry(p).or_default().extend(records.iter().cloned());
        Ok(())
    }

    /// Releases at once, unless the case wants to do so itself.
    async fn revoked(&mut self, revocation: Revocation) -> Checked {
        for p in &revocation.partitions {
            let may = self.owned.contains_key(p) && !self.revoking.contains(p);
            holds(may, &format!("a revocation of {p}, which the member has (C3)"), &*self)?;
        }
        self.revoking.extend(revocation.partitions.iter().cloned());
        let partitions = revocation.partitions.clone();
        self.revocations.push(revocation);
        if self.holds_on { Ok(()) } else { self.release(&partitions).await }
    }

    /// The member must have had the partition: a loss without an assignment makes no sense.
    fn is_lost(&mut self, p: TopicPartition) -> Checked {
        let was = self.assignments.iter().any(|a| a.partition == p);
        holds(was, &format!("a loss of {p}, which the member had (C2)"), &*self)?;
        self.owned.remove(&p);
        self.revoking.remove(&p);
        self.lost.push(p);
        Ok(())
    }

    /// Returns the topics of the partitions that it owns.
    pub(crate) fn has(&self, topic: &Name) -> usize {
        self.owned.keys().filter(|p| p.topic == *topic).count()
    }
}

fn brief(assignments: &[Assignment]) -> String {
    let show = |a: &Assignment| format!("{} epoch {} start {}", a.partition, a.epoch, a.start_offset);
    assignments.iter().map(show).collect::<Vec<_>>().join(", ")
}
