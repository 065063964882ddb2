//! A consumer with a bug.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_core::{
    Assignment, Commit, Consumer, ConsumerOptions, ErrorKind, Fetched, Guarantees, Progress, RecordBatch, Result,
    SeekTo, Start, Step, TopicPartition, async_trait,
};
use tokio::task::yield_now;

use crate::transport::{Bug, error};

#[derive(Debug, Default)]
struct State {
    epochs: HashMap<TopicPartition, u64>,
    positions: HashMap<TopicPartition, u64>,
    seen: HashSet<TopicPartition>,
    last: HashMap<TopicPartition, Fetched>,
    late: Vec<Fetched>,
    revoking: Vec<TopicPartition>,
    to_pause: Vec<TopicPartition>,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct PlantedConsumer {
    inner: Arc<dyn Consumer>,
    options: ConsumerOptions,
    bug: Bug,
    state: Mutex<State>,
}

impl PlantedConsumer {
    pub(crate) fn new(inner: Arc<dyn Consumer>, options: ConsumerOptions, bug: Bug) -> Self {
        Self { inner, options, bug, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs before it waits for a step.
    async fn before_next(&self) -> Option<Step> {
        match self.bug {
            Bug::ReleasesAtTheNextCall => {
                let revoking = std::mem::take(&mut self.state().revoking);
                drop(self.inner.release(&revoking).await);
            }
            Bug::DeliversAfterRelease => return self.state().late.pop().map(Step::Records),
            _ => {}
        }
        None
    }

    async fn assigned(&self, mut assignments: Vec<Assignment>) -> Vec<Assignment> {
        let first = self.state().seen.is_empty();
        for assignment in &mut assignments {
            let p = assignment.partition.clone();
            let known = !self.state().seen.insert(p.clone());
            self.state().epochs.insert(p.clone(), assignment.epoch);
            let skips = self.bug == Bug::SkipsANewPartitionsBeginning && self.options.start == Start::Latest;
            let latest = match self.bug {
                Bug::GoesToLatestWhenOutOfRange => assignment.missing.is_some(),
                Bug::GoesToTheEndOfAShorterLog => assignment.committed.is_some_and(|c| c > assignment.start_offset),
                _ => skips && !first && !known,
            };
            if latest && let Ok(end) = self.inner.seek(&p, SeekTo::Latest).await {
                assignment.start_offset = end;
                assignment.missing = None;
            }
            if self.bug == Bug::NeverRaisesTheEpoch {
                assignment.epoch = 1;
            }
        }
        assignments
    }

    async fn fetched(&self, mut fetched: Fetched) -> Fetched {
        let p = (**fetched.batch.origin()).clone();
        self.state().positions.insert(p.clone(), fetched.next_offset);
        self.state().last.insert(p.clone(), fetched.clone());
        match self.bug {
            Bug::ReordersWithinAPartition => {
                let mut records = fetched.batch.records().to_vec();
                records.reverse();
                fetched.batch = RecordBatch::new(p, records);
            }
            Bug::CommitsOnReceipt => {
                drop(self.inner.commit(vec![Commit::new(p, fetched.epoch, fetched.next_offset)]).await);
            }
            Bug::NeverRaisesTheEpoch => fetched.epoch = 1,
            Bug::CountsNoGaps => {
                let first = fetched.next_offset - fetched.batch.len() as u64;
                fetched.next_offset = fetched.batch.records().last().map_or(first, |r| r.offset + 1);
            }
            Bug::PauseLeaks => {
                let to_pause = std::mem::take(&mut self.state().to_pause);
                drop(self.inner.pause(&to_pause).await);
            }
            _ => {}
        }
        fetched
    }

    async fn commit_all(&self) {
        let commits: Vec<Commit> = {
            let state = self.state();
            let of = |(p, next): (&TopicPartition, &u64)| {
                state.epochs.get(p).map(|epoch| Commit::new(p.clone(), *epoch, *next))
            };
            state.positions.iter().filter_map(of).collect()
        };
        drop(self.inner.commit(commits).await);
    }

    async fn one_commit(&self, mut commit: Commit) -> Result<()> {
        let p = commit.partition.clone();
        match self.bug {
            Bug::AcceptsOldEpochs | Bug::NeverRaisesTheEpoch => {
                commit.epoch = self.state().epochs.get(&p).copied().unwrap_or(commit.epoch);
            }
            Bug::DropsMetadata => commit.metadata = None,
            Bug::CommitGoesBack => {
                let position = self.state().positions.get(&p).copied();
                drop(self.inner.seek(&p, SeekTo::Offset(commit.next_offset)).await);
                let answer = self.inner.commit(vec![commit]).await.remove(0);
                if let Some(position) = position {
                    drop(self.inner.seek(&p, SeekTo::Offset(position)).await);
                }
                return answer;
            }
            _ => {}
        }
        match self.inner.commit(vec![commit]).await.remove(0) {
            Err(e) if e.kind() == ErrorKind::Fenced && self.bug == Bug::ReportsFencedAsDone => Ok(()),
            answer => answer,
        }
    }
}

#[async_trait]
impl Consumer for PlantedConsumer {
    async fn next(&self) -> Result<Step> {
        if self.state().closed {
            return Err(error(ErrorKind::Closed));
        }
        if let Some(step) = self.before_next().await {
            return Ok(step);
        }
        let step = match self.inner.next().await? {
            Step::Assigned(assignments) => Step::Assigned(self.assigned(assignments).await),
            Step::Records(fetched) => Step::Records(self.fetched(fetched).await),
            Step::Revoking(revocation) => {
                self.state().revoking.extend(revocation.partitions.iter().cloned());
                Step::Revoking(revocation)
            }
            Step::Unreadable(_) if self.bug == Bug::FailsForAll => return Err(error(ErrorKind::Undecodable)),
            Step::Unreadable(unreadable) if self.bug == Bug::SkipsWhatItCannotRead => {
                let next = unreadable.next_offset.unwrap_or(unreadable.offset + 1);
                drop(self.inner.seek(&unreadable.partition, SeekTo::Offset(next)).await);
                return self.next().await;
            }
            Step::Lost(_) if self.bug == Bug::NeverTellsTheLoss => return std::future::pending().await,
            other => other,
        };
        if self.bug == Bug::LosesAStepWhenDropped {
            yield_now().await;
        }
        Ok(step)
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        let mut answers = Vec::new();
        for commit in commits {
            answers.push(self.one_commit(commit).await);
        }
        answers
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        if self.bug == Bug::DeliversAfterRelease {
            let mut state = self.state();
            let late: Vec<Fetched> = partitions.iter().filter_map(|p| state.last.remove(p)).collect();
            state.late.extend(late);
        }
        self.inner.release(partitions).await
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        match self.bug {
            Bug::PauseLeaks => {
                self.state().to_pause.extend(partitions.iter().cloned());
                Ok(())
            }
            Bug::ForgetsPauseBeforeAssignment => {
                let known: Vec<_> = partitions.iter().filter(|p| self.state().seen.contains(*p)).cloned().collect();
                self.inner.pause(&known).await
            }
            _ => self.inner.pause(partitions).await,
        }
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.resume(partitions).await
    }

    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.inner.seek(partition, to).await
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        self.inner.progress().await
    }

    fn is_member(&self) -> Option<bool> {
        match self.bug {
            Bug::IsAMemberWithPartitionsOnly => Some(!self.state().epochs.is_empty()),
            Bug::StaysAMemberAfterClose => Some(true),
            Bug::StaysAMemberInItsPlace if self.options.instance_id.is_some() => Some(true),
            Bug::StaysAMemberUntilItCloses => Some(!self.state().closed),
            _ => self.inner.is_member(),
        }
    }

    async fn close(&self) -> Result<()> {
        match self.bug {
            Bug::StaysAMemberUntilItCloses => {
                self.state().closed = true;
                self.inner.close().await
            }
            Bug::ForgetsUncommittedRecords => {
                self.commit_all().await;
                self.inner.close().await
            }
            Bug::ClosesWithoutLeaving => {
                self.state().closed = true;
                Ok(())
            }
            _ => self.inner.close().await,
        }
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
