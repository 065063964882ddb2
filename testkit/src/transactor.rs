//! Records what the service publishes in transactions, once they are committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidings_core::{
    DeadLetter, Guarantees, Name, Position, Record, Result, StoredRecord, Timestamp, TransactionOffsets, Transactor,
    Transport, async_trait, headers, is_dead_letter_topic,
};

use crate::journal::Journal;
use crate::recorder::Recorder;

/// Keeps published records until the transaction is committed: readers do not see those of an aborted one.
#[derive(Debug)]
pub(crate) struct RecordingTransactor {
    inner: Arc<dyn Transactor>,
    service: Name,
    journal: Arc<Journal>,
    stored: Mutex<Vec<(Record, Position)>>,
}

impl RecordingTransactor {
    pub(crate) fn new<T: Transport>(inner: Arc<dyn Transactor>, recorder: &Recorder<T>) -> Self {
        let (service, journal) = (recorder.service.clone(), recorder.journal.clone());
        Self { inner, service, journal, stored: Mutex::default() }
    }

    fn take(&self) -> Vec<(Record, Position)> {
        std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, record: Record, position: &Position) {
        if record.headers.contains(headers::RETRY_DUE) {
            return self.journal.forwarded(&record, position);
        }
        if is_dead_letter_topic(&record.topic)
            && let stored = StoredRecord::from_record(record.clone(), position.offset, Timestamp::default())
            && let Ok(letter) = DeadLetter::from_record(&stored)
        {
            return self.journal.buried(&letter);
        }
        self.journal.published(&self.service, &record, position);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transactor for RecordingTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        let answers = self.inner.publish(records.clone()).await;
        for (record, answer) in records.into_iter().zip(&answers) {
            match answer {
                Ok(at) => self.stored.lock().unwrap_or_else(PoisonError::into_inner).push((record, *at)),
                Err(error) => self.journal.not_published(&record, error.report()),
            }
        }
        answers
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        let answer = self.inner.commit(offsets).await;
        let stored = self.take();
        if answer.is_ok() {
            stored.into_iter().for_each(|(record, position)| self.note(record, &position));
        }
        answer
    }

    async fn abort(&self) -> Result<()> {
        self.take();
        self.inner.abort().await
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.inner.close(deadline).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::TransactorOptions;
    use tidings_memory::MemoryTransport;

    use super::*;

    #[tokio::test]
    async fn only_what_is_committed_counts_as_published() {
        let journal = Journal::new();
        let recorder = Recorder { inner: MemoryTransport::new(), service: "s".into(), journal: journal.clone() };
        let transactor = recorder.transactor(TransactorOptions::new("t")).await.unwrap();
        let published = || journal.published_count();
        for (commits, count) in [(false, 0), (true, 1)] {
            transactor.publish(vec![Record::new("t", "1")]).await.remove(0).unwrap();
            let before = published();
            if commits {
                transactor.commit(None).await.unwrap()
            } else {
                transactor.abort().await.unwrap()
            }
            assert_eq!((before, published()), (0, count));
        }
    }
}
