//! Truncation (KIP-320): after an unclean election a log may end before the offset that was read.

use std::collections::HashMap;

use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tidings_core::{Name, TopicPartition};

use crate::wire::messages::Code;

/// A partition whose leader changed since it was last read.
#[derive(Debug, Clone)]
pub(crate) struct EpochToCheck {
    pub(crate) partition: TopicPartition,
    /// Epoch of its current leader.
    pub(crate) leader_epoch: i32,
    /// Epoch of the last batch that was read.
    pub(crate) read_epoch: i32,
}

/// Builds the request for the ends of epochs.
pub(crate) fn request(checks: &[EpochToCheck]) -> OffsetForLeaderEpochRequest {
    let mut topics: HashMap<&Name, Vec<OffsetForLeaderPartition>> = HashMap::new();
    for check in checks {
        topics.entry(&check.partition.topic).or_default().push(
            OffsetForLeaderPartition::default()
                .with_partition(i32::try_from(check.partition.partition).unwrap_or(i32::MAX))
                .with_current_leader_epoch(check.leader_epoch)
                .with_leader_epoch(check.read_epoch),
        );
    }
    let topic = |(name, partitions): (&Name, Vec<_>)| {
        OffsetForLeaderTopic::default()
            .with_topic(TopicName(StrBytes::from_string(name.to_string())))
            .with_partitions(partitions)
    };
    OffsetForLeaderEpochRequest::default()
        .with_replica_id((-1).into())
        .with_topics(topics.into_iter().map(topic).collect())
}

/// Returns the end offsets of the epochs in the leaders' logs; `None` if the leader does not know the epoch.
pub(crate) fn ends(answer: &OffsetForLeaderEpochResponse) -> HashMap<TopicPartition, Result<Option<u64>, Code>> {
    let topics = answer.topics.iter().map(|topic| (Name::from(topic.topic.0.as_str()), &topic.partitions));
    let each = topics.flat_map(|(name, partitions)| partitions.iter().map(move |p| (name.clone(), p)));
    let end = |(name, answer): (Name, &kafka_protocol::messages::offset_for_leader_epoch_response::EpochEndOffset)| {
        let partition = TopicPartition::new(name, u32::try_from(answer.partition).ok()?);
        // An undefined epoch or offset is -1.
        let end = u64::try_from(answer.end_offset).ok().filter(|_| answer.leader_epoch >= 0);
        Some((partition, Code(answer.error_code).ok().map(|()| end)))
    };
    each.filter_map(end).collect()
}
