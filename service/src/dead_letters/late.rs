//! Publishers and sinks that are opened on first use: opening one requires the right to write, which reading letters
//! must not require.

use std::sync::Arc;
use std::time::Duration;

use tidings_core::{
    DeadLetter, DeadLetterSink, Error, Guarantees, Name, Position, Publisher, Record, Result, Transport, async_trait,
};
use tokio::sync::OnceCell;

/// A publisher of a transport, opened on first use.
#[derive(Debug)]
pub(super) struct LatePublisher {
    transport: Arc<dyn Transport>,
    opened: OnceCell<Arc<dyn Publisher>>,
}

impl LatePublisher {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, opened: OnceCell::new() }
    }
}

#[async_trait]
impl Publisher for LatePublisher {
    async fn publish(&self, records: Vec<Record>) -> Vec<Result<Position>> {
        match self.opened.get_or_try_init(|| self.transport.publisher()).await {
            Ok(publisher) => publisher.publish(records).await,
            Err(error) => same_for_all(records.len(), &error),
        }
    }

    async fn close(&self, deadline: Duration) -> Result<()> {
        match self.opened.get() {
            Some(publisher) => publisher.close(deadline).await,
            None => Ok(()),
        }
    }

    fn guarantees(&self) -> Guarantees {
        self.transport.guarantees()
    }
}

/// The dead-letter sink of a transport, opened on first use.
#[derive(Debug)]
pub(super) struct LateSink {
    transport: Arc<dyn Transport>,
    opened: OnceCell<Arc<dyn DeadLetterSink>>,
}

impl LateSink {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, opened: OnceCell::new() }
    }
}

#[async_trait]
impl DeadLetterSink for LateSink {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Vec<Result<()>> {
        match self.opened.get_or_try_init(|| self.transport.dead_letters()).await {
            Ok(sink) => sink.bury(letters).await,
            Err(error) => same_for_all(letters.len(), &error),
        }
    }

    async fn check(&self, topics: &[Name]) -> Result<()> {
        self.opened.get_or_try_init(|| self.transport.dead_letters()).await?.check(topics).await
    }

    fn guarantees(&self) -> Guarantees {
        self.transport.guarantees()
    }
}

fn same_for_all<T>(count: usize, error: &Error) -> Vec<Result<T>> {
    (0..count).map(|_| Err(Error::new(error.kind(), error.report()))).collect()
}
