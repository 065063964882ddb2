//! A directory in a compacted topic, available to any transport that reads by position.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::record::key;
use super::{Directory, DirectoryEntry};
use crate::{
    Admin, Cleanup, Error, ErrorKind, LogReader, Name, Publisher, PublisherExt, ReadLimits, Record, Result, SeekTo,
    StoredRecord, Topic, TopicPartition, Transport,
};

/// The usual name of the directory's topic.
pub const DIRECTORY_TOPIC: &str = "tidings-directory";

/// A directory in a compacted topic of a transport, read without a consumer group.
///
/// ```no_run
/// use tidings_core::directory::{self, DIRECTORY_TOPIC, DirectoryTopic};
/// use tidings_core::{Result, Timestamp, Transport};
///
/// async fn count(transport: &dyn Transport) -> Result<usize> {
///     let directory = DirectoryTopic::open(transport, DIRECTORY_TOPIC).await?;
///     Ok(directory::list(&directory, Timestamp::now()).await?.live.len())
/// }
/// ```
#[derive(Clone)]
pub struct DirectoryTopic {
    topic: Name,
    publisher: Arc<dyn Publisher>,
    reader: Arc<dyn LogReader>,
    admin: Arc<dyn Admin>,
}

impl DirectoryTopic {
    /// Returns the configuration of a topic for a directory: one partition, compacted.
    pub fn topic(name: impl Into<Name>) -> Topic {
        Topic::new(name).with_cleanup(Cleanup::Compact)
    }

    /// Opens the directory in a topic, which need not exist to be opened.
    ///
    /// # Errors
    /// Those of opening a publisher, an admin and a log reader; [`Unsupported`](ErrorKind::Unsupported) if the transport
    /// cannot read by position.
    pub async fn open(transport: &dyn Transport, topic: impl Into<Name>) -> Result<Self> {
        let (publisher, reader) = (transport.publisher().await?, transport.log_reader().await?);
        Ok(Self { topic: topic.into(), publisher, reader, admin: transport.admin().await? })
    }

    /// Creates the topic, if it is missing.
    ///
    /// # Errors
    /// Those of [`Admin::create_topics`].
    pub async fn ensure(&self) -> Result<()> {
        let created = self.admin.create_topics(&[Self::topic(self.topic.clone())]).await?;
        match created.into_iter().next() {
            Some(Err(error)) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads a partition up to its present end.
    async fn read(&self, at: &TopicPartition, mut apply: impl FnMut(&StoredRecord) + Send) -> Result<()> {
        let one = std::slice::from_ref(at);
        let position = async |to| match self.reader.offsets(one, to).await?.into_iter().next() {
            Some(offset) => offset,
            None => Err(Error::new(ErrorKind::Indeterminate, format!("read {at}: no answer"))),
        };
        let (mut next, end) = (position(SeekTo::Earliest).await?, position(SeekTo::Latest).await?);
        while next < end {
            let read = self.reader.read(at, next, ReadLimits::default()).await?;
            read.batch.records().iter().for_each(&mut apply);
            next = match &read.unreadable {
                Some(unreadable) => unreadable.next_offset.unwrap_or(unreadable.offset + 1),
                // Nothing was read although the end is ahead: it would be read for ever.
                None if read.next_offset <= next => break,
                None => read.next_offset,
            };
        }
        Ok(())
    }
}

impl fmt::Debug for DirectoryTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[async_trait]
impl Directory for DirectoryTopic {
    async fn put(&self, entry: &DirectoryEntry) -> Result<()> {
        self.publisher.publish_one(entry.to_record(self.topic.clone())).await.map(drop)
    }

    async fn remove(&self, service: &Name, instance: &str) -> Result<()> {
        let tombstone = Record::tombstone(self.topic.clone()).with_key(key(service, instance));
        self.publisher.publish_one(tombstone).await.map(drop)
    }

    async fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        let described = self.admin.describe_topics(std::slice::from_ref(&self.topic)).await?;
        let partitions = match described.into_iter().next() {
            Some(described) => described?.partitions.len(),
            None => 0,
        };
        let mut entries = BTreeMap::new();
        for partition in (0..).take(partitions) {
            let apply = |record: &StoredRecord| {
                let Some(key) = record.key.clone() else { return };
                match record.value.is_some().then(|| DirectoryEntry::from_record(record)) {
                    Some(Ok(entry)) => drop(entries.insert(key, entry)),
                    // A tombstone, or a record of another program.
                    _ => drop(entries.remove(&key)),
                }
            };
            self.read(&TopicPartition::new(self.topic.clone(), partition), apply).await?;
        }
        let mut entries: Vec<_> = entries.into_values().collect();
        entries.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        Ok(entries)
    }
}
