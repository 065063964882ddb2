//! The reader of a dead-letter topic: the only member of a group, reading one section of a partition at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Assignment, Commit, Consumer, ConsumerOptions, Error, ErrorKind, Name, Result, SeekTo, Step, StoredRecord,
    TopicPartition, Transport, Unreadable,
};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::chunk::Mark;
use super::{check_online, taken};

/// The session timeout of the group's members, for protocols where members set it: a run that was killed stays a
/// member for this long.
const SESSION: Duration = Duration::from_secs(10);
/// The pause after a transient read failure.
const AGAIN: Duration = Duration::from_millis(100);

/// A partition of letters and its progress.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) at: TopicPartition,
    /// The offset of the oldest letter.
    pub(super) oldest: u64,
    /// The offset of the first letter that is not redriven.
    pub(super) next: u64,
    /// The end offset when the run began.
    pub(super) end: u64,
    /// The mark of the last commit.
    pub(super) mark: Option<Mark>,
    epoch: u64,
}

impl Place {
    /// Sets the start offset from the group's committed offset.
    fn start(&mut self, assignment: &Assignment) {
        self.epoch = assignment.epoch;
        self.mark = assignment.metadata.as_deref().and_then(Mark::parse);
        let committed = assignment.committed.unwrap_or(self.oldest);
        if committed <= self.end.max(self.oldest) {
            self.next = committed.max(self.oldest);
            return;
        }
        // The redriven letters were in a log that is gone; so are the records that the mark describes.
        (self.next, self.mark) = (self.oldest, None);
        warn!(
            topic = %self.at.topic,
            partition = self.at.partition,
            committed,
            log_start = self.oldest,
            log_end = self.end,
            "the committed offset lies beyond the end of the log: it was truncated or made anew; redriving from its oldest letter"
        );
    }
}

/// The letters of a topic.
#[derive(Debug)]
pub(super) struct Letters {
    consumer: Arc<dyn Consumer>,
    places: BTreeMap<TopicPartition, Place>,
    unreadable: Option<Unreadable>,
    patience: Duration,
}

impl Letters {
    pub(super) async fn open(
        transport: &dyn Transport,
        admin: &dyn Admin,
        source: &Name,
        group: &Name,
        patience: Duration,
    ) -> Result<Self> {
        let described = admin.describe_topics(std::slice::from_ref(source)).await?.pop();
        let described = described.unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "no answer")));
        let described = described.map_err(|e| {
            let kind = e.kind();
            Error::caused_by(kind, format!("redrive from the topic {source}"), e)
        })?;
        check_online(&described)?;
        let place = |p: &tidings_core::PartitionDescription| {
            let at = TopicPartition::new(source.clone(), p.partition);
            (at.clone(), Place { at, oldest: p.start, next: p.start, end: p.end, mark: None, epoch: 0 })
        };
        let places: BTreeMap<_, _> = described.partitions.iter().map(place).collect();
        let options = ConsumerOptions::new(group.clone(), [source.clone()]).with_session_timeout(SESSION);
        let consumer = transport.consumer(options).await?;
        // Only one section of a partition is read at a time.
        consumer.pause(&places.keys().cloned().collect::<Vec<_>>()).await?;
        Ok(Self { consumer, places, unreadable: None, patience })
    }

    pub(super) async fn close(&self) {
        // It took no step since its last commit, so nothing is lost if the group notices by the session timeout.
        let _left = self.consumer.close().await;
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.values()
    }

    /// Waits until all partitions are assigned to this run.
    pub(super) async fn join(&mut self) -> Result<()> {
        let mut waiting = self.places.len();
        while waiting > 0 {
            match self.step("its partitions did not come").await? {
                Step::Assigned(given) => waiting = waiting.saturating_sub(self.assigned(given)),
                // Nothing was started, and the other member may leave again.
                Step::Revoking(given) => {
                    waiting += given.partitions.len();
                    self.consumer.release(&given.partitions).await?;
                }
                Step::Lost(partitions) => waiting += partitions.len(),
                _ => {}
            }
        }
        Ok(())
    }

    fn assigned(&mut self, given: Vec<Assignment>) -> usize {
        let mut known = 0;
        for assignment in given {
            let Some(place) = self.places.get_mut(&assignment.partition) else { continue };
            known += 1;
            place.start(&assignment);
        }
        known
    }

    /// Returns where the last [`read`](Self::read) stopped at an unreadable letter, if it did.
    pub(super) fn take_unreadable(&mut self) -> Option<Unreadable> {
        self.unreadable.take()
    }

    pub(super) fn is_held(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Reads `from..until` of a partition until `wanted` has enough; returns the offset it reached.
    pub(super) async fn read(
        &mut self,
        at: &TopicPartition,
        from: u64,
        until: u64,
        mut wanted: impl AsyncFnMut(&StoredRecord) -> Result<bool>,
    ) -> Result<u64> {
        if from >= until {
            return Ok(from);
        }
        let mut reached = self.consumer.seek(at, SeekTo::Offset(from)).await?.max(from);
        let one = std::slice::from_ref(at);
        self.consumer.resume(one).await?;
        'steps: while reached < until {
            let fetched = match self.step("no letter came").await? {
                Step::Records(fetched) if **fetched.batch.origin() == *at => fetched,
                Step::Unreadable(unreadable) if unreadable.partition == *at => {
                    reached = unreadable.offset.clamp(reached, until);
                    self.unreadable = Some(unreadable).filter(|_| reached < until);
                    break;
                }
                Step::Revoking(given) => {
                    self.consumer.release(&given.partitions).await?;
                    return Err(taken("its partitions go to another member"));
                }
                Step::Lost(_) => return Err(taken("its partitions were lost")),
                _ => continue,
            };
            for record in fetched.batch.records() {
                if record.offset < reached {
                    continue;
                }
                if record.offset >= until {
                    break;
                }
                let more = wanted(record).await?;
                reached = record.offset + 1;
                if !more {
                    break 'steps;
                }
            }
            reached = reached.max(fetched.next_offset.min(until));
        }
        self.consumer.pause(one).await?;
        Ok(reached)
    }

    /// Commits that the letters before `next` are redriven.
    pub(super) async fn commit(&self, place: &Place, next: u64, mark: Mark) -> Result<()> {
        let commit = Commit::new(place.at.clone(), place.epoch, next).with_metadata(mark.to_text());
        let answer = self.consumer.commit(vec![commit]).await.pop();
        answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "commit: no answer")))
    }

    /// Returns the next step, or an error after the patience.
    async fn step(&self, missing: &str) -> Result<Step> {
        let steps = async {
            loop {
                match self.consumer.next().await {
                    Err(error) if error.is_retryable() => sleep(AGAIN).await,
                    step => return step,
                }
            }
        };
        let waited = self.patience;
        timeout(waited, steps).await.unwrap_or_else(|_| Err(taken(&format!("{missing} within {waited:?}"))))
    }
}
