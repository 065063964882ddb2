//! Helpers of transport cases: topics, records, publishing.
//!
//! Topics, groups and scopes have unique names, so cases run concurrently on one broker. Every
//! helper checks what it receives and adds to the history, so that a failure shows the way to it.

use std::sync::Arc;

use tidings_core::{Admin, Header, Name, Position, Publisher, Record, StoredRecord, Topic, TopicPartition, Transport};

use crate::case::{Checked, broken, granted, holds, only, same};
use crate::context::Context;

/// Context of a transport case.
pub(crate) type Fixture = Context<dyn Transport>;

/// Room for a value of 1 MiB with its headers.
const ROOMY: u64 = 4 << 20;

/// Returns the first `count` partitions of `topic`.
pub(crate) fn partitions(topic: &Name, count: u32) -> Vec<TopicPartition> {
    (0..count).map(|p| TopicPartition::new(topic, p)).collect()
}

/// Creates record `n` for a partition.
///
/// Key, value and header name the record, so that a mix-up is visible in a failure.
pub(crate) fn numbered(topic: &Name, partition: u32, n: usize) -> Record {
    Record::new(topic, format!("value {partition}/{n}"))
        .with_key(format!("key {n}"))
        .with_header("n", n.to_string())
        .with_partition(partition)
}

impl Fixture {
    /// Returns the backend that is open now.
    pub(crate) fn transport(&self) -> Checked<Arc<dyn Transport>> {
        self.backend()
    }

    /// Opens an admin client.
    pub(crate) async fn admin(&self) -> Checked<Arc<dyn Admin>> {
        let transport = self.transport()?;
        Ok(self.within("an admin", transport.admin()).await??)
    }

    /// Opens a publisher.
    pub(crate) async fn publisher(&self) -> Checked<Arc<dyn Publisher>> {
        let transport = self.transport()?;
        Ok(self.within("a publisher", transport.publisher()).await??)
    }

    /// Creates a topic with a unique name.
    pub(crate) async fn topic(&self, partitions: u32) -> Checked<Name> {
        let name = self.fresh("topic");
        self.create(Topic::new(&name).with_partitions(partitions).with_max_record_bytes(ROOMY)).await?;
        Ok(name)
    }

    /// Creates a topic and waits until the broker describes it.
    pub(crate) async fn create(&self, topic: Topic) -> Checked {
        let admin = self.admin().await?;
        self.note(format!("create {} with {} partitions", topic.name, topic.partitions));
        let answers = self.within("the topic", admin.create_topics(std::slice::from_ref(&topic))).await??;
        granted("create a topic", only("create a topic", answers)?)?;
        self.described(&topic.name, topic.partitions).await
    }

    /// Waits until a topic has `partitions` partitions.
    pub(crate) async fn described(&self, topic: &Name, partitions: u32) -> Checked {
        let admin = self.admin().await?;
        let names = [topic.clone()];
        self.eventually("the topic's description", || async {
            let answers = admin.describe_topics(&names).await?;
            let described = only("describe", answers)?;
            Ok(described.ok().filter(|t| t.partitions.len() == partitions as usize).map(drop))
        })
        .await
    }

    /// Publishes with a new publisher; all must be `Ok`.
    pub(crate) async fn publish(&self, records: Vec<Record>) -> Checked<Vec<Position>> {
        let publisher = self.publisher().await?;
        self.publish_by(&*publisher, records).await
    }

    /// Publishes; all must be `Ok`.
    pub(crate) async fn publish_by(&self, publisher: &dyn Publisher, records: Vec<Record>) -> Checked<Vec<Position>> {
        let count = records.len();
        let topic = records.first().map(|r| r.topic.clone()).unwrap_or_default();
        let answers = self.within("answers to publish", publisher.publish(records)).await?;
        same("answers to publish", count, answers.len())?;
        let positions: Vec<Position> =
            answers.into_iter().map(|answer| granted("publish", answer)).collect::<Checked<_>>()?;
        self.note(format!("published {count} to {topic}: {}", brief(&positions)));
        Ok(positions)
    }

    /// Publishes `numbered` records `from..to` to one partition.
    pub(crate) async fn fill(&self, topic: &Name, partition: u32, from: usize, to: usize) -> Checked<Vec<Record>> {
        let records: Vec<Record> = (from..to).map(|n| numbered(topic, partition, n)).collect();
        let positions = self.publish(records.clone()).await?;
        let there = positions.iter().all(|p| p.partition == partition);
        holds(there, "records in the partition that they name", &positions)?;
        let in_order = positions.is_sorted_by(|a, b| a.offset < b.offset);
        holds(in_order, "offsets that grow from answer to answer", brief(&positions))?;
        Ok(records)
    }
}

/// Shows the first and the last of many positions.
fn brief(positions: &[Position]) -> String {
    let show = |p: &Position| format!("[{}]@{}", p.partition, p.offset);
    match positions {
        [] => "nothing".into(),
        [one] => show(one),
        [first, .., last] => format!("{} .. {}", show(first), show(last)),
    }
}

/// Shows bytes up to a length; null and empty differ.
fn bytes(of: Option<&bytes::Bytes>) -> String {
    match of {
        None => "null".into(),
        Some(bytes) if bytes.len() > 40 => format!("{} bytes, {:?} ..", bytes.len(), bytes.slice(..40)),
        Some(bytes) => format!("{bytes:?}"),
    }
}

fn header(of: Option<&Header>) -> String {
    of.map_or_else(|| "none".into(), |h| format!("{:?}: {}", h.name, bytes(h.value.as_ref())))
}

/// Checks that a stored record equals the published one, byte for byte.
///
/// A timestamp is compared only if the record was published with one.
pub(crate) fn same_record(what: &str, published: &Record, stored: &StoredRecord) -> Checked {
    let at = stored.offset;
    if published.key != stored.key {
        return broken(format!("{what} at {at}: key {}", bytes(published.key.as_ref())), bytes(stored.key.as_ref()));
    }
    if published.value != stored.value {
        let expected = format!("{what} at {at}: value {}", bytes(published.value.as_ref()));
        return broken(expected, bytes(stored.value.as_ref()));
    }
    let (expected, came) = (&published.headers, &stored.headers);
    for i in 0..expected.len().max(came.len()) {
        let (expected, came) = (expected.iter().nth(i), came.iter().nth(i));
        if expected != came {
            return broken(format!("{what} at {at}: header {i} {}", header(expected)), header(came));
        }
    }
    match published.timestamp {
        Some(time) if time != stored.timestamp => broken(format!("{what} at {at}: time {time}"), stored.timestamp),
        _ => Ok(()),
    }
}

/// Checks that the records are the published ones: each once, in this order, at consecutive offsets from `first`.
pub(crate) fn same_records(what: &str, first: u64, published: &[Record], stored: &[StoredRecord]) -> Checked {
    let expected: Vec<u64> = (first..first + published.len() as u64).collect();
    let came: Vec<u64> = stored.iter().map(|r| r.offset).collect();
    same(&format!("{what}: offsets"), expected, came)?;
    published.iter().zip(stored).try_for_each(|(published, stored)| same_record(what, published, stored))
}
