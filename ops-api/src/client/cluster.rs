//! The brokers behind an endpoint.

use std::sync::Arc;

use tidings_core::{Cluster, ClusterDescription, ConfigEntry, ConfigResource, Result, async_trait};

use super::call::Client;
use crate::Route;
use crate::wire::{self, Alter, Configs, Nothing, Resource};

/// A [`Cluster`] that asks an endpoint.
#[derive(Debug)]
pub(super) struct RemoteCluster {
    client: Arc<Client>,
}

impl RemoteCluster {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Cluster for RemoteCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        Ok(self.client.get::<wire::Cluster>(Route::Cluster).await?.into())
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        let resource = Resource { resource: resource.to_string() };
        Ok(self.client.post::<Configs>(Route::ConfigsDescribe, &resource).await?.into_entries())
    }

    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        let alter = Alter { resource: resource.to_string(), changes: changes.to_vec() };
        self.client.post::<Nothing>(Route::ConfigsAlter, &alter).await.map(drop)
    }
}
