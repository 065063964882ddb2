//! Fetch requests, and their answers by partition.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidings_core::{Name, TopicPartition};

use super::FetchedBatches;
use super::batches::Isolated;
use crate::wire::cluster::Leader;
use crate::wire::messages::Code;

/// If the data of a partition is a smaller share of its fetch than this, it is copied. Its records would otherwise keep
/// the whole fetch in memory, but count only for their own size.
const KEPT_SHARE: usize = 2;

/// Limits of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchLimits {
    /// Bytes of all partitions; brokers return at least one batch.
    pub(crate) max_bytes: usize,
    /// Bytes of one partition.
    pub(crate) max_partition_bytes: usize,
    /// Time that the broker may wait for records.
    pub(crate) wait: Duration,
    /// Whether only committed records are returned.
    pub(crate) committed_only: bool,
    /// Rack of the client; the leader then names a replica there (KIP-392).
    pub(crate) rack: Option<String>,
}

/// A partition to fetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchFrom {
    pub(crate) partition: TopicPartition,
    pub(crate) offset: u64,
    /// Epoch of its leader, or -1; the broker refuses the fetch if its epoch differs.
    pub(crate) leader_epoch: i32,
}

/// The answer for one partition.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) partition: TopicPartition,
    pub(crate) code: Code,
    /// The leader, if the answer names another one.
    pub(crate) leader: Option<Leader>,
    /// Nearer replica to read from instead.
    pub(crate) replica: Option<i32>,
    pub(crate) batches: FetchedBatches,
}

fn int<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// Builds a fetch without a session. Brokers fill it in the order of `targets`.
pub(crate) fn request(targets: &[FetchFrom], limits: &FetchLimits) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut places: HashMap<&Name, usize> = HashMap::new();
    for target in targets {
        let partition = FetchPartition::default()
            .with_partition(int(target.partition.partition))
            .with_current_leader_epoch(target.leader_epoch)
            .with_fetch_offset(i64::try_from(target.offset).unwrap_or(i64::MAX))
            .with_partition_max_bytes(int(limits.max_partition_bytes));
        let place = *places.entry(&target.partition.topic).or_insert_with(|| {
            let name = TopicName(StrBytes::from_string(target.partition.topic.to_string()));
            topics.push(FetchTopic::default().with_topic(name));
            topics.len() - 1
        });
        if let Some(topic) = topics.get_mut(place) {
            topic.partitions.push(partition);
        }
    }
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(int(limits.wait.as_millis()))
        .with_min_bytes(1)
        .with_max_bytes(int(limits.max_bytes))
        .with_isolation_level(i8::from(limits.committed_only))
        .with_session_epoch(-1)
        .with_topics(topics)
        .with_rack_id(StrBytes::from_string(limits.rack.clone().unwrap_or_default()))
}

/// Splits an answer by partition; `targets` are those of the request.
///
/// Partitions that were not requested are skipped, and so is a second answer for the same one.
pub(crate) fn answers(response: FetchResponse, targets: &[FetchFrom], committed_only: bool) -> Vec<Answer> {
    let mut offsets: HashMap<&TopicPartition, u64> = targets.iter().map(|t| (&t.partition, t.offset)).collect();
    let names: HashMap<&str, &Name> =
        targets.iter().map(|t| (t.partition.topic.as_str(), &t.partition.topic)).collect();
    let length = |data: &PartitionData| data.records.as_ref().map_or(0, Bytes::len);
    let whole: usize = response.responses.iter().flat_map(|topic| &topic.partitions).map(length).sum();
    let mut answers = Vec::with_capacity(targets.len());
    for topic in response.responses {
        let Some(name) = names.get(topic.topic.0.as_str()) else { continue };
        for data in topic.partitions {
            let partition = TopicPartition::new(*name, u32::try_from(data.partition_index).unwrap_or(u32::MAX));
            if let Some(offset) = offsets.remove(&partition) {
                answers.push(answer(partition, data, offset, whole, committed_only));
            }
        }
    }
    answers
}

fn answer(partition: TopicPartition, data: PartitionData, offset: u64, whole: usize, committed_only: bool) -> Answer {
    let mut records = data.records.unwrap_or_default();
    if records.len() < whole / KEPT_SHARE {
        records = Bytes::copy_from_slice(&records);
    }
    let isolated = if committed_only {
        let aborted = data.aborted_transactions.unwrap_or_default();
        Isolated::committed(aborted.iter().map(|transaction| (*transaction.producer_id, transaction.first_offset)))
    } else {
        Isolated::default()
    };
    let leader = Leader { broker: *data.current_leader.leader_id, epoch: data.current_leader.leader_epoch };
    Answer {
        partition,
        code: Code(data.error_code),
        leader: (leader.broker >= 0).then_some(leader),
        replica: Some(*data.preferred_read_replica).filter(|replica| *replica >= 0),
        batches: FetchedBatches::new(&records, offset, isolated),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::FetchableTopicResponse;

    use super::*;

    fn limits() -> FetchLimits {
        FetchLimits {
            max_bytes: 1 << 20,
            max_partition_bytes: 1 << 10,
            wait: Duration::from_millis(500),
            committed_only: true,
            rack: None,
        }
    }

    fn targets() -> Vec<FetchFrom> {
        [("a", 1), ("b", 0), ("a", 0)]
            .map(|(topic, p)| FetchFrom { partition: TopicPartition::new(topic, p), offset: 7, leader_epoch: 3 })
            .to_vec()
    }

    #[test]
    fn partitions_keep_their_order_within_a_topic() {
        let request = request(&targets(), &limits());
        let order = request.topics.iter().map(|topic| {
            let partitions: Vec<i32> = topic.partitions.iter().map(|p| p.partition).collect();
            (topic.topic.0.to_string(), partitions)
        });
        assert_eq!(order.collect::<Vec<_>>(), [("a".to_owned(), vec![1, 0]), ("b".to_owned(), vec![0])]);
        assert!(request.topics.iter().flat_map(|topic| &topic.partitions).all(|p| p.fetch_offset == 7));
    }

    #[test]
    fn answers_that_were_not_requested_or_are_repeated_are_skipped() {
        let data = |p| PartitionData::default().with_partition_index(p);
        let topic = |name, partitions| {
            FetchableTopicResponse::default()
                .with_topic(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(partitions)
        };
        let response = FetchResponse::default()
            .with_responses(vec![topic("a", vec![data(0), data(5), data(-1), data(0)]), topic("c", vec![data(0)])]);
        let answers = answers(response, &targets(), true);
        let found: Vec<String> = answers.iter().map(|answer| answer.partition.to_string()).collect();
        assert_eq!(found, ["a[0]"]);
    }
}
