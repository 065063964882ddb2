//! The memory transport with compaction: records can be taken out of the middle of a log.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, Fetched, Guarantees, Progress, Publisher, RecordBatch,
    Result, SeekTo, Step, TopicPartition, Transport, async_trait,
};
use tidings_memory::MemoryTransport;

type Gaps = Arc<Mutex<HashMap<TopicPartition, Vec<Range<u64>>>>>;

/// A memory transport whose consumers skip what was compacted away.
#[derive(Debug)]
pub(crate) struct Gappy {
    inner: MemoryTransport,
    gaps: Gaps,
}

impl Gappy {
    pub(crate) fn new(inner: MemoryTransport) -> Self {
        Self { inner, gaps: Gaps::default() }
    }

    pub(crate) fn inner(&self) -> &MemoryTransport {
        &self.inner
    }

    /// Takes the records in `range` out of the log.
    pub(crate) fn compact(&self, partition: TopicPartition, range: Range<u64>) {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).entry(partition).or_default().push(range);
    }
}

#[async_trait]
impl Transport for Gappy {
    fn system(&self) -> &'static str {
        "gappy"
    }

    async fn publisher(&self) -> Result<Arc<dyn Publisher>> {
        self.inner.publisher().await
    }

    async fn consumer(&self, options: ConsumerOptions) -> Result<Arc<dyn Consumer>> {
        let inner = self.inner.consumer(options).await?;
        Ok(Arc::new(GappyConsumer { inner, gaps: Arc::clone(&self.gaps) }))
    }

    async fn dead_letters(&self) -> Result<Arc<dyn DeadLetterSink>> {
        self.inner.dead_letters().await
    }

    async fn admin(&self) -> Result<Arc<dyn Admin>> {
        self.inner.admin().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[derive(Debug)]
struct GappyConsumer {
    inner: Arc<dyn Consumer>,
    gaps: Gaps,
}

impl GappyConsumer {
    fn without_gaps(&self, fetched: Fetched) -> Fetched {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = fetched.batch.origin();
        let Some(gaps) = gaps.get(&**origin) else { return fetched };
        let kept = |offset: u64| !gaps.iter().any(|gap| gap.contains(&offset));
        let records = fetched.batch.records().iter().filter(|r| kept(r.offset)).cloned().collect();
        Fetched::new(RecordBatch::new(Arc::clone(origin), records), fetched.epoch, fetched.next_offset)
    }
}

#[async_trait]
impl Consumer for GappyConsumer {
    async fn next(&self) -> Result<Step> {
        Ok(match self.inner.next().await? {
            Step::Records(fetched) => Step::Records(self.without_gaps(fetched)),
            other => other,
        })
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.inner.commit(commits).await
    }

    async fn release(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.inner.release(partitions).await
    }

    async fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
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

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// How long a case of these tests may take in real time: a plant must not hold up the others.
pub(crate) const CASE_LIMIT: Duration = Duration::from_secs(20);
