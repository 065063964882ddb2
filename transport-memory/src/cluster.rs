//! The one broker in memory, and the configurations that it has.

use std::sync::Arc;

use tidings_core::{
    BrokerDescription, Cluster, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, Error, ErrorKind,
    LogDir, Result, async_trait,
};

use crate::broker::Broker;
use crate::config::MemoryConfig;
use crate::error::no_topic;

/// Number of the broker.
const BROKER: i32 = 0;
/// Its name, instead of a host and a path.
const NAME: &str = "memory";

/// The cluster of one broker.
#[derive(Debug)]
pub(crate) struct MemoryCluster {
    broker: Arc<Broker>,
}

impl MemoryCluster {
    pub(crate) fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }

    fn topic(&self, name: &str) -> Result<Vec<ConfigEntry>> {
        let topic = self.broker.topic(name).ok_or_else(|| no_topic("describe configuration", name))?;
        let described = topic.describe(&self.broker.config, self.broker.clock.now());
        let own = topic.own_settings();
        let source = |name: &String| if own.contains(name) { ConfigSource::Resource } else { ConfigSource::Default };
        let entries = described.settings.into_iter().map(|(name, value)| {
            let source = source(&name);
            ConfigEntry::new(name, value, source)
        });
        Ok(entries.collect())
    }
}

/// Returns the configuration of the transport, which cannot be changed, sorted by name.
fn entries(config: &MemoryConfig) -> Vec<ConfigEntry> {
    let default = MemoryConfig::default();
    let retention = |config: &MemoryConfig| config.retention.map_or("-1".into(), |age| age.as_millis().to_string());
    let named = |config: &MemoryConfig| {
        [
            ("auto_create", config.auto_create.to_string()),
            ("max_record_bytes", config.max_record_bytes.to_string()),
            ("max_unanswered_bytes", config.max_unanswered_bytes.to_string()),
            ("max_unanswered_records", config.max_unanswered_records.to_string()),
            ("partitions", config.partitions.to_string()),
            ("retention", retention(config)),
            ("retention_bytes", config.retention_bytes.to_string()),
            ("retention_records", config.retention_records.to_string()),
        ]
    };
    let entries = named(config).into_iter().zip(named(&default)).map(|((name, value), (_, default))| {
        let source = if value == default { ConfigSource::Default } else { ConfigSource::File };
        let mut entry = ConfigEntry::new(name, value, source);
        entry.read_only = true;
        entry
    });
    entries.collect()
}

#[async_trait]
impl Cluster for MemoryCluster {
    async fn describe(&self) -> Result<ClusterDescription> {
        self.broker.faults.reach("describe the cluster")?;
        let logs: Vec<_> = self.broker.topics().iter().flat_map(|topic| topic.logs().to_vec()).collect();
        let mut broker = BrokerDescription::new(BROKER, NAME, 0);
        broker.log_dirs = Some(vec![LogDir::new(NAME, logs.iter().map(|log| log.bytes()).sum(), logs.len())]);
        let mut cluster = ClusterDescription::new(vec![broker]);
        cluster.controller = Some(BROKER);
        Ok(cluster)
    }

    async fn configs(&self, resource: &ConfigResource) -> Result<Vec<ConfigEntry>> {
        self.broker.faults.reach("describe configuration")?;
        match resource {
            ConfigResource::Topic(name) => self.topic(name),
            ConfigResource::Broker(BROKER) => Ok(entries(&self.broker.config)),
            ConfigResource::Broker(_) => Err(missing("describe configuration", resource)),
            _ => Ok(Vec::new()),
        }
    }

    /// Changes settings of a topic. The transport's own are fixed when it is opened.
    async fn alter_configs(&self, resource: &ConfigResource, changes: &[(String, Option<String>)]) -> Result<()> {
        let verb = "change configuration";
        self.broker.faults.reach(verb)?;
        match resource {
            ConfigResource::Topic(name) => {
                let topic = self.broker.topic(name).ok_or_else(|| no_topic(verb, name))?;
                topic
                    .alter(changes, &self.broker.config)
                    .map_err(|e| e.in_context(format_args!("{verb} of {resource}")))
            }
            ConfigResource::Broker(id) if *id != BROKER => Err(missing(verb, resource)),
            _ if changes.is_empty() => Ok(()),
            _ => {
                let what = format!("{verb} of {resource}: only topics have settings that can be changed");
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }
}

fn missing(verb: &str, resource: &ConfigResource) -> Error {
    Error::new(ErrorKind::NotFound, format!("{verb}: there is no {resource}"))
}
