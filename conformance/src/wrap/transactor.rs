//! A transactor with intercepted calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidings_core::{Error, ErrorKind, Guarantees, Position, Record, Result, TransactionOffsets, Transactor};

use super::tap::{Call, Tap};

/// A transactor whose calls pass a tap. A fault of a call has the effect that the contract gives to its error.
#[derive(Debug)]
pub(super) struct TappedTransactor {
    inner: Arc<dyn Transactor>,
    tap: Tap,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first error of a record: the transaction can only be aborted.
    failed: Option<ErrorKind>,
    /// Whether the wrapped transactor has still to abort a transaction that has ended for the caller.
    abandoned: bool,
    /// Whether an end is unknown, after which a transactor is closed.
    closed: bool,
}

impl TappedTransactor {
    pub(super) fn new(inner: Arc<dyn Transactor>, tap: Tap) -> Self {
        Self { inner, tap, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<()> {
        if self.state().closed { Err(closed()) } else { Ok(()) }
    }

    async fn abort_abandoned(&self) -> Result<()> {
        if self.state().abandoned {
            self.inner.abort().await?;
            self.state().abandoned = false;
        }
        Ok(())
    }

    async fn publish_in(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        match self.abort_abandoned().await {
            Ok(()) => self.inner.publish(records).await,
            Err(error) => records.iter().map(|_| Err(Error::new(error.kind(), error.report()))).collect(),
        }
    }

    async fn commit_in(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        self.abort_abandoned().await?;
        self.inner.commit(offsets).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transactor for TappedTransactor {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        if self.open().is_err() {
            return records.iter().map(|_| Err(closed())).collect();
        }
        let asked = records.clone();
        let answers = self.tap.each(Call::Publish, asked.len(), asked, self.publish_in(records)).await;
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            self.state().failed.get_or_insert(error.kind());
        }
        answers
    }

    async fn commit(&self, offsets: Option<TransactionOffsets>) -> Result<()> {
        self.open()?;
        let failed = self.state().failed.take();
        if let Some(kind) = failed {
            self.state().abandoned = self.inner.abort().await.is_err();
            let kind = if kind == ErrorKind::Indeterminate { ErrorKind::Unavailable } else { kind };
            return Err(Error::new(kind, "commit a transaction: a record was not stored"));
        }
        let asked = format!("{offsets:?}");
        let answer = self.tap.one(Call::CommitTransaction, asked, self.commit_in(offsets)).await;
        match &answer {
            Err(error) if error.kind() == ErrorKind::Indeterminate => self.state().closed = true,
            Err(_) => self.state().abandoned = self.inner.abort().await.is_err(),
            Ok(()) => {}
        }
        answer
    }

    async fn abort(&self) -> Result<()> {
        self.open()?;
        self.state().failed = None;
        let answer = self.tap.one(Call::AbortTransaction, (), self.inner.abort()).await;
        self.state().abandoned = answer.is_err();
        answer
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        self.tap.one(Call::CloseTransactor, deadline, self.inner.close(deadline)).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the transactor is closed: the end of its transaction is unknown")
}
