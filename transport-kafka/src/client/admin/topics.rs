//! Topic and cluster operations.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use krafka::KrafkaError;
use krafka::admin::{
    CreatePartitionsOptions, CreateTopicsOptions, DeleteTopicsOptions, DescribeClusterOptions, DescribeTopicsOptions,
    ListTopicsOptions, NewTopic,
};
use tidings_core::{
    BrokerDescription, ClusterDescription, Error, ErrorKind, Name, PartitionDescription, Result, Topic,
    check_topic_name,
};

use super::ClusterClient;
use crate::error::failed;

impl ClusterClient {
    /// Creates topics, in requests of up to [`MAX_IN_REQUEST`]; a replication of `None` is the cluster's default.
    /// Answer `i` is for `topics[i]`.
    ///
    /// # Errors
    /// Per topic, [`AlreadyExists`](ErrorKind::AlreadyExists), and [`Invalid`](ErrorKind::Invalid) for a name, a count
    /// or a setting that the broker or the protocol does not allow.
    pub(crate) async fn create_topics(&self, topics: &[(&Topic, BTreeMap<String, String>)]) -> Vec<Result<()>> {
        let what = |at: usize| format!("create topic {:?}", topics[at].0.name.as_str());
        let names: Vec<&str> = topics.iter().map(|(topic, _)| topic.name.as_str()).collect();
        let mut made = Vec::with_capacity(topics.len());
        for (at, (topic, settings)) in topics.iter().enumerate() {
            made.push(new_topic(topic, settings, || what(at)));
        }
        let mut answers: Vec<Result<()>> = Vec::new();
        let mut possible = HashMap::new();
        for (at, topic) in made.into_iter().enumerate() {
            answers.push(topic.map(|topic| drop(possible.insert(at, topic))));
        }
        for round in rounds(&names, |at| possible.contains_key(&at).then_some(topics[at].0.partitions)) {
            let asked: Vec<NewTopic> = round.iter().filter_map(|at| possible.remove(at)).collect();
            let options = CreateTopicsOptions::default().timeout(self.limit);
            let mut all = self.client().create_topics(asked, options).await;
            for at in round {
                answers[at] = answer_about(&mut all, names[at], || what(at));
            }
        }
        answers
    }

    /// Deletes topics, in requests of up to [`MAX_IN_REQUEST`]. Brokers may report them for a moment longer. Answer `i`
    /// is for `topics[i]`.
    ///
    /// # Errors
    /// Per topic, [`NotFound`](ErrorKind::NotFound).
    pub(crate) async fn delete_topics(&self, topics: &[Name]) -> Vec<Result<()>> {
        let names: Vec<&str> = topics.iter().map(Name::as_str).collect();
        let mut answers: Vec<Result<()>> = names.iter().map(|name| check_topic_name(name)).collect();
        let possible: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        for round in rounds(&names, |at| possible[at].then_some(0)) {
            let asked = round.iter().map(|at| names[*at]);
            let options = DeleteTopicsOptions::default().timeout(self.limit);
            let mut all = self.client().delete_topics(asked, options).await;
            for at in round {
                answers[at] = answer_about(&mut all, names[at], || format!("delete topic {:?}", names[at]));
            }
        }
        answers
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

/// Maximum number of topics in a request: the broker must answer for all of them within the timeout of one request.
const MAX_IN_REQUEST: usize = 100;

/// Maximum number of partitions that topics of a request have together: controllers refuse a whole request for more.
const MAX_PARTITIONS_IN_REQUEST: u64 = 10_000;

/// Topics of one request.
#[derive(Default)]
struct Round<'a> {
    places: Vec<usize>,
    names: BTreeSet<&'a str>,
    partitions: u64,
}

impl Round<'_> {
    fn has_room(&self, partitions: u32) -> bool {
        self.places.len() < MAX_IN_REQUEST
            && self.partitions.saturating_add(partitions.into()) <= MAX_PARTITIONS_IN_REQUEST
    }
}

/// Returns the indices of the topics in each request; `partitions` returns how many partitions a topic gets, `None` for
/// one that is not requested. A name occurs once in a request: a repeated name goes into a later one, so that it gets its
/// own answer.
fn rounds(names: &[&str], partitions: impl Fn(usize) -> Option<u32>) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Round<'_>> = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(partitions) = partitions(at) else { continue };
        // After the last round that contains the name.
        let after = rounds.iter().rposition(|round| round.names.contains(name)).map_or(0, |last| last + 1);
        let place = match rounds[after..].iter().position(|round| round.has_room(partitions)) {
            Some(place) => after + place,
            None => {
                rounds.push(Round::default());
                rounds.len() - 1
            }
        };
        let round = &mut rounds[place];
        round.places.push(at);
        round.names.insert(name);
        round.partitions = round.partitions.saturating_add(partitions.into());
    }
    rounds.into_iter().map(|round| round.places).collect()
}

/// Converts a topic to be created.
fn new_topic(topic: &Topic, settings: &BTreeMap<String, String>, what: impl Fn() -> String) -> Result<NewTopic> {
    check_topic_name(&topic.name)?;
    check_settings(settings).map_err(|e| Error::caused_by(e.kind(), what(), e))?;
    // Brokers answer the highest number that can be sent as if they had failed.
    let count = i32::try_from(topic.partitions).map_err(|e| Error::caused_by(ErrorKind::Invalid, what(), e))?;
    let copies = topic.replication.map_or(-1, |r| i16::try_from(r).unwrap_or(i16::MAX));
    let mut made = NewTopic::new(topic.name.as_str(), count, copies).map_err(|e| invalid(what(), e))?;
    for (setting, value) in settings {
        made = made.with_config(setting, value);
    }
    Ok(made)
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
    let mut answers = answers;
    answer_about(&mut answers, name, what)
}

/// Returns the answer about one of the requested items, as [`only`] does.
fn answer_about<T>(
    answers: &mut krafka::Result<HashMap<String, krafka::Result<T>>>,
    name: &str,
    what: impl Fn() -> String,
) -> Result<T> {
    let answers = answers.as_mut().map_err(|e| failed(what(), e.clone()))?;
    let answer = answers.remove(name).ok_or_else(|| Error::new(ErrorKind::Indeterminate, what()))?;
    answer.map_err(|e| failed(what(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_occurs_once_in_a_request_and_repeated_ones_follow() {
        assert_eq!(rounds(&["a", "b", "a", "c", "a"], |at| (at != 3).then_some(1)), [vec![0, 1], vec![2], vec![4]]);
        let many: Vec<String> = (0..250).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(rounds(&many, |_| Some(1)).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        assert!(rounds(&[], |_| Some(1)).is_empty());
    }

    #[test]
    fn a_topic_of_very_many_partitions_fails_alone() {
        let partitions = [9_000, 1_000, 1, u32::MAX, 2];
        assert_eq!(rounds(&["a", "b", "c", "d", "e"], |at| Some(partitions[at])), [vec![0, 1], vec![2, 4], vec![3]]);
    }
}
