//! Brokers, and configurations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_core::{BrokerDescription, ClusterDescription, ConfigEntry, ConfigSource};

/// The present state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cluster {
    /// The cluster's id, if it has one.
    pub id: Option<String>,
    /// The controller's number, if there is one now.
    pub controller: Option<i32>,
    /// The release whose features are enabled, if known.
    pub version: Option<String>,
    /// The enabled levels of features.
    pub features: BTreeMap<String, i16>,
    /// The brokers.
    pub brokers: Vec<Broker>,
}

/// The present state of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Broker {
    /// The number.
    pub id: i32,
    /// The host that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
    /// The rack, if it has one.
    pub rack: Option<String>,
    /// Whether it is registered, and serves nothing.
    pub fenced: bool,
    /// The directories of its logs, if they are known.
    pub log_dirs: Option<Vec<LogDir>>,
}

/// A directory of a broker's logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogDir {
    /// The path on the broker's machine.
    pub path: String,
    /// The bytes of all logs in it.
    pub bytes: u64,
    /// The number of replicas in it.
    pub replicas: usize,
    /// The size of its volume, if known.
    pub total_bytes: Option<u64>,
    /// The free bytes of its volume, if known.
    pub usable_bytes: Option<u64>,
    /// Why it is offline, if it is.
    pub offline: Option<String>,
}

impl From<ClusterDescription> for Cluster {
    fn from(cluster: ClusterDescription) -> Self {
        let ClusterDescription { id, controller, version, features, brokers, .. } = cluster;
        Self { id, controller, version, features, brokers: brokers.into_iter().map(Broker::from).collect() }
    }
}

impl From<Cluster> for ClusterDescription {
    fn from(wire: Cluster) -> Self {
        let mut cluster = Self::new(wire.brokers.into_iter().map(BrokerDescription::from).collect());
        (cluster.id, cluster.controller, cluster.version) = (wire.id, wire.controller, wire.version);
        cluster.features = wire.features;
        cluster
    }
}

impl From<BrokerDescription> for Broker {
    fn from(broker: BrokerDescription) -> Self {
        let dir = |dir: tidings_core::LogDir| LogDir {
            path: dir.path,
            bytes: dir.bytes,
            replicas: dir.replicas,
            total_bytes: dir.total_bytes,
            usable_bytes: dir.usable_bytes,
            offline: dir.offline,
        };
        let log_dirs = broker.log_dirs.map(|dirs| dirs.into_iter().map(dir).collect());
        let BrokerDescription { id, host, port, rack, fenced, .. } = broker;
        Self { id, host, port, rack, fenced, log_dirs }
    }
}

impl From<Broker> for BrokerDescription {
    fn from(wire: Broker) -> Self {
        let dir = |wire: LogDir| {
            let mut dir = tidings_core::LogDir::new(wire.path, wire.bytes, wire.replicas);
            (dir.total_bytes, dir.usable_bytes, dir.offline) = (wire.total_bytes, wire.usable_bytes, wire.offline);
            dir
        };
        let mut broker = Self::new(wire.id, wire.host, wire.port);
        (broker.rack, broker.fenced) = (wire.rack, wire.fenced);
        broker.log_dirs = wire.log_dirs.map(|dirs| dirs.into_iter().map(dir).collect());
        broker
    }
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Configs {
    /// The entries.
    pub entries: Vec<Config>,
}

/// An entry of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The name.
    pub name: String,
    /// The value; `None` if it is sensitive or not set.
    pub value: Option<String>,
    /// Where the value is set, such as `default`.
    pub source: String,
    /// Whether it cannot be changed at run time.
    pub read_only: bool,
    /// Whether the value is a secret.
    pub sensitive: bool,
}

impl Configs {
    /// Creates the answer of these entries.
    pub fn of(entries: Vec<ConfigEntry>) -> Self {
        let config = |entry: ConfigEntry| Config {
            // Whatever a backend says: a secret leaves by no answer.
            value: entry.value.filter(|_| !entry.sensitive),
            name: entry.name,
            source: entry.source.to_string(),
            read_only: entry.read_only,
            sensitive: entry.sensitive,
        };
        Self { entries: entries.into_iter().map(config).collect() }
    }

    /// Returns the entries.
    pub fn into_entries(self) -> Vec<ConfigEntry> {
        let entry = |wire: Config| {
            let mut entry = ConfigEntry::new(wire.name, "", ConfigSource::from_name(&wire.source));
            (entry.value, entry.read_only, entry.sensitive) = (wire.value, wire.read_only, wire.sensitive);
            entry
        };
        self.entries.into_iter().map(entry).collect()
    }
}

/// The resource of a configuration, such as `topic:orders` or `broker:1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The resource.
    pub resource: String,
}

/// A request to change entries of a configuration, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alter {
    /// The resource; of `topics:alter`, the topic's name.
    pub resource: String,
    /// Names with their new values; null returns to the default.
    pub changes: Vec<(String, Option<String>)>,
}
