//! Offsets that a transaction commits.

use tidings_core::{Commit, Error, ErrorKind, Result, TransactionOffset, TransactionOffsets};
use tokio::time::Instant;

use super::{Group, State};
use crate::assign::MemberId;
use crate::broker::Broker;
use crate::error::not_owned;

impl Group {
    /// Returns commits of a member in the form that a transactor commits.
    ///
    /// Their generation is the broker's latest serial, which is no less than the epochs of what the member owns now,
    /// and less than each later one.
    ///
    /// # Errors
    /// [`Fenced`](ErrorKind::Fenced) if one of the partitions, or that epoch of it, is not the member's.
    pub(crate) fn transaction_offsets(
        &self,
        broker: &Broker,
        id: MemberId,
        commits: Vec<Commit>,
    ) -> Result<TransactionOffsets> {
        let state = self.at(broker, Instant::now());
        if let Some(lost) = commits.iter().find(|commit| !state.owns(id, commit)) {
            return Err(not_owned("commit in a transaction", &lost.partition));
        }
        let exhausted = |_| Error::new(ErrorKind::Unsupported, "commit in a transaction: too many generations");
        let generation = i32::try_from(broker.last_serial()).map_err(exhausted)?;
        let instance = state.members.get(&id).and_then(|member| member.options.instance_id.as_deref());
        let offset = |commit: Commit| TransactionOffset::new(commit.partition, commit.next_offset, commit.metadata);
        let offsets = commits.into_iter().map(offset).collect();
        let offsets = TransactionOffsets::new(self.name(), name(id), generation, offsets);
        Ok(offsets.with_instance_id(instance.map(str::to_owned)))
    }

    /// Commits offsets together with what `commit` does, or neither: readers of the group's offsets wait for both.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if one of the partitions is no longer the member's, those of a commit, and
    /// those of `commit`.
    pub(crate) fn commit_with(
        &self,
        broker: &Broker,
        offsets: &TransactionOffsets,
        commit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut state = self.at(broker, Instant::now());
        let commits = state.commits_of(offsets)?;
        commit()?;
        commits.into_iter().for_each(|commit| state.apply(commit));
        Ok(())
    }
}

impl State {
    fn owns(&self, id: MemberId, commit: &Commit) -> bool {
        self.owned.get(&commit.partition).is_some_and(|owned| owned.member == id && owned.epoch == commit.epoch)
    }

    /// Returns the member's commits, under the epochs that it had when it asked for the offsets.
    fn commits_of(&self, offsets: &TransactionOffsets) -> Result<Vec<Commit>> {
        let commit = |next: &TransactionOffset| {
            let owned = self.owned.get(&next.partition);
            let same = |epoch: u64| i32::try_from(epoch).is_ok_and(|epoch| epoch <= offsets.generation);
            let owned = owned.filter(|owned| name(owned.member) == offsets.member_id && same(owned.epoch)).ok_or_else(
                || {
                    let at = &next.partition;
                    let what = format!("commit a transaction: {at} is no longer assigned to the member of its offsets");
                    Error::new(ErrorKind::Conflict, what)
                },
            )?;
            let mut commit = Commit::new(next.partition.clone(), owned.epoch, next.next_offset);
            commit.metadata.clone_from(&next.metadata);
            self.check(owned.member, &commit)?;
            Ok(commit)
        };
        offsets.offsets.iter().map(commit).collect()
    }
}

/// Returns the name of a member, as descriptions show it.
pub(super) fn name(id: MemberId) -> String {
    format!("memory-{id}")
}
