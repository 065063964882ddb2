//! Logs with the rules by which Kafka's brokers accept a batch of an idempotent producer.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::Payload;
use crate::wire::records::ProducerState;

/// The code of a batch with a record that breaks a rule of its topic.
const POISONED: i16 = 87;
/// Number of batches whose sequences a log remembers.
const REMEMBERED: usize = 5;

/// A batch of records, numbered in the order of all records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) first: u64,
    pub(super) count: u32,
    /// Brokers refuse a batch with this record.
    pub(super) poison: Option<u64>,
}

impl Numbered {
    pub(super) fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.count)
    }

    fn is_poisoned(&self) -> bool {
        self.poison.is_some_and(|poison| self.numbers().contains(&poison))
    }
}

impl Payload for Numbered {
    fn count(&self) -> u32 {
        self.count
    }

    fn size(&self) -> usize {
        10
    }

    fn split(self, code: i16) -> Result<(Self, Self), Self> {
        if code != POISONED || self.count < 2 {
            return Err(self);
        }
        let (half, Self { first, count, poison }) = (self.count / 2, self);
        let second = Self { first: first + u64::from(half), count: count - half, poison };
        Ok((Self { first, count: half, poison }, second))
    }
}

/// State of a producer in a log.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) epoch: i16,
    /// The first and the last sequence of its last batches, with their offsets.
    pub(super) last: VecDeque<(i32, i32, u64)>,
}

/// The log of a partition, with the state of its producers.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) leader: i32,
    /// Whether the right to write is missing.
    pub(super) denied: bool,
    pub(super) stored: Vec<u64>,
    pub(super) producers: HashMap<i64, Entry>,
    pub(super) appended_at: Instant,
}

impl Log {
    /// Handles a batch as a leader does, and returns the error code and the offset of the batch.
    pub(super) fn append(
        &mut self,
        broker: i32,
        producer: ProducerState,
        batch: &Numbered,
        fault: u8,
        now: Instant,
    ) -> (i16, i64) {
        match fault {
            _ if self.denied => return (29, -1),
            _ if self.leader != broker => return (6, -1),
            _ if batch.is_poisoned() => return (POISONED, -1),
            0 => return (19, -1),
            _ => {}
        }
        let last = producer.sequence + batch.count as i32 - 1;
        let mut entry = self.producers.get(&producer.id).cloned();
        if let Some(entry) = entry.as_mut() {
            if producer.epoch < entry.epoch {
                return (47, -1);
            }
            if producer.epoch > entry.epoch {
                if producer.sequence != 0 {
                    return (45, -1);
                }
                *entry = Entry { epoch: producer.epoch, last: VecDeque::new() };
            }
            let repeated = entry.last.iter().find(|(first, end, _)| (*first, *end) == (producer.sequence, last));
            if let Some((_, _, offset)) = repeated {
                return Self::appended(fault, *offset);
            }
            if entry.last.back().is_some_and(|(_, end, _)| end + 1 != producer.sequence) {
                return (45, -1);
            }
        }
        let mut entry = entry.unwrap_or(Entry { epoch: producer.epoch, last: VecDeque::new() });
        let offset = self.stored.len() as u64;
        entry.last.push_back((producer.sequence, last, offset));
        if entry.last.len() > REMEMBERED {
            entry.last.pop_front();
        }
        self.producers.insert(producer.id, entry);
        self.stored.extend(batch.numbers());
        self.appended_at = now;
        Self::appended(fault, offset)
    }

    /// Returns the answer to a batch that is in the log.
    fn appended(fault: u8, offset: u64) -> (i16, i64) {
        match fault {
            1 => (20, -1),
            2 => (7, -1),
            3 => (-1, -1),
            _ => (0, offset as i64),
        }
    }
}
