//! A consumer with a bug.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_core::{
    Assignment, Commit, Consumer, ConsumerOptions, Fetched, Guarantees, Name, Progress, Result, SeekTo, Step,
    TopicPartition, async_trait,
};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::state::State;
use super::{Kind, Shared, lock};

#[derive(Debug)]
pub(super) struct BentConsumer {
    pub(super) inner: Arc<dyn Consumer>,
    pub(super) options: ConsumerOptions,
    pub(super) kind: Kind,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) state: Mutex<State>,
    joined: Instant,
}

impl BentConsumer {
    pub(super) fn new(
        inner: Arc<dyn Consumer>,
        options: ConsumerOptions,
        kind: Kind,
        shared: Arc<Mutex<Shared>>,
    ) -> Self {
        Self { inner, options, kind, shared, state: Mutex::default(), joined: Instant::now() }
    }

    /// The commit of another group or partition whose joined name is the same.
    fn rival(&self, p: &TopicPartition) -> Option<u64> {
        let joined = |group: &Name, p: &TopicPartition| match self.kind {
            Kind::JoinsTopicAndPartition => format!("{group}/{}{}", p.topic, p.partition),
            _ => format!("{group}-{}-{}", p.topic, p.partition),
        };
        let shared = lock(&self.shared);
        let mine = (self.options.group.clone(), p.clone());
        let rivals = |(group, other): &&(Name, TopicPartition)| {
            (group, other) != (&mine.0, p) && joined(group, other) == joined(&mine.0, p)
        };
        shared.commits.keys().find(rivals).and_then(|key| shared.commits.get(key)).copied()
    }

    async fn assigned(&self, mut assignments: Vec<Assignment>) -> Vec<Assignment> {
        for assignment in &mut assignments {
            let p = assignment.partition.clone();
            let known = lock(&self.state).epochs.insert(p.clone(), assignment.epoch).is_some();
            let before = lock(&self.state).positions.insert(p.clone(), assignment.start_offset);
            match self.kind {
                Kind::GoesOnWhereItWas if known => self.go_on(&p, before).await,
                Kind::GoesOnBehindACut if known => self.go_on(&p, assignment.committed).await,
                Kind::JoinsTopicAndPartition | Kind::JoinsGroupAndTopic => {
                    assignment.committed = self.rival(&p).or(assignment.committed);
                    assignment.start_offset = assignment.start_offset.max(assignment.committed.unwrap_or(0));
                }
                Kind::SkipsWhatCameWhileAway if p.partition > 0 && assignment.committed.is_none() => {
                    let end = self.inner.seek(&p, SeekTo::Latest).await;
                    assignment.start_offset = end.unwrap_or(assignment.start_offset);
                }
                Kind::ResumesWhatComesBack if known => drop(self.inner.resume(std::slice::from_ref(&p)).await),
                _ => {}
            }
        }
        if self.kind == Kind::OwnsOnePartition && lock(&self.shared).open.len() > 1 {
            assignments.truncate(1);
        }
        if self.kind == Kind::AssignsATopicTwice {
            let twice = |t: &Name| self.options.topics.iter().filter(|asked| *asked == t).count() > 1;
            let again: Vec<_> = assignments.iter().filter(|a| twice(&a.partition.topic)).cloned().collect();
            assignments.extend(again);
        }
        assignments
    }

    async fn go_on(&self, p: &TopicPartition, from: Option<u64>) {
        if let Some(from) = from {
            drop(self.inner.seek(p, SeekTo::Offset(from)).await);
        }
    }

    /// Returns `None` for records that the bug swallows.
    async fn fetched(&self, fetched: Fetched) -> Option<Step> {
        let p = (**fetched.batch.origin()).clone();
        let (muted, to_pause) = {
            let mut state = lock(&self.state);
            state.positions.insert(p.clone(), fetched.next_offset);
            (state.muted.contains(&p), state.to_pause.remove(&p))
        };
        if to_pause {
            drop(self.inner.pause(&[p]).await);
        }
        (!muted).then_some(Step::Records(fetched))
    }

    async fn bent(&self, step: Step) -> Option<Step> {
        match step {
            Step::Assigned(assignments) => Some(Step::Assigned(self.assigned(assignments).await)),
            Step::Records(fetched) => self.fetched(fetched).await,
            Step::Revoking(revocation) => {
                lock(&self.state).revoking.extend(revocation.partitions.iter().cloned());
                Some(Step::Revoking(revocation))
            }
            Step::Lost(mut partitions) => {
                match self.kind {
                    Kind::TellsOneLossOfSeveral => partitions.truncate(1),
                    Kind::ResumesWhatIsLost => drop(self.inner.resume(&partitions).await),
                    _ => {}
                }
                Some(Step::Lost(partitions))
            }
            other => Some(other),
        }
    }

    /// Moves on, and does what the bug adds to a seek.
    async fn moved(&self, p: &TopicPartition, at: u64) -> Result<u64> {
        let others: Vec<TopicPartition> = {
            let mut state = lock(&self.state);
            state.sought.insert(p.clone());
            state.positions.insert(p.clone(), at);
            state.epochs.keys().filter(|other| *other != p).cloned().collect()
        };
        match self.kind {
            Kind::SeeksAllPartitions => {
                for other in others {
                    drop(self.inner.seek(&other, SeekTo::Offset(at)).await);
                }
            }
            Kind::CommitsSeeks => {
                let epoch = lock(&self.state).epochs.get(p).copied().unwrap_or(0);
                drop(self.inner.commit(vec![Commit::new(p.clone(), epoch, at)]).await);
            }
            Kind::ResumesAtASeek => self.inner.resume(std::slice::from_ref(p)).await?,
            _ => {}
        }
        Ok(at)
    }

    /// The last records again, once the broker answers after an outage; then the step itself waits.
    fn after_an_outage(&self, step: &Result<Step>) -> Option<Step> {
        let mut state = lock(&self.state);
        let was_down = std::mem::replace(&mut state.down, step.is_err());
        match step {
            Ok(Step::Records(_)) if was_down && self.kind == Kind::RepeatsRecordsAfterAnOutage => {
                state.early.extend(step.as_ref().ok().cloned());
                state.last.take().map(Step::Records)
            }
            Ok(Step::Records(fetched)) => {
                state.last = Some(fetched.clone());
                None
            }
            _ => None,
        }
    }

    /// Fetches all that there is, to yield it after the resume.
    async fn fetch_all(&self) {
        while let Ok(Ok(step)) = timeout(Duration::from_millis(1), self.inner.next()).await {
            lock(&self.state).held.push(step);
        }
    }

    /// Returns whether the first call of `next` is too late.
    fn is_forgotten(&self) -> bool {
        let first = !std::mem::replace(&mut lock(&self.state).asked, true);
        first && self.kind == Kind::ForgetsMembersThatNeverAsk && self.joined.elapsed() > self.options.max_idle
    }

    /// Whether records wait although other partitions than the paused ones have some.
    fn starves(&self) -> bool {
        let state = lock(&self.state);
        let read = |p: &TopicPartition| state.positions.get(p).is_some_and(|position| *position > 0);
        self.kind == Kind::StarvesBehindAPause
            && self.options.max_buffered_bytes <= 20_000
            && state.pauses.keys().any(read)
    }
}

/// A call that goes on after it was dropped.
struct Alive(Option<Arc<dyn Consumer>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            // In a task, because the dropped call has not finished yet.
            tokio::spawn(async move {
                yield_now().await;
                drop(inner.next().await);
            });
        }
    }
}

#[async_trait]
impl Consumer for BentConsumer {
    async fn next(&self) -> Result<Step> {
        let early = lock(&self.state).early.pop();
        if let Some(step) = early {
            return Ok(step);
        }
        if self.starves() || self.is_forgotten() {
            return std::future::pending().await;
        }
        loop {
            let step = match self.kind {
                Kind::NeverYieldsBetweenSteps => unconstrained(self.inner.next()).await,
                Kind::TakesADroppedCallForLife => {
                    let mut alive = Alive(Some(Arc::clone(&self.inner)));
                    let step = self.inner.next().await;
                    alive.0 = None;
                    step
                }
                _ => self.inner.next().await,
            };
            if self.kind == Kind::GivesUpInAShortOutage && step.is_err() {
                let mut state = lock(&self.state);
                if !std::mem::replace(&mut state.down, true) {
                    return Ok(Step::Lost(state.epochs.keys().cloned().collect()));
                }
            }
            if self.kind == Kind::LosesAStepAtAFailedRead && step.is_err() {
                drop(self.inner.next().await);
            }
            if let Some(again) = self.after_an_outage(&step) {
                return Ok(again);
            }
            let step = step?;
            let Some(step) = self.bent(step).await else { continue };
            let steps = {
                let mut state = lock(&self.state);
                state.steps += 1;
                state.steps
            };
            if self.kind == Kind::LosesAStepInFifty && steps.is_multiple_of(50) {
                yield_now().await;
            }
            // Records fetched during a pause come before those fetched after it.
            let mut state = lock(&self.state);
            state.early.insert(0, step);
            if let Some(first) = state.early.pop() {
                return Ok(first);
            }
        }
    }

    async fn commit(&self, mut commits: Vec<Commit>) -> Vec<Result<()>> {
        let count = commits.len();
        match self.kind {
            Kind::TakesSixteenCommits => commits.truncate(16),
            Kind::LastCommitOfACallWins => {
                let last: HashMap<TopicPartition, Commit> =
                    commits.iter().map(|c| (c.partition.clone(), c.clone())).collect();
                commits = commits.into_iter().map(|c| last.get(&c.partition).cloned().unwrap_or(c)).collect();
            }
            _ => {}
        }
        let mut answers = Vec::new();
        for commit in commits {
            answers.push(self.one_commit(commit).await);
        }
        answers.resize_with(count, || Ok(()));
        answers
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        if self.kind == Kind::ReleasesTheFirst {
            return self.inner.release(&partitions[..partitions.len().min(1)]).await;
        }
        if self.kind == Kind::StopsWhatItWasAskedToRelease {
            let mut state = lock(&self.state);
            let (revoked, kept): (Vec<_>, Vec<_>) =
                partitions.iter().cloned().partition(|p| state.revoking.contains(p));
            if !revoked.is_empty() {
                state.muted.extend(kept);
            }
        }
        self.inner.release(partitions).await
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        if self.kind == Kind::FetchesAllUnderAPause {
            self.fetch_all().await;
        }
        let group = &self.options.group;
        lock(&self.shared).paused.extend(partitions.iter().map(|p| (group.clone(), p.clone())));
        {
            let mut state = lock(&self.state);
            partitions.iter().for_each(|p| *state.pauses.entry(p.clone()).or_default() += 1);
            if self.kind == Kind::PausesFromTheFirstRecordOn {
                let unread = |p: &&TopicPartition| state.positions.get(*p) == Some(&0);
                let unread: Vec<_> = partitions.iter().filter(unread).cloned().collect();
                if !unread.is_empty() {
                    state.to_pause.extend(unread);
                    return Ok(());
                }
            }
        }
        match self.kind {
            Kind::PausesTheFirst => self.inner.pause(&partitions[..partitions.len().min(1)]).await,
            _ => self.inner.pause(partitions).await,
        }
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        lock(&self.state).yield_held();
        lock(&self.shared).paused.retain(|(_, p)| !partitions.contains(p));
        let (all, still) = lock(&self.state).resumed(partitions, self.kind == Kind::CountsPauses);
        match self.kind {
            Kind::ResumesAll => self.inner.resume(&all).await,
            Kind::CountsPauses => {
                let free: Vec<_> = partitions.iter().filter(|p| !still.contains(*p)).cloned().collect();
                self.inner.resume(&free).await
            }
            _ => self.inner.resume(partitions).await,
        }
    }

    async fn seek(&self, p: &TopicPartition, to: SeekTo) -> Result<u64> {
        if self.kind == Kind::YieldsWhatWasFetchedBeforeASeek
            && let Ok(Ok(step)) = timeout(Duration::from_millis(1), self.inner.next()).await
        {
            let step = self.bent(step).await;
            lock(&self.state).early.extend(step);
        }
        let to = match (self.kind, to) {
            (Kind::SeeksOffsetsOf32Bits, SeekTo::Offset(offset)) => SeekTo::Offset(offset & 0xffff_ffff),
            (Kind::SeeksSignedOffsets, SeekTo::Offset(offset)) if offset > i64::MAX as u64 => SeekTo::Earliest,
            (Kind::SeeksNoTimeBefore1970, SeekTo::Time(time)) => {
                SeekTo::Time(tidings_core::Timestamp::from_millis(time.millis().max(0)))
            }
            (Kind::TakesNegativeTimesForTheEnd, SeekTo::Time(time)) if time.millis() < 0 => SeekTo::Latest,
            _ => to,
        };
        let at = self.inner.seek(p, to).await?;
        match (self.kind, to) {
            (Kind::ReadsOneEarlierAfterASeekToATime, SeekTo::Time(_)) if at > 0 => {
                self.inner.seek(p, SeekTo::Offset(at - 1)).await?;
                Ok(at)
            }
            (Kind::AnswersTheOffsetThatWasAskedFor, SeekTo::Offset(asked)) => Ok(at.min(asked)),
            _ => self.moved(p, at).await,
        }
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        let mut all = self.inner.progress().await?;
        let mut state = lock(&self.state);
        for progress in &mut all {
            let freezes = match self.kind {
                Kind::FreezesProgress => true,
                Kind::FreezesProgressOfThePaused => progress.paused,
                _ => false,
            };
            if freezes {
                let first = state.frozen.entry(progress.partition.clone()).or_insert_with(|| progress.clone());
                *progress = first.clone();
            }
        }
        Ok(all)
    }

    async fn close(&self) -> Result<()> {
        if self.kind == Kind::ClosesGroupsThatBeginAlike {
            let alike = |(group, open): &(Name, std::sync::Weak<dyn Consumer>)| {
                let other = *group != self.options.group && group.starts_with(self.options.group.as_str());
                other.then(|| open.upgrade()).flatten()
            };
            let alike: Vec<_> = lock(&self.shared).open.iter().filter_map(alike).collect();
            for other in alike {
                other.close().await?;
            }
        }
        self.inner.close().await
    }

    fn guarantees(&self) -> Guarantees {
        if self.kind == Kind::PromisesMoreThanItsTransport {
            return Guarantees::all();
        }
        self.inner.guarantees()
    }
}
