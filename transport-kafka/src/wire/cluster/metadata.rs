//! Brokers, and the leaders of topics' partitions, as brokers report them.

use std::collections::HashMap;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidings_core::{Error, ErrorKind, Name, Result, TopicPartition};

use crate::wire::connection::Endpoint;
use crate::wire::messages::Code;

/// A partition's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) broker: i32,
    /// Its epoch (KIP-320), which grows with each election.
    pub(crate) epoch: i32,
}

/// A topic as last reported.
#[derive(Debug)]
struct TopicState {
    /// Changes when the topic is recreated; its leader epochs then restart.
    id: [u8; 16],
    code: Code,
    partitions: HashMap<u32, PartitionState>,
}

#[derive(Debug, Clone, Copy)]
struct PartitionState {
    leader: Option<Leader>,
    /// Epoch of the last known leader, also while there is none.
    epoch: i32,
}

/// Brokers and topics of a cluster, as last reported.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    brokers: HashMap<i32, Endpoint>,
    topics: HashMap<Name, TopicState>,
}

/// Builds the request for these topics, without creating missing ones.
pub(super) fn request(topics: &[Name]) -> MetadataRequest {
    let named = |name: &Name| {
        MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
    };
    MetadataRequest::default()
        .with_topics(Some(topics.iter().map(named).collect()))
        .with_allow_auto_topic_creation(false)
}

impl Metadata {
    pub(super) fn endpoint(&self, broker: i32) -> Option<&Endpoint> {
        self.brokers.get(&broker)
    }

    pub(super) fn brokers(&self) -> impl Iterator<Item = i32> {
        self.brokers.keys().copied()
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.brokers.values()
    }

    pub(super) fn leader(&self, at: &TopicPartition) -> Option<Leader> {
        self.topics.get(&at.topic)?.partitions.get(&at.partition)?.leader
    }

    pub(super) fn leaders(&self, topic: &Name) -> Result<HashMap<u32, Option<i32>>> {
        let what = || format!("find the leaders of topic {topic:?}");
        let unknown = || Error::new(ErrorKind::Unavailable, format!("{}: the topic was not requested", what()));
        let state = self.topics.get(topic).ok_or_else(unknown)?;
        match state.code {
            Code::UNKNOWN_TOPIC_OR_PARTITION => {
                Err(Error::new(ErrorKind::NotFound, format!("{}: there is no such topic", what())))
            }
            code => code.ok().map_err(|code| code.error(what())),
        }?;
        Ok(state.partitions.iter().map(|(p, state)| (*p, state.leader.map(|leader| leader.broker))).collect())
    }

    pub(super) fn learn_leader(&mut self, at: &TopicPartition, leader: Leader) {
        let known = self.topics.get_mut(&at.topic).and_then(|topic| topic.partitions.get_mut(&at.partition));
        if let Some(known) = known.filter(|known| known.epoch < leader.epoch) {
            *known = PartitionState { leader: Some(leader), epoch: leader.epoch };
        }
    }

    /// Applies an answer. Newer known leaders are kept, because brokers learn of an election at different times.
    pub(super) fn update(&mut self, answer: &MetadataResponse) {
        self.update_brokers(answer);
        let mut known = std::mem::take(&mut self.topics);
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            let name = Name::from(name.to_string());
            let before = known.remove(&name);
            self.topics.insert(name, topic_state(topic, before));
        }
    }

    /// Applies an answer as [`update`](Self::update) does, and keeps the topics that it does not contain. Returns the
    /// number of partitions of each topic; one that does not exist is removed.
    pub(super) fn merge(&mut self, answer: &MetadataResponse) -> Vec<(Name, Result<u32>)> {
        self.update_brokers(answer);
        let mut counts = Vec::with_capacity(answer.topics.len());
        for topic in &answer.topics {
            let Some(name) = topic.name.as_ref().map(|name| Name::from(name.to_string())) else { continue };
            let before = self.topics.remove(&name);
            let count = match Code(topic.error_code).ok() {
                Ok(()) => {
                    self.topics.insert(name.clone(), topic_state(topic, before));
                    Ok(u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX))
                }
                Err(code) => Err(code.error(format!("look up topic {name:?}"))),
            };
            counts.push((name, count));
        }
        counts
    }

    fn update_brokers(&mut self, answer: &MetadataResponse) {
        // A broker that has just started may report none.
        if !answer.brokers.is_empty() {
            let endpoint =
                |host: &StrBytes, port: i32| Some(Endpoint { host: host.to_string(), port: u16::try_from(port).ok()? });
            let brokers = answer.brokers.iter().filter_map(|b| Some((*b.node_id, endpoint(&b.host, b.port)?)));
            self.brokers = brokers.collect();
        }
    }
}

fn topic_state(topic: &MetadataResponseTopic, before: Option<TopicState>) -> TopicState {
    let id = topic.topic_id.into_bytes();
    let before = before.filter(|before| before.id == id);
    let partition = |answer: &MetadataResponsePartition| {
        let index = u32::try_from(answer.partition_index).ok()?;
        let known = before.as_ref().and_then(|before| before.partitions.get(&index)).copied();
        let now = partition_state(answer);
        Some((index, known.filter(|known| known.epoch > now.epoch).unwrap_or(now)))
    };
    TopicState { id, code: Code(topic.error_code), partitions: topic.partitions.iter().filter_map(partition).collect() }
}

fn partition_state(answer: &MetadataResponsePartition) -> PartitionState {
    let leader = Leader { broker: *answer.leader_id, epoch: answer.leader_epoch };
    PartitionState { leader: (leader.broker >= 0).then_some(leader), epoch: leader.epoch }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::MetadataResponseBroker;

    use super::*;

    fn answer(id: u128, leader: i32, epoch: i32) -> MetadataResponse {
        let partition = MetadataResponsePartition::default().with_leader_id(leader.into()).with_leader_epoch(epoch);
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_topic_id(uuid::Uuid::from_u128(id))
            .with_partitions(vec![partition]);
        let broker = MetadataResponseBroker::default()
            .with_node_id(7.into())
            .with_host(StrBytes::from_static_str("h"))
            .with_port(9);
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
    }

    fn at() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    #[test]
    fn a_stale_answer_does_not_bring_an_old_leader_back() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(1, 7, 5));
        metadata.update(&answer(1, 6, 4));
        assert_eq!(metadata.leader(&at()), Some(Leader { broker: 7, epoch: 5 }));
        metadata.learn_leader(&at(), Leader { broker: 6, epoch: 5 });
        assert_eq!(metadata.leader(&at()).map(|leader| leader.broker), Some(7), "it is not newer");
        metadata.learn_leader(&at(), Leader { broker: 6, epoch: 6 });
        metadata.update(&answer(1, -1, 7));
        assert_eq!(metadata.leader(&at()), None);
        // The topic was recreated, so epochs restart.
        metadata.update(&answer(2, 7, 0));
        assert_eq!(metadata.leader(&at()), Some(Leader { broker: 7, epoch: 0 }));
    }

    #[test]
    fn topics_that_are_not_requested_are_removed_and_brokers_are_kept() {
        let mut metadata = Metadata::default();
        metadata.update(&answer(1, 7, 5));
        metadata.update(&MetadataResponse::default());
        assert!(metadata.leader(&at()).is_none() && metadata.endpoint(7).is_some());
        assert_eq!(metadata.leaders(&"t".into()).unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
