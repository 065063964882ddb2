//! Looks up in the topic itself which letters an interrupted run has published.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tidings_core::{
    Admin, ConsumerOptions, Error, ErrorKind, Headers, Name, Redriven, Result, SeekTo, Start, Step, Timestamp,
    TopicPartition, Transport,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::chunk::Found;
use super::{REDRIVE_GROUP_SUFFIX, cannot_be_read, check_online, taken};

/// The tolerated clock difference: by how much a broker's timestamp may precede our clock. A run does not continue a
/// mark that is further ahead of our clock than this, as brokers refuse records from the future.
pub(super) const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(600);
/// How long the lookup waits for the next record.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of times each record of a chunk is in its topic, by fingerprint.
pub(super) type Published = HashMap<Uuid, usize>;

/// Searches for the records of `service`'s chunk with these timestamps.
pub(super) async fn published(
    transport: &dyn Transport,
    admin: &dyn Admin,
    topic: &Name,
    service: &Name,
    times: &[i64],
) -> Result<Published> {
    let described = admin.describe_topics(std::slice::from_ref(topic)).await?.pop();
    let described = described.unwrap_or_else(|| Err(Error::new(ErrorKind::Indeterminate, "no answer")))?;
    check_online(&described)?;
    let ends = described.partitions.iter().map(|p| (TopicPartition::new(topic.clone(), p.partition), p.end));
    let mut left: HashMap<TopicPartition, u64> = ends.collect();
    // A new group each time: it has committed nothing, so it starts at the requested time.
    let group = Name::from(format!("{service}{REDRIVE_GROUP_SUFFIX}-{}", Uuid::now_v7()));
    let first = times.iter().copied().min().unwrap_or_default();
    // To Kafka, negative times have a special meaning.
    let since = Timestamp::from_millis(first).saturating_sub(CLOCKS_DIFFER_BY).max(Timestamp::from_millis(0));
    let options = ConsumerOptions::new(group.clone(), [topic.clone()]).with_start(Start::Time(since));
    let consumer = transport.consumer(options).await?;
    let mut published = Published::new();
    while !left.is_empty() {
        let step = timeout(PATIENCE, consumer.next()).await;
        match step.unwrap_or_else(|_| Err(taken("what is in its topic can't be read")))? {
            Step::Assigned(given) => {
                for assignment in given {
                    settle(&mut left, &assignment.partition, assignment.start_offset);
                }
            }
            Step::Records(fetched) => {
                for record in fetched.batch.records() {
                    let ours = Redriven::of(topic, &record.headers).is_some_and(|redriven| redriven.is_for(service));
                    if ours && times.contains(&record.timestamp.millis()) {
                        let print = fingerprint(record.key.as_ref(), record.value.as_ref(), &record.headers);
                        *published.entry(print).or_default() += 1;
                    }
                }
                let at = (**fetched.batch.origin()).clone();
                settle(&mut left, &at, fetched.next_offset);
            }
            Step::Unreadable(unreadable) => {
                let Some(next) = unreadable.next_offset else { return Err(cannot_be_read(&unreadable)) };
                // A redriven letter cannot be there: redriven letters are small enough to be read.
                let reached = consumer.seek(&unreadable.partition, SeekTo::Offset(next)).await?;
                settle(&mut left, &unreadable.partition, reached);
            }
            _ => return Err(taken("the look into its topic was disturbed")),
        }
    }
    let _left = consumer.close().await;
    // The broker removes the group eventually: it has no members and has committed nothing.
    let _gone = admin.delete_group(&group).await;
    Ok(published)
}

fn settle(left: &mut HashMap<TopicPartition, u64>, at: &TopicPartition, reached: u64) {
    if left.get(at).is_some_and(|end| reached >= *end) {
        left.remove(at);
    }
}

/// Keeps the letters that are not in their topic yet. Among identical letters the first are assumed to be there.
pub(super) fn keep_absent(letters: &mut Vec<Found>, mut published: Published) {
    letters.retain(|found| {
        let record = found.letter.to_redrive();
        match published.get_mut(&fingerprint(record.key.as_ref(), record.value.as_ref(), &record.headers)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        }
    });
}

/// Returns the fingerprint of a record: a hash of all its bytes.
pub(super) fn fingerprint(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> Uuid {
    let mut bytes = Vec::new();
    let mut add = |part: Option<&Bytes>| {
        // Null is not empty.
        bytes.extend_from_slice(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.map_or(&[][..], |part| part));
    };
    add(key);
    add(value);
    for header in headers.iter() {
        add(Some(&header.name));
        add(header.value.as_ref());
    }
    Uuid::new_v5(&Uuid::nil(), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_core::{DeadLetter, StoredRecord};

    fn found(offset: u64, value: &'static str) -> Found {
        let record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value(value);
        Found { offset, letter: DeadLetter::new("svc", TopicPartition::new("t", 0), record, ErrorKind::Failed) }
    }

    #[test]
    fn as_many_letters_are_taken_as_there_as_are_there() {
        let print = |found: &Found| {
            let record = found.letter.to_redrive();
            fingerprint(record.key.as_ref(), record.value.as_ref(), &record.headers)
        };
        let mut letters = vec![found(1, "same"), found(2, "other"), found(3, "same"), found(4, "same")];
        let there = HashMap::from([(print(&letters[0]), 2)]);
        keep_absent(&mut letters, there);
        assert_eq!(letters.iter().map(|f| f.offset).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn null_is_not_empty() {
        let none = Headers::new();
        let empty = Bytes::new();
        assert_ne!(fingerprint(None, Some(&empty), &none), fingerprint(Some(&empty), None, &none));
        assert_ne!(fingerprint(None, Some(&empty), &none), fingerprint(None, None, &none));
    }
}
