//! The native readers: one for each broker that leads partitions, and a task that follows the leaders.

mod answers;
mod reader;
mod reading;
mod unpack;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_core::{ConsumerOptions, Error, Name, Result};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::reader::NativeReader;
use super::running::RunningReaders;
use super::state::State;
use super::{Shared, until};
use crate::client::admin::ClusterClient;
use crate::client::fetcher::FetchSizes;
use crate::config::{Isolation, KafkaConfig};
use crate::wire::cluster::Cluster;
use crate::wire::reader::fetch::FetchLimits;

/// Interval between requests for the leaders.
const FOLLOW: Duration = Duration::from_millis(500);
/// Minimum interval between them, even if readers find moved leaders more often.
const SOONEST: Duration = Duration::from_millis(100);

/// Opens readers, and finds the leaders that they read from.
#[derive(Debug, Clone)]
pub(super) struct NativeReaders {
    pub(super) cluster: Cluster,
    /// Looks up the bounds of logs, and the ends of unreadable ranges, over the member's connection.
    pub(super) client: ClusterClient,
    pub(super) limits: Arc<FetchLimits>,
    pub(super) max_records: usize,
    topics: Arc<[Name]>,
    /// Notified when a reader finds that a leader has moved.
    pub(super) moved: Arc<Notify>,
}

impl NativeReaders {
    pub(super) async fn open(
        config: &KafkaConfig,
        client: ClusterClient,
        options: &ConsumerOptions,
        sizes: FetchSizes,
    ) -> Result<Self> {
        let limits = FetchLimits {
            max_bytes: sizes.max_bytes,
            max_partition_bytes: sizes.max_partition_bytes,
            wait: config.fetch_max_wait,
            committed_only: config.isolation == Isolation::ReadCommitted,
            rack: config.rack.clone(),
        };
        Ok(Self {
            cluster: Cluster::connect(config).await?,
            client,
            limits: Arc::new(limits),
            max_records: sizes.max_records,
            topics: options.topics.iter().cloned().collect(),
            moved: Arc::default(),
        })
    }

    /// Requests the leaders of a topic.
    pub(super) async fn leaders(&self, topic: &str) -> Result<HashMap<u32, Option<i32>>> {
        self.cluster.refresh(&self.topics).await?;
        self.cluster.leaders(&Name::from(topic))
    }

    /// Follows the leaders, and runs a reader for each, until it is aborted.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        // Dropped together with this task, which aborts the readers.
        let mut running = RunningReaders::default();
        let mut following = self.follow(&shared).boxed();
        loop {
            let (plan, wanted) = {
                let state = shared.lock();
                (state.plan, state.fetchers())
            };
            running.start(wanted, |id| NativeReader::new(self.clone(), Arc::clone(&shared), id).run());
            let changed = until(&shared.plans, || (shared.lock().plan != plan).then_some(()));
            tokio::select! {
                () = changed => {}
                () = running.ended() => {}
                () = &mut following => following = self.follow(&shared).boxed(),
            }
        }
    }

    /// Requests the leaders after a pause, which ends early if a reader finds that a leader has moved.
    async fn follow(&self, shared: &Shared) {
        sleep(SOONEST).await;
        let _moved = timeout(FOLLOW - SOONEST, self.moved.notified()).await;
        if let Err(error) = self.cluster.refresh(&self.topics).await {
            debug!(error = Error::report(&error), "cannot refresh the leaders of topics; the last known ones are kept");
            return;
        }
        shared.change(State::leave_old_replicas);
        for topic in self.topics.iter() {
            if let Ok(leaders) = self.cluster.leaders(topic) {
                shared.change(|state| state.update_leaders(topic, &leaders));
            }
        }
    }
}
