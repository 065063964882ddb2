//! A reader by position, which needs no group.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, LogReader, Read, ReadLimits, Result, SeekTo, StoredRecord, TopicPartition, Unreadable,
};
use tokio::time::{Instant, sleep};

use super::unreadable::UnreadableEnds;

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
    unreadable: UnreadableEnds,
}

impl PositionReader {
    pub(super) fn new(log: Arc<dyn LogReader>) -> Self {
        Self { log, unreadable: UnreadableEnds::default() }
    }

    pub(super) fn unreadable(&self) -> &UnreadableEnds {
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
            let read = self.next(at, reached).await?;
            for record in read.batch.records().iter().take_while(|record| record.offset < until) {
                let more = wanted(record)?;
                reached = record.offset + 1;
                if !more {
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
