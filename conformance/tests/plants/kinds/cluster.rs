//! A cluster with a bug.

use std::sync::Arc;

use tidings_core::{
    Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, ErrorKind, Result, async_trait,
};

use super::Kind;

#[derive(Debug)]
pub(super) struct BentCluster {
    pub(super) inner: Arc<dyn Cluster>,
    pub(super) kind: Kind,
}

#[async_trait]
impl Cluster for BentCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        let mut described = self.inner.describe().await?;
        match self.kind {
            Kind::ListsAControllerThatIsGone => described.controller = Some(7),
            Kind::CountsNoBytes => {
                let directories = described.brokers.iter_mut().filter_map(|broker| broker.log_dirs.as_mut()).flatten();
                directories.for_each(|directory| directory.bytes = 0);
            }
            _ => {}
        }
        Ok(described)
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        let answer = self.inner.configs(resource).await;
        let missing = |answer: &Result<_>| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        match (self.kind, resource) {
            (Kind::DescribesAnyBroker, ConfigResource::Broker(_)) => {
                self.inner.configs(&ConfigResource::Broker(0)).await
            }
            (Kind::DescribesAnyTopic, ConfigResource::Topic(_)) if missing(&answer) => Ok(Vec::new()),
            (Kind::SetsAllOnTheTopic, ConfigResource::Topic(_)) => {
                let mut entries = answer?;
                entries.iter_mut().for_each(|entry| entry.source = ConfigSource::Resource);
                Ok(entries)
            }
            _ => answer,
        }
    }

    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        match self.kind {
            Kind::AltersOneByOne => {
                for change in changes {
                    self.inner.alter_configs(resource, std::slice::from_ref(change)).await?;
                }
                Ok(())
            }
            Kind::NeverPutsBack => {
                let set: Vec<_> = changes.iter().filter(|(_, value)| value.is_some()).cloned().collect();
                self.inner.alter_configs(resource, &set).await
            }
            Kind::KeepsTheRecordSize => {
                let others: Vec<_> = changes.iter().filter(|(name, _)| name != "max.message.bytes").cloned().collect();
                self.inner.alter_configs(resource, &others).await
            }
            Kind::PretendsToAlterInAnOutage => match self.inner.alter_configs(resource, changes).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => Ok(()),
                answer => answer,
            },
            _ => self.inner.alter_configs(resource, changes).await,
        }
    }
}
