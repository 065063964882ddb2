//! The state of a handle: a reader, its positions, and the index of letters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidings_core::{
    Admin, DeadLetter, Error, ErrorKind, LetterEntry, LetterKey, LetterQuery, Name, PartitionDescription, Position,
    Record, Result, StoredRecord, TopicDescription, TopicPartition, Transport, dead_letter_state_topic,
    dead_letter_topic,
};
use tracing::debug;

use super::index::Index;
use super::reader::Reader;

/// The suffix of the consumer group by which older versions redrove a service's letters. What they redrove is not
/// redriven again.
pub const REDRIVE_GROUP_SUFFIX: &str = "-redrive";
/// The prefix of the groups that read dead-letter topics.
const GROUP: &str = "dead-letters";
/// Records between two wanted ones are skipped if there are more than this.
const GAP: u64 = 1_000;
/// Number of letters taken from the index at once.
const CANDIDATES: usize = 10_000;

#[derive(Debug)]
pub(super) struct Session {
    reader: Reader,
    /// The next offset to read of each partition.
    positions: BTreeMap<TopicPartition, u64>,
    /// The first offset of each partition.
    starts: BTreeMap<TopicPartition, u64>,
    /// The number of partitions of each topic.
    partitions: HashMap<Name, u32>,
    /// The topics whose letters these are, by dead-letter topic and by state topic.
    of_letters: HashMap<Name, Name>,
    of_states: HashMap<Name, Name>,
    pub(super) index: Index,
}

impl Session {
    pub(super) async fn open(transport: &dyn Transport, admin: &dyn Admin, topics: &[Name]) -> Result<Self> {
        let of_letters: HashMap<_, _> = topics.iter().map(|topic| (dead_letter_topic(topic), topic.clone())).collect();
        let of_states: HashMap<_, _> =
            topics.iter().map(|topic| (dead_letter_state_topic(topic), topic.clone())).collect();
        let names: Vec<Name> = of_letters.keys().chain(of_states.keys()).cloned().collect();
        let described = describe(admin, &names).await?;
        let mut positions = BTreeMap::new();
        for topic in &described {
            positions.extend(topic.partitions.iter().map(|p| (place(topic, p), p.start)));
        }
        let partitions = described.iter().map(|topic| (topic.name.clone(), topic.partitions.len() as u32)).collect();
        let all: Vec<TopicPartition> = positions.keys().cloned().collect();
        let reader = Reader::open(transport, GROUP, names, &all).await?;
        Ok(Self {
            reader,
            starts: positions.clone(),
            positions,
            partitions,
            of_letters,
            of_states,
            index: Index::default(),
        })
    }

    pub(super) async fn close(&self, admin: &dyn Admin) -> Result<()> {
        self.reader.close(admin).await
    }

    pub(super) fn unreadable(&self) -> (Vec<Error>, u64) {
        self.reader.unreadable()
    }

    /// Reads all that was appended since. Returns `false` if the topics were recreated, truncated or given partitions
    /// since: another session is needed.
    pub(super) async fn catch_up(&mut self, admin: &dyn Admin) -> Result<bool> {
        let names: Vec<Name> = self.of_letters.keys().chain(self.of_states.keys()).cloned().collect();
        for topic in describe(admin, &names).await? {
            for partition in &topic.partitions {
                let at = place(&topic, partition);
                let position = self.positions.get(&at).copied();
                match position.filter(|position| *position <= partition.end) {
                    Some(position) => {
                        if self.starts.insert(at.clone(), partition.start) != Some(partition.start) {
                            self.reader.forget();
                        }
                        self.read_to(&at, position.max(partition.start), partition.end).await?;
                    }
                    None => return Ok(false),
                }
            }
        }
        for service in self.index.services_to_look_up() {
            let committed = older(admin, &service).await?;
            self.index.add_older(service, committed);
        }
        Ok(true)
    }

    /// Publishes entries about letters, then reads them and all before them.
    pub(super) async fn append(
        &mut self,
        publisher: &dyn tidings_core::Publisher,
        entries: &[(LetterKey, LetterEntry)],
    ) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let records: Vec<Record> = entries.iter().map(|(key, entry)| self.record(key, entry)).collect();
        let topics: Vec<Name> = records.iter().map(|record| record.topic.clone()).collect();
        let mut answers = publisher.publish(records).await;
        answers.resize_with(topics.len(), || Err(Error::new(ErrorKind::Indeterminate, "publish: no answer")));
        let mut ends: BTreeMap<TopicPartition, u64> = BTreeMap::new();
        let mut failed = None;
        for (topic, answer) in topics.into_iter().zip(answers) {
            match answer {
                Ok(Position { partition, offset, .. }) => {
                    let end = ends.entry(TopicPartition::new(topic, partition)).or_default();
                    *end = (*end).max(offset + 1);
                }
                Err(error) => {
                    let text = format!("record the states of letters in {topic}");
                    failed.get_or_insert_with(|| Error::explained(error.kind(), text, &error));
                }
            }
        }
        for (at, end) in ends {
            let position = self.positions.get(&at).copied().unwrap_or_default();
            self.read_to(&at, position, end).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// All entries of a letter go to one partition, whose order decides.
    fn record(&self, key: &LetterKey, entry: &LetterEntry) -> Record {
        let record = entry.to_record(key);
        let partitions = self.partitions.get(&record.topic).copied().unwrap_or(1).max(1);
        record.with_partition(key.id.origin.partition % partitions)
    }

    async fn read_to(&mut self, at: &TopicPartition, from: u64, end: u64) -> Result<()> {
        let Self { reader, positions, of_letters, of_states, index, .. } = self;
        let add = |record: &StoredRecord| match (of_letters.get(&at.topic), of_states.get(&at.topic)) {
            (Some(topic), _) => add_letter(index, topic, at, record),
            (None, Some(topic)) => add_state(index, topic, at, record),
            (None, None) => Ok(()),
        };
        let mut add = add;
        let reached = reader.read(at, from, end, |record| add(record).map(|()| true)).await?;
        positions.insert(at.clone(), reached.max(from));
        Ok(())
    }

    /// Counts letters by the index. Letters that were deleted since are not counted.
    pub(super) fn count(&self, query: &LetterQuery) -> u64 {
        self.index.count(query, |at| self.starts.get(at).copied().unwrap_or_default())
    }

    /// Lists letters by the index, reading those that may match; returns what `keep` keeps of each.
    pub(super) async fn list<K>(
        &mut self,
        query: &LetterQuery,
        limit: usize,
        keep: impl Fn(DeadLetter) -> K,
    ) -> Result<Vec<K>> {
        let (mut letters, mut after) = (Vec::new(), self.index.page(query));
        loop {
            let most = (limit - letters.len()).min(CANDIDATES);
            let candidates = self.index.candidates(query, after.as_ref(), most);
            let count: usize = candidates.iter().map(|(_, wanted)| wanted.len()).sum();
            let last = |(at, wanted): &(TopicPartition, Vec<(u64, LetterKey)>)| Some((at.clone(), wanted.last()?.0));
            after = candidates.last().and_then(last);
            for (at, wanted) in candidates {
                self.read_wanted(query, &at, wanted, &keep, &mut letters).await?;
            }
            if count < most || letters.len() == limit {
                return Ok(letters);
            }
        }
    }

    /// Reads the wanted letters of a partition, and keeps those that match.
    async fn read_wanted<K>(
        &mut self,
        query: &LetterQuery,
        at: &TopicPartition,
        wanted: Vec<(u64, LetterKey)>,
        keep: &impl Fn(DeadLetter) -> K,
        letters: &mut Vec<K>,
    ) -> Result<()> {
        let until = self.positions.get(at).copied().unwrap_or_default();
        let mut wanted = wanted.into_iter().peekable();
        while let Some(first) = wanted.peek().map(|(offset, _)| *offset) {
            let Self { reader, index, .. } = self;
            let reached = reader
                .read(at, first, until, |record| {
                    while wanted.next_if(|(offset, _)| *offset < record.offset).is_some() {}
                    if let Some((_, key)) = wanted.next_if(|(offset, _)| *offset == record.offset) {
                        letters.extend(letter(index, &key, record).filter(|letter| query.wants(letter)).map(keep));
                    }
                    let next = wanted.peek().map(|(offset, _)| *offset);
                    Ok(next.is_some_and(|next| next <= record.offset + GAP))
                })
                .await?;
            // Records that were deleted or cannot be read are not returned.
            while wanted.next_if(|(offset, _)| *offset < reached).is_some() {}
        }
        Ok(())
    }
}

fn letter(index: &Index, key: &LetterKey, record: &StoredRecord) -> Option<DeadLetter> {
    let letter = DeadLetter::from_record(record).ok()?;
    Some(match index.resolution(key) {
        Some(resolution) => letter.with_resolution(resolution),
        None => letter,
    })
}

fn add_letter(index: &mut Index, topic: &Name, at: &TopicPartition, record: &StoredRecord) -> Result<()> {
    match DeadLetter::from_record(record) {
        Ok(letter) if letter.origin.topic == *topic => index.add(at, record.offset, &letter),
        _ => {
            debug!(topic = %at.topic, partition = at.partition, offset = record.offset, "a record is no letter of the topic");
            Ok(())
        }
    }
}

fn add_state(index: &mut Index, topic: &Name, at: &TopicPartition, record: &StoredRecord) -> Result<()> {
    match LetterEntry::from_record(topic, record) {
        Ok((key, entry)) => index.apply(key, entry, record.timestamp),
        Err(error) => {
            debug!(topic = %at.topic, partition = at.partition, offset = record.offset, error = error.report(),
                "a record is no state of a letter");
            Ok(())
        }
    }
}

fn place(topic: &TopicDescription, partition: &PartitionDescription) -> TopicPartition {
    TopicPartition::new(topic.name.clone(), partition.partition)
}

async fn describe(admin: &dyn Admin, names: &[Name]) -> Result<Vec<TopicDescription>> {
    let described = admin.describe_topics(names).await?;
    let checked = names.iter().zip(described).map(|(name, found)| {
        let found = found.map_err(|error| missing(name, error))?;
        match found.partitions.iter().find(|partition| partition.is_offline()) {
            // Its log must not be taken for empty.
            Some(PartitionDescription { partition, .. }) => {
                let text = format!("read dead letters: no broker leads {name}[{partition}] now");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            None => Ok(found),
        }
    });
    checked.collect()
}

fn missing(name: &Name, error: Error) -> Error {
    let text = match error.kind() {
        ErrorKind::NotFound if name.ends_with(tidings_core::DEAD_LETTER_STATE_SUFFIX) => {
            format!("open the dead letters: {name} records what became of them; create it, as ensure_topics does")
        }
        _ => format!("open the dead letters in {name}"),
    };
    Error::explained(error.kind(), text, &error)
}

/// Returns the offsets before which an older version redrove the letters of `service`, by dead-letter partition.
async fn older(admin: &dyn Admin, service: &Name) -> Result<HashMap<TopicPartition, u64>> {
    let group = Name::from(format!("{service}{REDRIVE_GROUP_SUFFIX}"));
    let lag = match admin.group_lag(&group).await {
        Ok(lag) => lag,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => {
            let text = format!("read what an older version redrove, by the group {group}");
            return Err(Error::explained(error.kind(), text, &error));
        }
    };
    // An offset beyond the end belongs to a log that is gone.
    let committed = lag.into_iter().filter_map(|at| {
        let committed = at.committed.filter(|committed| *committed <= at.end || at.unknown.is_some())?;
        Some((at.partition, committed))
    });
    Ok(committed.collect())
}

/// Keeps the transport's parts together.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) admin: Arc<dyn Admin>,
    pub(super) publisher: Arc<dyn tidings_core::Publisher>,
}
