//! Topic and cluster operations.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use krafka::KrafkaError;
use krafka::admin::{
    CreatePartitionsOptions, CreateTopicsOptions, DeleteTopicsOptions, DescribeClusterOptions, DescribeTopicsOptions,
    ListTopicsOptions, NewTopic,
};
use tidings_core::{
    BrokerDescription, ClusterDescription, Error, ErrorKind, Name, PartitionDescription, Result, check_topic_name,
};

use super::ClusterClient;
use crate::error::failed;

impl ClusterClient {
    /// Creates a topic; `replication` `None` leaves the factor to the cluster's default.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists). [`Invalid`](ErrorKind::Invalid) for a name, a
    /// count or a setting that the broker or the protocol does not allow.
    pub(crate) async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        replication: Option<u16>,
        settings: &BTreeMap<String, String>,
    ) -> Result<()> {
        check_topic_name(name)?;
        let what = || format!("create topic {name:?}");
        check_settings(settings).map_err(|e| Error::caused_by(e.kind(), what(), e))?;
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        let copies = replication.map_or(-1, |r| i16::try_from(r).unwrap_or(i16::MAX));
        let mut topic = NewTopic::new(name, count, copies).map_err(|e| invalid(what(), e))?;
        for (setting, value) in settings {
            topic = topic.with_config(setting, value);
        }
        let answers = self.client().create_topics([topic], CreateTopicsOptions::default().timeout(self.limit)).await;
        only(answers, name, what)
    }

    /// Deletes a topic. Brokers may report it for a moment longer.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound).
    pub(crate) async fn delete_topic(&self, name: &str) -> Result<()> {
        check_topic_name(name)?;
        let answers = self.client().delete_topics([name], DeleteTopicsOptions::default().timeout(self.limit)).await;
        only(answers, name, || format!("delete topic {name:?}"))
    }

    /// Raises the number of partitions to `partitions`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the topic has as many already, or for more than the protocol can express.
    pub(crate) async fn grow_topic(&self, name: &str, partitions: u32) -> Result<()> {
        check_topic_name(name)?;
        let what = || format!("create partitions of topic {name:?}, {partitions} in all");
        // Brokers answer the highest number that can be sent as if they had failed.
        let count = i32::try_from(partitions).map_err(|e| Error::caused_by(ErrorKind::Invalid, what(), e))?;
        let options = CreatePartitionsOptions::default().timeout(self.limit);
        let answers = self.client().create_partitions([(name, count)], options).await;
        only(answers, name, what)
    }

    /// Returns the names of the topics that the client may see.
    pub(crate) async fn list_topics(&self) -> Result<Vec<Name>> {
        let names = self.client().list_topics(ListTopicsOptions::default().timeout(self.limit)).await;
        let names = names.map_err(|e| failed("list topics", e))?;
        Ok(names.into_iter().map(Name::from).collect())
    }

    /// Returns the partitions of topics, without their offsets. The client refuses a whole request for one invalid
    /// name, so such names are answered here.
    ///
    /// Answer `i` is for `names[i]`.
    pub(crate) async fn topics(&self, names: &[Name]) -> Result<Vec<Result<Vec<PartitionDescription>>>> {
        let possible: BTreeSet<&str> =
            names.iter().map(Name::as_str).filter(|name| check_topic_name(name).is_ok()).collect();
        let options = DescribeTopicsOptions::default().timeout(self.limit);
        let answers = match possible.is_empty() {
            true => HashMap::new(),
            false => {
                let asked = self.client().describe_topics(possible, options).await;
                asked.map_err(|e| failed("describe topics".to_owned(), e))?
            }
        };
        let described = names.iter().map(|name| {
            check_topic_name(name)?;
            let what = || format!("describe topic {name:?}");
            let answer = match answers.get(name.as_str()) {
                Some(Ok(topic)) => Ok(topic.clone()),
                Some(Err(error)) => Err(failed(what(), error.clone())),
                None => Err(Error::new(ErrorKind::NotFound, what())),
            }?;
            let mut partitions: Vec<_> = answer.partitions.into_iter().map(partition).collect();
            partitions.sort_by_key(|p| p.partition);
            Ok(partitions)
        });
        Ok(described.collect())
    }

    /// Describes the cluster as the broker that answers sees it, fenced brokers included.
    pub(crate) async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let asked = self.client().describe_cluster(DescribeClusterOptions::default().timeout(self.limit)).await;
        let cluster = asked.map_err(|e| failed("describe the cluster", e))?;
        let brokers = cluster.brokers.into_iter().map(|broker| {
            let port = u16::try_from(broker.port).unwrap_or(0);
            let mut described = BrokerDescription::new(broker.id, broker.host, port);
            described.rack = broker.rack;
            described.fenced = broker.is_fenced;
            described
        });
        let mut described = ClusterDescription::new(brokers.collect());
        described.id = Some(cluster.cluster_id).filter(|id| !id.is_empty());
        described.controller = (cluster.controller_id >= 0).then_some(cluster.controller_id);
        Ok(described)
    }
}

/// Converts a partition without offsets, which another request reports.
fn partition(described: krafka::admin::PartitionDescription) -> PartitionDescription {
    let mut made = PartitionDescription::new(u32::try_from(described.partition).unwrap_or(0), 0, 0);
    made.leader = described.leader;
    made.replicas = described.replicas;
    made.in_sync = described.isr;
    made
}

/// The longest setting name or value that fits a request.
const MAX_SETTING_BYTES: usize = 32_767;

/// Checks lengths before the client does: it would call a long setting undecodable.
fn check_settings(settings: &BTreeMap<String, String>) -> Result<()> {
    let long = settings.iter().find(|(name, value)| name.len().max(value.len()) > MAX_SETTING_BYTES);
    long.map_or(Ok(()), |(name, _)| {
        let shown = &name[..name.floor_char_boundary(80)];
        Err(Error::new(ErrorKind::Invalid, format!("setting {shown:?} has more than {MAX_SETTING_BYTES} bytes")))
    })
}

/// Converts a refusal by the client itself, before it sends a request. It reports that as a protocol error.
fn invalid(what: String, error: KrafkaError) -> Error {
    Error::caused_by(ErrorKind::Invalid, what, error)
}

/// Returns the answer about the only requested item.
///
/// An answer that leaves the item out is [`Indeterminate`](ErrorKind::Indeterminate): the broker
/// may have acted.
fn only<T>(
    answers: krafka::Result<HashMap<String, krafka::Result<T>>>,
    name: &str,
    what: impl Fn() -> String,
) -> Result<T> {
    let mut answers = answers.map_err(|e| failed(what(), e))?;
    let answer = answers.remove(name).ok_or_else(|| Error::new(ErrorKind::Indeterminate, what()))?;
    answer.map_err(|e| failed(what(), e))
}
