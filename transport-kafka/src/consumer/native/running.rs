//! The tasks of the readers that run.

use std::collections::HashMap;
use std::future::{Future, pending};

use tokio::task::{Id, JoinSet};
use tracing::error;

use super::super::fetch_buffer::FetcherId;

/// The tasks of the readers that run. Dropping them aborts them.
#[derive(Debug, Default)]
pub(super) struct RunningReaders {
    tasks: JoinSet<()>,
    ids: HashMap<Id, FetcherId>,
}

impl RunningReaders {
    pub(super) fn contains(&self, id: FetcherId) -> bool {
        self.ids.values().any(|running| *running == id)
    }

    pub(super) fn start(&mut self, id: FetcherId, reader: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(reader).id();
        self.ids.insert(task, id);
    }

    /// Waits until a reader has ended, which only a panic does: it must be started again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ended(&mut self) {
        let (task, cause) = match self.tasks.join_next_with_id().await {
            Some(Ok((task, ()))) => (task, None),
            Some(Err(failure)) => (failure.id(), Some(failure)),
            None => return pending().await,
        };
        if let Some(id) = self.ids.remove(&task) {
            let cause = cause.map(|cause| cause.to_string());
            error!(broker = id.broker, cause, "a reader failed unexpectedly; it is started again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fetch_buffer::FetcherKind;
    use super::*;

    #[tokio::test]
    async fn a_reader_that_panicked_can_be_started_again() {
        let mut running = RunningReaders::default();
        let id = FetcherId { broker: 1, kind: FetcherKind::First };
        running.start(id, async { panic!("planted") });
        assert!(running.contains(id));
        running.ended().await;
        assert!(!running.contains(id));
        running.start(id, pending());
        assert!(running.contains(id));
    }
}
