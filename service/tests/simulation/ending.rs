//! The broker's contents when a run is over.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_core::{
    ConsumerOptions, Name, Start, Step, StoredRecord, TopicPartition, Transport, codec, dead_letter_headers, headers,
    is_dead_letter_header,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::history::{Held, History, Kind, Letter, Place};
use super::setting::Setting;
use super::world::{GROUP, TOPICS, World};

impl World {
    pub(super) async fn committed(&self) -> BTreeMap<TopicPartition, u64> {
        let admin = self.transport.admin().await.unwrap();
        let lag = admin.group_lag(&Name::from_static(GROUP)).await.unwrap();
        lag.into_iter().filter_map(|lag| Some((lag.partition, lag.committed?))).collect()
    }

    /// Returns all records that the broker holds of `topics`.
    pub(super) async fn read(&self, topics: &[&'static str]) -> Vec<(TopicPartition, StoredRecord)> {
        let group = format!("reader-{}", Uuid::new_v4());
        let options = ConsumerOptions::new(group, topics.iter().copied()).with_start(Start::Earliest);
        let consumer = self.transport.consumer(options).await.unwrap();
        let mut read = Vec::new();
        // No more records are available at once: these are all.
        while let Ok(step) = timeout(Duration::from_millis(1), consumer.next()).await {
            if let Step::Records(fetched) = step.unwrap() {
                let origin = fetched.batch.origin();
                read.extend(fetched.batch.records().iter().map(|record| (origin.as_ref().clone(), record.clone())));
            }
        }
        read
    }

    pub(super) async fn end(&mut self, stalled: Option<String>) -> History {
        let committed = self.committed().await;
        let entries = self.log.entries();
        let mut log = BTreeMap::new();
        for (origin, record) in self.read(&TOPICS).await {
            let place = Place { origin, offset: record.offset };
            log.insert(place, self.held(record));
        }
        let letters =
            self.read(&["jobs-dlq", "parts-dlq"]).await.into_iter().map(|(_, record)| letter(record)).collect();
        let mut returned: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (_, record) in self.read(&["dones"]).await {
            let cause = record.headers.get_str(headers::CAUSATION_ID).unwrap().parse().unwrap();
            returned.entry(cause).or_default().push(codec::peek(&record).unwrap().id);
        }
        let Setting { order, store, max_span, revocation, .. } = self.setting;
        History { order, store, max_span, revocation, entries, log, committed, letters, returned, stalled }
    }

    fn held(&self, record: StoredRecord) -> Held {
        let head = codec::peek(&record).ok();
        let garbage = record.value.as_deref() == Some(b"garbage");
        let unread = if garbage { Kind::Garbage } else { Kind::Foreign };
        let id = head.map(|head| head.id);
        let (kind, returns) = id.and_then(|id| self.expected.get(&id).copied()).unwrap_or((unread, 0));
        let headers = record.headers.iter().cloned().collect();
        Held { id, key: record.key, value: record.value, headers, kind, returns }
    }
}

/// Returns the fields of a letter that describe its record.
fn letter(record: StoredRecord) -> Letter {
    let text = |name| record.headers.get_str(name).unwrap_or_default().to_owned();
    let number = |name| text(name).parse::<u64>().unwrap();
    let topic = text(dead_letter_headers::TOPIC);
    let partition = u32::try_from(number(dead_letter_headers::PARTITION)).unwrap();
    let origin = TopicPartition::new(topic, partition);
    let place = Place { origin, offset: number(dead_letter_headers::OFFSET) };
    let own = record.headers.iter().filter(|header| !is_dead_letter_header(header)).cloned().collect();
    Letter { place, key: record.key, value: record.value, headers: own }
}
