//! Intercepted calls of the capabilities that not every transport has.

use std::sync::Arc;

use async_trait::async_trait;
use tidings_core::{
    Acl, AclFilter, Acls, Cluster, ClusterDescription, ConfigEntry, ConfigResource, Guarantees, LogReader, Read,
    ReadLimits, Result, SeekTo, TopicPartition,
};

use super::tap::{Call, Tap};

/// A log reader whose calls pass a tap.
#[derive(Debug)]
pub(super) struct TappedLogReader {
    pub(super) inner: Arc<dyn LogReader>,
    pub(super) tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LogReader for TappedLogReader {
    async fn offsets(&self, partitions: &[TopicPartition], at: SeekTo) -> Result<Vec<Result<u64>>> {
        self.tap.one(Call::LogOffsets, (partitions, at), self.inner.offsets(partitions, at)).await
    }

    async fn read(&self, partition: &TopicPartition, offset: u64, limits: ReadLimits) -> Result<Read> {
        let asked = (partition, offset, limits);
        self.tap.one(Call::ReadLog, asked, self.inner.read(partition, offset, limits)).await
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
}

/// Access control lists whose calls pass a tap.
#[derive(Debug)]
pub(super) struct TappedAcls {
    pub(super) inner: Arc<dyn Acls>,
    pub(super) tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Acls for TappedAcls {
    async fn list(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        self.tap.one(Call::Operate, ("list acls", filter), self.inner.list(filter)).await
    }

    async fn create(&self, acls: &[Acl]) -> Result<Vec<Result<()>>> {
        self.tap.one(Call::Operate, ("create acls", acls), self.inner.create(acls)).await
    }

    async fn delete(&self, acls: &[Acl]) -> Result<Vec<Result<bool>>> {
        self.tap.one(Call::Operate, ("delete acls", acls), self.inner.delete(acls)).await
    }
}

/// A cluster whose calls pass a tap.
#[derive(Debug)]
pub(super) struct TappedCluster {
    pub(super) inner: Arc<dyn Cluster>,
    pub(super) tap: Tap,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Cluster for TappedCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        self.tap.one(Call::Operate, "describe cluster", self.inner.describe()).await
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        self.tap.one(Call::Operate, ("configs", resource), self.inner.configs(resource)).await
    }

    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        // Values may be secrets.
        let names: Vec<_> = changes.iter().map(|(name, _)| name).collect();
        let asked = ("alter configs", resource, names);
        self.tap.one(Call::Operate, asked, self.inner.alter_configs(resource, changes)).await
    }
}
