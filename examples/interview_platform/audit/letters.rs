//! The dead letters, as they lie in the `-dlq` topics.

use std::collections::HashMap;
use std::time::Duration;

use tidings::consumer::{ConsumerOptions, Step};
use tidings::dead_letter::{DeadLetter, dead_letter_topic};
use tidings::record::{Name, TopicPartition};
use tidings::{BoxError, ErrorKind, Transport};
use uuid::Uuid;

use super::ledger::Place;
use crate::events::TOPICS;

/// How long reading the letters may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the dead-letter topics ended when the run began: a lasting broker has letters of earlier runs.
#[derive(Debug)]
pub(crate) struct Letters {
    ends: HashMap<TopicPartition, u64>,
}

impl Letters {
    pub(crate) async fn mark(transport: &impl Transport) -> Result<Self, BoxError> {
        Ok(Self { ends: ends(transport).await? })
    }

    /// The letters since then: whose, and about which record.
    pub(crate) async fn read(&self, transport: &impl Transport) -> Result<Vec<(Name, Place)>, BoxError> {
        let now = ends(transport).await?;
        if now == self.ends {
            return Ok(Vec::new());
        }
        let read = tokio::time::timeout(DEADLINE, self.read_to(&now, transport));
        read.await.map_err(|_| format!("read the dead letters: not done within {} s", DEADLINE.as_secs()))?
    }

    async fn read_to(
        &self,
        ends: &HashMap<TopicPartition, u64>,
        transport: &impl Transport,
    ) -> Result<Vec<(Name, Place)>, BoxError> {
        // A group of its own, which is deleted afterwards: no other offsets are touched.
        let group = Name::from(format!("interview-platform-audit-{}", Uuid::now_v7()));
        let topics = TOPICS.map(|(topic, _)| dead_letter_topic(topic));
        let consumer = transport.consumer(ConsumerOptions::new(group.clone(), topics)).await?;
        let mut left: HashMap<_, _> = ends.iter().filter(|(_, end)| **end > 0).collect();
        let mut letters = Vec::new();
        while !left.is_empty() {
            let Step::Records(fetched) = consumer.next().await? else { continue };
            let origin = fetched.batch.origin().as_ref();
            let before = self.ends.get(origin).copied().unwrap_or_default();
            for record in fetched.batch.records().iter().filter(|record| record.offset >= before) {
                let letter = DeadLetter::from_record(record)?;
                let id = letter.id();
                let place = Place::of(&id.origin.topic, id.origin.partition, id.offset);
                letters.push((id.service, place.ok_or("a dead letter is of a topic that is not the platform's")?));
            }
            if left.get(origin).is_some_and(|end| fetched.next_offset >= **end) {
                left.remove(origin);
            }
        }
        consumer.close().await?;
        match transport.admin().await?.delete_group(&group).await {
            // It has committed nothing: a broker may have forgotten it already.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(letters),
        }
    }
}

async fn ends(transport: &impl Transport) -> Result<HashMap<TopicPartition, u64>, BoxError> {
    let topics = TOPICS.map(|(topic, _)| dead_letter_topic(topic));
    let mut ends = HashMap::new();
    for topic in transport.admin().await?.describe_topics(&topics).await? {
        let topic = topic?;
        for partition in topic.partitions {
            ends.insert(TopicPartition::new(topic.name.clone(), partition.partition), partition.end);
        }
    }
    Ok(ends)
}
