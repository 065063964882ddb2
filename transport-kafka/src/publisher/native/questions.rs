//! Requests for the leaders of partitions, and for the identity of the producer.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tidings_core::{ErrorKind, Name, Result};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::wire::cluster::Cluster;
use crate::wire::producer::{Identity, identity};

/// Time between two requests.
const PAUSE: Duration = Duration::from_millis(100);

/// Topics that were looked up, and their numbers of partitions.
pub(super) type Found = Vec<(Name, Result<u32>)>;

/// Requests for metadata and an identity, and when the next ones may be sent.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) leaders: Option<BoxFuture<'static, Result<Found>>>,
    pub(super) identity: Option<BoxFuture<'static, Result<Identity>>>,
    /// The last identity, which new partitions get as well.
    pub(super) known: Option<Identity>,
    /// Number of requests for an identity, each to the next broker.
    asked: usize,
    not_before: Option<Instant>,
}

impl Questions {
    /// Creates the state without requests; `known` is the identity that was requested before, if any.
    pub(super) fn new(known: Option<Identity>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Delays the next requests, after one that ended.
    pub(super) fn pause(&mut self) {
        self.not_before = Some(Instant::now() + PAUSE);
    }

    fn start(&self) -> Instant {
        self.not_before.unwrap_or_else(Instant::now)
    }

    /// Requests the leaders of these topics.
    pub(super) fn ask_leaders(&mut self, cluster: &Cluster, topics: Vec<Name>) {
        let (cluster, start) = (cluster.clone(), self.start());
        let asked = async move {
            sleep_until(start).await;
            cluster.look_up(&topics).await
        };
        self.leaders = Some(asked.boxed());
    }

    /// Requests an identity from the next broker.
    pub(super) fn ask_identity(&mut self, cluster: &Cluster) {
        let (cluster, brokers, start) = (cluster.clone(), cluster.brokers(), self.start());
        // Without a broker, the request fails.
        let broker = brokers.get(self.asked % brokers.len().max(1)).copied().unwrap_or(-1);
        self.asked = self.asked.wrapping_add(1);
        let asked = async move {
            sleep_until(start).await;
            identity(&cluster, broker).await
        };
        self.identity = Some(asked.boxed());
    }
}

/// Waits for a request, if there is one.
pub(super) async fn next<T>(asked: &mut Option<BoxFuture<'static, Result<T>>>) -> Result<T> {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// Requests an identity from one broker after another; `None` if none assigns one within `connect_timeout`.
///
/// # Errors
/// [`Denied`](ErrorKind::Denied), if the right to publish is missing.
pub(super) async fn first_identity(cluster: &Cluster) -> Result<Option<Identity>> {
    // It is requested again when it is needed.
    timeout(cluster.config().connect_timeout, ask_all(cluster)).await.unwrap_or(Ok(None))
}

async fn ask_all(cluster: &Cluster) -> Result<Option<Identity>> {
    for broker in cluster.brokers() {
        match identity(cluster, broker).await {
            Ok(identity) => return Ok(Some(identity)),
            Err(error) if error.kind() == ErrorKind::Denied => return Err(error.in_context("open a publisher")),
            Err(error) => debug!(broker, error = error.report(), "the broker assigned no producer id"),
        }
    }
    Ok(None)
}
