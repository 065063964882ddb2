//! Reading by position in memory.

use std::sync::Arc;

use tidings_core::{
    Error, ErrorKind, Guarantees, LogReader, Read, ReadLimits, RecordBatch, Result, SeekTo, TopicPartition, Unreadable,
    async_trait,
};
use tokio::time::{timeout, timeout_at};

use crate::broker::Broker;
use crate::error::{no_topic, unreadable};
use crate::log::{self, PartitionLog};
use crate::signal::Signal;

/// A log reader of one broker. It holds no state of its own; any number of them may exist.
#[derive(Debug)]
pub(crate) struct MemoryLogReader {
    broker: Arc<Broker>,
}

/// A read that waits for a record; dropping it ends the wake-ups.
struct Waiting {
    log: Arc<PartitionLog>,
    signal: Arc<Signal>,
}

impl Waiting {
    fn new(log: Arc<PartitionLog>) -> Self {
        let signal = Arc::new(Signal::default());
        log.add_reader(&signal);
        Self { log, signal }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.log.remove_reader(&self.signal);
    }
}

impl MemoryLogReader {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    /// Returns the log of a partition.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Unavailable`](ErrorKind::Unavailable) while the broker is down.
    fn log(&self, verb: &str, at: &TopicPartition) -> Result<Arc<PartitionLog>> {
        self.broker.faults.reach(verb)?;
        let topic = self.broker.topic(&at.topic).ok_or_else(|| no_topic(verb, &at.topic))?;
        let missing = || Error::new(ErrorKind::NotFound, format!("{verb}: there is no partition {at}"));
        topic.log(at.partition).ok_or_else(missing)
    }

    /// Reads what is there now.
    fn look(&self, at: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        self.broker.transactions.expire(&self.broker);
        let log = self.log("read", at)?;
        let now = self.broker.clock.now();
        let (mut start, end) = log.bounds(now);
        if offset > end && offset > log.end() {
            let what = format!("read {at} from offset {offset}: it lies beyond the end {end} of the log");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let mut from = offset.max(start);
        loop {
            let bad = self.broker.faults.unreadable(at, from);
            let until = bad.as_ref().map_or(u64::MAX, |bad| bad.start);
            if let Some(bad) = bad.filter(|bad| bad.start <= from && from < end) {
                let error = Unreadable::new(at.clone(), 0, from, unreadable()).with_next_offset(bad.end.min(end));
                return Ok(Read::new(RecordBatch::new(at.clone(), Vec::new()), from, start, end).with_unreadable(error));
            }
            match log.read(from, until, limits.max_records, limits.max_bytes, now) {
                log::Read::Records(batch, next) => {
                    return Ok(Read::new(batch, next, start, log.stable_end().max(next)));
                }
                log::Read::Nothing => {
                    return Ok(Read::new(RecordBatch::new(at.clone(), Vec::new()), from, start, end.max(from)));
                }
                // Retention has moved the start since.
                log::Read::Overtaken(oldest) => (start, from) = (oldest, oldest),
            }
        }
    }

    /// Reads again at each append, until there is something.
    async fn look_until_there(&self, at: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        let waiting = Waiting::new(self.log("read", at)?);
        loop {
            waiting.signal.sleep();
            let read = self.look(at, offset, limits)?;
            if !is_empty(&read, offset) {
                return Ok(read);
            }
            match self.broker.transactions.next_deadline() {
                None => waiting.signal.woken().await,
                Some(deadline) => {
                    // The transaction that is aborted then may be the one that holds back this reader.
                    let _ = timeout_at(deadline, waiting.signal.woken()).await;
                }
            }
        }
    }
}

/// Returns whether a read from `offset` came no further. A gap is progress, too.
fn is_empty(read: &Read, offset: u64) -> bool {
    read.batch.is_empty() && read.unreadable.is_none() && read.next_offset <= offset
}

#[async_trait]
impl LogReader for MemoryLogReader {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        self.broker.faults.reach("offsets")?;
        self.broker.transactions.expire(&self.broker);
        let now = self.broker.clock.now();
        let find = |partition: &TopicPartition| Ok(self.log("offsets", partition)?.find(at, now));
        Ok(partitions.iter().map(find).collect())
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        limits.check()?;
        // A loop over a full log must let other tasks run.
        tokio::task::coop::consume_budget().await;
        let read = self.look(partition, offset, limits)?;
        if limits.wait.is_zero() || !is_empty(&read, offset) {
            return Ok(read);
        }
        match timeout(limits.wait, self.look_until_there(partition, offset, limits)).await {
            Ok(read) => read,
            // The log may have changed without an append.
            Err(_) => self.look(partition, offset, limits),
        }
    }

    fn guarantees(&self) -> Guarantees {
        crate::transport::guarantees()
    }
}
