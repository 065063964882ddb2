//! Chunks: the letters that are published under one mark.

use std::collections::HashSet;

use bytes::Bytes;
use tidings_core::{
    DeadLetter, Error, ErrorKind, Headers, Name, Publisher, Result, StoredRecord, Timestamp, TopicPartition,
};
use tracing::warn;
use uuid::Uuid;

use super::doubt::fingerprint;
use super::{RedriveReport, about};

/// Letters per chunk: an interrupted run leaves at most one chunk in doubt, which the next run looks up.
const MAX_LETTERS: usize = 500;
/// Bytes per chunk; one letter may exceed it.
const MAX_BYTES: usize = 8 << 20;
/// The prefix of the metadata of our commits.
const PREFIX: &str = "redrive";

/// The number of timestamps a mark keeps: all but the first are of interrupted runs whose clock was ahead.
const MAX_TIMES: usize = 16;

/// The number of refused letters that an error names.
const MAX_NAMED: usize = 10;

/// Commit metadata: letters up to `until` are published, or about to be, as records with these timestamps.
///
/// No two chunks share a timestamp, so a later run can find a chunk's published records in the topic by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The timestamp of the records that are published next.
    pub(super) time: i64,
    pub(super) until: u64,
    /// The timestamps of earlier runs of this chunk, the latest first.
    pub(super) earlier: Vec<i64>,
}

impl Mark {
    pub(super) fn new(time: i64, until: u64) -> Self {
        Self { time, until, earlier: Vec::new() }
    }

    /// Returns the mark of a run that continues the chunk with another timestamp.
    pub(super) fn going_on_at(self, time: i64) -> Self {
        let mut earlier = self.times();
        earlier.truncate(MAX_TIMES - 1);
        Self { time, until: self.until, earlier }
    }

    /// Returns all timestamps that records of the chunk may have.
    pub(super) fn times(&self) -> Vec<i64> {
        std::iter::once(self.time).chain(self.earlier.iter().copied()).collect()
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{PREFIX} {} {}", self.time, self.until);
        self.earlier.iter().for_each(|time| text.push_str(&format!(" {time}")));
        text
    }

    /// Parses a mark; `None` for metadata that is not ours.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        if parts.next()? != PREFIX {
            return None;
        }
        let (time, until) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let earlier = parts.filter_map(|time| time.parse().ok()).take(MAX_TIMES - 1).collect();
        Some(Self { time, until, earlier })
    }
}

/// A letter with its offset.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) letter: DeadLetter,
}

/// The identity of a letter's record within a topic and service: partition, offset, time, and a fingerprint of key and
/// value.
///
/// Partition and offset alone are its identity (D3) only within one life of the topic's log. After a topic was
/// recreated or truncated, the same offset belongs to another record, whose letter must not count as a repeat.
type Record = (u32, u64, Timestamp, Uuid);

fn record_of(letter: &DeadLetter) -> Record {
    let record = &letter.record;
    // An agent may have added another header to each repeat.
    let print = fingerprint(record.key.as_ref(), record.value.as_ref(), &Headers::new());
    (letter.origin.partition, record.offset, record.timestamp, print)
}

/// Collects the letters to redrive.
#[derive(Debug)]
pub(super) struct Chunk {
    topic: Name,
    service: Name,
    seen: HashSet<Record>,
    found: Vec<Found>,
    bytes: usize,
}

impl Chunk {
    pub(super) fn new(topic: Name, service: Name) -> Self {
        Self { topic, service, seen: HashSet::new(), found: Vec::new(), bytes: 0 }
    }

    /// A record that an earlier run processed.
    pub(super) fn remember(&mut self, record: &StoredRecord) {
        if let Ok(letter) = DeadLetter::from_record(record)
            && self.is_ours(&letter)
        {
            self.seen.insert(record_of(&letter));
        }
    }

    /// Adds a record if it is a letter to redrive, and counts it otherwise. Returns `true`, to continue reading.
    pub(super) fn take(&mut self, record: &StoredRecord, report: &mut RedriveReport) -> bool {
        let letter = DeadLetter::from_record(record).ok().filter(|letter| letter.origin.topic == self.topic);
        match letter {
            None => report.foreign += 1,
            Some(letter) if letter.service != self.service => report.others += 1,
            Some(letter) if !self.seen.insert(record_of(&letter)) => report.repeats += 1,
            Some(letter) => {
                self.bytes += record.size();
                self.found.push(Found { offset: record.offset, letter });
            }
        }
        true
    }

    fn is_ours(&self, letter: &DeadLetter) -> bool {
        letter.origin.topic == self.topic && letter.service == self.service
    }

    /// Returns whether it holds `most` letters or a full chunk; a chunk that is `whole` ends where it ended before.
    pub(super) fn is_full(&self, most: Option<u64>, whole: bool) -> bool {
        let enough = most.is_some_and(|most| self.found.len() as u64 >= most);
        !whole && (enough || self.found.len() >= MAX_LETTERS || self.bytes >= MAX_BYTES)
    }

    pub(super) fn drain(&mut self) -> Vec<Found> {
        self.bytes = 0;
        std::mem::take(&mut self.found)
    }
}

/// The letters that the publisher refused in this run. Later letters of their keys stay as well.
#[derive(Debug, Default)]
pub(super) struct Refused {
    keys: HashSet<Bytes>,
    letters: Vec<(TopicPartition, u64)>,
    first: Option<Error>,
}

impl Refused {
    fn add(&mut self, at: &TopicPartition, found: &Found, error: Error) {
        warn!(
            topic = %at.topic,
            partition = at.partition,
            offset = found.offset,
            error = error.report(),
            "the publisher refuses a letter: it stays, and so do later letters of its key"
        );
        self.keys.extend(found.letter.record.key.clone());
        self.letters.push((at.clone(), found.offset));
        self.first.get_or_insert(error);
    }

    fn is_behind(&self, found: &Found) -> bool {
        found.letter.record.key.as_ref().is_some_and(|key| self.keys.contains(key))
    }

    /// Returns the error that names the letters; `None` if there are none.
    pub(super) fn error(&mut self) -> Option<Error> {
        let first = self.first.take()?;
        let named: Vec<_> = self.letters.iter().take(MAX_NAMED).map(|(at, offset)| format!("{at}@{offset}")).collect();
        let more = match self.letters.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let letters = if self.letters.len() == 1 { "letter" } else { "letters" };
        let text = format!("redrive the {letters} {}{more}: refused by the publisher", named.join(", "));
        Some(Error::caused_by(first.kind(), text, first))
    }
}

/// Publishes letters with one timestamp and returns the number published. Letters of one key wait for each other's
/// acknowledgement. The rest are refused, or follow a refused letter of their key.
pub(super) async fn publish(
    publisher: &dyn Publisher,
    at: &TopicPartition,
    letters: Vec<Found>,
    time: i64,
    refused: &mut Refused,
) -> Result<u64> {
    let (mut left, mut published) = (letters, 0);
    loop {
        left.retain(|found| !refused.is_behind(found));
        if left.is_empty() {
            return Ok(published);
        }
        let mut keys = HashSet::new();
        let (round, later): (Vec<Found>, Vec<Found>) =
            left.into_iter().partition(|f| f.letter.record.key.as_ref().is_none_or(|key| keys.insert(key.clone())));
        let record = |f: &Found| f.letter.to_redrive().with_timestamp(Timestamp::from_millis(time));
        let mut answers = publisher.publish(round.iter().map(record).collect()).await;
        answers.resize_with(round.len(), || Err(Error::new(ErrorKind::Indeterminate, "publish: no answer")));
        for (found, answer) in round.iter().zip(answers) {
            match answer {
                Ok(_) => published += 1,
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge) => {
                    refused.add(at, found, error);
                }
                Err(error) => return Err(about(at, found.offset, error)),
            }
        }
        left = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_others_metadata_is_not() {
        let mark = Mark::new(17, 40);
        assert_eq!(mark.to_text(), "redrive 17 40");
        for mark in [mark.clone(), mark.going_on_at(11).going_on_at(12)] {
            assert_eq!(Mark::parse(&mark.to_text()), Some(mark));
        }
        for other in ["", "redrive", "redrive 1", "redrive 1 x", "mine 1 2"] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_mark_remembers_all_times_of_its_chunk_up_to_a_bound() {
        let mark = Mark::new(30, 40).going_on_at(20).going_on_at(10);
        assert_eq!((mark.times(), mark.until), (vec![10, 20, 30], 40));
        let many = (0..100).fold(Mark::new(1_000, 40), |mark, time| mark.going_on_at(time));
        assert_eq!((many.times().len(), many.time), (MAX_TIMES, 99));
    }

    #[test]
    fn each_record_is_taken_or_counted_by_what_it_is() {
        let letter = |service: &'static str, topic: &'static str, offset: u64| {
            let record = StoredRecord::new(offset, Timestamp::from_millis(1)).with_value("v");
            let letter = DeadLetter::new(service, TopicPartition::new(topic, 0), record, ErrorKind::Failed);
            StoredRecord::from_record(letter.to_record("t-dlq"), offset, Timestamp::from_millis(1))
        };
        let mut chunk = Chunk::new("t".into(), "svc".into());
        let mut report = RedriveReport::default();
        chunk.remember(&letter("svc", "t", 1));
        chunk.remember(&letter("other", "t", 2));
        for record in [
            letter("svc", "t", 1),
            letter("svc", "t", 2),
            letter("other", "t", 3),
            letter("svc", "elsewhere", 4),
            letter("svc", "t", 2),
            StoredRecord::new(9, Timestamp::from_millis(1)),
        ] {
            chunk.take(&record, &mut report);
        }
        let expected = RedriveReport { repeats: 2, others: 1, foreign: 2, ..RedriveReport::default() };
        assert_eq!(report, expected);
        assert_eq!(chunk.drain().iter().map(|f| f.offset).collect::<Vec<_>>(), [2]);
    }
}
