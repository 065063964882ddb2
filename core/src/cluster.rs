//! Brokers and their configuration: the [`Cluster`] trait.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::str::FromStr;

use async_trait::async_trait;

use crate::{Error, ErrorKind, Name, Result};

/// Describes the brokers of a cluster, and describes and changes configurations.
///
/// Reached by [`Transport::cluster`](crate::Transport::cluster).
///
/// ```
/// use tidings_core::{Cluster, ConfigResource, Result};
///
/// /// Limits a topic's records to 2 MB, and returns the entries that are not the broker's defaults.
/// async fn limit(cluster: &dyn Cluster, topic: &str) -> Result<Vec<String>> {
///     let topic = ConfigResource::Topic(topic.into());
///     cluster.alter_configs(&topic, &[("max.message.bytes".into(), Some("2000000".into()))]).await?;
///     let entries = cluster.configs(&topic).await?;
///     Ok(entries.into_iter().filter(|entry| !entry.is_default()).map(|entry| entry.name).collect())
/// }
/// ```
#[async_trait]
pub trait Cluster: Debug + Send + Sync + 'static {
    /// Describes the cluster and its brokers.
    ///
    /// What the caller is not permitted to see is left out, see [`BrokerDescription::log_dirs`].
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no broker answers, [`Denied`](crate::ErrorKind::Denied).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn describe(&self) -> Result<ClusterDescription>;

    /// Returns the configuration of a resource, sorted by name. Values of sensitive entries are left out.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Denied`](crate::ErrorKind::Denied),
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>>;

    /// Changes entries of a resource's configuration, all or none: a name and its new value, or `None` to return to the
    /// default. Entries that are not named keep their values.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an unknown name, a wrong value or an entry that cannot be changed at
    /// run time; [`NotFound`](crate::ErrorKind::NotFound), [`Denied`](crate::ErrorKind::Denied),
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the entries were changed. Repeating the call changes nothing more.
    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()>;
}

/// The current state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// The cluster's id, if it has one.
    pub id: Option<String>,
    /// The controller's number, if there is a controller now.
    pub controller: Option<i32>,
    /// The release whose features the cluster has enabled, such as `4.1-IV1`, if known. The brokers run this release or a
    /// later one.
    pub version: Option<String>,
    /// The enabled levels of features, by the broker's names, such as `metadata.version`.
    pub features: BTreeMap<String, i16>,
    /// The brokers, by number.
    pub brokers: Vec<BrokerDescription>,
}

impl ClusterDescription {
    /// Creates a cluster of these brokers.
    pub fn new(brokers: Vec<BrokerDescription>) -> Self {
        Self { brokers, ..Self::default() }
    }
}

/// The current state of a broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// The broker's number.
    pub id: i32,
    /// The host name or address that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
    /// The rack or zone, if the broker has one.
    pub rack: Option<String>,
    /// Whether the cluster has fenced the broker: it is registered, and serves nothing.
    pub fenced: bool,
    /// The directories that hold its logs; `None` if they are not known, because the broker did not answer or the caller
    /// may not see them.
    pub log_dirs: Option<Vec<LogDir>>,
}

impl BrokerDescription {
    /// Creates a broker without rack and log directories.
    pub fn new(id: i32, host: impl Into<String>, port: u16) -> Self {
        Self { id, host: host.into(), port, ..Self::default() }
    }
}

/// A directory of a broker that holds logs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LogDir {
    /// The path on the broker's machine.
    pub path: String,
    /// The bytes of all logs in it.
    pub bytes: u64,
    /// The number of partition replicas in it.
    pub replicas: usize,
    /// The size of its volume in bytes, if known.
    pub total_bytes: Option<u64>,
    /// The free bytes of its volume, if known.
    pub usable_bytes: Option<u64>,
    /// The reason why it is offline, if it is.
    pub offline: Option<String>,
}

impl LogDir {
    /// Creates a directory that holds `replicas` of `bytes` in all.
    pub fn new(path: impl Into<String>, bytes: u64, replicas: usize) -> Self {
        Self { path: path.into(), bytes, replicas, ..Self::default() }
    }
}

/// A resource that has a configuration.
///
/// The text form is the type, and for all but the cluster a colon and the name.
///
/// ```
/// use tidings_core::ConfigResource;
///
/// let broker: ConfigResource = "broker:1".parse()?;
/// assert_eq!(broker, ConfigResource::Broker(1));
/// assert_eq!(ConfigResource::Topic("orders".into()).to_string(), "topic:orders");
/// assert_eq!("cluster".parse::<ConfigResource>()?, ConfigResource::Cluster);
/// # Ok::<(), tidings_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigResource {
    /// A topic.
    Topic(Name),
    /// A broker, by its number.
    Broker(i32),
    /// The defaults of all brokers that can be changed at run time.
    Cluster,
    /// A consumer group.
    Group(Name),
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic:{name}"),
            Self::Broker(id) => write!(f, "broker:{id}"),
            Self::Cluster => f.write_str("cluster"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for ConfigResource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            Some(("topic", name)) if !name.is_empty() => Some(Self::Topic(name.into())),
            Some(("group", name)) if !name.is_empty() => Some(Self::Group(name.into())),
            Some(("broker", id)) => id.parse().ok().map(Self::Broker),
            None if text == "cluster" => Some(Self::Cluster),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let shown = &text[..text.floor_char_boundary(80)];
            let what = format!("config resource {shown:?}: expected topic:NAME, broker:NUMBER, group:NAME or cluster");
            Error::new(ErrorKind::Invalid, what)
        })
    }
}

/// An entry of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigEntry {
    /// The entry's name, by the broker.
    pub name: String,
    /// The value; `None` if it is sensitive, or not set.
    pub value: Option<String>,
    /// Where the value is set.
    pub source: ConfigSource,
    /// Whether the entry cannot be changed at run time.
    pub read_only: bool,
    /// Whether the value is a secret, which brokers do not return.
    pub sensitive: bool,
}

impl ConfigEntry {
    /// Creates an entry with a value that can be changed.
    pub fn new(name: impl Into<String>, value: impl Into<String>, source: ConfigSource) -> Self {
        Self { name: name.into(), value: Some(value.into()), source, read_only: false, sensitive: false }
    }

    /// Makes the entry sensitive: its value is dropped.
    #[must_use]
    pub fn into_sensitive(mut self) -> Self {
        self.value = None;
        self.sensitive = true;
        self
    }

    /// Returns whether the value is the default, set nowhere.
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }
}

/// Where the value of a configuration entry is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConfigSource {
    /// On the resource itself: a topic or a group.
    Resource,
    /// On the broker, at run time.
    Broker,
    /// On all brokers, at run time.
    Cluster,
    /// In the broker's file, read at its start.
    File,
    /// Nowhere: the broker's default.
    Default,
    /// The broker reports a source that is not listed here.
    Unknown,
}

impl ConfigSource {
    /// All sources.
    const ALL: [Self; 6] = [Self::Resource, Self::Broker, Self::Cluster, Self::File, Self::Default, Self::Unknown];

    /// Returns the source's stable name: `"resource"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Broker => "broker",
            Self::Cluster => "cluster",
            Self::File => "file",
            Self::Default => "default",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the source of this name; [`Unknown`](Self::Unknown) for an unknown name.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|source| source.as_str() == name).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Returns whether an entry of this name holds a secret, by Kafka's names: passwords, keys, JAAS configurations.
///
/// For plans, logs and audit records, which show the values of other entries. The broker decides in case of doubt
/// ([`ConfigEntry::sensitive`]).
///
/// ```
/// use tidings_core::is_sensitive_config;
///
/// assert!(is_sensitive_config("listener.name.sasl.scram-sha-256.sasl.jaas.config"));
/// assert!(is_sensitive_config("ssl.keystore.password"));
/// assert!(!is_sensitive_config("retention.ms"));
/// ```
pub fn is_sensitive_config(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = ["password", "secret", "jaas", "token", "credential", "private.key"];
    parts.iter().any(|part| name.contains(part))
        || ["ssl.keystore.key", "ssl.keystore.certificate.chain", "ssl.truststore.certificates"]
            .iter()
            .any(|end| name.ends_with(end))
}
