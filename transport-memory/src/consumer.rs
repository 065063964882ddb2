//! The consumer: a member of a group.
//!
//! A consumer owns no records: its group keeps the member's partitions and pending steps, and the logs
//! keep the records. `next` looks for a step under the group's lock and sleeps without it. A step
//! is taken only in the poll that returns it, so a dropped call of `next` loses nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_core::{
    Commit, Consumer, ConsumerOptions, Error, ErrorKind, Guarantees, Progress, Result, SeekTo, Step, TopicPartition,
    TransactionOffsets, async_trait,
};
use tokio::time::Instant;

use crate::assign::MemberId;
use crate::broker::Broker;
use crate::error::{closed, injected};
use crate::group::{Group, Look};
use crate::signal::Signal;

/// A member of a group, from [`join`](Self::join) until it is closed or dropped.
pub(crate) struct MemoryConsumer {
    broker: Arc<Broker>,
    group: Arc<Group>,
    id: MemberId,
    /// Wakes this consumer: shared with the member, and with the logs that it reads.
    signal: Arc<Signal>,
    /// Whether a call of `next` is in progress.
    reading: AtomicBool,
    /// Set once, by the first `close` or by dropping; all later calls fail as `Closed`.
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
    /// Joins the group that `options` name, creating the group and its missing topics.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) while the broker is down,
    /// [`Invalid`](ErrorKind::Invalid) without a group or topics, [`NotFound`](ErrorKind::NotFound)
    /// for a topic that may not be created.
    pub(crate) fn join(broker: &Arc<Broker>, options: ConsumerOptions) -> Result<Self> {
        broker.faults.reach("join the group")?;
        options.check()?;
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

    /// Fails as `Closed` once the consumer is closed.
    fn open(&self, verb: &str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(verb, "consumer")) } else { Ok(()) }
    }

    /// Looks once for the next step.
    ///
    /// While the broker is down, only the member's own session advances: pending steps are not
    /// delivered until its session has ended, then `Lost` is. Without a step the outage itself is
    /// the answer.
    fn look(&self) -> Result<Look> {
        self.open("next")?;
        let now = Instant::now();
        let Some(since) = self.broker.faults.down_since() else {
            self.broker.transactions.expire(&self.broker);
            return self.group.look(&self.broker, self.id, now);
        };
        match self.group.look_alone(&self.broker, self.id, now, since)? {
            Look::Step(step) => Ok(Look::Step(step)),
            Look::Wait(_) => self.broker.faults.reach("next").map(|()| Look::Wait(None)),
        }
    }

    /// Looks for a step; if there is none, looks again after signalling that it is about to sleep.
    ///
    /// Without the second look, a record appended between the first look and the signal would wake
    /// no reader, and the consumer would sleep although there are records.
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

    /// Sleeps until it is woken, or until `until`, when a deadline of the group passes that only
    /// waiting members notice, or a transaction is aborted by its timeout.
    async fn sleep(&self, until: Option<Instant>) {
        match until {
            None => self.signal.woken().await,
            Some(until) => {
                // Each one only makes it look again.
                let _ = tokio::time::timeout_at(until, self.signal.woken()).await;
            }
        }
    }

    /// Leaves the group, once. The member's partitions go to the others at once, unless it is
    /// static.
    fn leave(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // Through the broker, which forgets a group without members and commits.
            self.broker.with_group(self.group.name(), |_| self.group.leave(&self.broker, self.id));
            self.signal.wake();
        }
    }
}

/// Guard of the single call of `next`; dropping it marks the member as between two calls.
///
/// `next` must not run twice at a time: two callers would share the member's steps, and a
/// revocation seen by one would not stop the other.
struct Turn<'a>(&'a MemoryConsumer);

impl<'a> Turn<'a> {
    /// Takes the turn.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) while another call of `next` is in progress.
    fn take(consumer: &'a MemoryConsumer) -> Result<Self> {
        if consumer.reading.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::Invalid, "next: another call is in progress"));
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
    /// Returns the next step, waiting for one.
    ///
    /// # Cancel safety
    /// Safe: waiting takes nothing, and the turn is given back when the future is dropped.
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
                Look::Wait(until) => {
                    let aborts = self.broker.transactions.next_deadline();
                    self.sleep(until.into_iter().chain(aborts).min()).await;
                }
            }
        }
    }

    /// Commits, after the injected delay; answer `i` is commit `i`'s.
    ///
    /// # Cancel safety
    /// Before the delay has passed nothing is committed; the commit itself happens in one poll.
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

    async fn transaction_offsets(&self, commits: Vec<Commit>) -> Result<TransactionOffsets> {
        self.open("commit in a transaction")?;
        self.group.transaction_offsets(&self.broker, self.id, commits)
    }

    /// Gives up partitions that are being revoked. Others are ignored: they are not the caller's to
    /// give.
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

    /// Moves the read position of an owned partition, and lets the next commit go back.
    async fn seek(&self, partition: &TopicPartition, to: SeekTo) -> Result<u64> {
        self.open("seek")?;
        self.broker.faults.reach("seek")?;
        self.group.seek(&self.broker, self.id, partition, to)
    }

    async fn progress(&self) -> Result<Vec<Progress>> {
        self.open("progress")?;
        self.broker.transactions.expire(&self.broker);
        self.group.progress(&self.broker, self.id)
    }

    fn is_member(&self) -> Option<bool> {
        Some(!self.closed.load(Ordering::Acquire) && self.group.takes_part(&self.broker, self.id))
    }

    /// Leaves the group. Closing again does nothing.
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
