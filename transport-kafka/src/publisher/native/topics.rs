//! Looks up topics over the native connections.

use std::time::Duration;

use tidings_core::{Error, ErrorKind, Name, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::publisher::lookup::TopicSource;
use crate::wire::cluster::Cluster;

/// How long a topic is looked for, and known topics are looked up: it takes a moment until all brokers know a new one.
const LIMIT: Duration = Duration::from_secs(1);
/// Pause before a missing topic is looked up again.
const PAUSE: Duration = Duration::from_millis(100);

/// Limit of a single lookup of an unknown topic, in addition to that of a connection: one that was cancelled while it
/// connected would start again from nothing.
const ANSWER: Duration = Duration::from_secs(4);

/// Looks topics up. Use it on the runtime of the connections.
#[derive(Debug)]
pub(super) struct Topics(pub(super) Cluster);

fn late(limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("look up topics: no answer within {limit:?}"))
}

impl TopicSource for Topics {
    async fn partitions(&self, topic: &Name) -> Result<u32> {
        let (ends, limit) = (Instant::now() + LIMIT, self.0.config().connect_timeout + ANSWER);
        loop {
            let found = timeout(limit, self.0.look_up(std::slice::from_ref(topic))).await;
            let found = found.map_err(|_| late(limit))??.pop();
            let found = found.map_or_else(|| Err(late(limit)), |(_, count)| count);
            match found {
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable)
                        && Instant::now() < ends =>
                {
                    sleep(PAUSE).await;
                }
                found => return found,
            }
        }
    }

    async fn refresh(&self, topics: &[Name]) -> Result<Vec<(Name, u32)>> {
        let found = timeout(LIMIT, self.0.look_up(topics)).await.map_err(|_| late(LIMIT))??;
        // A broker that cannot answer now says nothing about the topic.
        if let Some((_, Err(error))) = found.iter().find(|(_, count)| count.as_ref().is_err_and(Error::is_retryable)) {
            return Err(Error::new(error.kind(), error.report()));
        }
        Ok(found.into_iter().filter_map(|(topic, count)| Some((topic, count.ok()?))).collect())
    }

    /// Returns `None`: batches that a broker refuses as too large are split, in their order.
    async fn largest_batch(&self, _: &Name) -> Option<usize> {
        None
    }
}
