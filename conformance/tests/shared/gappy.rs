//! The memory transport with compaction: records can be taken out of the middle of a log.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{
    Admin, Commit, Consumer, ConsumerOptions, DeadLetterSink, Fetched, Guarantees, LogReader, Progress, Publisher,
    Read, ReadLimits, RecordBatch, Result, SeekTo, Step, TopicPartition, TransactionOffsets, Transactor,
    TransactorOptions, Transport, async_trait,
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

    async fn log_reader(&self) -> Result<Arc<dyn LogReader>> {
        let inner = self.inner.log_reader().await?;
        Ok(Arc::new(GappyLog { inner, gaps: Arc::clone(&self.gaps) }))
    }

    async fn transactor(&self, options: TransactorOptions) -> Result<Arc<dyn Transactor>> {
        self.inner.transactor(options).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Returns the records of a batch that are not in a gap.
fn without_gaps(gaps: &Gaps, batch: &RecordBatch) -> RecordBatch {
    let gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(gaps) = gaps.get(&**batch.origin()) else { return batch.clone() };
    let kept = |offset: u64| !gaps.iter().any(|gap| gap.contains(&offset));
    let records = batch.records().iter().filter(|r| kept(r.offset)).cloned().collect();
    RecordBatch::new(Arc::clone(batch.origin()), records)
}

#[derive(Debug)]
struct GappyLog {
    inner: Arc<dyn LogReader>,
    gaps: Gaps,
}

#[async_trait]
impl LogReader for GappyLog {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        self.inner.offsets(partitions, at).await
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        let mut read = self.inner.read(partition, offset, limits).await?;
        read.batch = without_gaps(&self.gaps, &read.batch);
        Ok(read)
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

#[async_trait]
impl Consumer for GappyConsumer {
    async fn next(&self) -> Result<Step> {
        Ok(match self.inner.next().await? {
            Step::Records(fetched) => {
                let batch = without_gaps(&self.gaps, &fetched.batch);
                Step::Records(Fetched::new(batch, fetched.epoch, fetched.next_offset))
            }
            other => other,
        })
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<()>> {
        self.inner.commit(commits).await
    }

    async fn transaction_offsets(&self, commits: Vec<Commit>) -> Result<TransactionOffsets> {
        self.inner.transaction_offsets(commits).await
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

    fn is_member(&self) -> Option<bool> {
        self.inner.is_member()
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
