//! Encoding of what became of a letter, as a record of `<topic>-dlq-state`.
//!
//! The topic is compacted. A letter has two keys in it: its own, whose last record is its resolution, and that of its
//! lease, whose records are needed for as long as a lease may live.

use std::time::Duration;

use uuid::Uuid;

use super::{DeadLetter, LetterId, Resolution, ResolutionKind, dead_letter_state_topic};
use crate::{Error, ErrorKind, Header, Name, Record, Result, StoredRecord, Timestamp, TopicPartition};

/// The names of the headers of a state.
mod header_names {
    pub(super) const BY: &str = "dlq-by";
    pub(super) const REASON: &str = "dlq-reason";
    pub(super) const AT: &str = "dlq-at";
    pub(super) const LEASE: &str = "dlq-lease";
    pub(super) const LEASE_MS: &str = "dlq-lease-ms";
}

const LEASE_KEY: &str = "/lease";
const LEASED: &str = "leased";
const ENDED: &str = "lease-ended";

/// The longest reason or name of an operator that is stored, in bytes.
const MAX_TEXT: usize = 1 << 10;

/// The key of a letter's state: its identity, and the time of its record.
///
/// The time tells apart the records that one offset had in a topic before and after it was recreated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct LetterKey {
    /// The letter's identity.
    pub id: LetterId,
    /// The timestamp of the dead-lettered record.
    pub time: Timestamp,
}

impl LetterKey {
    /// Creates the key of the letter `id` about a record of this time.
    pub fn new(id: LetterId, time: Timestamp) -> Self {
        Self { id, time }
    }

    /// Returns the key of `letter`.
    pub fn of(letter: &DeadLetter) -> Self {
        Self::new(letter.id(), letter.record.timestamp)
    }

    /// Returns the value of the header [`redrive-letter`](crate::headers::REDRIVE_LETTER) of its redriven record.
    pub fn redrive_letter(&self) -> String {
        format!("{}@{}@{}", self.id.origin.partition, self.id.offset, self.time.millis())
    }

    fn to_text(&self) -> String {
        let LetterId { service, origin, offset } = &self.id;
        format!("{service}/{}/{}/{offset}/{}", origin.topic, origin.partition, self.time.millis())
    }

    /// Parses a key of the states of `topic`'s letters. A service's name may contain a slash: it is what is left.
    fn parse(topic: &Name, text: &str) -> Option<Self> {
        let (rest, time) = text.rsplit_once('/')?;
        let (rest, offset) = rest.rsplit_once('/')?;
        let (rest, partition) = rest.rsplit_once('/')?;
        let service = rest.strip_suffix(topic.as_str())?.strip_suffix('/')?;
        let origin = TopicPartition::new(topic.clone(), partition.parse().ok()?);
        let id = LetterId::new(service.to_owned(), origin, offset.parse().ok()?);
        Some(Self::new(id, Timestamp::from_millis(time.parse().ok()?)))
    }
}

/// An entry of `<topic>-dlq-state` about one letter.
///
/// The entries of a letter are in one partition and apply in their order. A lease applies if the letter is not closed
/// and no other lease lives at the entry's timestamp; so of several redrives that append a lease, all see the same one
/// win.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LetterEntry {
    /// A redrive leases the letter.
    Leased {
        /// The lease's id.
        lease: Uuid,
        /// The time, from the entry's timestamp on, after which it expires.
        ttl: Duration,
    },
    /// A redrive gives the letter back.
    Ended {
        /// The lease's id.
        lease: Uuid,
    },
    /// The letter is closed or parked.
    Resolved(Resolution),
}

impl LetterEntry {
    /// Encodes the entry about the letter `key` as a record of its state topic.
    pub fn to_record(&self, key: &LetterKey) -> Record {
        let mut text = key.to_text();
        let (value, headers) = match self {
            Self::Leased { lease, ttl } => {
                text.push_str(LEASE_KEY);
                let ttl = ttl.as_millis().to_string();
                (LEASED, vec![(header_names::LEASE, lease.to_string()), (header_names::LEASE_MS, ttl)])
            }
            Self::Ended { lease } => {
                text.push_str(LEASE_KEY);
                (ENDED, vec![(header_names::LEASE, lease.to_string())])
            }
            Self::Resolved(Resolution { kind, by, reason, at }) => {
                let at = at.millis().to_string();
                let headers =
                    vec![(header_names::BY, cut(by)), (header_names::REASON, cut(reason)), (header_names::AT, at)];
                (kind.as_str(), headers)
            }
        };
        let mut record = Record::new(dead_letter_state_topic(&key.id.origin.topic), value).with_key(text);
        record.headers = headers.into_iter().map(|(name, value)| Header::new(name, value)).collect();
        record
    }

    /// Decodes an entry of the states of `topic`'s letters.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`]: the record is no entry, or one of a later version.
    pub fn from_record(topic: &Name, record: &StoredRecord) -> Result<(LetterKey, Self)> {
        let text = |bytes: Option<&bytes::Bytes>| bytes.and_then(|bytes| str::from_utf8(bytes).ok().map(str::to_owned));
        let (key, value) = (text(record.key.as_ref()), text(record.value.as_ref()));
        let key = key.ok_or_else(|| undecodable("its key is no text"))?;
        let value = value.ok_or_else(|| undecodable("its value is no text"))?;
        let letter = LetterKey::parse(topic, key.strip_suffix(LEASE_KEY).unwrap_or(&key));
        let letter = letter.ok_or_else(|| undecodable("its key names no letter of the topic"))?;
        let entry = match value.as_str() {
            LEASED => {
                let ttl = number(record, header_names::LEASE_MS)?;
                Self::Leased { lease: lease(record)?, ttl: Duration::from_millis(ttl) }
            }
            ENDED => Self::Ended { lease: lease(record)? },
            kind => {
                let kind = ResolutionKind::from_name(kind).ok_or_else(|| undecodable("its state is unknown"))?;
                let text = |name| record.headers.get_str(name).unwrap_or_default();
                let at = record.headers.get_str(header_names::AT).and_then(|at| at.parse().ok());
                let at = at.map_or(record.timestamp, Timestamp::from_millis);
                let resolution = Resolution::new(kind, text(header_names::BY));
                Self::Resolved(resolution.with_reason(text(header_names::REASON)).with_at(at))
            }
        };
        Ok((letter, entry))
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

fn lease(record: &StoredRecord) -> Result<Uuid> {
    let id = record.headers.get_str(header_names::LEASE).and_then(|id| Uuid::try_parse(id).ok());
    id.ok_or_else(|| undecodable("the header dlq-lease is missing or no UUID"))
}

fn number(record: &StoredRecord, name: &str) -> Result<u64> {
    let number = record.headers.get_str(name).and_then(|number| number.parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::Undecodable, format!("{DOING}: the header {name} is no number")))
}

const DOING: &str = "read the state of a dead letter";

fn undecodable(why: &str) -> Error {
    Error::new(ErrorKind::Undecodable, format!("{DOING}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &'static str) -> LetterKey {
        LetterKey::new(LetterId::new(service, TopicPartition::new("a/t", 3), u64::MAX), Timestamp::from_millis(-5))
    }

    #[test]
    fn an_entry_survives_the_wire() {
        let lease = Uuid::now_v7();
        let entries = [
            LetterEntry::Leased { lease, ttl: Duration::from_secs(300) },
            LetterEntry::Ended { lease },
            LetterEntry::Resolved(Resolution::redriven("ann").with_at(Timestamp::from_millis(7))),
            LetterEntry::Resolved(Resolution::parked("", "ä\n/x")),
        ];
        for entry in entries {
            let record = entry.to_record(&key("svc/one"));
            assert_eq!(record.topic.as_str(), "a/t-dlq-state");
            let stored = StoredRecord::from_record(record, 0, Timestamp::now());
            assert_eq!(LetterEntry::from_record(&"a/t".into(), &stored).unwrap(), (key("svc/one"), entry));
        }
    }

    #[test]
    fn a_lease_and_a_resolution_have_different_keys() {
        let ended = LetterEntry::Ended { lease: Uuid::nil() }.to_record(&key("svc"));
        let closed = LetterEntry::Resolved(Resolution::redriven("ann")).to_record(&key("svc"));
        assert_eq!(closed.key.as_deref(), Some("svc/a/t/3/18446744073709551615/-5".as_bytes()));
        assert_ne!(ended.key, closed.key);
    }

    #[test]
    fn other_records_are_refused() {
        let good = LetterEntry::Leased { lease: Uuid::nil(), ttl: Duration::ZERO }.to_record(&key("svc"));
        let read = |change: &dyn Fn(&mut StoredRecord)| {
            let mut stored = StoredRecord::from_record(good.clone(), 0, Timestamp::now());
            change(&mut stored);
            LetterEntry::from_record(&"a/t".into(), &stored)
        };
        assert!(read(&|_| {}).is_ok());
        let changes: [&dyn Fn(&mut StoredRecord); 5] = [
            &|record| record.key = None,
            &|record| record.key = Some("svc/t/3/1/2".into()),
            &|record| record.value = None,
            &|record| record.value = Some("forgotten".into()),
            &|record| record.headers = crate::Headers::new(),
        ];
        for change in changes {
            assert_eq!(read(change).unwrap_err().kind(), ErrorKind::Undecodable);
        }
    }
}
