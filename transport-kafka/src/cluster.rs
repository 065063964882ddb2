//! Brokers and configurations of a cluster.

use std::time::Duration;

use tidings_core::{
    BrokerDescription, Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, Error, ErrorKind,
    Result, async_trait,
};
use tokio::time::{Instant, sleep};

use crate::client::admin::{ClusterClient, release};

/// Limit of the requests that only add to a description: a broker that is down must not hold it up.
const ADDED_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait until a change is visible.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two checks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Number of consecutive checks that must show a change in a cluster of several brokers: each check may ask another
/// broker, and brokers learn of a change at different times.
const AGREEING: usize = 8;

/// Brokers and configurations of a Kafka cluster.
///
/// Reach it by [`Transport::cluster`](tidings_core::Transport::cluster). Each request is bounded by
/// [`request_timeout`](crate::KafkaConfig::request_timeout). Configurations are changed incrementally (KIP-339).
#[derive(Debug, Clone)]
pub struct KafkaCluster {
    cluster: ClusterClient,
}

impl KafkaCluster {
    pub(crate) fn new(cluster: ClusterClient) -> Self {
        Self { cluster }
    }

    /// Checks that a broker exists: the client waits for one that does not.
    async fn exists(&self, resource: &ConfigResource) -> Result<()> {
        let ConfigResource::Broker(id) = resource else { return Ok(()) };
        let brokers = self.cluster.describe_cluster().await?.brokers;
        if brokers.iter().any(|broker| broker.id == *id) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("find {resource}: the cluster has no such broker")))
    }
}

/// Changes entries of a resource, once all of them are known to exist, and waits until the change is visible.
///
/// Brokers accept the deletion of an entry that does not exist.
///
/// # Errors
/// As [`Cluster::alter_configs`].
pub(crate) async fn alter(
    cluster: &ClusterClient,
    resource: &ConfigResource,
    changes: &[(String, Option<String>)],
) -> Result<()> {
    let entries = match cluster.configs(std::slice::from_ref(resource)).await?.remove(0) {
        // A client may change what it may not see.
        Err(error) if error.kind() == ErrorKind::Denied => None,
        entries => Some(entries?),
    };
    let deletes = changes.iter().filter(|(_, value)| value.is_none());
    // The entries of the whole cluster are only those that are set.
    let is_unknown =
        |name: &str| entries.as_ref().is_some_and(|entries| entries.iter().all(|entry| entry.name != name));
    if *resource != ConfigResource::Cluster
        && let Some((name, _)) = deletes.clone().find(|(name, _)| is_unknown(name))
    {
        let shown = &name[..name.floor_char_boundary(80)];
        let what = format!("change the configuration of {resource}: it has no entry {shown:?}");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    if changes.is_empty() {
        return Ok(());
    }
    cluster.alter_configs(resource, changes).await?;
    if entries.is_some() {
        let is_visible = || async {
            let entries = cluster.configs(std::slice::from_ref(resource)).await.and_then(|mut all| all.remove(0));
            entries.is_ok_and(|entries| changes.iter().all(|change| is_applied(resource, &entries, change)))
        };
        seen_by_all(cluster, is_visible).await;
    }
    Ok(())
}

/// Waits, up to a limit, until a change is visible, whichever broker is asked.
pub(crate) async fn seen_by_all<F: Future<Output = bool>>(cluster: &ClusterClient, is_visible: impl Fn() -> F) {
    let ends = Instant::now() + SEEN_WITHIN;
    let is_alone = cluster.describe_cluster().await.is_ok_and(|described| described.brokers.len() == 1);
    let wanted = if is_alone { 1 } else { AGREEING };
    let mut agreeing = 0;
    while Instant::now() < ends {
        agreeing = if is_visible().await { agreeing + 1 } else { 0 };
        if agreeing == wanted {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Returns whether a description shows a change.
fn is_applied(resource: &ConfigResource, entries: &[ConfigEntry], (name, value): &(String, Option<String>)) -> bool {
    let own = match resource {
        ConfigResource::Broker(_) => ConfigSource::Broker,
        ConfigResource::Cluster => ConfigSource::Cluster,
        _ => ConfigSource::Resource,
    };
    let entry = entries.iter().find(|entry| entry.name == *name);
    match (entry, value) {
        (Some(entry), Some(value)) => entry.sensitive || entry.source == own && entry.value.as_ref() == Some(value),
        (Some(entry), None) => entry.source != own,
        (None, value) => value.is_none(),
    }
}

#[async_trait]
impl Cluster for KafkaCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        let described = self.cluster.describe_cluster().await?;
        let live: Vec<i32> = described.brokers.iter().filter(|broker| !broker.fenced).map(|broker| broker.id).collect();
        let added = self.cluster.within(ADDED_WITHIN);
        let (features, directories) = tokio::join!(added.features(), added.log_dirs(&live));
        let mut directories = directories.unwrap_or_default();
        let brokers = described.brokers.into_iter().map(|mut broker: BrokerDescription| {
            broker.log_dirs = directories.remove(&broker.id);
            broker
        });
        let mut cluster = ClusterDescription::new(brokers.collect());
        cluster.brokers.sort_by_key(|broker| broker.id);
        cluster.id = described.id;
        cluster.controller = described.controller;
        cluster.features = features.unwrap_or_default();
        cluster.version = release(&cluster.features);
        Ok(cluster)
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        self.exists(resource).await?;
        self.cluster.configs(std::slice::from_ref(resource)).await?.remove(0)
    }

    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        self.exists(resource).await?;
        alter(&self.cluster, resource, changes).await
    }
}
