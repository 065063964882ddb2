//! The consumer: a member of a group.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_core::{
    Commit, Consumer, ConsumerOptions, Error, ErrorKind, Guarantees, Progress, Result, SeekTo, Step, TopicPartition,
    async_trait,
};
use tokio::time::Instant;

use crate::assign::MemberId;
use crate::broker::Broker;
use crate::error::{closed, injected};
use crate::group::{Group, Look};
use crate::signal::Signal;

pub(crate) struct MemoryConsumer {
    broker: Arc<Broker>,
    group: Arc<Group>,
    id: MemberId,
    signal: Arc<Signal>,
    /// Whether a call of `next` is in progress.
    reading: AtomicBool,
    closed: AtomicBool,
}

impl fmt::Debug for MemoryConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumer")
            .field("group", self.group.name())
            .field("member", &self.id)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl MemoryConsumer {
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), [`NotFound`](ErrorKind::NotFound) for a topic that may not be created.
    pub(crate) fn join(broker: &Arc<Broker>, options: ConsumerOptions) -> Result<Self> {
        broker.faults.reach("join the group")?;
        if options.topics.is_empty() || options.group.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "join the group: it needs a group and at least one topic"));
        }
        // Before the group is locked: creating a topic rebalances all groups.
        for topic in &options.topics {
            broker.topic_or_create("join the group", topic)?;
        }
        let signal = Arc::new(Signal::default());
        let name = options.group.clone();
        let (group, id) = broker.with_group(&name, |group| {
            let id = group.join(broker, options, Arc::clone(&signal));
            (Arc::clone(group), id)
        });
        let (reading, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { broker: Arc::clone(broker), group, id, signal, reading, closed })
    }

    fn open(&self, verb: &str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(verb, "consumer")) } else { Ok(()) }
    }

    fn look(&self) -> Result<Look> {
        self.open("next")?;
        let now = Instant::now();
        let Some(since) = self.broker.faults.down_since() else { return self.group.look(&self.broker, self.id, now) };
        match self.group.look_alone(&self.broker, self.id, now, since)? {
            Look::Step(step) => Ok(Look::Step(step)),
            Look::Wait(_) => self.broker.faults.reach("next").map(|()| Look::Wait(None)),
        }
    }

    /// Looks for a step; if there is none, looks again after signalling that it is about to sleep.
    fn look_twice(&self) -> Result<Look> {
        if let Look::Step(step) = self.look()? {
            return Ok(Look::Step(step));
        }
        self.signal.sleep();
        let second = self.look();
        if !matches!(second, Ok(Look::Wait(_))) {
            self.signal.awake();
        }
        second
    }

    async fn sleep(&self, until: Option<Instant>) {
        match until {
            None => self.signal.woken().await,
            Some(until) => {
                // Either one only makes it look again.
                let _ = tokio::time::timeout_at(until, self.signal.woken()).await;
            }
        }
    }

    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // Through the broker, which forgets a group without members and commits.
            self.broker.with_group(self.group.name(), |_| self.group.leave(&self.broker, self.id));
            self.signal.wake();
        }
    }
}

/// Guard of the single call of `next`; dropping it marks the member as between two calls.
struct Turn<'a>(&'a MemoryConsumer);

impl<'a> Turn<'a> {
    fn take(consumer: &'a MemoryConsumer) -> Result<Self> {
        if consumer.reading.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::Invalid, "next: another call of it is under way"));
        }
        Ok(Self(consumer))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.signal.awake();
        self.0.group.idle(self.0.id);
        self.0.reading.store(false, Ordering::Release);
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&self) -> Result<Step> {
        // A loop over a full log must let other tasks and timers run; before anything is taken, so that no step is
        // lost.
        tokio::task::coop::consume_budget().await;
        self.open("next")?;
        let _turn = Turn::take(self)?;
        let delay = self.broker.faults.fetch_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        loop {
            self.broker.faults.fetch()?;
            match self.look_twice()? {
                Look::Step(step) => return Ok(step),
                Look::Wait(until) => self.sleep(until).await,
            }
        }
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        let delay = self.broker.faults.commit_delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.closed.load(Ordering::Acquire) {
            return commits.iter().map(|_| Err(closed("commit", "consumer"))).collect();
        }
        match self.broker.faults.commit() {
            None => self.group.commit(&self.broker, self.id, commits),
            // The answer is lost; a refusal stays a refusal.
            Some(kind @ ErrorKind::Indeterminate) => {
                let answers = self.group.commit(&self.broker, self.id, commits);
                answers.into_iter().map(|answer| answer.and_then(|()| Err(injected("commit", kind)))).collect()
            }
            Some(kind) => commits.iter().map(|_| Err(injected("commit", kind))).collect(),
        }
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open("release")?;
        self.group.release(&self.broker, self.id, partitions);
        Ok(())
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open("pause")?;
        self.group.pause(self.id, partitions);
        Ok(())
    }

    async fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.open("resume")?;
        self.group.resume(self.id, partitions);
        Ok(())
    }

    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.open("seek")?;
        self.broker.faults.reach("seek")?;
        self.group.seek(&self.broker, self.id, partition, to)
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        self.open("progress")?;
        self.group.progress(&self.broker, self.id)
    }

    async fn close(&self) -> Result<()> {
        self.leave();
        Ok(())
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.leave();
    }
}
