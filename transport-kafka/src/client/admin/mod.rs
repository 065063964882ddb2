//! Admin operations of the client, and the requests of consumers outside their membership.
//!
//! A consumer asks its group's coordinator and the partition leaders through this, never through
//! its membership: a request that waits there would delay heartbeats (K9).

mod acl_wire;
mod acls;
mod configs;
mod groups;
mod topics;

use std::collections::HashMap;
use std::time::Duration;

use krafka::KrafkaError;
use krafka::admin::{
    AdminClient, DescribeFeaturesOptions, ListConsumerGroupOffsetsOptions, ListOffsetsOptions, ListedOffset,
    OffsetSpec, TopicPartition as ClientPartition,
};
use krafka::error::ErrorCode;
use tidings_core::{Result, SeekTo, TopicPartition};
use tokio::time::sleep;

pub(crate) use self::configs::release;
pub(crate) use self::groups::check_group_name;
use super::connection::Connection;
use super::fetcher::index;
use crate::admin::{LOOKS, NEXT_LOOK};
use crate::config::{Isolation, KafkaConfig};
use crate::error::failed;

/// The feature level from which brokers support KIP-848.
const NEWER_GROUPS: (&str, i16) = ("group.version", 1);

/// The commit of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Offset of the next record to read: all before it are settled.
    pub(crate) next: u64,
    /// Text stored with the offset, if it is not empty: our epoch mark and the caller's own
    /// metadata.
    pub(crate) metadata: Option<String>,
}

/// A connection for requests to a cluster. Clones share the connection, each with its own limits.
#[derive(Debug, Clone)]
pub(crate) struct ClusterClient {
    connection: Connection,
    /// Time limit of each request.
    limit: Duration,
    /// Whether logs end at the last stable offset, before records of open transactions.
    committed_only: bool,
}

impl ClusterClient {
    pub(crate) fn new(connection: &Connection, config: &KafkaConfig) -> Self {
        let committed_only = config.isolation == Isolation::ReadCommitted;
        Self { connection: connection.clone(), limit: config.request_timeout, committed_only }
    }

    /// Sets the time limit of each request.
    ///
    /// The limit only becomes shorter: the configured request timeout stays the maximum.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { limit: limit.min(self.limit), ..self.clone() }
    }

    /// Includes open transactions in the ends of logs.
    pub(crate) fn of_all(&self) -> Self {
        Self { committed_only: false, ..self.clone() }
    }

    /// Returns the time limit of each request.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Checks whether records in open transactions are left out.
    pub(super) fn committed_only(&self) -> bool {
        self.committed_only
    }

    fn client(&self) -> AdminClient {
        self.connection.0.admin()
    }

    /// Checks whether the cluster supports the newer group protocol (KIP-848).
    ///
    /// The feature level decides, not the broker's version: an upgraded cluster may not have
    /// enabled it.
    pub(crate) async fn has_newer_groups(&self) -> Result<bool> {
        let asked = self.client().describe_features(DescribeFeaturesOptions::default().timeout(self.limit)).await;
        let features = asked.map_err(|e| failed("describe the cluster's features", e))?;
        let (name, level) = NEWER_GROUPS;
        Ok(features.finalized.iter().any(|f| f.name == name && f.max_version_level >= level))
    }

    /// Returns all commits of a group.
    ///
    /// With committed records only, offsets must be stable (KIP-447): none that an open transaction may
    /// still change.
    pub(crate) async fn committed(&self, group: &str) -> Result<HashMap<TopicPartition, Committed>> {
        check_group_name(group)?;
        let options =
            ListConsumerGroupOffsetsOptions::default().timeout(self.limit).require_stable(self.committed_only);
        let asked = self.client().list_consumer_group_offsets(group, options).await;
        let found = asked.map_err(|e| failed(format!("list the committed offsets of group {group:?}"), e))?;
        let mut committed = HashMap::new();
        for (at, offset) in found {
            let offset = offset.map_err(|e| failed(format!("list the committed offsets of group {group:?}"), e))?;
            if let Some(next) = offset.offset.and_then(|next| u64::try_from(next).ok()) {
                let metadata = offset.metadata.filter(|text| !text.is_empty());
                committed.insert(named(&at), Committed { next, metadata });
            }
        }
        Ok(committed)
    }

    /// Returns the offsets of positions in logs; `None` if no record is that late. Either all of them, or the error of
    /// one.
    ///
    /// Use it where a missing answer must not be taken for an offset.
    pub(crate) async fn offsets(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, SeekTo)>,
    ) -> Result<HashMap<TopicPartition, Option<u64>>> {
        self.offsets_each(wanted).await?.into_iter().map(|(at, offset)| Ok((at, offset?))).collect()
    }

    /// Returns the offsets of positions in logs, each with its own result: a partition without a leader does not fail
    /// the others, but it is waited for, until the time limit.
    pub(crate) async fn offsets_each(
        &self,
        wanted: impl IntoIterator<Item = (TopicPartition, SeekTo)>,
    ) -> Result<HashMap<TopicPartition, Result<Option<u64>>>> {
        let (mut specs, mut times) = (HashMap::new(), HashMap::new());
        for (at, to) in wanted {
            let spec = match to {
                SeekTo::Earliest => OffsetSpec::Earliest,
                // Brokers refuse these lookups. From the log's start on, no record of that time or later is left out.
                SeekTo::Time(time) if time.millis() < 0 => OffsetSpec::Earliest,
                SeekTo::Time(time) => {
                    times.insert(at.clone(), time.millis());
                    OffsetSpec::Timestamp(time.millis())
                }
                _ => OffsetSpec::Latest,
            };
            specs.insert(at, spec);
        }
        let late = self.ends_before(&times).await?;
        specs.retain(|at, _| !late.contains_key(at));
        let ends = late.into_iter().map(|(at, end)| (at, Ok(Some(end))));
        let listed = self.list(specs).await?.into_iter().map(|(at, listed)| (at.clone(), told(&at, listed)));
        Ok(ends.chain(listed).collect())
    }

    /// Returns the ends of the logs without a record of their time or later.
    ///
    /// A lookup by such a time is answered without an offset, which the client takes for a passing failure: it asks
    /// again until the time limit. So the bounds of the log and its highest time are looked up first, the end before
    /// the time: no record that comes meanwhile is left out. A partition whose answer fails is looked up by its time,
    /// which reports why.
    async fn ends_before(&self, times: &HashMap<TopicPartition, i64>) -> Result<HashMap<TopicPartition, u64>> {
        let all = |spec: OffsetSpec| times.keys().map(|at| (at.clone(), spec)).collect::<HashMap<_, _>>();
        let (starts, ends) =
            tokio::try_join!(self.list(all(OffsetSpec::Earliest)), self.list(all(OffsetSpec::Latest)))?;
        let bound = |listed: &Listed, at: &TopicPartition| Some(listed.get(at)?.as_ref().ok()?.offset);
        let filled = times.keys().filter(|at| bound(&starts, at) != bound(&ends, at) || bound(&ends, at).is_none());
        let filled = self.list(filled.map(|at| (at.clone(), OffsetSpec::MaxTimestamp)).collect()).await?;
        let before = |at: &TopicPartition, time: i64| match filled.get(at) {
            None => true,
            // Without a time, all records are older than 1970.
            Some(Ok(listed)) => listed.timestamp.unwrap_or(-1) < time,
            Some(Err(_)) => false,
        };
        let end = |at: &TopicPartition| u64::try_from(bound(&ends, at)?).ok();
        let late = times.iter().filter(|(at, time)| before(at, **time));
        Ok(late.filter_map(|(at, _)| Some((at.clone(), end(at)?))).collect())
    }

    /// Looks positions up, each with its own result. Missing partitions are looked for again: brokers learn of a new
    /// topic at different times, and any of them may be asked.
    async fn list(&self, specs: HashMap<TopicPartition, OffsetSpec>) -> Result<Listed> {
        let mut listed = self.list_once(specs.clone()).await?;
        for _ in 1..LOOKS {
            let missing = |(at, answer): (&TopicPartition, &krafka::Result<ListedOffset>)| {
                let spec = answer.as_ref().is_err_and(is_missing).then(|| specs.get(at)).flatten()?;
                Some((at.clone(), *spec))
            };
            let again: HashMap<_, _> = listed.iter().filter_map(missing).collect();
            if again.is_empty() {
                break;
            }
            sleep(NEXT_LOOK).await;
            listed.extend(self.list_once(again).await?);
        }
        Ok(listed)
    }

    async fn list_once(&self, specs: HashMap<TopicPartition, OffsetSpec>) -> Result<Listed> {
        if specs.is_empty() {
            return Ok(Listed::new());
        }
        let specs = specs.into_iter().map(|(at, spec)| (ClientPartition::new(at.topic.as_str(), index(&at)), spec));
        let options = ListOffsetsOptions::default().timeout(self.limit).read_committed(self.committed_only);
        let asked = self.client().list_offsets(specs, options).await;
        Ok(asked.map_err(|e| failed("list offsets", e))?.into_iter().map(|(at, listed)| (named(&at), listed)).collect())
    }
}

/// The leaders' answers, by partition.
type Listed = HashMap<TopicPartition, krafka::Result<ListedOffset>>;

/// Converts the answer about one partition; `None` if no record is as late as requested.
fn told(at: &TopicPartition, listed: krafka::Result<ListedOffset>) -> Result<Option<u64>> {
    match listed {
        Ok(listed) => Ok(u64::try_from(listed.offset).ok()),
        Err(error) if is_too_late(&error) => Ok(None),
        Err(error) => Err(failed(format!("list an offset of {at}"), error)),
    }
}

/// Checks whether there is no record as late as requested. The client reports it only by a code of the broker's.
fn is_too_late(error: &KrafkaError) -> bool {
    matches!(error, KrafkaError::Broker { code: ErrorCode::OffsetNotAvailable, message } if message.contains("no offset"))
}

/// Checks whether the broker that was asked does not know the partition.
fn is_missing(error: &KrafkaError) -> bool {
    matches!(error, KrafkaError::Broker { code: ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId, .. })
        || matches!(error, KrafkaError::UnknownTopic { .. })
}

/// Converts the client's partition; its number is never negative in an answer.
fn named(at: &ClientPartition) -> TopicPartition {
    TopicPartition::new(at.topic(), u32::try_from(at.partition()).unwrap_or(0))
}
