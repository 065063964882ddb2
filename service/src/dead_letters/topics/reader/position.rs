//! A reader by position, which needs no group.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, LogReader, Read, ReadLimits, Result, SeekTo, StoredRecord, TopicPartition, Unreadable,
};
use tokio::time::{Instant, sleep};

use super::unreadable::UnreadableRanges;

/// How long one read waits for a record.
const WAIT: Duration = Duration::from_millis(500);
/// The pause after a transient read failure.
const AGAIN: Duration = Duration::from_millis(100);
/// How long the reader waits for the next record.
const PATIENCE: Duration = Duration::from_secs(60);
/// The records and bytes of one read.
const RECORDS: usize = 10_000;
const BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct PositionReader {
    log: Arc<dyn LogReader>,
    unreadable: UnreadableRanges,
    /// The last answer, if the caller used only a part of it: the next read often continues there.
    rest: Option<Read>,
}

impl PositionReader {
    pub(super) fn new(log: Arc<dyn LogReader>) -> Self {
        Self { log, unreadable: UnreadableRanges::default(), rest: None }
    }

    pub(super) fn forget(&mut self) {
        self.rest = None;
    }

    pub(super) fn unreadable(&self) -> &UnreadableRanges {
        &self.unreadable
    }

    pub(super) async fn seek(&self, at: &TopicPartition, to: SeekTo) -> Result<u64> {
        let missing = || Err(Error::new(ErrorKind::Indeterminate, format!("look up an offset of {at}: no answer")));
        self.log.offsets(std::slice::from_ref(at), to).await?.pop().unwrap_or_else(missing)
    }

    pub(super) async fn read(
        &mut self,
        at: &TopicPartition,
        from: u64,
        until: u64,
        mut wanted: impl FnMut(&StoredRecord) -> Result<bool>,
    ) -> Result<u64> {
        let mut reached = from;
        while reached < until {
            let read = match self.fetched(at, reached) {
                Some(read) => read,
                None => self.next(at, reached).await?,
            };
            let records = read.batch.records();
            let first = records.partition_point(|record| record.offset < reached);
            for record in records[first..].iter().take_while(|record| record.offset < until) {
                let more = wanted(record)?;
                reached = record.offset + 1;
                if !more {
                    self.rest = Some(read).filter(|read| reached < read.next_offset);
                    return Ok(reached);
                }
            }
            reached = reached.max(read.next_offset.min(until));
            if let Some(found) = read.unreadable {
                reached = reached.max(self.skip(found, until));
            }
        }
        Ok(reached)
    }

    /// Takes the last answer if it continues at `offset`.
    fn fetched(&mut self, at: &TopicPartition, offset: u64) -> Option<Read> {
        let rest = self.rest.take().filter(|rest| **rest.batch.origin() == *at)?;
        let first = rest.batch.records().first()?.offset;
        (first..rest.next_offset).contains(&offset).then_some(rest)
    }

    fn skip(&mut self, found: Unreadable, until: u64) -> u64 {
        self.unreadable.skip(found, until).1
    }

    /// Reads until there is something new, or returns an error after [`PATIENCE`].
    async fn next(&self, at: &TopicPartition, offset: u64) -> Result<Read> {
        let limits = ReadLimits::default().with_max_records(RECORDS).with_max_bytes(BYTES).with_wait(WAIT);
        let ends = Instant::now() + PATIENCE;
        loop {
            match self.log.read(at, offset, limits).await {
                Ok(read) if read.next_offset > offset || read.unreadable.is_some() => return Ok(read),
                Ok(_) if Instant::now() >= ends => {
                    let text = format!("read dead letters: no record came within {PATIENCE:?}");
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
                Err(error) if !error.is_retryable() || Instant::now() >= ends => return Err(error),
                Ok(_) | Err(_) => sleep(AGAIN).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidings_core::{Guarantees, Record, Topic, Transport, async_trait};
    use tidings_memory::MemoryTransport;

    use super::*;

    #[derive(Debug)]
    struct Counted {
        inner: Arc<dyn LogReader>,
        reads: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl LogReader for Counted {
        async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
            self.inner.offsets(partitions, at).await
        }

        async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.inner.read(partition, offset, limits).await
        }

        fn guarantees(&self) -> Guarantees {
            self.inner.guarantees()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pages_of_one_answer_are_read_once() {
        let transport = MemoryTransport::new();
        transport.admin().await.unwrap().create_topics(&[Topic::new("t")]).await.unwrap();
        let records = (0..100).map(|_| Record::new("t", "v")).collect();
        for answer in transport.publisher().await.unwrap().publish(records).await {
            answer.unwrap();
        }
        let (reads, inner) = (Arc::new(AtomicUsize::new(0)), transport.log_reader().await.unwrap());
        let mut reader = PositionReader::new(Arc::new(Counted { inner, reads: Arc::clone(&reads) }));
        let at = TopicPartition::new("t", 0);
        let mut page = async |first: u64, forget: bool| {
            if forget {
                reader.forget();
            }
            let mut found = Vec::new();
            let wanted = |record: &StoredRecord| {
                found.push(record.offset);
                Ok(found.len() < 10)
            };
            let reached = reader.read(&at, first, 100, wanted).await.unwrap();
            assert_eq!((reached, found), (first + 10, (first..first + 10).collect::<Vec<_>>()));
            reads.load(Ordering::Relaxed)
        };
        for first in (0..100).step_by(10) {
            assert_eq!(page(first, false).await, 1);
        }
        assert_eq!(page(0, false).await, 2, "nothing is left of the answer");
        assert_eq!(page(50, false).await, 2);
        assert_eq!(page(60, true).await, 3);
    }
}
