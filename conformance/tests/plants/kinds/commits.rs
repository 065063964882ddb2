//! The commits of a consumer with a bug.

use tidings_core::{Commit, ErrorKind, Result, SeekTo};

use super::consumer::BentConsumer;
use super::{Kind, lock};

impl BentConsumer {
    /// Commits below the committed offset, as a seek allows.
    async fn commit_back(&self, commit: Commit) -> Result<()> {
        let p = commit.partition.clone();
        let position = lock(&self.state).positions.get(&p).copied().unwrap_or(0);
        drop(self.inner.seek(&p, SeekTo::Offset(commit.next_offset)).await);
        let answer = self.inner.commit(vec![commit]).await.remove(0);
        drop(self.inner.seek(&p, SeekTo::Offset(position)).await);
        answer
    }

    pub(super) async fn one_commit(&self, mut commit: Commit) -> Result<()> {
        let (sought, any) = {
            let state = lock(&self.state);
            (state.sought.contains(&commit.partition), !state.sought.is_empty())
        };
        match self.kind {
            Kind::CommitsPartitionsOfEightBits if commit.partition.partition > 255 => return Ok(()),
            Kind::GoesBackAfterAnAssignment if !sought => return self.commit_back(commit).await,
            Kind::KeepsTheFirstMetadata => {
                let key = (self.options.group.clone(), commit.partition.clone());
                if lock(&self.shared).commits.get(&key) == Some(&commit.next_offset) {
                    return Ok(());
                }
            }
            Kind::CommitsOffsetsOf32Bits => commit.next_offset &= 0xffff_ffff,
            Kind::CommitsOffsetsAsDoubles => commit.next_offset = commit.next_offset as f64 as u64,
            Kind::GoesBackForEverAfterASeek if sought => return self.commit_back(commit).await,
            Kind::GoesBackOnAllAfterASeek if any && !sought => return self.commit_back(commit).await,
            Kind::CutsMetadata => {
                let cut = |text: String| text[..text.floor_char_boundary(64)].to_owned();
                commit.metadata = commit.metadata.map(cut);
            }
            Kind::KeepsOldMetadata => {
                let mut state = lock(&self.state);
                let old = state.metadata.get(&commit.partition).cloned();
                commit.metadata = commit.metadata.or(old);
                state.metadata.extend(commit.metadata.clone().map(|text| (commit.partition.clone(), text)));
            }
            _ => {}
        }
        let epoch = lock(&self.state).epochs.get(&commit.partition).copied().unwrap_or(0);
        if self.kind == Kind::CommitsWhatIsOutdated {
            commit.epoch = epoch;
        }
        let (key, next) = ((self.options.group.clone(), commit.partition.clone()), commit.next_offset);
        let answer = self.inner.commit(vec![commit]).await.remove(0);
        if answer.is_ok() {
            lock(&self.shared).commits.insert(key.clone(), next);
        }
        if answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Indeterminate) {
            match self.kind {
                Kind::TakesALostCommitForSuccess => return Ok(()),
                Kind::CommitsFurtherWhenAnAnswerIsLost => {
                    let further = Commit::new(key.1.clone(), epoch, next + 1);
                    drop(self.inner.commit(vec![further]).await);
                }
                _ => {}
            }
        }
        let down = answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable);
        if self.kind == Kind::PretendsToCommitInAnOutage && down {
            return Ok(());
        }
        answer
    }
}
