//! A transport whose single calls can be made to fail, or to answer otherwise.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, Error, ErrorKind, Guarantees, Position, Progress,
    Publisher, Record, Result, SeekTo, Step, TopicPartition, Transport, async_trait,
};
use tidings_memory::MemoryTransport;

/// The memory transport, with the bends that a test has set.
#[derive(Debug, Clone)]
pub(crate) struct Bent {
    pub(crate) inner: MemoryTransport,
    bends: Arc<Mutex<Bends>>,
}

#[derive(Debug, Default)]
struct Bends {
    failing: BTreeSet<&'static str>,
    hanging: BTreeSet<&'static str>,
    blocking: Option<(&'static str, Receiver<()>)>,
    is_member: Option<Option<bool>>,
    rewind: Option<TopicPartition>,
    /// No partition is assigned.
    is_surplus: bool,
    is_shared: bool,
}

impl Bent {
    pub(crate) fn new(inner: MemoryTransport) -> Self {
        Self { inner, bends: Arc::default() }
    }

    fn bends(&self) -> MutexGuard<'_, Bends> {
        self.bends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets each call of this name fail from now on: `release`, `pause`, `leave`, or `close publisher`.
    pub(crate) fn fail(&self, call: &'static str) {
        self.bends().failing.insert(call);
    }

    /// Lets each call of this name wait for ever.
    pub(crate) fn hang(&self, call: &'static str) {
        self.bends().hanging.insert(call);
    }

    /// Lets the next call of this name block its thread until the sender is dropped.
    pub(crate) fn block(&self, call: &'static str) -> Sender<()> {
        let (release, blocked) = channel();
        self.bends().blocking = Some((call, blocked));
        release
    }

    /// Lets its consumers answer this when they are asked whether they are members.
    pub(crate) fn set_member(&self, answer: Option<bool>) {
        self.bends().is_member = Some(answer);
    }

    /// Lets the next call for a step read this partition from its beginning, as if its log had been recreated.
    pub(crate) fn rewind(&self, partition: TopicPartition) {
        self.bends().rewind = Some(partition);
    }

    /// Lets its consumers wait for a partition that never comes.
    pub(crate) fn give_nothing(&self) {
        self.bends().is_surplus = true;
    }

    /// Lets it pass for a broker that several processes can reach.
    pub(crate) fn share(&self) {
        self.bends().is_shared = true;
    }

    async fn may(&self, call: &'static str) -> Result<()> {
        if self.bends().hanging.contains(call) {
            std::future::pending::<()>().await;
        }
        let blocking = self.bends().blocking.take_if(|(blocking, _)| *blocking == call);
        if let Some((_, blocked)) = blocking {
            // An error is the release.
            let _ = blocked.recv();
        }
        match self.bends().failing.contains(call) {
            true => Err(Error::new(ErrorKind::Unavailable, format!("{call}: no answer"))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Transport for Bent {
    fn system(&self) -> &'static str {
        self.inner.system()
    }
    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        Ok(Arc::new(BentPublisher { inner: self.inner.publisher().await?, bent: self.clone() }))
    }
    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        Ok(Arc::new(BentConsumer { inner: self.inner.consumer(options).await?, bent: self.clone() }))
    }
    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }
    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }
    fn guarantees(&self) -> Guarantees {
        let is_shared = self.bends().is_shared;
        self.inner.guarantees().with_shared(is_shared)
    }
}

#[derive(Debug)]
struct BentPublisher {
    inner: Arc<dyn Publisher>,
    bent: Bent,
}

#[async_trait]
impl Publisher for BentPublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        self.inner.publish(records).await
    }
    async fn close(&self, limit: Duration) -> Result<()> {
        self.bent.may("close publisher").await?;
        self.inner.close(limit).await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct BentConsumer {
    inner: Arc<dyn Consumer>,
    bent: Bent,
}

#[async_trait]
impl Consumer for BentConsumer {
    async fn next(&self) -> Result<Step> {
        if self.bent.bends().is_surplus {
            return std::future::pending().await;
        }
        let step = self.inner.next().await?;
        let rewind = self.bent.bends().rewind.take();
        if let Some(partition) = rewind {
            self.inner.seek(&partition, SeekTo::Earliest).await?;
            return self.inner.next().await;
        }
        Ok(step)
    }
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.inner.commit(commits).await
    }
    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.bent.may("release").await?;
        self.inner.release(partitions).await
    }
    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.bent.may("pause").await?;
        self.inner.pause(partitions).await
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
        let bent = self.bent.bends().is_member;
        bent.unwrap_or_else(|| self.inner.is_member())
    }
    async fn close(&self) -> Result<()> {
        self.bent.may("leave").await?;
        self.inner.close().await
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}
