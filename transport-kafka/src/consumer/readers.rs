//! The readers of a consumer: the client's fetchers, or the native reader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_core::{ConsumerOptions, ErrorKind, Result};
use tokio::time::sleep;

use super::Shared;
use super::fetchers::Fetchers;
use super::native::NativeReaders;
use crate::client::admin::ClusterClient;
use crate::client::connection::{Connection, Role};
use crate::client::fetcher::FetchSizes;
use crate::config::{KafkaConfig, ReaderKind};

/// Attempts to find a topic before it is reported missing.
const LOOKUPS: usize = 4;
/// Pause between two of these attempts.
const LOOKUP_PAUSE: Duration = Duration::from_millis(25);

/// Reads the partitions of a consumer from their leaders.
#[derive(Debug, Clone)]
pub(super) enum Readers {
    /// The client's consumers without a group.
    Client(Box<Fetchers>),
    /// Native connections.
    Native(NativeReaders),
}

impl Readers {
    /// Opens the connections that readers need at once.
    pub(super) async fn open(
        config: &KafkaConfig,
        cluster: &ClusterClient,
        options: &ConsumerOptions,
        sizes: FetchSizes,
    ) -> Result<Self> {
        match config.reader {
            ReaderKind::Client => {
                let connection = Connection::open(config, Role::Reading).await?;
                Ok(Self::Client(Box::new(Fetchers::open(connection, config, sizes).await?)))
            }
            ReaderKind::Native => NativeReaders::open(config, cluster.clone(), options, sizes).await.map(Self::Native),
        }
    }

    /// Looks for a topic; brokers learn of a new topic at different times, and any of them may be asked.
    pub(super) async fn find(&self, topic: &str) -> Result<()> {
        for _ in 1..LOOKUPS {
            match self.leaders(topic).await {
                Err(error) if error.kind() == ErrorKind::NotFound => sleep(LOOKUP_PAUSE).await,
                found => return found.map(drop),
            }
        }
        self.leaders(topic).await.map(drop)
    }

    /// Requests the leaders of a topic.
    pub(super) async fn leaders(&self, topic: &str) -> Result<HashMap<u32, Option<i32>>> {
        match self {
            Self::Client(fetchers) => fetchers.leaders(topic).await,
            Self::Native(readers) => readers.leaders(topic).await,
        }
    }

    /// Reads until it is aborted.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        match self {
            Self::Client(fetchers) => fetchers.run(shared).await,
            Self::Native(readers) => readers.run(shared).await,
        }
    }
}
