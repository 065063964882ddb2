//! The audited configuration of a cluster.

use std::sync::Arc;

use tidings_core::{
    Cluster, ClusterDescription, ConfigEntry, ConfigResource, Result, async_trait, is_sensitive_config,
};

use super::call::Actor;

/// A cluster whose changes of configurations are recorded.
#[derive(Debug)]
pub(super) struct AuditedCluster {
    pub(super) inner: Arc<dyn Cluster>,
    pub(super) actor: Actor,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Cluster for AuditedCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        self.inner.describe().await
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        self.inner.configs(resource).await
    }

    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        // A value that cannot be read is left out: the change itself tells why.
        let entries = self.inner.configs(resource).await.unwrap_or_default();
        let is_shown = |entry: &ConfigEntry| {
            let is_changed = changes.iter().any(|(changed, _)| *changed == entry.name);
            is_changed && !entry.sensitive && !is_sensitive_config(&entry.name)
        };
        let sensitive: Vec<_> =
            entries.iter().filter(|entry| entry.sensitive).map(|entry| entry.name.clone()).collect();
        let before = entries.into_iter().filter(is_shown).map(|entry| (entry.name, entry.value.unwrap_or_default()));
        let call = self.actor.call("config.alter").on(resource.to_string()).before(before);
        let settings = changes.iter().map(|(name, value)| (String::new(), name.as_str(), value.as_deref()));
        let call =
            call.settings_hiding(settings, |name| is_sensitive_config(name) || sensitive.iter().any(|s| s == name));
        call.one(self.inner.alter_configs(resource, changes), |_, ()| {}).await
    }
}
