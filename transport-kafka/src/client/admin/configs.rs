//! Configurations, features and log directories.

use std::collections::{BTreeMap, HashMap};

use krafka::admin::{
    ConfigOp, ConfigResource as ClientResource, DescribeConfigsOptions, DescribeFeaturesOptions,
    DescribeLogDirsOptions, IncrementalAlterConfigsOptions, LogDirDescription,
};
use tidings_core::{ConfigEntry, ConfigResource, ConfigSource, Error, ErrorKind, LogDir, Result, check_topic_name};

use super::ClusterClient;
use crate::error::failed;

/// The feature that names the release, and the releases by its levels (`MetadataVersion` in Kafka's sources).
const RELEASE: &str = "metadata.version";
const RELEASES: &[(i16, &str)] = &[
    (7, "3.3-IV3"),
    (8, "3.4-IV0"),
    (9, "3.5-IV0"),
    (10, "3.5-IV1"),
    (11, "3.5-IV2"),
    (12, "3.6-IV0"),
    (13, "3.6-IV1"),
    (14, "3.6-IV2"),
    (15, "3.7-IV0"),
    (16, "3.7-IV1"),
    (17, "3.7-IV2"),
    (18, "3.7-IV3"),
    (19, "3.7-IV4"),
    (20, "3.8-IV0"),
    (21, "3.9-IV0"),
    (22, "4.0-IV0"),
    (23, "4.0-IV1"),
    (24, "4.0-IV2"),
    (25, "4.0-IV3"),
    (26, "4.1-IV0"),
    (27, "4.1-IV1"),
    (28, "4.2-IV0"),
    (29, "4.2-IV1"),
];

/// Returns the release of the features' levels, if it is known.
pub(crate) fn release(features: &BTreeMap<String, i16>) -> Option<String> {
    let level = features.get(RELEASE)?;
    RELEASES.iter().find(|(known, _)| known == level).map(|(_, release)| (*release).to_owned())
}

impl ClusterClient {
    /// Returns the configurations of resources, each sorted by name and without sensitive values.
    ///
    /// Answer `i` is resource `i`'s.
    pub(crate) async fn configs(&self, resources: &[ConfigResource]) -> Result<Vec<Result<Vec<ConfigEntry>>>> {
        let what = |resource: &ConfigResource| format!("describe the configuration of {resource}");
        let asked = resources.iter().filter(|resource| is_possible(resource).is_ok()).map(resource_of);
        let options = DescribeConfigsOptions::default().timeout(self.limit);
        let answers = self.client().describe_configs(asked, options).await;
        let answers = answers.map_err(|e| failed("describe configurations", e))?;
        let answer = |resource: &ConfigResource| {
            is_possible(resource)?;
            let missing = || Error::new(ErrorKind::NotFound, what(resource));
            let entries = answers.get(&resource_of(resource)).ok_or_else(missing)?;
            let entries = entries.as_ref().map_err(|e| failed(what(resource), e.clone()))?;
            let mut entries: Vec<_> = entries.iter().cloned().map(entry).collect();
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(entries)
        };
        Ok(resources.iter().map(answer).collect())
    }

    /// Returns a topic's settings, as far as the broker reports them.
    ///
    /// Sensitive settings and those without a value are left out.
    pub(crate) async fn settings(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let entries = self.configs(&[ConfigResource::Topic(topic.into())]).await?.remove(0)?;
        Ok(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
    }

    /// Changes entries of a resource, all or none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a value that the broker refuses. It accepts the deletion of an unknown entry.
    pub(crate) async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, Option<String>)],
    ) -> Result<()> {
        is_possible(resource)?;
        let what = || format!("change the configuration of {resource}");
        let operation = |(name, value): &(String, Option<String>)| match value {
            Some(value) => ConfigOp::set(name, value),
            None => ConfigOp::delete(name),
        };
        let client = resource_of(resource);
        let options = IncrementalAlterConfigsOptions::default().timeout(self.limit);
        let asked = [(client.clone(), changes.iter().map(operation).collect())];
        let mut answers =
            self.client().incremental_alter_configs(asked, options).await.map_err(|e| failed(what(), e))?;
        let answer = answers.remove(&client).ok_or_else(|| Error::new(ErrorKind::Indeterminate, what()))?;
        answer.map_err(|e| failed(what(), e))
    }

    /// Returns the enabled levels of features.
    pub(crate) async fn features(&self) -> Result<BTreeMap<String, i16>> {
        let asked = self.client().describe_features(DescribeFeaturesOptions::default().timeout(self.limit)).await;
        let features = asked.map_err(|e| failed("describe the cluster's features", e))?;
        Ok(features.finalized.into_iter().map(|feature| (feature.name, feature.max_version_level)).collect())
    }

    /// Returns the log directories of each broker that answers and permits it.
    pub(crate) async fn log_dirs(&self, brokers: &[i32]) -> Result<HashMap<i32, Vec<LogDir>>> {
        let options = DescribeLogDirsOptions::default().timeout(self.limit);
        let answers = self.client().describe_log_dirs(brokers.iter().copied(), options).await;
        let answers = answers.map_err(|e| failed("describe log directories", e))?;
        let directories = answers.into_iter().filter_map(|(broker, answer)| {
            let mut directories: Vec<_> = answer.ok()?.into_iter().map(log_dir).collect();
            directories.sort_by(|one, other| one.path.cmp(&other.path));
            Some((broker, directories))
        });
        Ok(directories.collect())
    }
}

fn resource_of(resource: &ConfigResource) -> ClientResource {
    match resource {
        ConfigResource::Topic(name) => ClientResource::topic(name.as_str()),
        ConfigResource::Broker(id) => ClientResource::broker(*id),
        ConfigResource::Group(name) => ClientResource::group(name.as_str()),
        _ => ClientResource::broker_default(),
    }
}

/// Checks a resource before the client does: it would refuse a whole request.
fn is_possible(resource: &ConfigResource) -> Result<()> {
    match resource {
        ConfigResource::Topic(name) => check_topic_name(name),
        ConfigResource::Group(name) => super::check_group_name(name),
        ConfigResource::Broker(_) | ConfigResource::Cluster => Ok(()),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("the configuration of {other} is not known to this version"),
        )),
    }
}

fn entry(entry: krafka::admin::ConfigEntry) -> ConfigEntry {
    let source = match entry.config_source {
        1 | 8 => ConfigSource::Resource,
        2 => ConfigSource::Broker,
        3 => ConfigSource::Cluster,
        4 => ConfigSource::File,
        5 => ConfigSource::Default,
        _ => ConfigSource::Unknown,
    };
    let mut made = ConfigEntry::new(entry.name, "", source);
    made.value = entry.value;
    made.read_only = entry.read_only;
    if entry.is_sensitive { made.into_sensitive() } else { made }
}

fn log_dir((path, answer): (String, krafka::Result<LogDirDescription>)) -> LogDir {
    let unsigned = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
    match answer {
        Ok(directory) => {
            let bytes = directory.replicas.values().filter_map(|replica| u64::try_from(replica.size).ok()).sum();
            let mut made = LogDir::new(path, bytes, directory.replicas.len());
            made.total_bytes = unsigned(directory.total_bytes);
            made.usable_bytes = unsigned(directory.usable_bytes);
            made
        }
        Err(error) => {
            let mut made = LogDir::new(path, 0, 0);
            made.offline = Some(tidings_core::report(&error));
            made
        }
    }
}
