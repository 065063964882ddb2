//! Options of a cluster.

use std::{collections::BTreeMap, fmt, time::Duration};

/// How long a cluster or a node may take to answer after its start, on a busy machine.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A listener of a cluster, on a separate port of each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// No encryption and no authentication. With ACLs it has super user rights: tests prepare topics and rights here.
    Plain,
    /// TLS with a good certificate for `localhost` and `127.0.0.1`. See [`KafkaOptions::with_tls`].
    Tls,
    /// TLS that requires a client certificate of the cluster's authority. See [`KafkaOptions::with_tls`].
    MutualTls,
    /// TLS with a certificate that expired in 2021. See [`KafkaOptions::with_bad_tls`].
    ExpiredTls,
    /// TLS with a certificate for another host. See [`KafkaOptions::with_bad_tls`].
    WrongNameTls,
    /// SASL without encryption: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER. See [`KafkaOptions::with_sasl`].
    Sasl,
    /// The same over TLS, if the cluster has both [`KafkaOptions::with_sasl`] and [`KafkaOptions::with_tls`].
    SaslTls,
    /// Plain, through a [`Proxy`](crate::Proxy) in front of each node. The cluster advertises the proxies too, so a
    /// client cannot bypass them. See [`KafkaOptions::with_proxies`].
    Proxied,
}

impl Listener {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Tls,
        Self::MutualTls,
        Self::ExpiredTls,
        Self::WrongNameTls,
        Self::Sasl,
        Self::SaslTls,
        Self::Proxied,
    ];

    /// Returns the listener's name in the broker's configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Tls => "TLS",
            Self::MutualTls => "MUTUALTLS",
            Self::ExpiredTls => "EXPIREDTLS",
            Self::WrongNameTls => "WRONGNAMETLS",
            Self::Sasl => "SASL",
            Self::SaslTls => "SASLTLS",
            Self::Proxied => "PROXIED",
        }
    }

    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Plain | Self::Proxied => "PLAINTEXT",
            Self::Tls | Self::MutualTls | Self::ExpiredTls | Self::WrongNameTls => "SSL",
            Self::Sasl => "SASL_PLAINTEXT",
            Self::SaslTls => "SASL_SSL",
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Options of a cluster: by default, one node with a plain listener.
///
/// ```
/// use tidings_testbed::{KafkaOptions, Listener};
/// let options = KafkaOptions::new().with_nodes(3).with_tls().with_sasl();
/// assert!(options.has(Listener::SaslTls) && !options.has(Listener::Proxied));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaOptions {
    /// Number of nodes, each of them broker and controller.
    pub nodes: usize,
    /// Whether there are [`Listener::Tls`] and [`Listener::MutualTls`].
    pub tls: bool,
    /// Whether there are [`Listener::ExpiredTls`] and [`Listener::WrongNameTls`].
    pub bad_tls: bool,
    /// Whether there is [`Listener::Sasl`].
    pub sasl: bool,
    /// Whether operations are denied unless granted.
    pub acls: bool,
    /// Whether there is [`Listener::Proxied`].
    pub proxies: bool,
    /// Additional lines for each node's `server.properties`; they take precedence.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl KafkaOptions {
    /// Creates options for one node with a plain listener.
    pub fn new() -> Self {
        Self {
            nodes: 1,
            tls: false,
            bad_tls: false,
            sasl: false,
            acls: false,
            proxies: false,
            properties: BTreeMap::new(),
        }
    }

    /// Sets the number of nodes: 1, or 3 with replication factor 3 and 2 in-sync replicas for everything internal
    /// and, by default, for topics.
    #[must_use]
    pub fn with_nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Adds [`Listener::Tls`] and [`Listener::MutualTls`].
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds [`Listener::ExpiredTls`] and [`Listener::WrongNameTls`].
    #[must_use]
    pub fn with_bad_tls(mut self) -> Self {
        self.bad_tls = true;
        self
    }

    /// Adds [`Listener::Sasl`] and, if there is TLS, [`Listener::SaslTls`].
    #[must_use]
    pub fn with_sasl(mut self) -> Self {
        self.sasl = true;
        self
    }

    /// Denies operations not granted by [`Kafka::allow`](crate::Kafka::allow), except to `admin` and to clients of
    /// [`Listener::Plain`] or [`Listener::Proxied`].
    #[must_use]
    pub fn with_acls(mut self) -> Self {
        self.acls = true;
        self
    }

    /// Adds [`Listener::Proxied`].
    #[must_use]
    pub fn with_proxies(mut self) -> Self {
        self.proxies = true;
        self
    }

    /// Sets a line of each node's `server.properties`.
    #[must_use]
    pub fn with_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(key.into(), value.into());
        self
    }

    /// Returns whether a cluster with these options has `listener`.
    pub fn has(&self, listener: Listener) -> bool {
        match listener {
            Listener::Plain => true,
            Listener::Tls | Listener::MutualTls => self.tls,
            Listener::ExpiredTls | Listener::WrongNameTls => self.bad_tls,
            Listener::Sasl => self.sasl,
            Listener::SaslTls => self.sasl && self.tls,
            Listener::Proxied => self.proxies,
        }
    }

    pub(crate) fn listeners(&self) -> Vec<Listener> {
        Listener::ALL.into_iter().filter(|listener| self.has(*listener)).collect()
    }

    pub(crate) fn needs_certs(&self) -> bool {
        self.tls || self.bad_tls
    }
}
