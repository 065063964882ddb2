//! Looks up in topics which letters an interrupted redrive has published.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tidings_core::{
    Error, ErrorKind, LetterKey, Name, Redriven, Result, SeekTo, StoredRecord, Timestamp, TopicPartition, headers,
};

use super::reader::Reader;
use super::session::Broker;

/// The prefix of the groups that read a topic.
const GROUP: &str = "dead-letters-lookup";
/// The tolerated clock difference: by how much a record's timestamp may precede the lease under which it was published.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(600);

/// Returns those of the letters that were redriven to their topic since these times.
pub(super) async fn published(broker: &Broker, doubtful: &[(LetterKey, Timestamp)]) -> Result<HashSet<LetterKey>> {
    let mut topics: BTreeMap<&Name, Vec<&(LetterKey, Timestamp)>> = BTreeMap::new();
    for letter in doubtful {
        topics.entry(&letter.0.id.origin.topic).or_default().push(letter);
    }
    let mut found = HashSet::new();
    for (topic, letters) in topics {
        let since = letters.iter().map(|(_, since)| *since).min().unwrap_or(Timestamp::from_millis(0));
        // To Kafka, negative times have a special meaning.
        let since = since.saturating_sub(CLOCKS_DIFFER_BY).max(Timestamp::from_millis(0));
        let of_topic = |record: &StoredRecord| {
            let redriven = Redriven::of(topic, &record.headers)?;
            let letter = record.headers.get_str(headers::REDRIVE_LETTER)?;
            let is_it = |(key, _): &&&(LetterKey, Timestamp)| {
                redriven.is_for(&key.id.service) && key.redrive_letter() == letter
            };
            letters.iter().find(is_it).map(|(key, _)| key.clone())
        };
        let mut note = |record: &StoredRecord| found.extend(of_topic(record));
        read(broker, topic, since, &mut note).await?;
    }
    Ok(found)
}

/// Reads the records of a topic since a time.
async fn read(
    broker: &Broker,
    topic: &Name,
    since: Timestamp,
    note: &mut (dyn FnMut(&StoredRecord) + Send),
) -> Result<()> {
    let described = broker.admin.describe_topics(std::slice::from_ref(topic)).await?.pop();
    let missing = || Err(Error::new(ErrorKind::Indeterminate, "describe the topic: no answer"));
    let described = match described.unwrap_or_else(missing) {
        // Nothing is published to it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        described => described?,
    };
    let all = described.partitions.iter().map(|p| (TopicPartition::new(topic.clone(), p.partition), p));
    let all: BTreeMap<_, _> = all.collect();
    if let Some((at, _)) = all.iter().find(|(_, partition)| partition.is_offline()) {
        let text = format!("look for redriven letters: no broker leads {at} now");
        return Err(Error::new(ErrorKind::Unavailable, text));
    }
    let partitions: Vec<TopicPartition> = all.keys().cloned().collect();
    let mut reader = Reader::open(&*broker.transport, GROUP, vec![topic.clone()], &partitions).await?;
    let mut read = Ok(());
    for (at, partition) in all {
        let from = reader.seek(&at, SeekTo::Time(since)).await?;
        let reached = reader.read(&at, from.max(partition.start), partition.end, |record| {
            note(record);
            Ok(true)
        });
        read = read.and(reached.await.map(drop));
    }
    let _left = reader.close(&*broker.admin).await;
    read
}
