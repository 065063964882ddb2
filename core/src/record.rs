//! Records: what a broker holds, and what is given to it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::Name;

/// A time as brokers keep it: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// `millis` milliseconds after the Unix epoch (before it, if negative).
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The wall clock's time now.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// This time plus `duration`; the furthest time there is, when it would be beyond it.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time less `duration`; the earliest time there is, when it would be before it.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// One header: a name and a value that may be null. Bytes, because brokers and foreign clients do not all keep to text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name; need not be unique within a record, may be empty.
    pub name: Bytes,
    /// The value; `None` is null, which differs from empty.
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a value.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// A header whose value is null.
    pub fn null(name: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: None }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may carry personal data or tokens: their length is enough to debug with.
        match &self.value {
            Some(value) => write!(f, "{:?}: {} bytes", self.name, value.len()),
            None => write!(f, "{:?}: null", self.name),
        }
    }
}

/// A record's headers: ordered, duplicates kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a header; earlier ones of that name stay.
    pub fn push(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Appends `name: value` and returns the headers.
    #[must_use]
    pub fn with(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.push(Header::new(name, value));
        self
    }

    /// Puts `name: value` in the place of the first header of that name and drops the others, or appends it.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter().position(|h| h.name == name) {
            None => self.push(Header::new(name, value)),
            Some(first) => {
                let mut at = 0;
                self.0.retain(|h| {
                    at += 1;
                    at - 1 <= first || h.name != name
                });
                self.0[first].value = Some(value);
            }
        }
    }

    /// The value of the last header of that name; `None` also for a null value. The last one counts, as in Kafka.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|h| h.name == name.as_bytes())?.value.as_ref()
    }

    /// As [`get`](Self::get), if the value is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Whether there is a header of that name, null or not.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|h| h.name == name.as_bytes())
    }

    /// Removes all headers that `unwanted` names.
    pub fn remove_where(&mut self, mut unwanted: impl FnMut(&Header) -> bool) {
        self.0.retain(|h| !unwanted(h));
    }

    /// The headers in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// How many there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.0.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl IntoIterator for Headers {
    type Item = Header;
    type IntoIter = std::vec::IntoIter<Header>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// What a broker counts for a record besides its key, value and headers; an estimate for bounds in bytes.
const RECORD_OVERHEAD: usize = 64;

fn size(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> usize {
    RECORD_OVERHEAD + key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len) + headers.size()
}

/// A record to be published. `Debug` shows lengths, never contents.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it goes.
    pub topic: Name,
    /// The partition, where the publisher must decide it (a mirror); otherwise it follows from the key.
    pub partition: Option<u32>,
    /// The partition key; `None` is null, which differs from empty.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The record's time; `None` is the time of publishing.
    pub timestamp: Option<Timestamp>,
}

impl Record {
    /// A record for `topic` with a value, and neither key nor headers.
    pub fn new(topic: impl Into<Name>, value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::tombstone(topic) }
    }

    /// A record for `topic` whose value is null.
    pub fn tombstone(topic: impl Into<Name>) -> Self {
        Self { topic: topic.into(), partition: None, key: None, value: None, headers: Headers::new(), timestamp: None }
    }

    /// With a partition key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// With these headers in place of any others.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// For this partition, whatever the key.
    #[must_use]
    pub fn with_partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this time instead of the time of publishing.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Bytes of key, value and headers plus a fixed overhead: what bounds in bytes count.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// A record as a broker holds it. `Debug` shows lengths, never contents.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// Its place in its partition.
    pub offset: u64,
    /// When it was published, or the time that its publisher gave it.
    pub timestamp: Timestamp,
    /// The partition key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl StoredRecord {
    /// A record at `offset` with neither key, value nor headers.
    pub fn new(offset: u64, timestamp: Timestamp) -> Self {
        Self { offset, timestamp, key: None, value: None, headers: Headers::new() }
    }

    /// `record`'s key, value and headers at `offset`; `timestamp` where the record names none.
    pub fn from_record(record: Record, offset: u64, timestamp: Timestamp) -> Self {
        Self {
            offset,
            timestamp: record.timestamp.unwrap_or(timestamp),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    /// With a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With a value.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// With these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Bytes of key, value and headers plus a fixed overhead: what bounds in bytes count.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

struct Length<'a>(Option<&'a Bytes>);

impl fmt::Debug for Length<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{} bytes", bytes.len()),
            None => f.write_str("null"),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("key", &Length(self.key.as_ref()))
            .field("value", &Length(self.value.as_ref()))
            .field("headers", &self.headers)
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

impl fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRecord")
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key", &Length(self.key.as_ref()))
            .field("value", &Length(self.value.as_ref()))
            .field("headers", &self.headers)
            .finish()
    }
}

/// Where a published record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Position {
    /// The partition that it went to.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
}

impl Position {
    /// Offset `offset` of partition `partition`.
    pub const fn new(partition: u32, offset: u64) -> Self {
        Self { partition, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_a_header_keeps_its_place_and_drops_its_duplicates() {
        let mut headers = Headers::new().with("a", "1").with("b", "2").with("a", "3");
        headers.set("a", "4");
        let all: Vec<_> = headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
        assert_eq!(all, [("a".into(), Some("4".into())), ("b".into(), Some("2".into()))]);
    }

    #[test]
    fn the_last_of_duplicate_headers_counts_and_null_is_no_value() {
        let mut headers = Headers::new().with("a", "1").with("a", "2");
        assert_eq!(headers.get_str("a"), Some("2"));
        headers.push(Header::null("a"));
        assert_eq!(headers.get("a"), None);
        assert!(headers.contains("a"));
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn a_time_before_the_epoch_is_negative() {
        let before = UNIX_EPOCH - Duration::from_millis(5);
        assert_eq!(Timestamp::from(before).millis(), -5);
    }
}
