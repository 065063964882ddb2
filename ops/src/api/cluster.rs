//! Brokers, configurations and ACLs.

use tidings_core::{AclFilter, ConfigResource, Result};
use tidings_ops_api::wire::{AclQuery, Acls, Alter, Answers, Cluster, Configs, Nothing, Resource};

use super::Api;
use super::call::{Call, bounded, encode};

impl Api {
    pub(super) async fn cluster(&self, call: &Call) -> Result<String> {
        let cluster = self.backends.cluster(&call.caller).await?;
        encode(&Cluster::from(cluster.describe().await?))
    }

    pub(super) async fn configs(&self, call: &Call) -> Result<String> {
        let resource = call.body::<Resource>()?.resource.parse::<ConfigResource>()?;
        let cluster = self.backends.cluster(&call.caller).await?;
        encode(&Configs::of(cluster.configs(&resource).await?))
    }

    pub(super) async fn alter_configs(&self, call: &Call) -> Result<String> {
        let Alter { resource, changes } = call.body()?;
        bounded(changes.len(), "changes")?;
        let cluster = self.backends.cluster(&call.caller).await?;
        cluster.alter_configs(&resource.parse()?, &changes).await?;
        encode(&Nothing::default())
    }

    pub(super) async fn list_acls(&self, call: &Call) -> Result<String> {
        let filter = AclFilter::try_from(call.body::<AclQuery>()?)?;
        encode(&Acls::of(&self.backends.acls(&call.caller).await?.list(&filter).await?))
    }

    pub(super) async fn create_acls(&self, call: &Call) -> Result<String> {
        let acls = call.body::<Acls>()?.into_acls()?;
        bounded(acls.len(), "ACLs")?;
        let created = self.backends.acls(&call.caller).await?.create(&acls).await?;
        encode(&Answers::of(created, |()| Nothing::default()))
    }

    pub(super) async fn delete_acls(&self, call: &Call) -> Result<String> {
        let acls = call.body::<Acls>()?.into_acls()?;
        bounded(acls.len(), "ACLs")?;
        let deleted = self.backends.acls(&call.caller).await?.delete(&acls).await?;
        encode(&Answers::of(deleted, |existed: bool| existed))
    }
}
