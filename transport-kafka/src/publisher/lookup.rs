//! Finds the partition of a record, and looks up its topic at the brokers where necessary.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Record, Result, check_topic_name};
use tokio::time::{Instant, sleep};

use super::closed;
use super::partitioning::Partitioning;
use crate::client::producer::no_partition;

/// Pause before a topic is looked up again while no broker answers.
///
/// Records of other calls wait meanwhile, as they do for the brokers.
const LOOKUP_PAUSE: Duration = Duration::from_millis(200);

/// Answers questions about topics, each within about a second; about unknown ones it may take longer.
pub(super) trait TopicSource: Sync {
    /// Returns the number of partitions of a topic.
    fn partitions(&self, topic: &Name) -> impl Future<Output = Result<u32>> + Send;

    /// Looks up known topics again, in one request, and returns the number of partitions of each existing topic.
    fn refresh(&self, topics: &[Name]) -> impl Future<Output = Result<Vec<(Name, u32)>>> + Send;

    /// Returns the largest batch that a topic accepts, in bytes, if it is known.
    fn largest_batch(&self, topic: &Name) -> impl Future<Output = Option<usize>> + Send;
}

/// Borrows the state of the current enqueuer.
pub(super) struct Lookup<'a, S> {
    pub(super) partitioning: &'a mut Partitioning,
    pub(super) source: &'a S,
    /// Larger records are refused.
    pub(super) max_record_bytes: usize,
    /// Set once waiting calls are abandoned.
    pub(super) is_closed: &'a AtomicBool,
}

impl<S: TopicSource> Lookup<'_, S> {
    fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Returns the partition of a record that may be published.
    ///
    /// `missing` holds the topics that this call has not found: each is looked up once.
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge), [`NotFound`](ErrorKind::NotFound),
    /// [`Closed`](ErrorKind::Closed); [`Unavailable`](ErrorKind::Unavailable) if no broker describes
    /// the topic in time.
    pub(super) async fn find_partition(
        &mut self,
        missing: &mut HashSet<Name>,
        record: &Record,
        since: Instant,
        deadline: Instant,
    ) -> Result<u32> {
        self.check_open()?;
        let (topic, size) = (record.topic.clone(), record.size());
        if size > self.max_record_bytes {
            let limit = self.max_record_bytes;
            let what = format!("publish to {topic:?}: a record of {size} bytes exceeds max_record_bytes ({limit})");
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        if self.partitioning.known(&topic).is_none() {
            // Brokers are not asked about invalid names.
            check_topic_name(&topic)?;
        }
        if missing.contains(&topic) {
            return Err(Error::new(ErrorKind::NotFound, format!("publish to {topic:?}: there is no such topic")));
        }
        let partition = self.choose_partition(record, since, deadline).await;
        if partition.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
            && self.partitioning.count(&topic).is_none()
        {
            missing.insert(topic);
        }
        partition
    }

    /// A named partition beyond the known count is not refused before a broker has confirmed the
    /// count: the topic may have grown.
    async fn choose_partition(&mut self, record: &Record, since: Instant, deadline: Instant) -> Result<u32> {
        let count = match self.partitioning.count(&record.topic) {
            Some(count) => count,
            None => self.learn(&record.topic, deadline).await?,
        };
        match record.partition {
            Some(partition) if partition < count => Ok(partition),
            Some(partition) => {
                // The topic may have grown if it was last asked for before the call.
                let known = self.partitioning.is_known_since(&record.topic, since);
                let count = if known { count } else { self.learn(&record.topic, deadline).await? };
                if partition < count {
                    return Ok(partition);
                }
                let told = self.partitioning.is_known_since(&record.topic, since);
                Err(if told { no_partition(&record.topic, partition) } else { unconfirmed(&record.topic, partition) })
            }
            None => Ok(self.partitioning.choose(record)),
        }
    }

    /// Asks for a topic's partition count until `deadline`. While no broker answers, the known count stays valid, and
    /// is refreshed later.
    ///
    /// A topic that is new to the publisher is waited for; a known one is not, since its count is
    /// most likely still right.
    async fn learn(&mut self, topic: &Name, deadline: Instant) -> Result<u32> {
        let known = self.partitioning.known(topic);
        if let Some(known) = known {
            if !self.partitioning.may_ask() {
                return Ok(known);
            }
            if let Some(count) = self.refresh(topic, known).await {
                return Ok(count);
            }
        }
        let asked = Instant::now();
        let count = loop {
            if known.is_none() && Instant::now() >= deadline {
                let what = format!("publish to {topic:?}: no broker described the topic in time");
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            match (self.source.partitions(topic).await, known) {
                (Ok(count), _) => break count,
                (Err(error), Some(known)) if error.kind() == ErrorKind::Unavailable => {
                    self.partitioning.note_unanswered();
                    return Ok(known);
                }
                (Err(error), _) if error.kind() == ErrorKind::Unavailable => {
                    self.check_open()?;
                    sleep(LOOKUP_PAUSE).await;
                }
                (Err(error), _) => {
                    self.partitioning.mark_missing(topic);
                    return Err(error);
                }
            }
        };
        self.partitioning.learn(topic, count, asked);
        if known.is_none() {
            self.learn_limit(topic).await;
        }
        Ok(count)
    }

    /// Asks for a topic's batch limit, for at most a second; returns whether a broker reported it.
    ///
    /// Without an answer the limit stays as it is known.
    pub(super) async fn learn_limit(&mut self, topic: &Name) -> bool {
        let told = self.source.largest_batch(topic).await;
        if let Some(told) = told {
            self.partitioning.set_limit(topic, told);
        }
        told.is_some()
    }

    /// Refreshes a known topic, and others that are due soon. While no broker answers, the known count stays valid;
    /// returns `None` if the topic no longer exists.
    ///
    /// Sends one request for all topics that are due: a request for each would delay the queue.
    async fn refresh(&mut self, topic: &Name, known: u32) -> Option<u32> {
        let asked = Instant::now();
        let topics = self.partitioning.aging(topic);
        match self.source.refresh(&topics).await {
            Ok(counts) => {
                counts.iter().for_each(|(topic, count)| self.partitioning.learn(topic, *count, asked));
                counts.iter().find(|(found, _)| found == topic).map(|(_, count)| *count)
            }
            Err(_) => {
                self.partitioning.note_unanswered();
                Some(known)
            }
        }
    }
}

/// Returns the error of a record whose partition did not exist when a broker last reported its topic.
///
/// Unavailable rather than not found: a retry may find the partition.
fn unconfirmed(topic: &Name, partition: u32) -> Error {
    let what = "no broker confirms that the partition exists";
    Error::new(ErrorKind::Unavailable, format!("publish to {topic}[{partition}]: {what}"))
}
