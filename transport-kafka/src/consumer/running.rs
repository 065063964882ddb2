//! The tasks that read from brokers: fetchers of the client, or native readers.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::sleep;
use tracing::error;

use super::fetch_buffer::FetcherId;

/// Pause after a reader failed unexpectedly: the failure may recur at once.
const RESTART: Duration = Duration::from_secs(1);

/// The tasks of the readers that run. Dropping them aborts them.
#[derive(Debug, Default)]
pub(super) struct RunningReaders {
    tasks: JoinSet<()>,
    ids: HashMap<Id, FetcherId>,
}

impl RunningReaders {
    fn contains(&self, id: FetcherId) -> bool {
        self.ids.values().any(|running| *running == id)
    }

    /// Starts those of `wanted` that do not run.
    pub(super) fn start<R: Future<Output = ()> + Send + 'static>(
        &mut self,
        wanted: impl IntoIterator<Item = FetcherId>,
        reader: impl Fn(FetcherId) -> R,
    ) {
        for id in wanted {
            if !self.contains(id) {
                let task = self.tasks.spawn(reader(id)).id();
                self.ids.insert(task, id);
            }
        }
    }

    /// Waits until a reader has ended, which only a panic causes, and for a pause: it must be started again.
    ///
    /// # Cancel safety
    /// Safe: a dropped call only shortens the pause.
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
        sleep(RESTART).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetch_buffer::FetcherKind;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_panicked_can_be_started_again() {
        let mut running = RunningReaders::default();
        let id = FetcherId { broker: 1, kind: FetcherKind::First };
        running.start([id], |_| async { panic!("planted") });
        assert!(running.contains(id));
        running.ended().await;
        assert!(!running.contains(id));
        running.start([id], |_| pending());
        assert!(running.contains(id));
    }
}
