//! The letters that are published under one mark.

use std::collections::HashSet;

use tidings_core::{DeadLetter, Error, ErrorKind, Name, Publisher, Result, StoredRecord, Timestamp, TopicPartition};

use super::{RedriveReport, about};

/// Letters of a chunk: what a run that is cut off leaves in doubt, and the next one looks for.
const MAX_LETTERS: usize = 500;
/// Bytes of a chunk, one letter aside.
const MAX_BYTES: usize = 8 << 20;
/// What the metadata of our commits begins with.
const PREFIX: &str = "redrive";

/// What is noted with a commit: that letters up to `until` are published, or about to be, as records of this time.
///
/// No two chunks have the same time, so that a run that comes later can tell by it what of a chunk is in the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) time: i64,
    pub(super) until: u64,
}

impl Mark {
    pub(super) fn to_text(self) -> String {
        format!("{PREFIX} {} {}", self.time, self.until)
    }

    /// Reads it back; `None` for somebody else's metadata.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        if parts.next()? != PREFIX {
            return None;
        }
        Some(Self { time: parts.next()?.parse().ok()?, until: parts.next()?.parse().ok()? })
    }
}

/// A letter, and where it lies.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) letter: DeadLetter,
}

/// Gathers the letters that are to be redriven.
#[derive(Debug)]
pub(super) struct Chunk {
    topic: Name,
    service: Name,
    /// Partition and offset of each letter seen: with the topic and the service they are its identity (D3).
    seen: HashSet<(u32, u64)>,
    found: Vec<Found>,
    bytes: usize,
}

impl Chunk {
    pub(super) fn new(topic: Name, service: Name) -> Self {
        Self { topic, service, seen: HashSet::new(), found: Vec::new(), bytes: 0 }
    }

    /// A record that an earlier run has dealt with.
    pub(super) fn remember(&mut self, record: &StoredRecord) {
        if let Ok(letter) = DeadLetter::from_record(record)
            && self.is_ours(&letter)
        {
            self.seen.insert((letter.origin.partition, letter.record.offset));
        }
    }

    /// Takes a record in if it is a letter to be redriven, and counts it if not. Always `true`, to go on reading.
    pub(super) fn take(&mut self, record: &StoredRecord, report: &mut RedriveReport) -> bool {
        let letter = DeadLetter::from_record(record).ok().filter(|letter| letter.origin.topic == self.topic);
        match letter {
            None => report.foreign += 1,
            Some(letter) if letter.service != self.service => report.others += 1,
            Some(letter) if !self.seen.insert((letter.origin.partition, letter.record.offset)) => report.repeats += 1,
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

    /// Whether it holds `most` letters, or as many as a chunk does; one that is `whole` ends where it ended before.
    pub(super) fn is_full(&self, most: Option<u64>, whole: bool) -> bool {
        let enough = most.is_some_and(|most| self.found.len() as u64 >= most);
        !whole && (enough || self.found.len() >= MAX_LETTERS || self.bytes >= MAX_BYTES)
    }

    pub(super) fn drain(&mut self) -> Vec<Found> {
        self.bytes = 0;
        std::mem::take(&mut self.found)
    }
}

/// Publishes letters as records of one time: those of a key one after the other's answer, up to the first that fails.
pub(super) async fn publish(
    publisher: &dyn Publisher,
    at: &TopicPartition,
    letters: Vec<Found>,
    time: i64,
) -> Result<()> {
    let mut left = letters;
    while !left.is_empty() {
        let mut keys = HashSet::new();
        let (round, later): (Vec<Found>, Vec<Found>) =
            left.into_iter().partition(|f| f.letter.record.key.as_ref().is_none_or(|key| keys.insert(key.clone())));
        let record = |f: &Found| f.letter.to_redrive().with_timestamp(Timestamp::from_millis(time));
        let mut answers = publisher.publish(round.iter().map(record).collect()).await;
        answers.resize_with(round.len(), || Err(Error::new(ErrorKind::Unknown, "publish: no answer")));
        for (found, answer) in round.iter().zip(answers) {
            answer.map_err(|error| about(at, found.offset, error))?;
        }
        left = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_others_metadata_is_not() {
        let mark = Mark { time: 17, until: 40 };
        assert_eq!(Mark::parse(&mark.to_text()), Some(mark));
        for other in ["", "redrive", "redrive 1", "redrive 1 x", "mine 1 2"] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
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
