//! A reader that is the only member of a group of its own, for transports without a log reader.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Admin, Consumer, ConsumerOptions, Error, ErrorKind, Name, Result, SeekTo, Step, StoredRecord, TopicPartition,
    Transport, Unreadable,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::unreadable::UnreadableRanges;

/// The session timeout of the group's member, for protocols where members set it.
const SESSION: Duration = Duration::from_secs(10);
/// The pause after a transient read failure.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the reader waits for its partitions, or for the next record.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct GroupReader {
    consumer: Arc<dyn Consumer>,
    group: Name,
    unreadable: UnreadableRanges,
}

impl GroupReader {
    /// Joins a new group, named after `prefix`, that reads all of `partitions`.
    pub(super) async fn open(
        transport: &dyn Transport,
        prefix: &str,
        topics: Vec<Name>,
        partitions: &[TopicPartition],
    ) -> Result<Self> {
        // A new group each time: it has committed nothing, and no other member takes part of the partitions.
        let group = Name::from(format!("{prefix}-{}", Uuid::now_v7()));
        let options = ConsumerOptions::new(group.clone(), topics).with_session_timeout(SESSION);
        let consumer = transport.consumer(options).await?;
        consumer.pause(partitions).await?;
        let reader = Self { consumer, group, unreadable: UnreadableRanges::default() };
        let mut waiting = partitions.len();
        while waiting > 0 {
            if let Step::Assigned(given) = reader.step("its partitions were not assigned").await? {
                waiting =
                    waiting.saturating_sub(given.iter().filter(|one| partitions.contains(&one.partition)).count());
            }
        }
        Ok(reader)
    }

    /// Leaves the group and deletes it.
    pub(super) async fn close(&self, admin: &dyn Admin) -> Result<()> {
        let left = self.consumer.close().await;
        // If this fails, the broker removes the group eventually: it has no members and has committed nothing.
        let _gone = admin.delete_group(&self.group).await;
        left
    }

    pub(super) fn unreadable(&self) -> &UnreadableRanges {
        &self.unreadable
    }

    /// Returns the position at which to read from `to` on.
    pub(super) async fn seek(&self, at: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.consumer.seek(at, to).await
    }

    pub(super) async fn read(
        &mut self,
        at: &TopicPartition,
        from: u64,
        until: u64,
        mut wanted: impl FnMut(&StoredRecord) -> Result<bool>,
    ) -> Result<u64> {
        if from >= until {
            return Ok(from);
        }
        let mut reached = self.consumer.seek(at, SeekTo::Offset(from)).await?.max(from);
        let one = std::slice::from_ref(at);
        self.consumer.resume(one).await?;
        'steps: while reached < until {
            let fetched = match self.step("no record came").await? {
                Step::Records(fetched) if **fetched.batch.origin() == *at => fetched,
                Step::Unreadable(found) if found.partition == *at => {
                    reached = self.skip(found, until).await?;
                    continue;
                }
                Step::Revoking(_) | Step::Lost(_) => return Err(lost()),
                _ => continue,
            };
            for record in fetched.batch.records().iter().filter(|record| record.offset >= from) {
                if record.offset >= until {
                    break;
                }
                let more = wanted(record)?;
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

    /// Skips records that cannot be read, to `until` if it is not known where they end.
    async fn skip(&mut self, found: Unreadable, until: u64) -> Result<u64> {
        match self.unreadable.skip(found, until) {
            (_, next) if next >= until => Ok(until),
            (partition, next) => self.consumer.seek(&partition, SeekTo::Offset(next)).await,
        }
    }

    /// Returns the next step, or an error after [`PATIENCE`].
    async fn step(&self, missing: &str) -> Result<Step> {
        let steps = async {
            loop {
                match self.consumer.next().await {
                    Err(error) if error.is_retryable() => sleep(AGAIN).await,
                    step => return step,
                }
            }
        };
        let late = || Error::new(ErrorKind::Unavailable, format!("read dead letters: {missing} within {PATIENCE:?}"));
        timeout(PATIENCE, steps).await.unwrap_or_else(|_| Err(late()))
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Unavailable, "read dead letters: the reader lost its partitions; call again")
}
