//! Records to be published, and records stored by a broker.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::Name;

/// A timestamp as brokers keep it: milliseconds since the Unix epoch.
///
/// ```
/// assert_eq!(tidings_core::Timestamp::from_millis(1_500).to_string(), "1500 ms");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a timestamp `millis` milliseconds after the Unix epoch (before it, if negative).
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Returns the current time of the wall clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Adds `duration`, saturating at the latest timestamp.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Subtracts `duration`, saturating at the earliest timestamp.
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

/// A header: a name and a value that may be null. Both are bytes, because brokers and other clients do not require
/// text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// The name; may be empty, and need not be unique within a record.
    pub name: Bytes,
    /// The value; `None` is null, which differs from empty.
    pub value: Option<Bytes>,
}

impl Header {
    /// Creates a header with a value.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// Creates a header whose value is null.
    pub fn null(name: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: None }
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may contain personal data or tokens: their length suffices for debugging.
        match &self.value {
            Some(value) => write!(f, "{:?}: {} bytes", self.name, value.len()),
            None => write!(f, "{:?}: null", self.name),
        }
    }
}

/// The headers of a record: ordered, with duplicates kept. Reading by name finds the last one, as Kafka does.
///
/// ```
/// let mut headers = tidings_core::Headers::new().with("tenant", "acme").with("tenant", "globex");
/// assert_eq!((headers.get_str("tenant"), headers.len()), (Some("globex"), 2));
/// headers.set("tenant", "initech");
/// assert_eq!((headers.get_str("tenant"), headers.len()), (Some("initech"), 1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// Creates an empty list of headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a header; earlier ones of the same name stay.
    pub fn push(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Appends `name: value` and returns the headers.
    #[must_use]
    pub fn with(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.push(Header::new(name, value));
        self
    }

    /// Replaces the first header of that name with `name: value` and removes the others, or appends it.
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

    /// Returns the value of the last header of that name, as Kafka does; `None` for a null value as well.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|h| h.name == name.as_bytes())?.value.as_ref()
    }

    /// Returns the value as [`get`](Self::get) does, if it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Returns whether there is a header of that name, null or not.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|h| h.name == name.as_bytes())
    }

    /// Removes all headers that `unwanted` selects.
    pub fn remove_where(&mut self, mut unwanted: impl FnMut(&Header) -> bool) {
        self.0.retain(|h| !unwanted(h));
    }

    /// Iterates over the headers in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// Returns the number of headers, including duplicates.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the size in bytes of all names and values.
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

/// Estimated overhead of a record at the broker besides its key, value and headers, for bounds in bytes.
const RECORD_OVERHEAD: usize = 64;

fn size(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> usize {
    RECORD_OVERHEAD + key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len) + headers.size()
}

/// A record to be published. `Debug` shows lengths, never contents.
///
/// ```
/// let record = tidings_core::Record::new("clicks", "home").with_key("u1").with_header("tenant", "acme");
/// assert_eq!((&*record.topic, record.headers.get_str("tenant")), ("clicks", Some("acme")));
/// assert!(!format!("{record:?}").contains("acme"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The topic to publish to.
    pub topic: Name,
    /// The partition, for a publisher that must choose it (a mirror); otherwise it follows from the key.
    pub partition: Option<u32>,
    /// The partition key; `None` is null, which differs from empty.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
    /// The record's timestamp; `None` is the time of publishing.
    pub timestamp: Option<Timestamp>,
}

impl Record {
    /// Creates a record for `topic` with a value, without key and headers.
    pub fn new(topic: impl Into<Name>, value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::tombstone(topic) }
    }

    /// Creates a record for `topic` whose value is null.
    pub fn tombstone(topic: impl Into<Name>) -> Self {
        Self { topic: topic.into(), partition: None, key: None, value: None, headers: Headers::new(), timestamp: None }
    }

    /// Sets the partition key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Appends a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header::new(name, value));
        self
    }

    /// Replaces all headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the partition, regardless of the key.
    #[must_use]
    pub fn with_partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, instead of the time of publishing.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Returns the bytes of key, value and headers plus a fixed overhead, as counted by bounds in bytes.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// A record stored by a broker. `Debug` shows lengths, never contents.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// The record's offset in its partition.
    pub offset: u64,
    /// The time of publishing, or the time set by the publisher.
    pub timestamp: Timestamp,
    /// The partition key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl StoredRecord {
    /// Creates a record at `offset` without key, value and headers.
    pub fn new(offset: u64, timestamp: Timestamp) -> Self {
        Self { offset, timestamp, key: None, value: None, headers: Headers::new() }
    }

    /// Creates a record at `offset` with `record`'s key, value and headers; `timestamp` applies if the record has
    /// none.
    pub fn from_record(record: Record, offset: u64, timestamp: Timestamp) -> Self {
        Self {
            offset,
            timestamp: record.timestamp.unwrap_or(timestamp),
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Returns the bytes of key, value and headers plus a fixed overhead, as counted by bounds in bytes.
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

/// The partition and offset of a published record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Position {
    /// The partition of the record.
    pub partition: u32,
    /// The offset of the record in the partition.
    pub offset: u64,
}

impl Position {
    /// Creates the position of `offset` in `partition`.
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
